// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The weighted mean of a list over the ranks of a group: buffers, moments, model averages.

#include <limber/comm/any_communicator.hpp>
#include <limber/fuse/any_executor.hpp>
#include <limber/fuse/bucket_plan.hpp>
#include <limber/fuse/functors.hpp>
#include <limber/sync/bucket_operations.hpp>

#include <array>
#include <cstdint>
#include <utility>

namespace limber::sync {

namespace detail {
/// to ← f(from…), to be sent next; zeros if a result is not finite: that rank weighs nothing. @return false
/// then
template <class F, class... From>
bool pack_finite(any_executor& e, F const& f, tensor_list const& to, From... from) {
  bool const finite = e.norm(f, out(to), from...).total.finite;
  if (!finite) e.each(zero{}, out(to));
  e.synchronize();
  return finite;
}
}  // namespace detail

/// x ← Σ wᵢ xᵢ / Σ wᵢ over the group. A rank whose list is not finite takes part with weight 0.
///
/// Travels and is added in fp64, whatever the list holds: values that nobody changed must not drift
/// by a rounding a time. A group of one changes nothing.
/// Collectives  one per bucket and one of 8 bytes; all ranks must call it.
/// State        none between calls; two buffers shaped like the list.
class weighted_mean {
 public:
  weighted_mean(any_executor& e, tensor_list list, bucket_options options)
      : list_(std::move(list)), plan_(plan_buckets(in_double(list_), without_wire(options))) {
    packed_ = e.make(plan_.where);
    reduced_ = e.make(plan_.where);
  }

  /// Changes nothing if all weights are 0, or there is nobody to average with.
  void run(any_executor& e, communicator group, double weight) {
    gather(e, group, weight);
    apply(e);
  }
  /// The part of `run` that others are needed for; changes nothing.
  void gather(any_executor& e, communicator group, double weight) {
    total_ = 0;
    if (list_.empty() || group.size() == 1) return;
    std::array<double, 1> mine{weight}, all{};
    if (!detail::pack_finite(e, weighted{weight}, packed_.parts, in(list_))) mine[0] = 0;
    operations_.all_reduce(group, plan_, packed_, reduced_, const_view(mine, "mean: weights"),
                           view(all, "mean: weights"));
    total_ = all[0];
  }
  /// The rest, which needs nobody and comes once after `gather`.
  void apply(any_executor& e) {
    if (total_ > 0) e.each(scaled_copy{1 / std::exchange(total_, 0.0)}, out(list_), in(reduced_.parts));
  }

  [[nodiscard]] i64 bytes() const noexcept { return packed_.bytes + reduced_.bytes; }
  [[nodiscard]] std::uint64_t hash() const noexcept { return plan_.hash; }

 private:
  [[nodiscard]] static tensor_list in_double(tensor_list list) {
    for (auto& t : list) t.type = dtype::f64;
    return list;
  }

  tensor_list list_;
  bucket_plan plan_;
  slab packed_, reduced_;
  double total_ = 0;  // Σ wᵢ of what was gathered and not applied
  bucket_operations operations_;
};

}  // namespace limber::sync
