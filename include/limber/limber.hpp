// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// What most trainers need, with a C++20 compiler alone. Engines come by their own headers, limber/comm/…; so
/// do further strategies, limber/sync/strategies.hpp, and batch policies, limber/batch/policies.hpp.

#include <limber/batch/fixed.hpp>
#include <limber/batch/per_worker.hpp>
#include <limber/batch/sampler.hpp>
#include <limber/comm/self.hpp>
#include <limber/optimizer.hpp>
#include <limber/rule/rules.hpp>
#include <limber/schedule/schedules.hpp>
#include <limber/sync/presets.hpp>

#if defined(LIMBER_COMPILED)
#include <limber/fuse/compiled_rules.hpp>
#endif
