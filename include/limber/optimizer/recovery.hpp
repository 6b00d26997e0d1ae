// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// What survivors agree on after a worker has died.

#include <limber/comm/collective.hpp>
#include <limber/core/error.hpp>
#include <limber/core/kinds.hpp>
#include <limber/core/state_piece.hpp>
#include <limber/fuse/executor.hpp>
#include <limber/fuse/functors.hpp>
#include <limber/optimizer/handover.hpp>
#include <limber/optimizer/pieces.hpp>
#include <limber/sync/site.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <optional>
#include <utility>
#include <vector>

namespace limber {

/// What a recovery kept, the same on every rank.
struct recovery {
  int giver = 0;   ///< the rank whose copy of state stands
  i64 voided = 0;  ///< its last calls of step(), so many, went into no update: nobody's samples of them count
  /// Ranks that took the giver's state instead of their own: newcomers, and who was behind. What they had
  /// learnt since the last merge of models is lost.
  std::vector<int> joined;
};

namespace detail {

/// Nothing more is handed over than the optimizer's own.
struct nothing_else {
  void operator()(recovery const&) const noexcept {}
};

/// All pieces of state, as they were.
///
/// Memory  as much again as the state, where the executor works on it.
class keepsake {
 public:
  template <class Site, class Strategy>
  void take(Site& at, Strategy& strategy) {
    auto& e = at.exec;
    visit_pieces(at, strategy, [&](state_piece const& p) {
      if (is_floating(p.data.type) && p.data.length > 0) {
        slabs_.push_back(e.make(layout_of({p.data})));
        e.each(copy{}, out(slabs_.back().parts), in(tensor_list{p.data}));
      } else {
        bytes_.emplace_back(p.data.data, p.data.data + p.data.bytes());
      }
    });
    e.wait(e.record());
  }
  template <class Site, class Strategy>
  void put_back(Site& at, Strategy& strategy) {
    auto& e = at.exec;
    std::size_t numbers = 0, others = 0;
    visit_pieces(at, strategy, [&](state_piece const& p) {
      if (is_floating(p.data.type) && p.data.length > 0)
        e.each(copy{}, out(tensor_list{p.data}), in(slabs_[numbers++].parts));
      else
        std::ranges::copy(bytes_[others++], p.data.data);
    });
    e.wait(e.record());  // before the memory goes
  }

 private:
  std::vector<slab> slabs_;
  std::vector<std::vector<std::byte>> bytes_;
};

/// What was cut off on this rank, until all agree on what becomes of it.
class loose_ends {
 public:
  /// Adds what an engine's failure left. @param uncounted  calls in it that progress does not count
  void note(sync::interruption const& left, i64 uncounted = 0) {
    left_.voided += left.voided > 0 ? left.voided - uncounted : 0;
    if (left.standing) left_ = {left_.voided, left.standing, left.in_step};
  }
  /// Where this rank stands at the next handshake.
  [[nodiscard]] i64 position(i64 calls, i64 landed) const noexcept {
    return torn_ ? torn : position_of(calls, landed, left_.standing.has_value());
  }

  /// What this rank holds is worth nothing: it takes everything from another.
  void tear() {
    torn_ = true;
    left_ = {};
  }
  /// The same, ahead of taking another's state in `whole`. What this rank has is kept until then, unless it
  /// never was anything.
  template <class Site, class Strategy>
  void give_up(Site& at, Strategy& strategy, i64 position) {
    if (position > 0) {
      own_.emplace(own{left_, strategy.landed(), {}});
      own_->state.take(at, strategy);
    }
    tear();
  }
  /// Runs f, in which this rank may give its state up: afterwards it has another's, or its own again.
  template <class Site, class Strategy, class F>
  recovery whole(Site& at, Strategy& strategy, F const& f) {
    try {
      recovery r = f();
      torn_ = false;
      own_.reset();
      return r;
    } catch (error const&) {
      if (own_) {
        own_->state.put_back(at, strategy);
        strategy.landed(own_->landed);
        left_ = own_->left;
        torn_ = false;
        own_.reset();
      }
      throw;
    }
  }

  /// What was cut off on the giver, for all ranks. A collective call.
  template <collective C>
  [[nodiscard]] sync::interruption agree(C& comm, int giver) {
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
    i64 landed;
    keepsake state;
  };

  sync::interruption left_;
  std::optional<own> own_;
  bool torn_ = false;
};

}  // namespace detail

}  // namespace limber
