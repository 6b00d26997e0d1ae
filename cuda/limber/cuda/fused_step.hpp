// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// A whole optimizer step on the device: schedule, norm, update, without the host in between.

#include <limber/core/tensor.hpp>
#include <limber/cuda/advance.hpp>
#include <limber/cuda/device_state.hpp>
#include <limber/cuda/mirror.hpp>
#include <limber/cuda/step_counters.hpp>
#include <limber/fuse/any_executor.hpp>
#include <limber/fuse/bucket_plan.hpp>
#include <limber/fuse/parameter_lists.hpp>
#include <limber/fuse/updater.hpp>
#include <limber/schedule/any_schedule.hpp>
#include <limber/schedule/constant.hpp>
#include <limber/schedule/schedule.hpp>

#include <algorithm>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

namespace limber::gpu {

/// What a fused step is told once.
struct fused_options {
  i64 epoch_size = 0;                        ///< samples an epoch has; needed where the rate counts epochs
  ramp_rule ramp{};                          ///< how the rate follows a change of the planned batch
  gradient_is gradient = gradient_is::mean;  ///< what the gradient is of its n samples
  i64 max_skipped = 100;                     ///< non-finite updates in a row that are put up with
  i64 ranks = 1;                             ///< workers whose gradients are summed
  bucket_options buckets{};                  ///< how gradients are cut for the wire
};

namespace detail {

/// Looks at two lists and changes nothing.
struct look {
  template <class T>
  [[nodiscard]] LIMBER_HD T operator()(T const&, T const& x) const noexcept {
    return x;
  }
};

}  // namespace detail

/// Rules, schedule and progress over tensors on a device; the host only enqueues.
///
///     gpu::fused_step step{exec, parameters, adamw{}, rate, {.epoch_size = N}};
///     for (…) { step.advance(n, planned); backward(); step.update(); }
///
/// Order    `advance(n)` before each update, on the same stream: settles the update before, moves
///          progress and evaluates the schedule, with n and the planned batch by value. `update()` reads
///          all that from memory: captured into a graph once, it serves every rate, batch, ramp and
///          skip. With several ranks: `pack()`, the sum of `packed()` and `control()` over the ranks
///          into `reduced()` and `total()`, `land()`; or `update(reduce)` for the three.
/// Cost     three launches an update: advance, norm with finite test, update with zeroing (four for
///          LAMB); three more with several ranks: pack, two of one thread. Nothing is allocated and
///          nothing waits after the first `advance`.
/// State    slots, counters, progress: on the device, shown by `visit` after `settle`.
/// Errors   a gradient that is not finite changes nothing; `poll` names the tensor when the news has
///          arrived, and throws limber::error once more than max_skipped came in a row.
/// Memory   tensors are the caller's and must outlive the step and every graph that holds it; a graph is
///          captured again when tensors move (`move_gradients`).
template <limber::executor E, class Schedule, class Rules>
  requires mirrors_state<E>
class fused_step {
  static_assert(std::is_trivially_copyable_v<Schedule>,
                "a schedule on the device must be trivially copyable");

 public:
  template <class L, update_rule... R>
  fused_step(E& e, L const& rate, fused_options o, parameter_group<R> const&... groups)
      : exec_(e),
        options_(o),
        rate_(limber::detail::as_schedule(rate)),
        lists_("fused_step", tensors_of(groups...), {}),
        list_operations_(e, limber::detail::update_operations{}),
        updater_(lists_.values),
        mirror_(e),
        states_(e.template share<device_state>(2)),
        settled_(e.template share<hyper_block>(1)),
        wire_(e.template share<wire_facts>(1)),
        control_(e.template share<wire_control>(2)) {
    expects(o.epoch_size >= 0, "fused_step: epoch_size must not be negative, got ", o.epoch_size);
    expects(o.epoch_size > 0 || !any_schedule(rate_).counts_epochs(),
            "fused_step: the schedule counts epochs, and fused_options.epoch_size, the samples that an epoch "
            "has, was not given");
    expects(o.ranks >= 1, "fused_step: ranks must be at least 1, got ", o.ranks);
    expects(o.max_skipped >= 0, "fused_step: max_skipped must not be negative, got ", o.max_skipped);
    std::size_t k = 0;
    auto assign = [&](auto const& g) {
      for (std::size_t i = 0; i < g.tensors.size(); ++i)
        updater_.assign<E>(lists_.use_order[k++], g.rule, g.lr_scale);
    };
    (assign(groups), ...);
    updater_.allocate(list_operations_);
    if (o.ranks > 1) {
      expects(!o.buckets.error_feedback,
              "fused_step: error_feedback is not there in captured steps; use limber::optimizer, or a wire "
              "without it");
      plan_ = plan_buckets(lists_.gradients, o.buckets, lists_.use_order);
      packed_ = exec_.make(plan_.where);
      reduced_ = exec_.make(plan_.where);
      local_ = make_norms(exec_, static_cast<i64>(lists_.values.size()));
    }
    states_[0].now.epoch_size = o.epoch_size;
    exec_.publish(states_);
  }
  template <class L, update_rule R>
  fused_step(E& e, std::vector<tensor> parameters, R const& rule, L const& rate, fused_options o = {})
      : fused_step(e, rate, o, parameter_group<R>{std::move(parameters), rule}) {}

