// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The weighted mean of a list over the ranks of a group: buffers, moments, model averages.

#include <limber/comm/collective.hpp>
#include <limber/fuse/bucket_plan.hpp>
#include <limber/fuse/executor.hpp>
#include <limber/fuse/functors.hpp>
#include <limber/sync/bucket_sum.hpp>

#include <array>
#include <utility>
#include <vector>

namespace limber::sync {

/// Operations in flight, in memory that is kept from step to step.
template <collective C>
class flights {
  using handle = decltype(std::declval<C&>().all_reduce(const_tensor_view{}, tensor_view{}));
  using send_handle = decltype(std::declval<C&>().broadcast(tensor_view{}, 0));

 public:
  /// Sums every bucket and the control values over the group.
  ///
  /// All reductions are started before the first is waited for. The control block travels in fp64
  /// after the last bucket, whatever type the buckets have.
  void all_reduce(C& group, bucket_plan const& plan, slab const& from, slab const& to,
                  const_tensor_view control_in, tensor_view control_out) {
    start(group, plan, from, to, plan.buckets.size());
    finish(group, control_in, control_out);
  }

  /// Starts the reductions of the plan's buckets before `last` that were not started yet.
  void start(C& group, bucket_plan const& plan, slab const& from, slab const& to, std::size_t last) {
    guarded([&] {
      for (std::size_t k = reductions_.size(); k < last; ++k)
        reductions_.push_back(sum_bucket(group, plan.buckets[k], from, to));
    });
  }

  /// Starts that of the control values, and waits for all.
  void finish(C& group, const_tensor_view control_in, tensor_view control_out) {
    guarded([&] {
      reductions_.push_back(group.all_reduce(control_in, control_out));
      for (auto& r : reductions_) r.wait();
      reductions_.clear();
    });
  }

  /// Gives up what is in flight, and the group with it: memory that it was on may go.
  void drop() noexcept { reductions_.clear(); }

  /// Sends every bucket and the control values from `root` to all.
  void broadcast(C& group, bucket_plan const& plan, slab const& data, tensor_view control, int root) {
    broadcasts_.clear();
    guarded([&] {
      for (auto const& b : plan.buckets) broadcasts_.push_back(group.broadcast(bucket_view(data, b), root));
      broadcasts_.push_back(group.broadcast(control, root));
      for (auto& r : broadcasts_) r.wait();
      broadcasts_.clear();
    });
  }

 private:
  // Nothing stays in flight when an exception leaves: control values may be the caller's. A destructor does
  // it, because a request that is dropped during one tells its group that.
  template <class F>
  void guarded(F const& f) {
    struct guard {
      flights& of;
      bool done = false;
      ~guard() {
        if (done) return;
        of.reductions_.clear();
        of.broadcasts_.clear();
      }
    } g{*this};
    f();
    g.done = true;
  }

  std::vector<handle> reductions_;
  std::vector<send_handle> broadcasts_;
};

/// x ← Σ wᵢ xᵢ / Σ wᵢ over the group. A rank whose list is not finite takes part with weight 0.
///
/// Travels and is added in fp64, whatever the list holds: values that nobody changed must not drift
/// by a rounding a time. A group of one changes nothing.
/// Collectives  one per bucket and one of 8 bytes; all ranks must call it.
/// State        none between calls; two buffers shaped like the list.
template <executor E, collective C>
class weighted_mean {
 public:
  weighted_mean(E& e, tensor_list list, bucket_options options)
      : list_(std::move(list)), plan_(plan_buckets(in_double(list_), without_wire(options))) {
    packed_ = e.make(plan_.where);
    reduced_ = e.make(plan_.where);
  }

  /// @return false if nothing changed: all weights were 0, or there is nobody to average with
  bool run(E& e, C& group, double weight) {
    gather(e, group, weight);
    return settle(e);
  }

  /// The part of `run` that others are needed for; changes nothing.
  void gather(E& e, C& group, double weight) {
    total_ = 0;
    if (list_.empty() || group.size() == 1) return;
    std::array<double, 1> mine{weight}, all{};
    if (!e.norm(weighted{weight}, out(packed_.parts), in(list_)).total.finite) {
      e.each(zero{}, out(packed_.parts));
      mine[0] = 0;
    }
    e.wait(e.record());
    flights_.all_reduce(group, plan_, packed_, reduced_, const_view(mine, "mean: weights"),
                        view(all, "mean: weights"));
    total_ = all[0];
  }
  /// The rest, which needs nobody and comes once after `gather`. @return as run
  bool settle(E& e) {
    if (!(total_ > 0)) return false;
    e.each(scaled_copy{1 / std::exchange(total_, 0.0)}, out(list_), in(reduced_.parts));
    return true;
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
  double total_ = 0;  // Σ wᵢ of what was gathered and not settled
  flights<C> flights_;
};

}  // namespace limber::sync
