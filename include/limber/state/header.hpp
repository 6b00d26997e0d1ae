// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The header of a safetensors file as a value, and its consistency checks.

#include <limber/core/dtype.hpp>
#include <limber/state/errors.hpp>

#include <algorithm>
#include <array>
#include <limits>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace limber::state {

/// A tensor of a file: elements of `type`, at [begin, end) of the data that follow the header.
struct tensor_entry {
  std::string name;
  dtype type = dtype::f32;
  std::vector<i64> shape;
  i64 begin = 0;
  i64 end = 0;

  [[nodiscard]] i64 bytes() const noexcept { return end - begin; }
  [[nodiscard]] i64 length() const noexcept { return bytes() / size_of(type); }
};

/// The contents of a header.
struct file_header {
  std::vector<tensor_entry> tensors;            ///< in the order of their data
  std::map<std::string, std::string> metadata;  ///< strings by key
};

/// The maximum header length, as in the reference implementation.
inline constexpr i64 max_header_bytes = 100'000'000;

namespace detail {

using dtype_spelling = std::pair<std::string_view, dtype>;
inline constexpr std::array<dtype_spelling, 6> dtype_spellings{{{"F32", dtype::f32},
                                                                {"F64", dtype::f64},
                                                                {"BF16", dtype::bf16},
                                                                {"F16", dtype::f16},
                                                                {"I64", dtype::int64},
                                                                {"U8", dtype::uint8}}};

[[nodiscard]] inline std::string_view spelling_of(dtype t) noexcept {
  return std::ranges::find(dtype_spellings, t, &dtype_spelling::second)->first;
}

/// Checks that shape × dtype equals the bytes that the offsets span, without overflow.
inline void check_bytes(std::string const& path, tensor_entry const& t) {
  i64 bytes = size_of(t.type);
  for (i64 const d : t.shape) {
    if (d != 0 && bytes > std::numeric_limits<i64>::max() / d)
      throw_corrupt(path, t.name, "has a shape of more bytes than a file can hold");
    bytes *= d;
  }
  if (t.begin > t.end)
    throw_corrupt(path, t.name, text("ends at ", t.end, ", before it begins at ", t.begin));
  if (bytes != t.bytes())
    throw_corrupt(path, t.name,
                  text("has ", bytes, " bytes by shape and dtype, but ", t.bytes(), " by its offsets"));
}

/// Sorts the tensors by offset, and checks that they tile the data: no gap, no overlap, no rest.
inline void check_tiling(std::string const& path, std::vector<tensor_entry>& tensors, i64 data_bytes) {
  std::ranges::sort(tensors, {}, [](tensor_entry const& t) { return std::pair(t.begin, t.end); });
  i64 at = 0;
  for (auto const& t : tensors) {
    if (t.begin > at)
      throw_corrupt(path, t.name, text("leaves a gap: it begins at ", t.begin, ", not at ", at));
    if (t.begin < at)
      throw_corrupt(path, t.name, text("overlaps another: it begins at ", t.begin, ", not at ", at));
    if (t.end > data_bytes)
      throw_corrupt(path, t.name,
                    text("ends at ", t.end, " of ", data_bytes, " bytes of data: the file is truncated"));
    at = t.end;
  }
  if (at != data_bytes) throw_corrupt(path, {}, text(data_bytes - at, " bytes follow the last tensor"));
}

}  // namespace detail
}  // namespace limber::state
