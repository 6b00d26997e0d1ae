// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <limber/sync/bucket_operations.hpp>

#include <span>

namespace limber::sync {

LIMBER_FN any_request sum_bucket(communicator group, bucket const& b, slab const& from, slab const& to) {
  return group.all_reduce(bucket_view(from, b), bucket_view(to, b), std::span<piece const>(b.pieces));
}

LIMBER_FN void bucket_operations::all_reduce(communicator group, bucket_plan const& plan, slab const& from,
                                             slab const& to, const_tensor_view control_in,
                                             tensor_view control_out) {
  start(group, plan, from, to, plan.buckets.size());
  finish(group, control_in, control_out);
}

LIMBER_FN void bucket_operations::start(communicator group, bucket_plan const& plan, slab const& from,
                                        slab const& to, std::size_t last) {
  guarded([&] {
    for (std::size_t k = requests_.size(); k < last; ++k)
      requests_.push_back(sum_bucket(group, plan.buckets[k], from, to));
  });
}

LIMBER_FN void bucket_operations::finish(communicator group, const_tensor_view control_in,
                                         tensor_view control_out) {
  guarded([&] {
    requests_.push_back(group.all_reduce(control_in, control_out));
    for (auto& r : requests_) r.wait();
    requests_.clear();
  });
}

LIMBER_FN void bucket_operations::broadcast(communicator group, bucket_plan const& plan, slab const& data,
                                            tensor_view control, int root) {
  requests_.clear();
  guarded([&] {
    for (auto const& b : plan.buckets) requests_.push_back(group.broadcast(bucket_view(data, b), root));
    requests_.push_back(group.broadcast(control, root));
    for (auto& r : requests_) r.wait();
    requests_.clear();
  });
}

// Nothing stays in flight when an exception leaves: control values may be the caller's. A destructor does
// it, because a request that is dropped during an exception reports that to its group.
LIMBER_FN void bucket_operations::guarded(function_ref<void()> f) {
  struct guard {
    std::vector<any_request>& requests;
    bool done = false;
    ~guard() {
      if (!done) requests.clear();
    }
  } g{requests_};
  f();
  g.done = true;
}

}  // namespace limber::sync
