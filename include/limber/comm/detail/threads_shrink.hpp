// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// How the survivors of a failed `threads` group agree to go on.

#include <limber/comm/detail/threads_group.hpp>

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

namespace limber::threads::detail {

/// Waits for all survivors, who must agree on whom they lost; leaves the old group failed.
inline place group::shrink(int rank, std::vector<int> const& lost) {
  patience p{hub_->now()};
  visit v(*hub_);
  settle(v, *hub_, at(rank).seat);
  std::vector<int> survivors, seats;
  for (int r = 0; r < size(); ++r) {
    if (std::ranges::binary_search(lost, r)) continue;
    survivors.push_back(r);
    seats.push_back(at(r).seat);
  }
  auto const close = [&](shrinking& s, int culprit, std::string const& reason) {
    if (!s.failed) s.failed = verdict{culprit, reason};
    std::erase_if(shrinkings_, [&](auto const& other) { return other.get() == &s; });
    wake_all(v);
  };
  auto const end = [&](shrinking& s, int culprit, std::string const& reason) {
    close(s, culprit, reason);
    throw error({"threads", "shrink", 0, s.failed->rank, {}, s.failed->reason});
  };
  auto const left_as_well = [&](int r) { return text(who(r), " left as well; shrink without it"); };
  // A list that is out of date is not a disagreement, neither the caller's nor one that a sleeper is
  // still waiting with: this comes before the lists are compared.
  for (int const r : survivors)
    if (at(r).gone) throw error({"threads", "shrink", 0, r, {}, left_as_well(r)});
  for (auto const& s : std::vector(shrinkings_.begin(), shrinkings_.end()))
    for (int r = 0; r < size(); ++r)
      if (at(r).gone && !std::ranges::binary_search(s->lost, r)) close(*s, r, left_as_well(r));
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
  for (bool late = false; !mine->next; late = idle(v, rank, anything, p)) {
    std::vector<int> missing;
    for (int const r : survivors)
      if (mine->here[static_cast<std::size_t>(r)] == 0) missing.push_back(r);
    if (missing.empty() && !mine->failed) {
      mine->next = make(hub_, seats);
      fail(v, lost.empty() ? -1 : lost[0],
           text("the ranks went on in a new group", lost.empty() ? "" : " without ", who(lost)));
      shrinkings_.remove(mine);
      wake_all(v);
      break;
    }
    for (int const r : missing)
      if (at(r).gone) end(*mine, r, left_as_well(r));
    if (late)
      end(*mine, missing[0], text(who(missing), " did not call shrink within ", hub_->how.deadline, " s"));
    if (mine->failed) end(*mine, rank, {});
  }
  auto const position = std::ranges::lower_bound(survivors, rank) - survivors.begin();
  return {mine->next, static_cast<int>(position)};
}

}  // namespace limber::threads::detail
