// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <limber/sync/bucket_operations.hpp>
#include <limber/sync/standing_reduction.hpp>

#include <exception>

namespace limber::sync {

LIMBER_FN standing_reduction::standing_reduction() : exceptions_(std::uncaught_exceptions()) {}

LIMBER_FN standing_reduction::~standing_reduction() {
  if (std::uncaught_exceptions() > exceptions_) return;
  try {
    wait();
  } catch (...) {  // any call that waits for a result reports it
  }
}

LIMBER_FN void standing_reduction::start(communicator group, bucket_plan const& plan, slab const& from,
                                         slab const& to, const_tensor_view control_in,
                                         tensor_view control_out) {
  for (auto const& b : plan.buckets) requests_.push_back(sum_bucket(group, b, from, to));
  requests_.push_back(group.all_reduce(control_in, control_out));
}

LIMBER_FN void standing_reduction::wait() {
  for (auto& r : requests_) r.wait();
  requests_.clear();
}

}  // namespace limber::sync
