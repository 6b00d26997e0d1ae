// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// State of a rank whose call was interrupted, until all have agreed on what becomes of it.

#include <limber/core/box.hpp>
#include <limber/core/function_ref.hpp>
#include <limber/core/state_piece.hpp>
#include <limber/fuse/any_executor.hpp>
#include <limber/optimizer/handshake.hpp>
#include <limber/optimizer/recovery.hpp>
#include <limber/sync/impl/exchange_state.hpp>

#include <array>
#include <cstddef>
#include <cstring>
#include <utility>
#include <vector>

namespace limber::detail {

using state_visitor = function_ref<void(state_piece const&)>;
/// Calls its argument for every piece of state.
using state_source = function_ref<void(state_visitor)>;

/// All pieces of state, as they were.
///
/// Memory  as much again as the state, where the executor works on it.
class state_snapshot {
 public:
  LIMBER_COLD void take(any_executor& e, state_source visit) {
    visit([&](state_piece const& p) {
      if (copied(p)) {
        slabs_.push_back(e.make(layout_of({p.data})));
        return e.each(copy{}, out(slabs_.back().parts), in(tensor_list{p.data}));
      }
      bytes_.insert(bytes_.end(), p.data.data, p.data.data + p.data.bytes());
    });
    e.synchronize();
  }
  LIMBER_COLD void restore(any_executor& e, state_source visit) {
    std::size_t numbers = 0;
    std::byte const* from = bytes_.data();
    visit([&](state_piece const& p) {
      if (copied(p)) return e.each(copy{}, out(tensor_list{p.data}), in(slabs_[numbers++].parts));
      if (p.data.length > 0) std::memcpy(p.data.data, from, static_cast<std::size_t>(p.data.bytes()));
      from += p.data.bytes();
    });
    e.synchronize();  // before the memory goes
  }

 private:
  [[nodiscard]] static bool copied(state_piece const& p) noexcept {
    return is_floating(p.data.type) && p.data.length > 0;
  }

  std::vector<slab> slabs_;
  std::vector<std::byte> bytes_;
};

/// What was interrupted on this rank.
class interrupted_step {
 public:
  /// Adds what an engine's failure left. @param uncounted  calls in it that progress does not count
  void note(sync::interruption const& left, i64 uncounted = 0) {
    left_.voided += left.voided > 0 ? left.voided - uncounted : 0;
    if (left.standing) left_ = {left_.voided, left.standing, left.in_step};
  }
  /// Where this rank stands at the next handshake.
  [[nodiscard]] i64 position(i64 calls, i64 completed) const noexcept {
    return invalid_ ? invalid_state : position_of(calls, completed, left_.standing.has_value());
  }

  /// What this rank holds is worth nothing: it takes everything from another.
  void invalidate() {
    invalid_ = true;
    left_ = {};
  }
  /// The same, ahead of taking another's state in `guarded`. What this rank has is kept until then, unless it
  /// never was anything.
  LIMBER_COLD void give_up(any_executor& e, sync::exchange_state& strategy, state_source visit,
                           i64 position) {
    if (position > 0) {
      own_ = owner<own>(new own{left_, strategy.completed(), {}});
      own_->state.take(e, visit);
    }
    invalidate();
  }
  /// Runs f, in which this rank may give its state up: afterwards it has another's, or its own again.
  LIMBER_COLD recovery guarded(any_executor& e, sync::exchange_state& strategy, state_source visit,
                               function_ref<recovery()> f) {
    try {
      recovery r = f();
      invalid_ = false;
      own_ = {};
      return r;
    } catch (error const&) {
      if (own_) {
        own_->state.restore(e, visit);
        strategy.set_completed(own_->completed);
        left_ = own_->left;
        invalid_ = false;
        own_ = {};
      }
      throw;
    }
  }

  /// What was interrupted on the giver, for all ranks. A collective call.
  [[nodiscard]] LIMBER_COLD sync::interruption agree(communicator comm, int giver) {
    auto const& o = left_.standing;
    std::array<i64, 6> facts{left_.voided,          o ? 1 : 0,
                             left_.in_step ? 1 : 0, o && o->applied ? 1 : 0,
                             o ? o->samples : 0,    o ? o->calls : 0};
    comm.broadcast(view(facts, "recover"), giver).wait();
    left_ = {};
    sync::interruption all{facts[0], {}, facts[2] != 0};
    if (facts[1] != 0)
      all.standing =
          sync::outcome{.calls = facts[5], .due = true, .applied = facts[3] != 0, .samples = facts[4]};
    return all;
  }

 private:
  struct own {
    sync::interruption left;
    i64 completed;
    state_snapshot state;
  };

  sync::interruption left_;
  owner<own> own_;
  bool invalid_ = false;
};

}  // namespace limber::detail
