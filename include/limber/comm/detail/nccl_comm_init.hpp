// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Creation of NCCL communicators, from an id or from another communicator.

#include <limber/comm/detail/nccl_process_group.hpp>
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
  expects(how.rendezvous_deadline > 0, "nccl: rendezvous_deadline must be > 0 s, got ",
          how.rendezvous_deadline);
  expects(how.clock != nullptr, "nccl: clock is empty");
  expects(how.pause != nullptr, "nccl: pause is empty");
}

template <engine E>
[[nodiscard]] int chosen_device(E& e, options const& how, launch_facts const* facts) {
  int devices = 0, current = 0;
  process_group<E>::must("start", e.device_count(devices));
  expects(how.device < devices, "nccl: device ", how.device, " was asked for, but there are ", devices);
  if (how.device >= 0) return how.device;
  if (facts && facts->size > 1) return device_for(*facts, devices);
  process_group<E>::must("start", e.device(current));
  return current;
}

template <engine E>
[[nodiscard]] unique_id new_id(E& e) {
  unique_id id{};
  process_group<E>::must("bootstrap", e.make_id(id));
  return id;
}

template <engine E>
[[nodiscard]] std::shared_ptr<process_group<E>> start(E e, options const& how, int device, int rank, int size,
                                                      unique_id const& id) {
  std::vector<int> world(static_cast<std::size_t>(size));
  std::iota(world.begin(), world.end(), 0);
  auto made = process_group<E>::make(std::move(e), how, device, name_of(id), rank, std::move(world));
  on_device<E> const here(made->engine, device);
  answer const a = made->engine.init(made->native, size, id, rank);
  if (a.failed()) throw error({"nccl", "init", a.code, rank, {}, process_group<E>::with_hint(a.reason)});
  made->await_init("init", made->native, made->native, how.rendezvous_deadline, [&] {
    return text(
        "rank ", rank, " of ", size, ": not all ranks joined within ", how.rendezvous_deadline,
        " s: one did not come, or they do not reach each other (NCCL_SOCKET_IFNAME names the network, "
        "NCCL_DEBUG=INFO prints details)");
  });
  return made;
}

/// This rank's part in a new communicator of `members`, made from `parent`.
///
/// @param issue  calls NCCL to make the new communicator
template <engine E, class Issue>
[[nodiscard]] std::shared_ptr<process_group<E>> make_child(process_group<E>& parent, std::string_view what,
                                                           std::vector<int> const& members,
                                                           std::string const& name, Issue issue) {
  std::vector<int> world;
  for (int const r : members) world.push_back(parent.world[static_cast<std::size_t>(r)]);
  auto const mine = static_cast<int>(std::ranges::lower_bound(members, parent.rank) - members.begin());
  auto made = process_group<E>::make(parent.engine, parent.how, parent.device, name, mine, std::move(world));
  std::string const key = text("came.", name);
  kv_store const& notices = parent.how.notices;
  if (notices) (void)notices.put(text(key, ".", parent.rank), text(parent.rank));
  auto& place = parent.pending_comms.emplace_back();
  auto const missing_text = [&] {
    std::string reason = text(parent.rank_name(parent.rank), ": the new group of ", members.size(),
                              " ranks was not complete within ", parent.how.deadline, " s");
    if (notices)
      if (auto const missing = parent.missing_ranks(key, members); !missing.empty())
        reason += text("; ", ranks_text(missing), " did not come");
    return reason;
  };
  on_device<E> const here(parent.engine, parent.device);
  try {
    answer const a = issue(place);
    if (a.failed())
      throw error({"nccl", std::string(what), a.code, -1, {}, process_group<E>::with_hint(a.reason)});
    parent.await_init(what, parent.native, place, parent.how.deadline, missing_text);
  } catch (error const& e) {
    // NCCL may still be working on it, so the parent cannot be used. The key stays, for ranks with a later
    // deadline.
    parent.end({e.where().code, e.where().rank, e.where().reason});
    if (place) (void)parent.engine.abort(place);
    throw;
  }
  if (notices) notices.remove(text(key, ".", parent.rank));
  made->native = place;
  return made;
}

}  // namespace limber::nccl::detail
