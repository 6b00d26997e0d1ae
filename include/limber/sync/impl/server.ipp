// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <limber/core/error.hpp>
#include <limber/sync/server.hpp>
#include <limber/sync/tensor_message.hpp>

#include <cstddef>
#include <limits>
#include <optional>
#include <utility>

namespace limber::sync {

LIMBER_FN message next_message(communicator comm, i64 tag) {
  for (;;) {
    if (auto m = comm.poll(tag)) return std::move(*m);
    comm.listen();
  }
}

LIMBER_FN void active_workers::start(int size, int server) {
  requests_.assign(static_cast<std::size_t>(size), 0);
  trains_.assign(static_cast<std::size_t>(size), 1);
  trains_[static_cast<std::size_t>(server)] = 0;
}

LIMBER_FN bool active_workers::any() const noexcept {
  for (char const trains : trains_)
    if (trains != 0) return true;
  return false;
}

LIMBER_FN i64 active_workers::lead(int rank) const noexcept {
  i64 least = std::numeric_limits<i64>::max();
  for (std::size_t r = 0; r < requests_.size(); ++r)
    if (trains_[r] != 0 && requests_[r] < least) least = requests_[r];
  i64 const own = requests_[static_cast<std::size_t>(rank)];
  return own > least ? own - least : 0;
}

LIMBER_FN void active_workers::receive_leaves(communicator comm) {
  while (any()) {
    message const m = next_message(comm, request_tag);
    if (tensor_message::header_of<server_request>(m.bytes) != server_request::leave)
      throw error({"sync",
                   "finish",
                   0,
                   m.source,
                   {},
                   text("the server has called finish() but rank ", m.source,
                        " still trains; call serve(), which returns when all have finished")});
    leave(m.source);
  }
}

}  // namespace limber::sync
