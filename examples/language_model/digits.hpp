// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Handwritten digits as training data, from a folder of IDX files (MNIST) or CSV files (optdigits).

#include "idx.hpp"
#include "input.hpp"

#include <limber/core/config.hpp>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace example {

/// Images with their classes. Samples [0, train_size) are trained on, the rest is held out.
///
/// Shapes   pixels: size() × features, row by row, scaled to [0, 1]; labels: size(), in [0, 10)
struct digits {
  static constexpr int classes = 10;

  int features = 0;
  std::vector<float> pixels{};
  std::vector<std::uint8_t> labels{};
  limber::i64 trained = 0;
  std::string source{};  ///< for people

  [[nodiscard]] limber::i64 size() const { return static_cast<limber::i64>(labels.size()); }
  [[nodiscard]] limber::i64 train_size() const { return trained; }
  [[nodiscard]] float const* image(limber::i64 i) const { return pixels.data() + i * features; }
  [[nodiscard]] std::uint8_t target(limber::i64 i) const { return labels[static_cast<std::size_t>(i)]; }
};

/// Reads a pair of IDX files. All samples are in the training part.
/// @throws bad_input as read_idx, or if the counts differ or a label is no digit
[[nodiscard]] inline digits load_idx(std::filesystem::path const& images,
                                     std::filesystem::path const& labels) {
  auto const x = read_idx(images, 3);
  auto y = read_idx(labels, 1);
  require(x.dimensions[0] == y.dimensions[0], "--data ", labels.string(), ": ", y.dimensions[0],
          " labels but ", x.dimensions[0], " images in ", images.filename().string());
  auto const wrong = std::ranges::find_if(y.bytes, [](int c) { return c >= digits::classes; });
  require(wrong == y.bytes.end(), "--data ", labels.string(), ": label ",
          wrong == y.bytes.end() ? 0 : int{*wrong}, " of sample ", wrong - y.bytes.begin() + 1,
          " is not a digit");

  digits out{.features = static_cast<int>(x.dimensions[1] * x.dimensions[2]), .labels = std::move(y.bytes)};
  out.pixels.reserve(x.bytes.size());
  for (auto const byte : x.bytes) out.pixels.push_back(static_cast<float>(byte) / 255.f);
  out.trained = out.size();
  return out;
}

/// Reads rows of 64 counts 0..16 (an image of 8×8) and a class 0..9, separated by commas.
/// All samples are in the training part.
/// @throws bad_input naming file and line: a field that is no number or out of range, too few or too
///         many fields; or naming the file if it has no rows
[[nodiscard]] inline digits load_csv(std::filesystem::path const& path) {
  constexpr int features = 64, largest = 16;
  std::string const bytes = read_file(path, "--data");
  digits out{.features = features};
  std::string_view rest = bytes;
  for (int line = 1; !rest.empty(); ++line) {
    auto const end = rest.find('\n');
    auto row = rest.substr(0, end);
    rest.remove_prefix(end == std::string_view::npos ? rest.size() : end + 1);
    if (row.ends_with('\r')) row.remove_suffix(1);
    if (row.empty()) continue;

    auto const fields = std::ranges::count(row, ',') + 1;
    require(fields == features + 1, "--data ", path.string(), ":", line, ": ", fields, " fields, expected ",
            features + 1, " (64 counts and a class)");
    for (int column = 0; column <= features; ++column) {
      auto const comma = std::min(row.find(','), row.size());
      auto const field = row.substr(0, comma);
      int value = -1;
      auto const [stop, error] = std::from_chars(field.data(), field.data() + field.size(), value);
      require(error == std::errc{} && stop == field.data() + field.size(), "--data ", path.string(), ":",
              line, ": field ", column + 1, " is '", field, "', not a number");
      int const limit = column < features ? largest : digits::classes - 1;
      require(value >= 0 && value <= limit, "--data ", path.string(), ":", line, ": field ", column + 1,
              " is ", value, ", must lie in 0..", limit);
      if (column < features) {
        out.pixels.push_back(static_cast<float>(value) / largest);
      } else {
        out.labels.push_back(static_cast<std::uint8_t>(value));
      }
      row.remove_prefix(std::min(comma + 1, row.size()));
    }
  }
  require(out.size() > 0, "--data ", path.string(), ": holds no rows");
  out.trained = out.size();
  return out;
}

