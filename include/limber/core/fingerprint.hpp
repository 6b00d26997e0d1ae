// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Fingerprints: how ranks find out that they do not train the same thing.

#include <limber/core/config.hpp>

#include <cstdint>
#include <cstring>
#include <string_view>

namespace limber {

/// FNV-1a over what is mixed in. Against mistakes, not against adversaries.
class fingerprint {
 public:
  LIMBER_COLD void mix(std::string_view s) noexcept {
    mix(static_cast<i64>(s.size()));
    for (char c : s) byte(static_cast<unsigned char>(c));
  }
  LIMBER_COLD void mix(i64 v) noexcept {
    for (int k = 0; k < 64; k += 8) byte(static_cast<unsigned char>(static_cast<std::uint64_t>(v) >> k));
  }
  void mix(double x) noexcept {
    i64 v;
    std::memcpy(&v, &x, sizeof v);
    mix(v);
  }
  [[nodiscard]] std::uint64_t value() const noexcept { return h_; }

 private:
  void byte(unsigned char c) noexcept { h_ = (h_ ^ c) * 0x100'0000'01b3ull; }
  std::uint64_t h_ = 0xcbf2'9ce4'8422'2325ull;
};

}  // namespace limber
