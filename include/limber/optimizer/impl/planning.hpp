// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Asking a batch policy: the facts it gets, and the checks that its answer goes through.

#include <limber/batch/any_policy.hpp>
#include <limber/batch/plan.hpp>
#include <limber/comm/any_communicator.hpp>
#include <limber/core/progress.hpp>
#include <limber/schedule/any_schedule.hpp>

#include <array>
#include <vector>

namespace limber {

/// How long this rank computes for its share, waiting excluded: the time between calls of step().
///
/// Choices  the first call after a start counts nothing, because it holds the trainer's own start as
///          well; nor does a call without samples.
class compute_time {
 public:
  void count(double seconds, i64 n) noexcept {
    if (started_ && n > 0) {
      sum_ += seconds;
      ++calls_;
    }
    started_ = true;
  }
  void restart() noexcept { *this = {}; }

  /// The mean seconds a call of every rank since the last time; 0 where nothing was measured. A collective
  /// call; starts anew.
  [[nodiscard]] LIMBER_COLD std::vector<double> gather(communicator comm) {
    std::array<double, 1> mine{calls_ > 0 ? sum_ / static_cast<double>(calls_) : 0};
    std::vector<double> all(static_cast<std::size_t>(comm.size()));
    comm.all_gather(const_view(mine, "compute time"), view(all, "compute time")).wait();
    sum_ = 0;
    calls_ = 0;
    return all;
  }

 private:
  double sum_ = 0;
  i64 calls_ = 0;
  bool started_ = false;
};

/// What an optimizer accepts of a plan.
struct plan_limits {
  i64 calls_per_update = 1;     ///< calls that the strategy accumulates into an update
  bool uniform_updates = true;  ///< gradients are averaged over all workers
  bool lockstep = true;         ///< all ranks call step() equally often
  int server = -1;              ///< the rank that has no samples of its own
};

/// Asks `policy`, and checks the answer. @throws std::invalid_argument naming what does not fit
[[nodiscard]] LIMBER_COLD inline batch_plan ask(any_policy const& policy, batch_facts facts,
                                                plan_limits limits, batch_plan const& before) {
  expects(static_cast<bool>(policy), "options: batch holds no policy");
  expects((limits.server < 0 && (limits.uniform_updates || limits.lockstep)) || !policy.asks_again(),
          "options: the batch policy is asked again while training, which needs workers that step together; "
          "with this strategy they do not");
  if (limits.server >= 0) {
    expects(limits.server < facts.world, "strategy: the server is rank ", limits.server, " of only ",
            facts.world, " ranks");
    expects(facts.world >= 2, "strategy: a server needs at least one worker beside it");
    --facts.world;
  }
  batch_plan p = policy(facts);
  expects(p.total > 0, "batch policy: the planned batch must be positive, got ", p.total);
  i64 dealt = 0;
  for (i64 const share : p.share) dealt += share;
  expects(dealt == p.total, "batch policy: shares of ", dealt, " samples in all for a batch of ", p.total);
  expects(static_cast<int>(p.share.size()) == facts.world, "batch policy: ", p.share.size(), " shares for ",
          facts.world, " workers");
  expects(p.shards >= 0, "batch policy: shards must not be negative, got ", p.shards);
  expects(p.shards > 0 || p.calls_per_update == 1,
          "batch policy: only logical shards take several calls an update, got calls_per_update ",
          p.calls_per_update, "; use the strategy's period");
  expects(p.shards == 0 || limits.calls_per_update == 1,
          "options: logical shards set the calls of an update themselves; the strategy's gradient period "
          "must be 1, got ",
          limits.calls_per_update);
  expects(p.shards == 0 || limits.uniform_updates,
          "options: logical shards need a strategy in which gradients cross all workers");
  expects(p.shards == 0 || limits.lockstep, "options: logical shards need workers that step together");
  expects(before.share.empty() || (p.shards > 0) == (before.shards > 0),
          "batch policy: cannot change between logical shards and none while training");
  if (limits.server >= 0) p.share.insert(p.share.begin() + limits.server, 0);
  return p;
}

/// The ramp after the planned batch changed. Before the first update there is nothing that it could start
/// from.
[[nodiscard]] inline ramp ramp_to(progress const& now, double planned, ramp_rule rule) {
  return now.steps == 0 ? ramp{planned, planned, 0, 0} : now.batch.rearmed(now.steps, planned, rule);
}

/// Refuses a rate that follows the batch beside a policy that makes the batch follow the rate's decay.
/// @throws std::invalid_argument
LIMBER_COLD inline void expect_no_contradiction(any_policy const& policy, any_schedule const& rate,
                                                progress now) {
  if (!policy.scales_batch() || now.epoch_size == 0) return;
  for (i64 const epoch : {0, 1, 10}) {
    now.samples = epoch * now.epoch_size;
    now.steps = now.samples;
    progress larger = now;
    now.batch = ramp{1, 1, 0, 0};
    larger.batch = ramp{2, 2, 0, 0};
    expects(rate(now) == rate(larger),
            "options: the batch policy grows the batch instead of decaying the rate, but the schedule scales "
            "the rate with the batch, which undoes it; use a schedule that does not follow the batch");
  }
}

}  // namespace limber
