// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// How an NCCL communicator comes into being: from an id, or from another.

#include <limber/comm/detail/nccl_group.hpp>
#include <limber/comm/launch.hpp>
#include <limber/core/error.hpp>

#include <algorithm>
#include <cstddef>
#include <memory>
#include <numeric>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace limber::nccl::detail {

inline void check_options(options const& how, int rank, int size) {
  expects(size >= 1, "nccl: a communicator needs at least 1 rank, got ", size);
  limber::detail::check_rank("nccl", "rank", rank, size);
  expects(how.deadline > 0, "nccl: deadline must be > 0 s, got ", how.deadline);
  expects(how.meeting > 0, "nccl: meeting must be > 0 s, got ", how.meeting);
  expects(how.clock != nullptr, "nccl: clock is empty");
  expects(how.pause != nullptr, "nccl: pause is empty");
}

template <engine E>
[[nodiscard]] int chosen_device(E& e, options const& how, launch_facts const* facts) {
  int devices = 0, current = 0;
  group<E>::must("start", e.device_count(devices));
  expects(how.device < devices, "nccl: device ", how.device, " was asked for, but there are ", devices);
  if (how.device >= 0) return how.device;
  if (facts && facts->size > 1) return device_for(*facts, devices);
  group<E>::must("start", e.device(current));
  return current;
}

template <engine E>
[[nodiscard]] unique_id made_id(E& e) {
  unique_id id{};
  group<E>::must("bootstrap", e.make_id(id));
  return id;
}

template <engine E>
[[nodiscard]] std::shared_ptr<group<E>> start(E e, options const& how, int device, int rank, int size,
                                              unique_id const& id) {
  std::vector<int> world(static_cast<std::size_t>(size));
  std::iota(world.begin(), world.end(), 0);
  auto made = group<E>::make(std::move(e), how, device, name_of(id), rank, std::move(world));
  on_device<E> const here(made->engine, device);
  answer const a = made->engine.init(made->native, size, id, rank);
  if (a.failed()) throw error({"nccl", "init", a.code, rank, {}, group<E>::advised(a.reason)});
  made->born("init", made->native, made->native, how.meeting, [&] {
    return text(
        "rank ", rank, " of ", size, ": not all ranks joined within ", how.meeting,
        " s: one did not come, or they do not reach each other (NCCL_SOCKET_IFNAME names the network, "
        "NCCL_DEBUG=INFO tells more)");
  });
  return made;
}

/// This rank's place in a new communicator of `members`, made from `parent`.
///
/// @param issue  asks NCCL for the new communicator
template <engine E, class Issue>
[[nodiscard]] std::shared_ptr<group<E>> child(group<E>& parent, std::string_view what,
                                              std::vector<int> const& members, std::string const& name,
                                              Issue issue) {
  std::vector<int> world;
  for (int const r : members) world.push_back(parent.world[static_cast<std::size_t>(r)]);
  auto const mine = static_cast<int>(std::ranges::lower_bound(members, parent.rank) - members.begin());
  auto made = group<E>::make(parent.engine, parent.how, parent.device, name, mine, std::move(world));
  std::string const mark = text("came.", name);
  board const& notices = parent.how.notices;
  if (notices) (void)notices.put(text(mark, ".", parent.rank), text(parent.rank));
  auto& place = parent.births.emplace_back();
  auto const came = [&] {
    std::string reason = text(parent.who(parent.rank), ": the new group of ", members.size(),
                              " ranks was not complete within ", parent.how.deadline, " s");
    if (notices)
      if (auto const missing = parent.absent(mark, members); !missing.empty())
        reason += text("; ", ranks_text(missing), " did not come");
    return reason;
  };
  on_device<E> const here(parent.engine, parent.device);
  try {
    answer const a = issue(place);
    if (a.failed()) throw error({"nccl", std::string(what), a.code, -1, {}, group<E>::advised(a.reason)});
    parent.born(what, parent.native, place, parent.how.deadline, came);
  } catch (error const& e) {
    // NCCL may still be at it: nothing else can be asked of the parent. The note stays, for ranks whose
    // deadline comes later.
    parent.end({e.where().code, e.where().rank, e.where().reason});
    if (place) (void)parent.engine.abort(place);
    throw;
  }
  if (notices) notices.remove(text(mark, ".", parent.rank));
  made->native = place;
  return made;
}

}  // namespace limber::nccl::detail
