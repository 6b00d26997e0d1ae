// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The strategies that are tried on the cluster.

#include "../../bench/papers/training.hpp"
#include "cluster_file.hpp"

#include <limber/batch/policies.hpp>
#include <limber/limber.hpp>
#include <limber/sync/strategies.hpp>

#include <algorithm>
#include <cstddef>
#include <string>
#include <vector>

namespace example {

namespace papers = limber::papers;

/// A strategy with a batch policy, under a name.
struct candidate {
  std::string name;
  std::string call;  ///< how it is written
  papers::strategy how;
  limber::any_policy batch = limber::per_worker{1};
  bool server = false;  ///< one rank more than workers: it serves
};

/// Everything that makes sense on the cluster with `micro_batch` samples a worker and call.
[[nodiscard]] inline std::vector<candidate> candidates(cluster_description const& c,
                                                       limber::i64 micro_batch) {
  namespace sync = limber::sync;
  auto const p = static_cast<limber::i64>(c.speeds.size());
  limber::any_policy const equal = limber::per_worker{micro_batch};
  limber::any_policy const balanced = limber::dbs{.batch = micro_batch * p, .smoothing = 0.3};
  std::vector<candidate> out{
      {"all-reduce", "sync::allreduce{}", sync::allreduce{}, equal},
      {"all-reduce, DBS", "sync::allreduce{}, batch = dbs{…}", sync::allreduce{}, balanced},
      {"ABS-SGD", "sync::abs_sgd{.max_micro_batches = 16}", sync::abs_sgd{.max_micro_batches = 16}, equal},
      {"delayed, fixed batch", "sync::abs_sgd{.max_micro_batches = 1}", sync::abs_sgd{.max_micro_batches = 1},
       equal},
      {"local SGD, 8", "sync::local{.period = 8}", sync::local{.period = 8}, equal},
      {"local SGD, 8, DBS", "sync::local{.period = 8}, batch = dbs{…}", sync::local{.period = 8}, balanced},
      {"SlowMo, 8", "sync::slowmo{.period = 8}", sync::slowmo{.period = 8}, equal},
      {"DiLoCo, 32", "sync::diloco{.period = 32}", sync::diloco{.period = 32}, equal},
      {"elastic averaging", "sync::elastic_averaging{}", sync::elastic_averaging{}, equal},
      {"asynchronous EASGD", "sync::asynchronous_elastic_averaging{}", sync::asynchronous_elastic_averaging{},
       equal, true},
      {"parameter server", "sync::parameter_server{}", sync::parameter_server{}, equal, true},
      {"gossip", "sync::gossip{}", sync::gossip{}, equal},
      {"asynchronous gossip", "sync::asynchronous_gossip{}", sync::asynchronous_gossip{}, equal},
      {"push-sum", "sync::push_sum{}", sync::push_sum{}, equal},
  };
  if (c.block_size > 1 && c.block_size < p)
    out.push_back({"hierarchical, 4 x 4",
                   "sync::hierarchical{.block_size = …, .period = 4, .block_periods = 4}",
                   sync::hierarchical{.block_size = c.block_size, .period = 4, .block_periods = 4}, equal});
  // With one worker there is nobody to exchange with but a server.
  if (p == 1)
    std::erase_if(out,
                  [](candidate const& k) { return k.name != "all-reduce" && k.name != "parameter server"; });
  return out;
}

}  // namespace example
