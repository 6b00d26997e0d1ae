// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Text as training data: every byte is predicted from the ones before it.

#include "input.hpp"

#include <limber/core/config.hpp>

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace example {

/// A text and where its held-out part begins.
///
/// Sample i is the prediction of byte i + context from the `context` bytes before it. Samples
/// [0, train_size) are trained on; the rest, the last tenth of the text, are held out.
struct corpus {
  static constexpr limber::i64 context = 12;     ///< bytes the model sees
  static constexpr limber::i64 shortest = 2048;  ///< bytes a text needs to be worth training on

  std::string bytes;
  std::string source;  ///< for people: a path or a description

  [[nodiscard]] limber::i64 size() const { return static_cast<limber::i64>(bytes.size()) - context; }
  [[nodiscard]] limber::i64 train_size() const { return size() - size() / 10; }

  /// The `context` bytes that sample `i` sees.
  [[nodiscard]] std::string_view before(limber::i64 i) const {
    return std::string_view{bytes}.substr(static_cast<std::size_t>(i), context);
  }
  /// The byte that sample `i` is asked for.
  [[nodiscard]] std::uint8_t target(limber::i64 i) const {
    return static_cast<std::uint8_t>(bytes[static_cast<std::size_t>(i + context)]);
  }
};

/// The text in one file.
/// @throws bad_input if the file is missing, unreadable, empty or shorter than corpus::shortest
[[nodiscard]] inline corpus load_text(std::filesystem::path const& path) {
  corpus text{read_file(path, "--text"), path.string()};
  require(!text.bytes.empty(), "--text ", path.string(), ": is empty");
  auto const length = static_cast<limber::i64>(text.bytes.size());
  require(length >= corpus::shortest, "--text ", path.string(), ": has ", length, " bytes, needs at least ",
          corpus::shortest);
  return text;
}

/// The project's own README and headers, in the order of their paths.
/// @throws bad_input if `root` holds too little of them
[[nodiscard]] inline corpus project_text(std::filesystem::path const& root) {
  namespace fs = std::filesystem;
  std::vector<fs::path> files;
  for (auto const* folder : {"include", "cuda"}) {
    std::error_code missing;
    for (auto const& entry : fs::recursive_directory_iterator(root / folder, missing)) {
      auto const kind = entry.path().extension();
      if (entry.is_regular_file() && (kind == ".hpp" || kind == ".cuh")) files.push_back(entry.path());
    }
  }
  std::ranges::sort(files);
  if (fs::exists(root / "README.md")) files.insert(files.begin(), root / "README.md");

  corpus text{{}, limber::text("README and headers (", files.size(), " files)")};
  for (auto const& file : files) text.bytes += read_file(file, "the project's text");
  require(static_cast<limber::i64>(text.bytes.size()) >= corpus::shortest, "the project's text under ",
          root.string(), " has ", text.bytes.size(), " bytes, needs at least ", corpus::shortest,
          "; name a file with --text");
  return text;
}

/// Text on one line, with what cannot be shown written as \xNN and line ends as \n.
[[nodiscard]] inline std::string printable(std::string_view bytes) {
  constexpr char digits[] = "0123456789abcdef";
  std::string out;
  for (char const c : bytes) {
    auto const code = static_cast<unsigned char>(c);
    if (c == '\n') {
      out += "\\n";
    } else if (c == '\\') {
      out += "\\\\";
    } else if (code >= 0x20 && code < 0x7f) {
      out += c;
    } else {
      out += {'\\', 'x', digits[code >> 4], digits[code & 15]};
    }
  }
  return out;
}

}  // namespace example
