// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// A collective of one's own: rank 0 has a socket to each other rank, collects the operands of a call,
/// computes the result and returns it. Blocking; every wait has a deadline.

#include <limber/comm/backend.hpp>

#include <poll.h>
#include <sys/socket.h>

#include <vector>

namespace example {

using namespace limber;

struct socket_collective {
  int rank_, size_;
  std::vector<int> sockets;  // of rank 0: to each rank, by rank, the first unused; of others: to rank 0
  int deadline_ms = 10'000;

  int rank() const { return rank_; }
  int size() const { return size_; }
  completed all_reduce(const_tensor_view in, tensor_view out, reduction how = reduction::sum) {
    return call(backend::all_reduce_of(in, out, how), in, out);
  }
  completed reduce_scatter(const_tensor_view in, tensor_view out) {
    return call(backend::reduce_scatter_of(in, out, size_), in, out);
  }
  completed all_gather(const_tensor_view in, tensor_view out) {
    return call(backend::all_gather_of(in, out, size_), in, out);
  }
  completed broadcast(tensor_view data, int root) {
    return call(backend::broadcast_of(data, root, size_), data, data);
  }
  void barrier() { call({.what = backend::operation::barrier}, {}, {}); }

  completed call(backend::signature s, const_tensor_view in, tensor_view out) {
    char done = 0;  // returned with every result, also an empty one
    if (rank_ != 0) {
      move(0, s, &s, sizeof s, true);
      move(0, s, const_cast<std::byte*>(in.data), in.bytes(), true);
      move(0, s, &done, 1, false);
      return move(0, s, out.data, out.bytes(), false);
    }
    std::vector<backend::rank_buffers> ranks{{in.data, out.data}};
    std::vector<std::vector<std::byte>> memory;
    for (int r = 1; r < size_; ++r) {
      backend::signature theirs;
      move(r, s, &theirs, sizeof theirs, false);
      if (theirs != s) fail(r, s, text("called ", backend::text_of(theirs)));
      std::byte* const m = memory.emplace_back(static_cast<std::size_t>(in.bytes() + out.bytes())).data();
      move(r, s, m, in.bytes(), false);
      ranks.push_back({m, in.data == out.data ? m : m + in.bytes()});  // a broadcast has one operand
    }
    backend::perform(s, ranks, 0, backend::extent(s, size_));
    for (int r = 1; r < size_; ++r) {
      move(r, s, &done, 1, true);
      move(r, s, ranks[static_cast<std::size_t>(r)].out, out.bytes(), true);
    }
    return {};
  }
  completed move(int peer, backend::signature s, void* data, i64 bytes, bool away) {
    pollfd p{sockets[static_cast<std::size_t>(peer)], static_cast<short>(away ? POLLOUT : POLLIN), 0};
    for (auto* at = static_cast<std::byte*>(data); bytes > 0;) {
      if (::poll(&p, 1, deadline_ms) <= 0) fail(peer, s, "did not come within the deadline");
      auto const n = away ? ::send(p.fd, at, bytes, MSG_NOSIGNAL) : ::recv(p.fd, at, bytes, 0);
      if (n <= 0) fail(peer, s, "has ended");
      at += n;
      bytes -= n;
    }
    return {};
  }
  /// Ends the group, on all ranks.
  [[noreturn]] void fail(int peer, backend::signature s, std::string const& what) {
    for (int const fd : sockets) ::shutdown(fd, SHUT_RDWR);
    throw error({"sockets", backend::text_of(s), 0, peer, {}, text("rank ", peer, " ", what)});
  }
};

}  // namespace example
