// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// shrink() of a `threads` group.

#include <limber/comm/detail/threads_group.hpp>
#include <limber/core/error.hpp>

#include <algorithm>
#include <cstddef>
#include <memory>
#include <string>
#include <vector>

namespace limber::threads::detail {

/// Waits for all survivors, which must pass the same lost ranks; the old group has failed afterwards.
inline place group::shrink(int rank, std::vector<int> const& lost) {
  wait_timer p{world_->now()};
  world_lock lock(*world_);
  fail_unwound(lock, *world_, at(rank).world_rank);
  std::vector<int> survivors, world_ranks;
  for (int r = 0; r < size(); ++r) {
    if (std::ranges::binary_search(lost, r)) continue;
    survivors.push_back(r);
    world_ranks.push_back(at(r).world_rank);
  }
  auto const close = [&](shrinking& s, int culprit, std::string const& reason) {
    if (!s.failed) s.failed = group_failure{culprit, reason};
    std::erase_if(shrinkings_, [&](auto const& other) { return other.get() == &s; });
    wake_all(lock);
  };
  auto const end = [&](shrinking& s, int culprit, std::string const& reason) {
    close(s, culprit, reason);
    throw error({"threads", "shrink", 0, s.failed->rank, {}, s.failed->reason});
  };
  auto const left_as_well = [&](int r) { return text(rank_name(r), " left as well; shrink without it"); };
  // An outdated list, of the caller or of a waiting rank, is not a disagreement: this is checked before the
  // lists are compared.
  for (int const r : survivors)
    if (at(r).left) throw error({"threads", "shrink", 0, r, {}, left_as_well(r)});
  for (auto const& s : std::vector(shrinkings_.begin(), shrinkings_.end()))
    for (int r = 0; r < size(); ++r)
      if (at(r).left && !std::ranges::binary_search(s->lost, r)) close(*s, r, left_as_well(r));
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
  for (bool timed_out = false; !mine->next; timed_out = wait_for_event(lock, rank, any_event, p)) {
    std::vector<int> missing;
    for (int const r : survivors)
      if (mine->here[static_cast<std::size_t>(r)] == 0) missing.push_back(r);
    if (missing.empty() && !mine->failed) {
      mine->next = make(world_, world_ranks);
      fail(lock, lost.empty() ? -1 : lost[0],
           text("the ranks continue in a new group", lost.empty() ? "" : " without ", rank_name(lost)));
      shrinkings_.remove(mine);
      wake_all(lock);
      break;
    }
    for (int const r : missing)
      if (at(r).left) end(*mine, r, left_as_well(r));
    if (timed_out)
      end(*mine, missing[0],
          text(rank_name(missing), " did not call shrink within ", world_->how.deadline, " s"));
    if (mine->failed) end(*mine, rank, {});
  }
  auto const position = std::ranges::lower_bound(survivors, rank) - survivors.begin();
  return {mine->next, static_cast<int>(position)};
}

}  // namespace limber::threads::detail
