// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <limber/sync/ready_buckets.hpp>

#include <utility>

namespace limber::sync {

LIMBER_FN void ready_buckets::open(any_executor& e, bucket_plan const& plan) {
  if (parts_.empty()) make(e, plan);
  for (auto& p : parts_) p.missing = static_cast<i64>(p.tensors.size());
  next_ = 0;
  open_ = true;
}

LIMBER_FN void ready_buckets::each(function_ref<void(bucket_part const&)> f) const {
  for (auto const& p : parts_) f(p);
}

LIMBER_FN void ready_buckets::make(any_executor& e, bucket_plan const& plan) {
  for (std::size_t b = 0; b < plan.buckets.size(); ++b) {
    auto const& tensors = plan.buckets[b].tensors;
    if (parts_.empty() || parts_.back().tensors != tensors) {
      bucket_part p;
      p.tensors = tensors;
      p.first = b;
      for (auto* list : {&p.to, &p.sum, &p.residual, &p.gradients}) list->resize(tensors.size());
      p.norms = make_norms(e, static_cast<i64>(tensors.size()));
      parts_.push_back(std::move(p));
    }
    parts_.back().last = b + 1;
  }
  part_of_.assign(plan.where.places.size(), parts_.size());
  for (std::size_t p = 0; p < parts_.size(); ++p)
    for (i64 const i : parts_[p].tensors) part_of_[static_cast<std::size_t>(i)] = p;
}

}  // namespace limber::sync
