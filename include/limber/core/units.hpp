// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Amounts of training with their unit: `5_epochs`, `1000_steps`, `1'000'000_samples`.

#include <limber/core/config.hpp>

#include <string_view>

namespace limber {

enum class unit : std::uint8_t { steps, samples, epochs };

[[nodiscard]] constexpr std::string_view name_of(unit u) noexcept {
  return u == unit::steps ? "steps" : u == unit::samples ? "samples" : "epochs";
}

/// An amount of training. There is no conversion between units: how many steps an epoch has depends
/// on the batch, and the batch changes.
struct amount {
  double value = 0;
  unit in = unit::steps;

  friend constexpr bool operator==(amount, amount) = default;
};

[[nodiscard]] LIMBER_HD constexpr amount steps(double n) noexcept { return {n, unit::steps}; }
[[nodiscard]] LIMBER_HD constexpr amount samples(double n) noexcept { return {n, unit::samples}; }
[[nodiscard]] LIMBER_HD constexpr amount epochs(double n) noexcept { return {n, unit::epochs}; }

inline namespace literals {
[[nodiscard]] LIMBER_HD constexpr amount operator""_steps(unsigned long long n) noexcept {
  return steps(static_cast<double>(n));
}
[[nodiscard]] LIMBER_HD constexpr amount operator""_samples(unsigned long long n) noexcept {
  return samples(static_cast<double>(n));
}
[[nodiscard]] LIMBER_HD constexpr amount operator""_epochs(unsigned long long n) noexcept {
  return epochs(static_cast<double>(n));
}
[[nodiscard]] constexpr amount operator""_epochs(long double n) noexcept {
  return epochs(static_cast<double>(n));
}
}  // namespace literals

}  // namespace limber
