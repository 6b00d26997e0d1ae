// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// How workers agree on a new group: survivors after a death, and all who live when somebody joins.

#include <limber/sim/detail/group.hpp>

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

namespace limber::sim::detail {

/// Waits for all survivors, who must agree on whom they lost; leaves the old group failed.
inline place group::shrink(int rank, std::vector<int> const& lost) {
  check_turn(rank, "shrink");
  settle(seat_of(rank));
  std::vector<int> survivors, seats;
  for (int r = 0; r < size(); ++r) {
    if (std::ranges::binary_search(lost, r)) continue;
    survivors.push_back(r);
    seats.push_back(at(r).seat);
  }
  auto const out_of_date = [&](int r) { return at(r).gone || seat_of(r).noticed; };
  auto const as_well = [&](int r) {
    return at(r).gone ? text(who(r), " left as well; shrink without it")
                      : text(obituary(r), " as well; shrink without it");
  };
  auto const close = [&](shrinking& s, int culprit, std::string reason) {
    if (!s.failed) s.failed = verdict{culprit, std::move(reason)};
    std::erase_if(shrinkings_, [&](auto const& other) { return other.get() == &s; });
    wake_all();
  };
  auto const end = [&](shrinking& s, int culprit, std::string reason) {
    close(s, culprit, std::move(reason));
    throw error({"sim", "shrink", 0, s.failed->rank, {}, s.failed->reason});
  };
  // A list that is out of date is not a disagreement, neither the caller's nor a waiter's.
  for (int const r : survivors)
    if (out_of_date(r)) throw error({"sim", "shrink", 0, r, {}, as_well(r)});
  for (auto const& s : std::vector(shrinkings_.begin(), shrinkings_.end()))
    for (int r = 0; r < size(); ++r)
      if (out_of_date(r) && !std::ranges::binary_search(s->lost, r)) close(*s, r, as_well(r));
  std::shared_ptr<shrinking> mine;
  for (auto const& s : std::vector(shrinkings_.begin(), shrinkings_.end())) {
    if (s->lost == lost) mine = s;
    for (int const r : survivors)
      if (s != mine && s->here[static_cast<std::size_t>(r)] != 0)
        end(*s, r,
            text(who(r), " goes on without ", who(s->lost), " but ", who(rank), " without ", who(lost)));
  }
  if (!mine) {
    mine = std::make_shared<shrinking>();
    mine->lost = lost;
    mine->here.resize(members_.size());
    shrinkings_.push_back(mine);
  }
  mine->here[static_cast<std::size_t>(rank)] = 1;
  bool const all = std::ranges::all_of(
      survivors, [&](int r) { return mine->here[static_cast<std::size_t>(r)] != 0 && !seat_of(r).dead; });
  if (all) {
    mine->next = make(engine_, seats);
    mine->end = engine_->now() + mine->next->barrier_seconds();
    fail(lost.empty() ? -1 : lost[0],
         text("the ranks went on in a new group", lost.empty() ? "" : " without ", who(lost)));
    shrinkings_.remove(mine);
    engine_->plan(mine->end, at(rank).seat, [self = shared_from_this()] { self->wake_all(); });
  }
  while (!mine->next || engine_->now() < mine->end) {
    if (mine->failed) end(*mine, rank, {});
    if (!mine->next)
      for (int const r : survivors)
        if (out_of_date(r)) end(*mine, r, as_well(r));
    engine_->park(&worker_report::waiting, {"shrink", {}, this, 0, -1});
  }
  auto const position = std::ranges::lower_bound(survivors, rank) - survivors.begin();
  return {mine->next, static_cast<int>(position)};
}

/// A regroup() that is under way.
struct muster {
  std::vector<int> here{};  ///< workers that have called it, in order of rank
  std::shared_ptr<group> next{};
  double end = 0;
};

/// Closes the muster under way if all who live are there. A worker that died is waited for until the
/// others know of it.
inline void muster_if_all(std::shared_ptr<engine> const& e) {
  if (!e->gathering || e->gathering->here.empty()) return;
  muster& m = *e->gathering;
  for (std::size_t w = 0; w < e->seats().size(); ++w) {
    seat const& s = e->seats()[w];
    bool const lives = s.starts <= e->now() && (s.dead ? !s.noticed : !s.ended);
    if (lives && (s.dead || !std::ranges::binary_search(m.here, static_cast<int>(w)))) return;
  }
  m.next = group::make(e, m.here);
  m.end = e->now() + m.next->barrier_seconds();
  e->plan(m.end, m.here.front(), [e = e.get(), here = m.here] {
    for (int const w : here) e->wake(w);
  });
  e->gathering = nullptr;
}

/// @pre called by the worker that has the turn
inline place regroup(std::shared_ptr<engine> const& e) {
  int const worker = e->turn();
  settle(e->at(worker));
  if (!e->gathering) e->gathering = std::make_shared<muster>();
  auto const mine = e->gathering;
  auto const spot = std::ranges::lower_bound(mine->here, worker);
  mine->here.insert(spot, worker);
  muster_if_all(e);
  while (!mine->next || e->now() < mine->end)
    e->park(&worker_report::waiting, {"regroup", {}, nullptr, 0, -1});
  auto const position = std::ranges::lower_bound(mine->here, worker) - mine->here.begin();
  return {mine->next, static_cast<int>(position)};
}

}  // namespace limber::sim::detail
