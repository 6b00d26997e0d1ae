// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <limber/fuse/functors.hpp>
#include <limber/sync/weighted_mean.hpp>

#include <array>
#include <utility>

namespace limber::sync {

namespace detail {

[[nodiscard]] LIMBER_FN tensor_list in_double(tensor_list list) {
  for (auto& t : list) t.type = dtype::f64;
  return list;
}

}  // namespace detail

LIMBER_FN weighted_mean::weighted_mean(any_executor& e, tensor_list list, bucket_options options)
    : list_(std::move(list)), plan_(plan_buckets(detail::in_double(list_), without_wire(options))) {
  packed_ = e.make(plan_.where);
  reduced_ = e.make(plan_.where);
}

LIMBER_FN bool weighted_mean::run(any_executor& e, communicator group, double weight) {
  gather(e, group, weight);
  return apply(e);
}

LIMBER_FN void weighted_mean::gather(any_executor& e, communicator group, double weight) {
  total_ = 0;
  if (list_.empty() || group.size() == 1) return;
  std::array<double, 1> mine{weight}, all{};
  if (!e.norm(weighted{weight}, out(packed_.parts), in(list_)).total.finite) {
    e.each(zero{}, out(packed_.parts));
    mine[0] = 0;
  }
  e.synchronize();
  operations_.all_reduce(group, plan_, packed_, reduced_, const_view(mine, "mean: weights"),
                         view(all, "mean: weights"));
  total_ = all[0];
}

LIMBER_FN bool weighted_mean::apply(any_executor& e) {
  if (!(total_ > 0)) return false;
  e.each(scaled_copy{1 / std::exchange(total_, 0.0)}, out(list_), in(reduced_.parts));
  return true;
}

}  // namespace limber::sync
