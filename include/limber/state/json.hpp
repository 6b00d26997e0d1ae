// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The header of a safetensors file: a value, checks, JSON. The only header that includes nlohmann/json.

#include <limber/core/dtype.hpp>
#include <limber/core/error.hpp>
#include <limber/state/errors.hpp>

#include <nlohmann/json.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <map>
#include <set>
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
    if (t.begin != at)
      throw_corrupt(path, t.name,
                    text(t.begin > at ? "leaves a gap" : "overlaps another", ": it begins at ", t.begin,
                         ", not at ", at));
    if (t.end > data_bytes)
      throw_corrupt(path, t.name,
                    text("ends at ", t.end, " of ", data_bytes, " bytes of data: the file is truncated"));
    at = t.end;
  }
  if (at != data_bytes) throw_corrupt(path, {}, text(data_bytes - at, " bytes follow the last tensor"));
}

using string_map = std::map<std::string, std::string>;

/// An escaped JSON string. @throws std::invalid_argument if it is not UTF-8
[[nodiscard]] inline std::string json_string(std::string_view s) {
  try {
    return nlohmann::json(s).dump();
  } catch (nlohmann::json::type_error const&) {
    expects(false, "state: the name '", printable(s), "' is not valid UTF-8");
  }
  return {};
}

/// Reads the header of a safetensors file: {"name": {"dtype", "shape", "data_offsets"}, "__metadata__": {…}}.
/// What the format does not have is rejected.
class header_reader {
 public:
  /// @param metadata_alone  reads one object of strings instead
  header_reader(std::string const& path, file_header& to, bool metadata_alone)
      : path_(path), to_(to), depth_(metadata_alone ? 1 : 0), in_metadata_(metadata_alone) {}

  using string_t = std::string;
  bool null() { unexpected("null"); }
  bool boolean(bool) { unexpected("a boolean"); }
  bool number_integer(std::int64_t x) { unexpected(text("the negative number ", x)); }
  bool number_float(double, string_t const& s) { unexpected(text("the number ", printable(s))); }
  bool binary(std::vector<std::uint8_t>&) { unexpected("binary data"); }
  bool parse_error(std::size_t at, std::string const&, nlohmann::json::exception const&) {
    throw_corrupt(path_, {}, text("the header is not JSON, at byte ", at, " of it"));
  }

  bool start_object(std::size_t) {
    if (depth_ >= 2) unexpected("deeper nesting");
    ++depth_;
    return true;
  }
  bool end_object() {
    if (--depth_ == 1 && !in_metadata_) close();
    in_metadata_ = false;
    return true;
  }
  bool key(string_t& k) {
    if (depth_ == 1) {
      if (!names_.insert(k).second) throw_corrupt(path_, k, "is there twice");
      in_metadata_ = k == "__metadata__";
      fields_.clear();
      key_.clear();
      now_ = {};
      if (!in_metadata_) now_.name = std::move(k);
      return true;
    }
    key_ = std::move(k);
    if (in_metadata_) return true;
    if (key_ != "dtype" && key_ != "shape" && key_ != "data_offsets")
      throw_corrupt(path_, now_.name, text("has a field '", printable(key_), "' that is not known"));
    if (!fields_.insert(key_).second) throw_corrupt(path_, now_.name, text("has its ", key_, " twice"));
    return true;
  }
  bool string(string_t& s) {
    if (depth_ != 2 || (!in_metadata_ && key_ != "dtype")) unexpected("a string");
    if (in_metadata_) {
      if (!to_.metadata.emplace(key_, std::move(s)).second)
        throw_corrupt(path_, {}, text("has '", printable(key_), "' twice"));
      return true;
    }
    auto const known = std::ranges::find(dtype_spellings, std::string_view(s), &dtype_spelling::first);
    if (known == dtype_spellings.end())
      throw_corrupt(path_, now_.name,
                    text("has dtype '", printable(s), "', which is none of F32 F64 BF16 F16 I64 U8"));
    now_.type = known->second;
    return true;
  }
  bool start_array(std::size_t) {
    if (depth_ != 2 || in_metadata_ || key_ == "dtype") unexpected("an array");
    ++depth_;
    numbers_.clear();
    return true;
  }
  bool number_unsigned(std::uint64_t x) {
    if (depth_ != 3) unexpected("a number");
    if (x > static_cast<std::uint64_t>(std::numeric_limits<i64>::max()))
      unexpected(text("a number as large as ", x));
    numbers_.push_back(static_cast<i64>(x));
    return true;
  }
  bool end_array() {
    --depth_;
    if (key_ == "shape") {
      now_.shape = std::move(numbers_);
      return true;
    }
    if (numbers_.size() != 2)
      throw_corrupt(path_, now_.name, text("has ", numbers_.size(), " data_offsets, not two"));
    now_.begin = numbers_[0];
    now_.end = numbers_[1];
    return true;
  }

 private:
  [[noreturn]] void unexpected(std::string const& what) const {
    throw_corrupt(path_, now_.name, text(what, " where the header must not have it"));
  }
  void close() {
    if (fields_.size() != 3) throw_corrupt(path_, now_.name, "lacks one of dtype, shape and data_offsets");
    check_bytes(path_, now_);
    to_.tensors.push_back(std::move(now_));
  }

  std::string const& path_;
  file_header& to_;
  int depth_;
  bool in_metadata_;
  std::set<std::string> names_;   // of tensors
  tensor_entry now_;              // the one that is read
  std::set<std::string> fields_;  // of it
  std::string key_;
  std::vector<i64> numbers_;
};

/// Parses a header, or its metadata alone. @throws limber::error naming the path and the tensor at fault
[[nodiscard]] inline file_header read_json(std::string_view json, std::string const& path,
                                           bool metadata_alone) {
  // The lexer takes a NUL for the end and skips blanks and a byte order mark; the format has none of these.
  if (json.empty() || json.front() != '{') throw_corrupt(path, {}, "the header does not begin with '{'");
  if (json.find('\0') != json.npos) throw_corrupt(path, {}, "there is a NUL in the header");
  file_header out;
  header_reader reader(path, out, metadata_alone);
  (void)nlohmann::json::sax_parse(json, &reader);
  return out;
}

/// Parses and checks the header of a file with `data_bytes` of data after it.
[[nodiscard]] inline file_header parse_header(std::string_view json, i64 data_bytes,
                                              std::string const& path) {
  file_header out = read_json(json, path, false);
  check_tiling(path, out.tensors, data_bytes);
  return out;
}

/// Prints a header independently of the locale (a stream might group digits), padded with blanks so that the
/// data begin at a multiple of 8.
[[nodiscard]] inline std::string print_header(file_header const& h) {
  std::string out = "{\"__metadata__\":{";
  char const* comma = "";
  for (auto const& [key, value] : h.metadata) {
    out += comma + json_string(key) + ":" + json_string(value);
    comma = ",";
  }
  out += "}";
  for (auto const& t : h.tensors) {
    out += "," + json_string(t.name) + ":{\"dtype\":\"" + std::string(spelling_of(t.type)) + "\",\"shape\":[";
    for (std::size_t k = 0; k < t.shape.size(); ++k) out += (k > 0 ? "," : "") + std::to_string(t.shape[k]);
    out += "],\"data_offsets\":[" + std::to_string(t.begin) + "," + std::to_string(t.end) + "]}";
  }
  out += "}";
  out.resize((out.size() + 7) / 8 * 8, ' ');
  return out;
}

}  // namespace detail
}  // namespace limber::state
