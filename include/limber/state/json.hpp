// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Event-based JSON parsing: builds only the requested values. The only header that includes nlohmann/json.

#include <limber/core/error.hpp>
#include <limber/state/errors.hpp>
#include <limber/state/header.hpp>

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace limber::state::detail {

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

/// Rejects every event; derived readers accept the ones they know.
class json_reader {
 public:
  explicit json_reader(std::string const& path) : path_(path) {}

  using string_t = std::string;
  bool null() { unexpected("null"); }
  bool boolean(bool) { unexpected("a boolean"); }
  bool number_integer(std::int64_t x) { unexpected(text("the negative number ", x)); }
  bool number_float(double, string_t const& s) { unexpected(text("the number ", printable(s))); }
  bool binary(std::vector<std::uint8_t>&) { unexpected("binary data"); }
  bool parse_error(std::size_t at, std::string const&, nlohmann::json::exception const&) {
    throw_corrupt(path_, {}, text("the header is not JSON, at byte ", at, " of it"));
  }

 protected:
  [[noreturn]] void unexpected(std::string const& what) const {
    throw_corrupt(path_, name_, text(what, " where the header must not have it"));
  }
  void no_deeper_than(int most) const {
    if (depth_ >= most) unexpected("deeper nesting");
  }

  std::string const& path_;
  std::string name_;  // the tensor that is being read
  int depth_ = 0;
};

/// Reads one object of strings.
class strings_reader : public json_reader {
 public:
  strings_reader(std::string const& path, string_map& to) : json_reader(path), to_(to) {}

  bool number_unsigned(std::uint64_t) { unexpected("a number"); }
  bool start_array(std::size_t) { unexpected("an array"); }
  bool end_array() { unexpected("an array"); }
  bool start_object(std::size_t) {
    no_deeper_than(1);
    ++depth_;
    return true;
  }
  bool end_object() {
    --depth_;
    return true;
  }
  bool key(string_t& k) {
    key_ = std::move(k);
    return true;
  }
  bool string(string_t& s) {
    if (depth_ != 1) unexpected("a string");
    if (!to_.emplace(key_, std::move(s)).second)
      throw_corrupt(path_, {}, text("has '", printable(key_), "' twice"));
    return true;
  }

 private:
  string_map& to_;
  std::string key_;
};

/// The header of a safetensors file: {"name": {"dtype", "shape", "data_offsets"}, "__metadata__": {…}}.
class header_reader : public json_reader {
 public:
  header_reader(std::string const& path, file_header& to) : json_reader(path), to_(to) {}

  bool start_object(std::size_t) {
    no_deeper_than(2);
    if (field_ != field::none) unexpected("an object");
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
      name_ = in_metadata_ ? std::string() : k;
      now_ = {};
      seen_ = 0;
      now_.name = std::move(k);
    } else if (in_metadata_) {
      key_ = std::move(k);
    } else {
      field_ = k == "dtype"          ? field::type
               : k == "shape"        ? field::shape
               : k == "data_offsets" ? field::offsets
                                     : field::none;
      if (field_ == field::none)
        throw_corrupt(path_, name_, text("has a field '", printable(k), "' that is not known"));
      if ((seen_ & bit()) != 0) throw_corrupt(path_, name_, text("has its ", printable(k), " twice"));
      seen_ |= bit();
    }
    return true;
  }
  bool string(string_t& s) {
    if (depth_ != 2) unexpected("a string");
    if (in_metadata_) {
      if (!to_.metadata.emplace(key_, std::move(s)).second)
        throw_corrupt(path_, {}, text("has '", printable(key_), "' twice in its metadata"));
      return true;
    }
    if (field_ != field::type) unexpected("a string");
    auto const known = std::ranges::find(dtype_spellings, std::string_view(s), &dtype_spelling::first);
    if (known == dtype_spellings.end())
      throw_corrupt(path_, name_,
                    text("has dtype '", printable(s), "', which is none of F32 F64 BF16 F16 I64 U8"));
    now_.type = known->second;
    field_ = field::none;
    return true;
  }
  bool start_array(std::size_t) {
    if (depth_ != 2 || (field_ != field::shape && field_ != field::offsets)) unexpected("an array");
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
    if (field_ == field::shape) {
      now_.shape = std::move(numbers_);
    } else {
      if (numbers_.size() != 2)
        throw_corrupt(path_, name_, text("has ", numbers_.size(), " data_offsets, not two"));
      now_.begin = numbers_[0];
      now_.end = numbers_[1];
    }
    field_ = field::none;
    return true;
  }

 private:
  enum class field : unsigned { none, type, shape, offsets };

  [[nodiscard]] unsigned bit() const noexcept { return 1u << static_cast<unsigned>(field_); }
  void close() {
    if (seen_ != 0b1110) throw_corrupt(path_, name_, "lacks one of dtype, shape and data_offsets");
    check_bytes(path_, now_);
    to_.tensors.push_back(std::move(now_));
  }

  file_header& to_;
  std::set<std::string> names_;
  tensor_entry now_;
  std::string key_;
  std::vector<i64> numbers_;
  field field_ = field::none;
  unsigned seen_ = 0;
  bool in_metadata_ = false;
};

/// Parses JSON with a reader. @throws limber::error naming the path if it is not JSON, or not of the expected
/// form
template <class Reader>
void read_json(std::string_view json, std::string const& path, Reader&& to) {
  // The lexer takes a NUL for the end and skips blanks and a byte order mark; the format has none of these.
  if (json.empty() || json.front() != '{') throw_corrupt(path, {}, "the header does not begin with '{'");
  if (json.find('\0') != json.npos) throw_corrupt(path, {}, "there is a NUL in the header");
  (void)nlohmann::json::sax_parse(json, &to);
}

/// Reads one object of strings.
[[nodiscard]] inline string_map parse_strings(std::string_view json, std::string const& path) {
  string_map out;
  read_json(json, path, strings_reader(path, out));
  return out;
}

/// Parses and checks the header of a file with `data_bytes` of data after it.
/// @throws limber::error naming the path and the tensor at fault
[[nodiscard]] inline file_header parse_header(std::string_view json, i64 data_bytes,
                                              std::string const& path) {
  file_header out;
  read_json(json, path, header_reader(path, out));
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

}  // namespace limber::state::detail
