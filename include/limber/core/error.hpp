// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The two kinds of failure: the caller's mistake, and an engine's.

#include <limber/core/config.hpp>

#include <concepts>
#include <cstddef>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

namespace limber {

namespace detail {

/// One argument of a message, whatever it was: messages are put together out of line.
struct text_part {
  enum class kind : unsigned char { words, integer, count, real, address } what;
  union {
    std::string_view words;
    long long integer;
    unsigned long long count;
    double real;
    void const* address;
  };

  text_part(std::string_view s) noexcept : what(kind::words), words(s) {}
  text_part(std::string const& s) noexcept : text_part(std::string_view(s)) {}
  text_part(char const* s) noexcept : text_part(std::string_view(s)) {}
  template <std::same_as<char> C>
  text_part(C const& c) noexcept : text_part(std::string_view(&c, 1)) {}
  template <std::integral Int>
    requires(!std::same_as<Int, char>)
  text_part(Int const& i)
  noexcept : what(std::is_signed_v<Int> ? kind::integer : kind::count), integer(0) {
    if constexpr (std::is_signed_v<Int>)
      integer = i;
    else
      count = i;
  }
  text_part(void const* p) noexcept : what(kind::address), address(p) {}
  template <std::floating_point F>
  text_part(F const& x) noexcept : what(kind::real), real(static_cast<double>(x)) {}
};

/// The parts one after the other; numbers as an output stream with 12 digits prints them.
[[nodiscard]] std::string join(text_part const* parts, std::size_t n);
/// @throws std::invalid_argument "limber: " and the parts
[[noreturn, gnu::cold]] void refuse(text_part const* parts, std::size_t n);

template <class... Parts>
[[noreturn]] LIMBER_COLD void refuse_with(Parts const&... parts) {
  text_part const all[] = {text_part(parts)..., text_part("")};
  refuse(all, sizeof...(Parts));
}

}  // namespace detail

/// Joins its arguments (words, numbers) to one text.
template <class... Parts>
[[nodiscard]] std::string text(Parts const&... parts) {
  detail::text_part const all[] = {detail::text_part(parts)..., detail::text_part("")};
  return detail::join(all, sizeof...(Parts));
}

/// Misuse: throws with `parts` as the message unless `ok`. The message names argument and value.
///
///     expects(momentum >= 0 && momentum < 1, "sgd: momentum must lie in [0, 1), got ", momentum);
///
/// @throws std::invalid_argument "limber: " followed by the parts
template <class... Parts>
void expects(bool ok, Parts const&... parts) {
  if (!ok) [[unlikely]]
    detail::refuse_with(parts...);
}

/// Where an engine failed. Fields that do not apply keep their defaults.
struct failure {
  std::string engine{};  ///< "threads", "mpi", "nccl", …
  std::string call{};    ///< the operation: "all_reduce", "broadcast", …
  int code = 0;          ///< the engine's own code, 0 when it has none
  int rank = -1;         ///< the rank at fault, −1 when unknown
  std::string bucket{};  ///< the tensor or bucket in flight, empty when none
  std::string reason{};  ///< what happened, and what to do next
};

/// An engine failed, a peer died or a deadline passed. `where()` is for programs, `what()` for people.
class error : public std::runtime_error {
 public:
  explicit error(failure where);

  [[nodiscard]] failure const& where() const noexcept { return where_; }

 private:
  failure where_;
};

}  // namespace limber

#if !defined(LIMBER_COMPILED)
#include <limber/core/impl/error.ipp>
#endif
