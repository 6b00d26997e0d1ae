// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Buffers and values for the collective contract.

#include <limber/core/dtype.hpp>
#include <limber/core/error.hpp>
#include <limber/core/tensor.hpp>

#include <cstring>
#include <stdexcept>
#include <string_view>
#include <utility>
#include <vector>

namespace limber::test {

/// Memory of one rank that an engine for host memory can use.
template <class T>
class host_buffer {
 public:
  explicit host_buffer(std::vector<T> values) : values_(std::move(values)) {}

  [[nodiscard]] tensor_view view(std::string_view name) { return limber::view(values_, name); }
  [[nodiscard]] std::vector<T> read() const { return values_; }

 private:
  std::vector<T> values_;
};

/// Reports from any thread or process: Boost.Test's own checks belong to one thread.
template <class... Parts>
void demand(bool ok, Parts const&... parts) {
  if (!ok) throw std::runtime_error(text("contract broken: ", parts...));
}

template <class... T, class F>
void for_each_type(F&& f) {
  (f.template operator()<T>(), ...);
}

[[nodiscard]] inline std::uint64_t scrambled(int rank, std::size_t i) noexcept {
  std::uint64_t z =
      (static_cast<std::uint64_t>(i) << 8) + static_cast<std::uint64_t>(rank) + 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

template <class T>
[[nodiscard]] double number_of(T x) noexcept {
  if constexpr (std::is_same_v<T, bf16> || std::is_same_v<T, f16>)
    return static_cast<double>(static_cast<float>(x));
  else
    return static_cast<double>(x);
}

/// Value in the type that sums of T are kept in.
template <class T>
[[nodiscard]] auto widened(T x) noexcept {
  if constexpr (std::is_same_v<T, bf16> || std::is_same_v<T, f16>)
    return static_cast<float>(x);
  else
    return x;
}

template <class T>
[[nodiscard]] T from_number(double x) noexcept {
  if constexpr (std::is_same_v<T, bf16> || std::is_same_v<T, f16>)
    return T(static_cast<float>(x));
  else
    return static_cast<T>(x);
}

template <class T>
[[nodiscard]] std::vector<T> converted(std::vector<double> const& numbers) {
  std::vector<T> out;
  for (double const x : numbers) out.push_back(from_number<T>(x));
  return out;
}

/// In [−8, 8]: sums over 31 ranks are exact in every type, so any order of addition gives them.
[[nodiscard]] inline int whole_number(int rank, std::size_t i) noexcept {
  return static_cast<int>(scrambled(rank, i) % 17) - 8;
}
template <class T>
[[nodiscard]] std::vector<T> whole_numbers(int rank, std::size_t n) {
  std::vector<T> out;
  for (std::size_t i = 0; i < n; ++i) out.push_back(from_number<T>(whole_number(rank, i)));
  return out;
}

/// Both signs and about six orders of magnitude: sums depend on the order of addition.
template <class T>
[[nodiscard]] T uneven(int rank, std::size_t i) noexcept {
  std::uint64_t const z = scrambled(rank, i);
  double const fraction = static_cast<double>(z >> 40) / 16777216.0 - 0.5;
  return from_number<T>(fraction * static_cast<double>(1 << (z % 20)) / 1024);  // powers of two, so exact
}
template <class T>
[[nodiscard]] std::vector<T> uneven_values(int rank, std::size_t n) {
  std::vector<T> out;
  out.reserve(n);
  for (std::size_t i = 0; i < n; ++i) out.push_back(uneven<T>(rank, i));
  return out;
}

/// Any bit pattern, for what only travels.
template <class T>
[[nodiscard]] std::vector<T> any_bytes(int rank, std::size_t n) {
  std::vector<T> out(n);
  for (std::size_t i = 0; i < n; ++i) {
    std::uint64_t const z = scrambled(rank, i);
    std::memcpy(static_cast<void*>(&out[i]), &z, sizeof(T));
  }
  return out;
}

template <class T>
[[nodiscard]] bool same_bits(T const& a, T const& b) noexcept {
  return std::memcmp(&a, &b, sizeof(T)) == 0;
}
template <class T>
[[nodiscard]] bool same_bits(std::vector<T> const& a, std::vector<T> const& b) noexcept {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}

template <class T>
[[nodiscard]] i64 checksum(std::vector<T> const& values) noexcept {
  std::uint64_t h = 0xcbf29ce484222325u;
  auto const* const p = reinterpret_cast<unsigned char const*>(values.data());
  for (std::size_t i = 0; i < values.size() * sizeof(T); ++i) h = (h ^ p[i]) * 0x100000001b3u;
  return static_cast<i64>(h);
}

}  // namespace limber::test
