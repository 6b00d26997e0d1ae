// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// IDX files of unsigned bytes, as MNIST is published, plain or compressed by gzip.

#include "input.hpp"

#include <limber/core/config.hpp>

#include <zlib.h>

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

namespace example {

/// An array of bytes with its dimensions, the slowest first.
struct idx_array {
  std::vector<limber::i64> dimensions;
  std::vector<std::uint8_t> bytes;
};

namespace detail {

/// The bytes of a file, decompressed where it is compressed.
class inflated {
 public:
  explicit inflated(std::filesystem::path const& path)
      : path_(path.string()), file_(gzopen(path_.c_str(), "rb")) {
    require(file_ != nullptr, "--data ", path_, ": cannot be opened");
  }

  /// Up to `count` bytes, fewer at the end of the file.
  /// @throws bad_input if the compressed stream is corrupt or cut off
  [[nodiscard]] std::vector<std::uint8_t> read(limber::i64 count) {
    // In pieces: a corrupt header may announce more than there is memory for.
    constexpr limber::i64 piece = 1 << 20;
    std::vector<std::uint8_t> out;
    while (count > 0) {
      auto const have = out.size();
      auto const want = std::min(count, piece);
      out.resize(have + static_cast<std::size_t>(want));
      int const got = gzread(file_.get(), out.data() + have, static_cast<unsigned>(want));
      int code = Z_OK;
      char const* const reason = gzerror(file_.get(), &code);
      require(got >= 0 && code != Z_BUF_ERROR, "--data ", path_, ": the gzip stream is ",
              code == Z_BUF_ERROR ? "cut off" : limber::text("corrupt: ", reason));
      out.resize(have + static_cast<std::size_t>(got));
      if (got < want) break;
      count -= want;
    }
    return out;
  }

 private:
  struct closing {
    void operator()(gzFile file) const { gzclose(file); }
  };
  std::string path_;
  std::unique_ptr<gzFile_s, closing> file_;
};

}  // namespace detail

/// Reads an IDX file of unsigned bytes.
///
///     0 0 8 r   d₁ … dᵣ (32 bit, big-endian)   ∏d bytes
///
/// @param rank how many dimensions it must have: 3 for images, 1 for labels
/// @throws bad_input if it cannot be read, is no such file, or holds more or less than it announces
[[nodiscard]] inline idx_array read_idx(std::filesystem::path const& path, int rank) {
  detail::inflated file(path);
  auto const word = [&](char const* what) -> std::uint32_t {
    auto const b = file.read(4);
    require(b.size() == 4, "--data ", path.string(), ": ends inside its header (", what, ")");
    return std::uint32_t{b[0]} << 24 | std::uint32_t{b[1]} << 16 | std::uint32_t{b[2]} << 8 |
           std::uint32_t{b[3]};
  };
  std::uint32_t const magic = word("magic number"), wanted = 0x0800u + static_cast<std::uint32_t>(rank);
  require(magic == wanted, "--data ", path.string(), ": magic number ", magic, ", expected ", wanted,
          " (IDX, unsigned bytes, ", rank, rank == 1 ? " dimension)" : " dimensions)");

  idx_array out;
  limber::i64 total = 1;
  for (int d = 0; d < rank; ++d) {
    limber::i64 const n = word("dimensions");
    // No more than 2³² · 2¹² · 2¹² = 2⁵⁶: the product cannot overflow.
    require(n > 0 && (d == 0 || n <= 4096), "--data ", path.string(), ": dimension ", d + 1, " is ", n);
    out.dimensions.push_back(n);
    total *= n;
  }
  out.bytes = file.read(total);
  auto const have = static_cast<limber::i64>(out.bytes.size());
  require(have == total, "--data ", path.string(), ": announces ", total, " bytes but holds ", have);
  require(file.read(1).empty(), "--data ", path.string(), ": goes on after the ", total,
          " bytes it announces");
  return out;
}

}  // namespace example
