// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The kernels that are measured on each list; every function stands in a file of its own that nvcc compiles.

#include <gpu/lists.hpp>
#include <support/program.hpp>

#include <memory>

namespace limber::bench {

using shared_shapes = std::shared_ptr<shapes const>;

void add_fusion(program& all, shared_shapes const& s);   ///< norm, pack, unpack, accumulate, …
void add_updates(program& all, shared_shapes const& s);  ///< the update launch alone
void add_steps(program& all, shared_shapes const& s);    ///< whole steps
void add_lamb_steps(program& all, shared_shapes const& s);

}  // namespace limber::bench
