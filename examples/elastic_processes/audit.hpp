// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Accounts for each sample of each epoch by the histories of the workers.

#include "history.hpp"

#include <limber/batch/sampler.hpp>
#include <limber/core/error.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace example {

/// What was trained.
struct audited {
  limber::i64 size = 0, epochs = 0;
  std::uint64_t seed = 0;  ///< of the dealer
};

/// The result of the audit; it holds if `faults` is empty.
struct findings {
  std::vector<std::string> faults{};
  limber::i64 generations = 0;
  limber::i64 finished = 0;      ///< workers that finished
  limber::i64 computed = 0;      ///< samples that were assigned to workers
  limber::i64 again = 0;         ///< of them, lost and dealt again
  std::uint64_t parameters = 0;  ///< the hash of all workers that finished
  double bits = 0, accuracy = 0;
};

namespace detail {

/// The position of each sample in the permutation of an epoch.
class positions {
 public:
  explicit positions(audited const& what) : what_(what) {}

  [[nodiscard]] limber::i64 of(limber::i64 epoch, limber::i64 sample) {
    auto const [at, fresh] = epochs_.try_emplace(epoch);
    if (fresh) {
      limber::sampler order(what_.size, what_.seed);
      order.restore({what_.size, what_.seed, epoch, 0});
      at->second.resize(static_cast<std::size_t>(what_.size));
      std::vector<limber::i64> const all{what_.size};
      limber::i64 k = 0;
      for (limber::i64 const s : order.deal(all, 0)) at->second[static_cast<std::size_t>(s)] = k++;
    }
    return at->second[static_cast<std::size_t>(sample)];
  }

 private:
  audited what_;
  std::map<limber::i64, std::vector<limber::i64>> epochs_;
};

/// Whether this position of an epoch was in no worker's parameters when the generation of `e` began.
[[nodiscard]] inline bool outstanding(entered const& e, limber::i64 epoch, limber::i64 position) {
  if (epoch > e.epoch || (epoch == e.epoch && position >= e.cursor)) return true;
  return std::ranges::any_of(e.requeued, [&](limber::elastic::sample_range const& s) {
    return s.epoch == epoch && position >= s.first && position < s.first + s.count;
  });
}

}  // namespace detail

/// Audits the histories of all workers, including those that died.
///
/// An assignment counts unless its samples are outstanding for the workers that entered the next generation:
/// the last assignments of a dead worker count if and only if the survivors' parameters hold them. After each
/// generation, the number of samples that count must equal the survivors' progress; in the end each sample of
/// each epoch must count exactly once, on workers with the same bits.
[[nodiscard]] inline findings audit(audited const& what, std::vector<history> const& all) {
  using limber::i64;
  findings out;
  auto const fault = [&](auto const&... parts) { out.faults.push_back(limber::text(parts...)); };

  std::map<i64, entered> begins;
  std::map<i64, std::vector<assigned const*>> assignments;
  finished const* end = nullptr;
  for (history const& h : all) {
    for (entered const& e : h.generations) {
      auto const [at, first] = begins.try_emplace(e.generation, e);
      if (!first && !(at->second == e))
        fault("generation ", e.generation, ": ", h.worker, " does not know the same as others");
    }
    for (assigned const& d : h.assignments) assignments[d.generation].push_back(&d);
    for (finished const& f : h.end) {
      ++out.finished;
      if (!end) end = &f;
      if (f.parameters != end->parameters) fault(h.worker, " ended with other parameters than the others");
      if (!(f == *end)) fault(h.worker, " ended in another state than the others");
    }
  }
  out.generations = begins.empty() ? 0 : begins.rbegin()->first;
  if (!end) {
    fault("no worker finished");
    return out;
  }
  out.parameters = end->parameters;
  out.bits = end->bits;
  out.accuracy = end->accuracy;

  detail::positions where(what);
  std::map<i64, std::vector<int>> counts;  // by epoch, of each sample
  i64 counted = 0;
  for (auto const& [generation, of] : assignments) {
    auto const next = begins.upper_bound(generation);
    for (assigned const* d : of) {
      i64 void_ones = 0;
      for (i64 const s : d->samples)
        if (next != begins.end() && detail::outstanding(next->second, d->epoch, where.of(d->epoch, s)))
          ++void_ones;
      auto const n = static_cast<i64>(d->samples.size());
      out.computed += n;
      out.again += void_ones;
      if (void_ones != 0 && void_ones != n)
        fault("generation ", generation, ", call ", d->call, ": ", void_ones, " of an assignment of ", n,
              " are outstanding");
      if (void_ones != 0) continue;
      auto& epoch = counts[d->epoch];
      epoch.resize(static_cast<std::size_t>(what.size));
      for (i64 const s : d->samples) ++epoch[static_cast<std::size_t>(s)];
      counted += n;
    }
    if (next != begins.end() && next->second.samples != counted)
      fault("generation ", next->first, " began with ", next->second.samples,
            " samples in its parameters, but ", counted, " were consumed");
  }
  for (i64 e = 0; e < what.epochs; ++e) {
    auto const& epoch = counts[e];
    auto const never = epoch.empty() ? what.size : std::ranges::count(epoch, 0);
    auto const twice = std::ranges::count_if(epoch, [](int n) { return n > 1; });
    if (never > 0) fault("epoch ", e, ": ", never, " samples were never consumed");
    if (twice > 0) fault("epoch ", e, ": ", twice, " samples were consumed more than once");
  }
  if (counts.size() > static_cast<std::size_t>(what.epochs))
    fault("samples of an epoch beyond the last were consumed");
  if (end->samples != counted || counted != what.size * what.epochs)
    fault("the parameters hold ", end->samples, " samples, ", counted, " were consumed, of ", what.epochs,
          " epochs of ", what.size);
  return out;
}

/// The histories in a folder, sorted by worker.
[[nodiscard]] inline std::vector<history> read_histories(std::filesystem::path const& folder) {
  std::set<std::filesystem::path> files;
  for (auto const& entry : std::filesystem::directory_iterator(folder)) files.insert(entry.path());
  std::vector<history> out;
  for (auto const& file : files) out.push_back(read_history(file));
  return out;
}

}  // namespace example
