// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// What a strategy works on, and what it reports back.

#include <limber/comm/any_communicator.hpp>
#include <limber/core/kinds.hpp>
#include <limber/core/progress.hpp>
#include <limber/fuse/any_executor.hpp>
#include <limber/fuse/bucket_plan.hpp>
#include <limber/fuse/updater.hpp>

#include <optional>
#include <vector>

namespace limber::sync {

/// The strategy's view of a training run. It sees a rate and a planned count, never a schedule or a
/// batch policy.
struct training_context {
  any_executor exec;
  communicator comm;           ///< all workers
  updater inner;               ///< the trainer's rules and their state
  tensor_list gradients;       ///< in the order of inner.values()
  tensor_list buffers;         ///< averaged at synchronisations
  std::vector<i64> use_order;  ///< indices into the lists, in the order of registration
  bucket_options buckets;
  gradient_is gradient = gradient_is::mean;

  i64 id = 0;  ///< of the optimizer: alike on all ranks, unlike all others
  progress now{};
  double rate = 0;           ///< η of this call
  double planned = 1;        ///< planned samples of all workers in one call
  double planned_share = 1;  ///< planned samples of one worker in one call
  i64 shards = 0;            ///< logical shards of an update, reduced one by one; 0: none
  i64 calls_per_update = 1;  ///< calls that the shards of one update take
};

/// What one call did. The optimizer alone moves progress, by these facts.
struct outcome {
  i64 calls = 0;         ///< calls that went into the update
  bool due = false;      ///< an update was to be made
  bool applied = false;  ///< agreed: it counts as a step
  i64 samples = 0;       ///< agreed: samples it counts for; a merge may correct it, also downwards
  i64 steps = 1;         ///< steps it counts for, when applied: others' updates may have come with it

  bool skipped = false;   ///< this rank's update was dropped: the gradient was not finite
  i64 culprit = -1;       ///< first tensor that was not finite
  int culprit_rank = -1;  ///< the rank it came from, when it was one alone
  bool overflowed =
      false;  ///< no rank's gradient was: their sum left the range of what it was sent or added in

  i64 own_samples = 0;          ///< this rank's samples in what it applied
  double contributions = 0;     ///< gradients that were averaged
  double weighted_squares = 0;  ///< Σ bᵢ‖gᵢ‖²
  double mean_square = 0;       ///< ‖ḡ‖²
};

/// Moves progress by what a call did. @param uniform_updates  all ranks applied the same gradient
inline void count_outcome(progress& now, outcome const& o, bool uniform_updates) {
  if (o.applied) now.count_steps(o.steps);
  now.samples += o.samples;
  if (uniform_updates && o.applied)
    now.noise.update(o.contributions, static_cast<double>(o.samples), o.weighted_squares, o.mean_square);
}

/// What a strategy has begun and not ended.
struct open_work {
  bool gradients = false;  ///< were folded in, and no update was made of them
  bool models = false;     ///< moved apart, and were not merged

  [[nodiscard]] bool any() const noexcept { return gradients || models; }
};

/// What an engine's failure in the midst of a call left of it, on this rank.
struct interruption {
  i64 voided = 0;                     ///< calls that were folded in and went into no update
  std::optional<outcome> standing{};  ///< of a local update that was made, though its models were not merged
  bool in_step = false;               ///< it was made by step(), not by finish()
};

/// What happens to gradient history at a merge of models.
enum class moments {
  keep,     ///< each worker's own goes on (local SGD's default)
  average,  ///< averaged with the same weights as the models
  reset,    ///< starts again at zero
};

}  // namespace limber::sync