  fused_step(fused_step const&) = delete;
  fused_step& operator=(fused_step const&) = delete;

  /// Starts an update from the gradient of n samples, 0 included. Does not synchronize.
  ///
  /// @param planned  samples an update is planned to have, all ranks together: what the rate follows
  /// @throws limber::error if more than max_skipped updates in a row were not finite
  void advance(i64 n, double planned) {
    expects(n >= 0, "advance: the number of samples must not be negative, got ", n);
    expects(planned > 0 && math::finite(planned), "advance: the planned batch must be positive, got ",
            planned);
    if (!started_) start();
    (void)poll();
    with_counters([&](auto const& counters, i64 tensors) {
      exec_.run(tensors, gpu::advance<Schedule, std::remove_cvref_t<decltype(counters)>>{
                             rate_,
                             {static_cast<double>(n), planned, options_.ramp, options_.gradient},
                             counters,
                             landing_from(),
                             states_.device + (1 - current_),
                             mirror_.open(exec_),
                             updater_.hyper().device,
                             wire_.device,
                             control_.device});
    });
    current_ = 1 - current_;
    mirror_.send(exec_);
  }

  /// Norm, finite test and update, gradients zeroed. Does not synchronize; can be captured.
  void update() {
    expects(options_.ranks == 1, "fused_step: ", options_.ranks,
            " ranks: use update(reduce), or pack and land");
    expect_started();
    updater_.launch(list_operations_, lists_.gradients, true);
  }

  /// pack, reduce(*this), land. Does not synchronize unless `reduce` does.
  template <class Reduce>
  void update(Reduce&& reduce) {
    if (options_.ranks == 1) return update();
    pack();
    std::forward<Reduce>(reduce)(*this);
    land();
  }

  /// Weighs, casts and sums up this rank's gradients into `packed()`, zeroing them; fills `control()`.
  void pack() {
    expects(options_.ranks > 1, "fused_step: pack needs several ranks");
    expect_started();
    exec_.measure(local_, pack_from_memory{wire_.device}, out(packed_.parts), inout(lists_.gradients));
    exec_.run(1, fill_control{control_.device, wire_.device, local_.facts()});
  }
  /// Updates from `reduced()` and `total()`.
  void land() {
    expect_started();
    exec_.run(1, gpu::settle{updater_.hyper().device, settled_.device, control_.device + 1, wire_.device});
    updater_.launch(list_operations_, reduced_.parts, false);
  }
  [[nodiscard]] bucket_plan const& buckets() const noexcept { return plan_; }
  [[nodiscard]] slab const& packed() const noexcept { return packed_; }
  [[nodiscard]] slab const& reduced() const noexcept { return reduced_; }
  [[nodiscard]] const_tensor_view control() const noexcept { return control_view(0); }
  [[nodiscard]] tensor_view total() const noexcept { return control_view(1); }

  /// Where training stood at the newest advance whose news has arrived. Does not synchronize.
  /// @throws limber::error if more than max_skipped updates in a row were not finite
  device_state const& poll() {
    device_state const& s = mirror_.newest(exec_);
    if (s.skipped_in_a_row > options_.max_skipped)
      throw error({"fused_step", "advance", 0, -1, std::string(name_of_tensor(s.culprit)),
                   text("gradients were not finite in ", s.skipped_in_a_row,
                        " updates in a row; parameters and state are those of the last good one")});
    return s;
  }

