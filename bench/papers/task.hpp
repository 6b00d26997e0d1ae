// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The data that is learnt: handwritten digits where there are any, else the project's own text.

#include "../../examples/language_model/digits.hpp"
#include "../../examples/language_model/text.hpp"
#include "network.hpp"

#include <limber/core/error.hpp>

#include <cctype>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace limber::papers {

/// Samples with ten classes. [0, trained) are trained on, the rest is held out.
///
/// Choices  trained on is a multiple of 512, so that no batch ends short and epochs end with a step.
class task {
 public:
  static constexpr int classes = 10;

  /// Images, with every block of `pool` × `pool` pixels averaged.
  [[nodiscard]] static task of_digits(example::digits const& d, int pool, i64 most_trained) {
    int side = 1;
    while (side * side < d.features) ++side;
    expects(side * side == d.features && side % pool == 0, "task: images of ", d.features,
            " pixels cannot be pooled by ", pool);
    int const small = side / pool;
    i64 const trained = whole(std::min(d.train_size(), most_trained));
    task t(small * small, trained, d.source);
    for (i64 i = 0; i < d.size(); ++i) {
      if (i >= trained && i < d.train_size()) continue;
      for (int y = 0; y < small; ++y)
        for (int x = 0; x < small; ++x) {
          float sum = 0;
          for (int k = 0; k < pool * pool; ++k)
            sum += d.image(i)[(y * pool + k / pool) * side + x * pool + k % pool];
          t.x_.push_back(sum / static_cast<float>(pool * pool));
        }
      t.y_.push_back(d.target(i));
    }
    return t;
  }

  /// Which of ten kinds of byte follows 8 bytes, of which each bit is an input.
  [[nodiscard]] static task of_text(example::corpus const& text, i64 most) {
    constexpr std::size_t seen = 8;
    i64 const all = static_cast<i64>(text.bytes.size() - seen), n = std::min(all, most);
    task t(8 * static_cast<int>(seen), whole(n - n / 4), text.source);
    for (i64 i = 0; i < n; ++i) {
      // Spread, so that what is held out is of the same kind; neighbours would share their bytes.
      auto const first = static_cast<std::size_t>((i * 7919) % all);
      for (std::size_t k = 0; k < seen; ++k)
        for (int bit = 0; bit < 8; ++bit)
          t.x_.push_back(static_cast<float>((static_cast<unsigned char>(text.bytes[first + k]) >> bit) & 1));
      t.y_.push_back(kind_of(static_cast<unsigned char>(text.bytes[first + seen])));
    }
    return t;
  }

  [[nodiscard]] int inputs() const noexcept { return inputs_; }
  [[nodiscard]] i64 train_size() const noexcept { return trained_; }
  [[nodiscard]] i64 size() const noexcept { return static_cast<i64>(y_.size()); }
  [[nodiscard]] std::string const& source() const noexcept { return source_; }
  [[nodiscard]] shape of(int hidden) const noexcept { return {inputs_, hidden, classes}; }

  /// Score of `samples` under parameters w; adds the mean gradient where one is asked for.
  score run(network& net, std::span<float const> w, std::span<i64 const> samples,
            float* gradient = nullptr) const {
    auto& x = net.input(samples.size());
    auto& y = net.targets(samples.size());
    for (std::size_t j = 0; j < samples.size(); ++j) {
      auto const s = static_cast<std::size_t>(samples[j]);
      x.col(static_cast<Eigen::Index>(j)) =
          Eigen::Map<Eigen::VectorXf const>(x_.data() + s * static_cast<std::size_t>(inputs_), inputs_);
      y[j] = y_[s];
    }
    return net.run(w, gradient);
  }

  /// Up to `count` samples of those trained on, evenly spaced: what losses are looked at on.
  [[nodiscard]] std::vector<i64> probe(i64 count) const { return spread(0, trained_, count); }
  [[nodiscard]] std::vector<i64> held_out() const { return spread(trained_, size(), size()); }

 private:
  task(int inputs, i64 trained, std::string source)
      : inputs_(inputs), trained_(trained), source_(std::move(source)) {}

  [[nodiscard]] static i64 whole(i64 n) {
    expects(n >= 512, "task: needs at least 512 samples to train on, got ", n);
    return n / 512 * 512;
  }

  [[nodiscard]] static std::vector<i64> spread(i64 first, i64 end, i64 count) {
    i64 const n = end - first, take = std::min(n, count);
    std::vector<i64> out;
    for (i64 i = 0; i < take; ++i) out.push_back(first + i * n / take);
    return out;
  }

  [[nodiscard]] static std::uint8_t kind_of(unsigned char c) {
    static constexpr std::string_view frequent = "etaoins";
    if (c == ' ') return 0;
    if (c == '\n') return 1;
    if (std::isdigit(c) != 0) return 2;
    if (std::isupper(c) != 0) return 3;
    if (auto const i = frequent.substr(0, 2).find(static_cast<char>(c)); i != std::string_view::npos)
      return static_cast<std::uint8_t>(4 + i);
    if (frequent.find(static_cast<char>(c)) != std::string_view::npos) return 6;
    if (std::isalpha(c) != 0) return 7;
    return std::ispunct(c) != 0 &&
                   std::string_view("(){}[]<>").find(static_cast<char>(c)) != std::string_view::npos
               ? 8
               : 9;
  }

  int inputs_;
  i64 trained_;
  std::string source_;
  std::vector<float> x_;
  std::vector<std::uint8_t> y_;
};

/// The digits of 8 × 8 pixels under `folder` (LIMBER_DATA), else those of MNIST pooled to 7 × 7, else the
/// text of the project at `root`.
[[nodiscard]] inline task load_task(std::filesystem::path const& root) {
  char const* const folder = std::getenv("LIMBER_DATA");
  if (folder != nullptr && std::filesystem::is_directory(std::filesystem::path(folder) / "optdigits"))
    return task::of_digits(example::load_digits(std::filesystem::path(folder) / "optdigits"), 1, 1 << 20);
  if (folder != nullptr && std::filesystem::is_directory(std::filesystem::path(folder) / "mnist-10k"))
    return task::of_digits(example::load_digits(std::filesystem::path(folder) / "mnist-10k"), 4, 1 << 20);
  return task::of_text(example::project_text(root), 6000);
}

}  // namespace limber::papers
