// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The two kinds of failure: the caller's mistake, and an engine's.

#include <limber/core/config.hpp>

#include <cstddef>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

namespace limber {

namespace detail {

// One argument of a message, as it is passed through an ellipsis: messages are put together out of line.
[[nodiscard]] inline char const* text_part(char const* s) noexcept { return s; }
[[nodiscard]] inline std::string const* text_part(std::string const& s) noexcept { return &s; }
struct text_view {
  char const* data;
  std::size_t size;
};
[[nodiscard]] inline text_view text_part(std::string_view s) noexcept { return {s.data(), s.size()}; }
[[nodiscard]] inline void const* text_part(void const* p) noexcept { return p; }
template <class Number>
  requires std::is_arithmetic_v<Number>
[[nodiscard]] auto text_part(Number x) noexcept {
  if constexpr (std::is_same_v<Number, char>)
    return static_cast<int>(x);
  else if constexpr (std::is_floating_point_v<Number>)
    return static_cast<double>(x);
  else if constexpr (std::is_signed_v<Number>)
    return static_cast<long long>(x);
  else
    return static_cast<unsigned long long>(x);
}

/// What the arguments of a message are, four bits each, the first one lowest.
using text_kinds = unsigned long long;
enum class text_kind { end, literal, words, view, character, integer, count, real, address };
template <class Part>
inline constexpr auto kind_of = std::is_same_v<Part, char const*>          ? text_kind::literal
                                : std::is_same_v<Part, std::string const*> ? text_kind::words
                                : std::is_same_v<Part, text_view>          ? text_kind::view
                                : std::is_same_v<Part, int>                ? text_kind::character
                                : std::is_same_v<Part, long long>          ? text_kind::integer
                                : std::is_same_v<Part, unsigned long long> ? text_kind::count
                                : std::is_same_v<Part, double>             ? text_kind::real
                                                                           : text_kind::address;
template <class... Part>
[[nodiscard]] constexpr text_kinds kinds_of() noexcept {
  static_assert(sizeof...(Part) < 16, "limber: a message of more than 15 parts");
  text_kinds all = 0;
  int at = -4;
  ((all |= static_cast<text_kinds>(kind_of<Part>) << (at += 4)), ...);
  return all;
}

/// The parts one after the other; numbers as an output stream with 12 digits prints them.
[[nodiscard]] std::string join(text_kinds kinds, ...);
/// @throws std::invalid_argument "limber: " and the parts
[[noreturn]] LIMBER_COLD void refuse(text_kinds kinds, ...);

template <class... Parts>
[[noreturn]] void refuse_with(Parts const&... parts) {
  refuse(kinds_of<decltype(text_part(parts))...>(), text_part(parts)...);
}

}  // namespace detail

/// Joins its arguments (words, numbers) to one text.
template <class... Parts>
  requires(sizeof...(Parts) < 16)
[[nodiscard]] std::string text(Parts const&... parts) {
  return detail::join(detail::kinds_of<decltype(detail::text_part(parts))...>(), detail::text_part(parts)...);
}
template <class A, class B, class C, class D, class E, class F, class G, class H, class... More>
  requires(sizeof...(More) > 7)
[[nodiscard]] std::string text(A const& a, B const& b, C const& c, D const& d, E const& e, F const& f,
                               G const& g, H const& h, More const&... more) {
  return text(a, b, c, d, e, f, g, h) + text(more...);
}

/// Misuse: throws with `parts` as the message unless `ok`. The message names argument and value.
///
///     expects(momentum >= 0 && momentum < 1, "sgd: momentum must lie in [0, 1), got ", momentum);
///
/// @throws std::invalid_argument "limber: " followed by the parts
template <class... Parts>
void expects(bool ok, Parts const&... parts) {
  if (!ok) [[unlikely]]
    detail::refuse(detail::kinds_of<decltype(detail::text_part(parts))...>(), detail::text_part(parts)...);
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
