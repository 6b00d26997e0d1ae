// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Reductions and broadcasts of the buckets of a plan, in flight; and the weighted mean that is made of them.

#include <limber/comm/any_communicator.hpp>
#include <limber/fuse/any_executor.hpp>
#include <limber/fuse/bucket_plan.hpp>
#include <limber/fuse/functors.hpp>

#include <array>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

namespace limber::sync {

/// Operations in flight, in memory that is kept from step to step.
///
/// Memory   buffers, control and group must stay where they are until `wait`, and outlive this object.
/// Errors   limber::error if a peer or the engine failed. Where one call starts and waits, nothing is in
///          flight when the error leaves it: control values may be the caller's.
class bucket_operations {
 public:
  /// Sums every bucket and the control values over the group.
  ///
  /// All reductions are started before the first is waited for. The control block travels in fp64
  /// after the last bucket, whatever type the buckets have.
  void all_reduce(communicator group, bucket_plan const& plan, slab const& from, slab const& to,
                  const_tensor_view control_in, tensor_view control_out) {
    start(group, plan, from, to, plan.buckets.size());
    finish(group, control_in, control_out);
  }
  /// Starts the reductions of the plan's buckets before `last` that were not started yet.
  void start(communicator group, bucket_plan const& plan, slab const& from, slab const& to,
             std::size_t last) {
    guarded([&] {
      for (std::size_t k = requests_.size(); k < last; ++k) {
        bucket const& b = plan.buckets[k];
        // Collectives that depend on where its tensors start are given that.
        requests_.push_back(
            group.all_reduce(bucket_view(from, b), bucket_view(to, b), std::span<piece const>(b.pieces)));
      }
    });
  }
  /// Starts that of the control values, and waits for all.
  void finish(communicator group, const_tensor_view control_in, tensor_view control_out) {
    guarded([&] {
      requests_.push_back(group.all_reduce(control_in, control_out));
      wait();
    });
  }
  /// Sends every bucket and the control values from `root` to all.
  void broadcast(communicator group, bucket_plan const& plan, slab const& data, tensor_view control,
                 int root) {
    requests_.clear();
    guarded([&] {
      for (auto const& b : plan.buckets) requests_.push_back(group.broadcast(bucket_view(data, b), root));
      requests_.push_back(group.broadcast(control, root));
      wait();
    });
  }

  /// Starts what `all_reduce` does, to be waited for in a later call of step(). @pre not in flight
  void launch(communicator group, bucket_plan const& plan, slab const& from, slab const& to,
              const_tensor_view control_in, tensor_view control_out) {
    start(group, plan, from, to, plan.buckets.size());
    requests_.push_back(group.all_reduce(control_in, control_out));
  }
  void wait() {
    for (auto& r : requests_) r.wait();
    requests_.clear();
  }
  [[nodiscard]] bool in_flight() const noexcept { return !requests_.empty(); }
  /// True if `wait` would not block.
  [[nodiscard]] bool done() {
    for (any_request& r : requests_)
      if (!r.done()) return false;
    return true;
  }
  /// Gives up what is in flight, and the group with it: memory that it was on may go.
  void drop() noexcept { requests_.clear(); }

 private:
  // Nothing stays in flight when an exception leaves. A destructor does it, because a request that is dropped
  // during an exception reports that to its group.
  template <class F>
  void guarded(F const& f) {
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

  std::vector<any_request> requests_;
};

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
