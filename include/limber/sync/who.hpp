// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// With whom something is exchanged: a group made from the optimizer's collective.

#include <limber/comm/any_communicator.hpp>
#include <limber/comm/self.hpp>
#include <limber/core/box.hpp>
#include <limber/core/error.hpp>

#include <concepts>

namespace limber::sync {

/// All workers.
struct everyone {
  static constexpr bool uniform_updates = true;  ///< all ranks see the same outcome
};

/// Nobody: each worker on its own.
struct alone {
  static constexpr bool uniform_updates = false;
  [[nodiscard]] any_communicator of(communicator) const { return any_communicator(self{}); }
};

/// Runs of `size` neighbouring ranks, the last of which may be shorter: the workers of one machine.
struct block {
  static constexpr bool uniform_updates = false;
  static constexpr capabilities needs = can_split;
  int size;

  explicit block(int n) : size(n) { expects(n >= 1, "block: size must be at least 1, got ", n); }
  /// A collective call of all ranks of `comm`.
  [[nodiscard]] any_communicator of(communicator comm) const { return comm.split(comm.rank() / size); }
};

/// Any choice of a group: one of the above, or a value with `uniform_updates` and `of`.
class any_group {
 public:
  bool uniform_updates;
  capabilities needs = 0;

  template <class W>
    requires(!std::same_as<W, any_group> && requires { W::uniform_updates; })
  any_group(W who)
      : uniform_updates(W::uniform_updates), who_(std::in_place, who), alone_(std::same_as<W, alone>) {
    if constexpr (requires { W::needs; }) needs = W::needs;
    if constexpr (requires(communicator c) { who.of(c); })
      of_ = [](void const* w, communicator c) -> any_communicator { return static_cast<W const*>(w)->of(c); };
  }

  /// False if each worker is on its own.
  [[nodiscard]] bool communicates() const noexcept { return !alone_; }
  /// All ranks of the collective itself.
  [[nodiscard]] bool is_all() const noexcept { return of_ == nullptr; }
  /// @pre not is_all()
  [[nodiscard]] any_communicator of(communicator comm) const { return of_(who_.get(), comm); }

 private:
  limber::detail::box who_;
  any_communicator (*of_)(void const*, communicator) = nullptr;
  bool alone_;
};

}  // namespace limber::sync
