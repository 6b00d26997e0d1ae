// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// How workers form a new group: shrink() of survivors, and regroup() of all live workers.

#include <limber/sim/detail/group.hpp>

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

namespace limber::sim::detail {

/// Waits for all survivors, which must pass the same lost ranks; the old group has failed afterwards.
inline place group::shrink(int rank, std::vector<int> const& lost) {
  check_turn(rank, "shrink");
  fail_unwound(state_of(rank));
  std::vector<int> survivors, workers;
  for (int r = 0; r < size(); ++r) {
    if (std::ranges::binary_search(lost, r)) continue;
    survivors.push_back(r);
    workers.push_back(at(r).worker);
  }
  auto const out_of_date = [&](int r) { return at(r).left || state_of(r).death_known; };
  auto const as_well = [&](int r) {
    return at(r).left ? text(rank_name(r), " left as well; shrink without it")
                      : text(death_message(r), " as well; shrink without it");
  };
  auto const close = [&](shrinking& s, int culprit, std::string reason) {
    if (!s.failed) s.failed = group_failure{culprit, std::move(reason)};
    std::erase_if(shrinkings_, [&](auto const& other) { return other.get() == &s; });
    wake_all();
  };
  auto const end = [&](shrinking& s, int culprit, std::string reason) {
    close(s, culprit, std::move(reason));
    throw error({"sim", "shrink", 0, s.failed->rank, {}, s.failed->reason});
  };
  // An outdated list, of the caller or of a waiting rank, is not a disagreement: check this first.
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
            text(rank_name(r), " continues without ", rank_name(s->lost), " but ", rank_name(rank),
                 " without ", rank_name(lost)));
  }
  if (!mine) {
    mine = std::make_shared<shrinking>();
    mine->lost = lost;
    mine->here.resize(members_.size());
    shrinkings_.push_back(mine);
  }
  mine->here[static_cast<std::size_t>(rank)] = 1;
  bool const all = std::ranges::all_of(
      survivors, [&](int r) { return mine->here[static_cast<std::size_t>(r)] != 0 && !state_of(r).dead; });
  if (all) {
    mine->next = make(engine_, workers);
    mine->end = engine_->now() + mine->next->barrier_seconds();
    fail(lost.empty() ? -1 : lost[0],
         text("the ranks continue in a new group", lost.empty() ? "" : " without ", rank_name(lost)));
    shrinkings_.remove(mine);
    engine_->plan(mine->end, at(rank).worker, [self = shared_from_this()] { self->wake_all(); });
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

/// A regroup() in progress.
struct regroup_round {
  std::vector<int> here{};  ///< workers that have called it, in order of rank
  std::shared_ptr<group> next{};
  double end = 0;
};

/// Completes the current regroup() if all live workers have called it. A dead worker is waited for until its
/// death is known.
inline void complete_regroup(std::shared_ptr<engine> const& e) {
  if (!e->pending_regroup || e->pending_regroup->here.empty()) return;
  regroup_round& m = *e->pending_regroup;
  for (std::size_t w = 0; w < e->workers().size(); ++w) {
    worker_state const& s = e->workers()[w];
    bool const lives = s.starts <= e->now() && (s.dead ? !s.death_known : !s.ended);
    if (lives && (s.dead || !std::ranges::binary_search(m.here, static_cast<int>(w)))) return;
  }
  m.next = group::make(e, m.here);
  m.end = e->now() + m.next->barrier_seconds();
  e->plan(m.end, m.here.front(), [e = e.get(), here = m.here] {
    for (int const w : here) e->wake(w);
  });
  e->pending_regroup = nullptr;
}

/// @pre called by the worker that has the turn
inline place regroup(std::shared_ptr<engine> const& e) {
  int const worker = e->turn();
  fail_unwound(e->at(worker));
  if (!e->pending_regroup) e->pending_regroup = std::make_shared<regroup_round>();
  auto const mine = e->pending_regroup;
  auto const spot = std::ranges::lower_bound(mine->here, worker);
  mine->here.insert(spot, worker);
  complete_regroup(e);
  while (!mine->next || e->now() < mine->end)
    e->park(&worker_report::waiting, {"regroup", {}, nullptr, 0, -1});
  auto const position = std::ranges::lower_bound(mine->here, worker) - mine->here.begin();
  return {mine->next, static_cast<int>(position)};
}

}  // namespace limber::sim::detail
