// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// One run of real training on a virtual cluster.

#include "task.hpp"

#include <limber/batch/policies.hpp>
#include <limber/limber.hpp>
#include <limber/schedule/gain.hpp>
#include <limber/sim/sim.hpp>
#include <limber/sync/strategies.hpp>

#include <concepts>
#include <cstdint>
#include <functional>
#include <limits>
#include <utility>
#include <variant>
#include <vector>

namespace limber::papers {

inline constexpr double never = std::numeric_limits<double>::infinity();

/// The strategies that are compared.
using strategy =
    std::variant<sync::allreduce, sync::local, sync::hierarchical, sync::slowmo, sync::diloco,
                 sync::elastic_averaging, sync::gossip, sync::push_sum, sync::abs_sgd, sync::parameter_server,
                 sync::asynchronous_elastic_averaging, sync::asynchronous_gossip>;

/// Any schedule as one type, with the gain that it has.
class rate_function {
 public:
  rate_function() = default;
  template <class S>
    requires(!std::same_as<S, rate_function> && schedule<S>)
  rate_function(S s) : gain_([s](progress const& p) { return gain_of(s, p); }), rate_(std::move(s)) {}

  [[nodiscard]] double operator()(progress const& p) const { return rate_(p); }
  [[nodiscard]] double gain(progress const& p) const { return gain_(p); }
  [[nodiscard]] explicit operator bool() const noexcept { return static_cast<bool>(rate_); }

 private:
  std::function<double(progress const&)> gain_, rate_;
};

/// All that a run depends on, besides the data.
struct training {
  sim::cluster cluster{};  ///< of workers; a strategy with a server gets one more, that computes nothing
  papers::strategy how = sync::allreduce{};
  sgd rule{};
  rate_function rate{};
  any_policy batch = per_worker{8};
  ramp_rule ramp{};
  int hidden = 0;          ///< units of the hidden layer; 0: softmax regression
  std::uint64_t seed = 1;  ///< of first weights and order of samples
  i64 calls = 0;           ///< steps that every worker makes; 0: until one of the following
  double epochs = 10;      ///< the run ends when so many were dealt, over all workers,
  double seconds = never;  ///< or when the virtual clock says so,
  double target = 0;       ///< or when the loss on the probe is no more than this
  /// Or when this is true of progress after a step of rank 0.
  std::function<bool(progress const&)> done{};
  double probe_every = .2;  ///< epochs between evaluations of the probe; 0: never
  i64 probe = 400;          ///< samples of the training part that the loss is looked at on
  /// How many times as long rank r computes in epoch e; empty: 1.
  std::function<double(int r, i64 e)> slowness{};
  bool unweighted = false;  ///< the mean over workers instead of samples, which is wrong
};

/// An evaluation of the probe.
struct point {
  double seconds = 0;
  double epochs = 0;
  double loss = 0;
};

/// When a new plan came into force, or an epoch ended.
struct epoch_end {
  double seconds = 0;
  std::vector<i64> share{};  ///< of the epoch that ended
};

/// What became of a run. The model is what its strategy shows: that of rank 0 where all are equal, the
/// server's, or the mean of all.
struct outcome {
  std::vector<point> curve{};
  std::vector<epoch_end> ends{};
  double reached = never;  ///< virtual seconds to the target
  double seconds = 0;      ///< virtual
  double epochs = 0;       ///< dealt
  double train_loss = never;
  score test{never, 0};
  double utilisation = 0;  ///< of the workers
  i64 bytes = 0;
  i64 updates = 0;       ///< that rank 0 knows of
  double samples = 0;    ///< that the workers computed
  double consensus = 0;  ///< Σ‖xᵢ − x̄‖² / p at the end
  values model{};
  std::vector<values> models{};
  sim::report report{};
  bool diverged = false;

  /// The first virtual second at which the loss was at most `level`.
  [[nodiscard]] double seconds_to(double level) const {
    for (auto const& p : curve)
      if (p.loss <= level) return p.seconds;
    return never;
  }
};

/// Trains until an end is met. The same outcome for the same arguments, whatever else runs.
[[nodiscard]] outcome train(training const& run, task const& data);

/// n equal workers that take `seconds_per_sample`, with a network of `latency` and `bandwidth`.
[[nodiscard]] inline sim::cluster cluster_of(int n, double seconds_per_sample, sim::link network = {},
                                             double jitter = 0) {
  sim::cluster c;
  c.workers.assign(static_cast<std::size_t>(n),
                   {.seconds_per_call = 0, .seconds_per_sample = seconds_per_sample, .jitter = jitter});
  c.network = network;
  return c;
}

}  // namespace limber::papers
