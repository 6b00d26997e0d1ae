// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The description of a call that ranks compare before they make it.

#include <limber/comm/detail/signature.hpp>

#include <cstddef>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace limber::detail {

/// A call of one rank; must be equal on all ranks.
struct ticket {
  i64 sequence = 0;
  signature call{};
  std::uint64_t plan_hash = 0;
  std::string bucket{};

  bool operator==(ticket const&) const = default;
};

/// "all_reduce of 8 f32 (sum) of 'w'".
[[nodiscard]] inline std::string text_of(ticket const& t) {
  return t.bucket.empty() ? text_of(t.call) : text(text_of(t.call), " of '", t.bucket, "'");
}

/// How `a` differs from the ticket of most ranks: the most significant difference, as one phrase.
[[nodiscard]] inline std::string describe_difference(ticket const& a, ticket const& most) {
  if (a.sequence != most.sequence) return text("is at call ", a.sequence, ", the others at ", most.sequence);
  if (a.plan_hash != most.plan_hash)
    return text("has plan hash ", a.plan_hash, ", the others ", most.plan_hash);
  return text("calls ", text_of(a), ", the others ", text_of(most));
}

/// Serializes values in the machine's byte order: all machines of a run must have the same.
class packer {
 public:
  template <class T>
  packer& put(T const& value) {
    static_assert(std::is_trivially_copyable_v<T>);
    auto const* const p = reinterpret_cast<std::byte const*>(&value);
    bytes_.insert(bytes_.end(), p, p + sizeof value);
    return *this;
  }
  packer& put(std::string_view s) {
    put(static_cast<i64>(s.size()));
    auto const* const p = reinterpret_cast<std::byte const*>(s.data());
    bytes_.insert(bytes_.end(), p, p + s.size());
    return *this;
  }
  [[nodiscard]] std::span<std::byte const> bytes() const noexcept { return bytes_; }

 private:
  std::vector<std::byte> bytes_;
};

class unpacker {
 public:
  explicit unpacker(std::span<std::byte const> bytes) : rest_(bytes) {}

  template <class T>
  [[nodiscard]] T get() {
    static_assert(std::is_trivially_copyable_v<T>);
    T value;
    std::memcpy(&value, take(sizeof value).data(), sizeof value);
    return value;
  }
  [[nodiscard]] std::string get_text() {
    auto const s = take(static_cast<std::size_t>(get<i64>()));
    return {reinterpret_cast<char const*>(s.data()), s.size()};
  }

 private:
  std::span<std::byte const> take(std::size_t n) {
    expects(n <= rest_.size(), "checked: a message is truncated: ", rest_.size(), " of ", n,
            " bytes are left");
    auto const part = rest_.first(n);
    rest_ = rest_.subspan(n);
    return part;
  }

  std::span<std::byte const> rest_;
};

}  // namespace limber::detail
