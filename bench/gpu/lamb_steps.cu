// SPDX-License-Identifier: Apache-2.0

/// @file
/// Steps of LAMB, which needs two passes.

#include <gpu/steps.cuh>

namespace limber::bench {

void add_lamb_steps(program& all, shared_shapes const& s) {
  add_lamb(all, "lamb-step", s, lamb{});
  add_lamb(all, "clipped-lamb-step", s, clipped{lamb{}, max_norm});
}

}  // namespace limber::bench
