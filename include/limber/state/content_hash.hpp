// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// A 64-bit hash at memory speed: detects damage by disks and networks, not forgery.

#include <limber/core/config.hpp>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace limber::state {

/// Hashes bytes that are given in portions of any size.
///
///     word i goes to lane l = i mod 4:   hₗ ← f(hₗ ⊕ word);   f(x) = y ⊕ (y ≫ 32),  y = x · K mod 2⁶⁴
///     value = f(f(f(f(length ⊕ h₀) ⊕ h₁) ⊕ h₂) ⊕ h₃)
///
/// Shapes   words are 8 bytes, little-endian; the last block of four words is padded with zeros.
/// Choices  f is a bijection, so a change within one word always changes the value; any other change does
///          with probability 1 − 2⁻⁶⁴. test/state/read_safetensors.py has it in ten lines of Python.
class content_hash {
 public:
  void update(std::span<std::byte const> bytes) noexcept {
    length_ += bytes.size();
    if (filled_ > 0) {
      std::size_t const n = std::min(bytes.size(), block_.size() - filled_);
      std::memcpy(block_.data() + filled_, bytes.data(), n);
      filled_ += n;
      bytes = bytes.subspan(n);
      if (filled_ < block_.size()) return;
      lanes_ = mixed(lanes_, block_.data());
      filled_ = 0;
    }
    auto lanes = lanes_;
    for (; bytes.size() >= block_.size(); bytes = bytes.subspan(block_.size()))
      lanes = mixed(lanes, bytes.data());
    lanes_ = lanes;
    if (!bytes.empty()) std::memcpy(block_.data(), bytes.data(), bytes.size());
    filled_ = bytes.size();
  }

  [[nodiscard]] std::uint64_t value() const noexcept {
    auto lanes = lanes_;
    if (filled_ > 0) {
      auto last = block_;
      std::fill(last.begin() + static_cast<std::ptrdiff_t>(filled_), last.end(), std::byte{0});
      lanes = mixed(lanes, last.data());
    }
    std::uint64_t h = length_;
    for (std::uint64_t const lane : lanes) h = f(h ^ lane);
    return h;
  }

 private:
  using words = std::array<std::uint64_t, 4>;

  [[nodiscard]] static std::uint64_t f(std::uint64_t x) noexcept {
    std::uint64_t const y = x * 0x9e37'79b9'7f4a'7c15ull;
    return y ^ (y >> 32);
  }
  [[nodiscard]] static words mixed(words h, std::byte const* block) noexcept {
    words in;
    std::memcpy(in.data(), block, sizeof in);
    for (std::size_t k = 0; k < h.size(); ++k) h[k] = f(h[k] ^ in[k]);
    return h;
  }

  words lanes_{1, 2, 3, 4};
  std::array<std::byte, 32> block_{};
  std::size_t filled_ = 0;
  std::uint64_t length_ = 0;
};

[[nodiscard]] inline std::uint64_t hash_of(std::span<std::byte const> bytes) noexcept {
  content_hash h;
  h.update(bytes);
  return h.value();
}
[[nodiscard]] inline std::uint64_t hash_of(std::string_view text) noexcept {
  return hash_of(std::as_bytes(std::span(text)));
}

/// A hash as 16 hexadecimal digits.
[[nodiscard]] inline std::string print_hash(std::uint64_t h) {
  std::string out(16, '0');
  for (std::size_t k = 16; k-- > 0; h >>= 4) out[k] = "0123456789abcdef"[h & 15u];
  return out;
}
/// The inverse of `print_hash`; empty for any other text.
[[nodiscard]] inline std::optional<std::uint64_t> read_hash(std::string_view s) {
  std::uint64_t h = 0;
  std::from_chars(s.data(), s.data() + s.size(), h, 16);
  return print_hash(h) == s ? std::optional(h) : std::nullopt;
}

}  // namespace limber::state