namespace detail {

/// The digits of `train`, with those of `test` held out.
[[nodiscard]] inline digits joined(digits train, digits const& test, std::filesystem::path const& folder) {
  require(train.features == test.features, "--data ", folder.string(), ": training images have ",
          train.features, " pixels but test images ", test.features);
  train.pixels.insert(train.pixels.end(), test.pixels.begin(), test.pixels.end());
  train.labels.insert(train.labels.end(), test.labels.begin(), test.labels.end());
  return train;
}

/// The same digits with every tenth held out: not the last tenth, as files are seldom shuffled.
[[nodiscard]] inline digits split(digits const& all) {
  digits out{.features = all.features};
  for (bool const held_out : {false, true}) {
    for (limber::i64 i = 0; i < all.size(); ++i) {
      if ((i % 10 == 9) != held_out) continue;
      out.pixels.insert(out.pixels.end(), all.image(i), all.image(i) + all.features);
      out.labels.push_back(all.target(i));
    }
    if (!held_out) out.trained = out.size();
  }
  return out;
}

/// The one file of `folder` with extension `kind`, if there is one.
[[nodiscard]] inline std::optional<std::filesystem::path> only(std::filesystem::path const& folder,
                                                               char const* kind) {
  std::optional<std::filesystem::path> found;
  for (auto const& entry : std::filesystem::directory_iterator(folder)) {
    if (entry.path().extension() != kind) continue;
    require(!found, "--data ", folder.string(), ": holds more than one *", kind, " file");
    found = entry.path();
  }
  return found;
}

/// The pair <prefix>-images…, <prefix>-labels… of `folder`, if it is there.
[[nodiscard]] inline std::optional<digits> idx_pair(std::filesystem::path const& folder,
                                                    std::string const& prefix) {
  auto const file = [&](std::string const& what) -> std::optional<std::filesystem::path> {
    for (auto const* separator : {"-", "."}) {
      for (auto const* ending : {"", ".gz"}) {
        auto const path = folder / limber::text(prefix, what, separator, what == "-images" ? "idx3" : "idx1",
                                                "-ubyte", ending);
        if (std::filesystem::exists(path)) return path;
      }
    }
    return std::nullopt;
  };
  auto const images = file("-images"), labels = file("-labels");
  require(images.has_value() == labels.has_value(), "--data ", folder.string(), ": has ", prefix,
          images ? "-images" : "-labels", " without ", prefix, images ? "-labels" : "-images");
  if (!images) return std::nullopt;
  return load_idx(*images, *labels);
}

}  // namespace detail

/// Loads the digits of a folder: *.tra and *.tes (CSV), or train-… and t10k-… (IDX, gzip or not).
///
/// With only one of the two sets every tenth sample of it is held out.
/// @throws bad_input if the folder is missing, holds neither form or too little, or a file is corrupt
[[nodiscard]] inline digits load_digits(std::filesystem::path const& folder) {
  require(std::filesystem::is_directory(folder), "--data ", folder.string(), ": no such folder");
  std::optional<digits> train, test;
  if (auto const path = detail::only(folder, ".tra")) train = load_csv(*path);
  if (auto const path = detail::only(folder, ".tes")) test = load_csv(*path);
  if (!train && !test) {
    train = detail::idx_pair(folder, "train");
    test = detail::idx_pair(folder, "t10k");
  }
  require(train || test, "--data ", folder.string(),
          ": holds neither *.tra and *.tes nor train-images-idx3-ubyte[.gz] or t10k-images-idx3-ubyte[.gz]");
  digits out = train && test ? detail::joined(*std::move(train), *test, folder)
                             : detail::split(train ? *train : *test);
  require(out.train_size() >= 20 && out.size() > out.train_size(), "--data ", folder.string(), ": holds ",
          out.size(), " samples, needs at least 20 to train on and one to hold out");
  out.source = folder.string();
  return out;
}

}  // namespace example
