// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// What `checked` does that does not depend on its engine's type.

#include <limber/comm/collective.hpp>
#include <limber/comm/detail/signature.hpp>
#include <limber/core/clock.hpp>
#include <limber/core/config.hpp>
#include <limber/core/function_ref.hpp>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

namespace limber {

namespace detail {
/// Sleeps for 100 µs.
void sleep_briefly();
}  // namespace detail

/// Options of `checked`: its deadline, and how it waits.
struct check_options {
  double deadline = 60;                   ///< seconds of `clock`, > 0
  clock_function clock = steady_seconds;  ///< with a virtual clock, `pause` must let it advance
  pause_function pause = detail::sleep_briefly;
};

namespace detail {

struct ticket;

/// The mailbox of one rank, during one call.
struct mailbox_ref {
  int rank, size;
  function_ref<void(int peer, i64 tag, std::span<std::byte const> bytes)> post;
  function_ref<std::optional<message>(i64 tag)> poll;
};

/// Compares the calls of one rank with those of the others.
class call_comparison {
 public:
  /// @throws std::invalid_argument unless deadline > 0, and clock and pause are not empty
  call_comparison(check_options how, std::uint64_t plan_hash);

  [[nodiscard]] check_options const& options() const noexcept { return how_; }
  [[nodiscard]] std::uint64_t plan_hash() const noexcept { return plan_hash_; }
  void plan_hash(std::uint64_t hash) noexcept { plan_hash_ = hash; }

  /// Returns when all ranks have made the same call. @throws limber::error if one differs or is missing
  void compare(mailbox_ref engine, signature const& s, std::string_view bucket);

  /// @throws std::invalid_argument for a tag of these messages
  static void check_tag(std::string_view call, i64 tag);

 private:
  [[nodiscard]] std::optional<failure> compare_all(mailbox_ref const& engine, ticket const& mine) const;
  [[nodiscard]] std::optional<failure> send_ticket(mailbox_ref const& engine, ticket const& mine) const;
  [[nodiscard]] std::optional<failure> find_mismatch(std::vector<std::optional<ticket>> const& tickets) const;

  check_options how_;
  std::uint64_t plan_hash_;
  i64 sequence_ = 0;
  std::optional<failure> failed_;
};

}  // namespace detail
}  // namespace limber

#if !defined(LIMBER_COMPILED)
#include <limber/comm/detail/impl/call_comparison.ipp>
#endif