  /// Waits for the update in flight and counts it. Synchronizes. @pre every advance was followed by its
  /// update
  device_state const& settle() {
    if (!started_) start();
    with_counters([&](auto const& counters, i64 tensors) {
      mirror_.wait(exec_);
      exec_.run(tensors, gpu::land<std::remove_cvref_t<decltype(counters)>>{
                             counters, landing_from(), states_.device + (1 - current_), mirror_.open(exec_)});
    });
    current_ = 1 - current_;
    mirror_.send(exec_);
    mirror_.wait(exec_);
    return poll();
  }

  /// Gradients are at these addresses from now on, in the order of registration. Graphs must be captured
  /// again, after an update that is not captured. Does not synchronize. @throws std::invalid_argument if
  /// lengths or types differ
  void move_gradients(std::vector<tensor_view> const& to) { lists_.move_gradients(to); }

  /// The name of tensor `index` of a report; "" for −1.
  [[nodiscard]] std::string_view name_of_tensor(i64 index) const noexcept {
    return index < 0 ? std::string_view{} : lists_.values[static_cast<std::size_t>(index)].name;
  }

  /// Calls f(name, view, is_weight) for every piece of state: in device memory, but for what only the host
  /// writes (`frozen`, `seeded`), which is in its own. @pre settle
  template <class F>
  void visit(F const& f) {
    f(std::string("progress"),
      tensor_view{reinterpret_cast<std::byte*>(states_.device + current_),
                  static_cast<i64>(sizeof(device_state)),
                  dtype::uint8,
                  {}},
      false);
    updater_.visit("", f);
  }

  /// Goes on from `p`, of a checkpoint or another worker. Synchronizes.
  void resume(progress const& p) {
    (void)settle();
    exec_.collect(states_);
    states_[static_cast<std::size_t>(current_)].now = p;
    exec_.publish(states_);
    mirror_.restart(states_[static_cast<std::size_t>(current_)]);
  }

 private:
  template <update_rule... R>
  [[nodiscard]] static std::vector<tensor> tensors_of(parameter_group<R> const&... groups) {
    std::vector<tensor> all;
    (all.insert(all.end(), groups.tensors.begin(), groups.tensors.end()), ...);
    return all;
  }

  void expect_started() const {
    expects(started_, "fused_step: call advance(n, planned) before the update, also before it is captured");
  }

  // Lists are seen once, with nothing to do, so that neither a captured nor a later step allocates.
  void start() {
    updater_.seed(list_operations_);
    updater_.mask(list_operations_);
    updater_.hyper()[0] = hyper_block(0, 1, true);
    exec_.publish(updater_.hyper());
    if (options_.ranks > 1) exec_.measure(local_, detail::look{}, in(packed_.parts), in(lists_.gradients));
    updater_.launch(list_operations_, options_.ranks > 1 ? reduced_.parts : lists_.gradients, false);
    started_ = true;
  }

  [[nodiscard]] landing landing_from() const noexcept {
    return {states_.device + current_, settled_.device, control_.device + 1, updater_.norms().facts(),
            options_.ranks};
  }

  template <class F>
  void with_counters(F const& f) const {
    f(step_counters<Rules>(updater_), std::max<i64>(1, static_cast<i64>(lists_.values.size())));
  }

  [[nodiscard]] tensor_view control_view(i64 which) const noexcept {
    return {reinterpret_cast<std::byte*>(control_.device + which),
            static_cast<i64>(sizeof(wire_control) / sizeof(double)), dtype::f64, "control"};
  }

  E& exec_;
  fused_options options_;
  Schedule rate_;
  parameter_lists lists_;
  any_executor list_operations_;  // the same executor, for the updater
  updater updater_;
  state_mirror<E> mirror_;
  shared_array<device_state> states_;  // before and after an advance, in turn
  shared_array<hyper_block> settled_;
  shared_array<wire_facts> wire_;
  shared_array<wire_control> control_;  // this rank's, and the sum
  bucket_plan plan_;
  slab packed_, reduced_;
  norm_memory local_;
  int current_ = 0;
  bool started_ = false;
};

/// The type of a rate: a plain number is a constant schedule.
template <class L>
using schedule_of = decltype(limber::detail::as_schedule(std::declval<L const&>()));

template <class E, class R, class L>
fused_step(E&, std::vector<tensor>, R, L, fused_options = {}) -> fused_step<E, schedule_of<L>, std::tuple<R>>;
template <class E, class L, class... R>
fused_step(E&, L, fused_options, parameter_group<R>...)
    -> fused_step<E, schedule_of<L>, rules_of_groups<R...>>;

}  // namespace limber::gpu
