// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Strategies by name: each is one row of choices over the pieces of an exchange.

#include <limber/sync/exchange.hpp>

namespace limber::sync {

/// Synchronous SGD: the gradient is averaged over all samples of all workers, every `period` calls
/// (more than one is gradient accumulation).
///
/// Collectives  one all-reduce per bucket and one of 40 bytes, every `period` calls.
/// Paper        Goyal et al., Accurate, Large Minibatch SGD, 2017, arXiv:1706.02677 (weights: their
///              remark 3).
struct allreduce {
  i64 period = 1;

  [[nodiscard]] auto parts() const { return exchange(gradients(every{period}, everyone{})); }
};

/// Local SGD: every worker steps on its own gradient; models are averaged every `period` calls,
/// weighted by the samples each applied.
///
/// Units        the rate is for one step's total batch; it is not multiplied by `period`.
/// State        gradient history stays each worker's own unless `at_merge` says otherwise.
/// Collectives  one all-reduce of the model every `period` calls, none in between.
/// Choices      a merge follows call `period`, 2·`period`, …; the official code merges after call 1,
///              `period` + 1, ….
/// Paper        Lin, Stich, Patel and Jaggi, Don't Use Large Mini-Batches, Use Local SGD, ICLR 2020,
///              arXiv:1808.07217.
struct local {
  i64 period = 1;
  moments at_merge = moments::keep;

  [[nodiscard]] auto parts() const {
    return exchange(gradients(every{1}, alone{}), merge(every{period}, everyone{}, descent{}, 1, at_merge));
  }
};

static_assert(strategy<allreduce> && strategy<local>);

}  // namespace limber::sync
