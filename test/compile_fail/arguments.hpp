// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The right arguments of an optimizer, for tests that get one of them wrong.

#include <limber/limber.hpp>

#include <string>
#include <vector>

using namespace limber;

inline std::vector<float> w(3), g(3);
inline std::vector<tensor> parameters{{"w", w, g}};
inline auto const rule = sgd{};
inline auto const rate = 0.1;
inline auto const strategy = sync::allreduce{};
inline self comm;

/// A communicator with all that a collective needs, and nothing else.
struct plain {
  self own;
  int rank() const { return own.rank(); }
  int size() const { return own.size(); }
  auto all_reduce(const_tensor_view in, tensor_view out, reduction how = reduction::sum) {
    return own.all_reduce(in, out, how);
  }
  auto reduce_scatter(const_tensor_view in, tensor_view out) { return own.reduce_scatter(in, out); }
  auto all_gather(const_tensor_view in, tensor_view out) { return own.all_gather(in, out); }
  auto broadcast(tensor_view data, int root) { return own.broadcast(data, root); }
  void barrier() { own.barrier(); }
};
inline plain plain_comm;
