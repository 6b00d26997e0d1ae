// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Every batch policy, and the sampler that deals what they plan.

#include <limber/batch/any_policy.hpp>
#include <limber/batch/apportion.hpp>
#include <limber/batch/dbs.hpp>
#include <limber/batch/fixed.hpp>
#include <limber/batch/goodput.hpp>
#include <limber/batch/increase_instead_of_decay.hpp>
#include <limber/batch/logical_shards.hpp>
#include <limber/batch/noise_scale.hpp>
#include <limber/batch/per_worker.hpp>
#include <limber/batch/permutation.hpp>
#include <limber/batch/plan.hpp>
#include <limber/batch/sampler.hpp>
