// SPDX-License-Identifier: Apache-2.0

/// @file
/// Steps of rules of one pass.

#include <gpu/steps.cuh>

namespace limber::bench {

void add_steps(program& all, shared_shapes const& s) {
  sgd const momentum{.momentum = 0.9}, decayed{.momentum = 0.9, .weight_decay = 1e-4};
  add_step<float, float, 1>(all, "sgd-step", s, traffic_of::sgd_step(), momentum);
  add_step<float, float, 2>(all, "adamw-step", s, traffic_of::adamw_step(), adamw{});
  add_step<bf16, float, 2>(all, "master-sgd-step", s, traffic_of::master_step(2, 4, 1),
                           clipped{master{decayed}, max_norm});
  add_step<bf16, bf16, 3>(all, "master-adamw-step", s, traffic_of::master_step(2, 2, 2),
                          clipped{master{adamw{}}, max_norm});
}

}  // namespace limber::bench
