// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// All schedules, combinators and scalings.

#include <limber/schedule/any_schedule.hpp>
#include <limber/schedule/constant.hpp>
#include <limber/schedule/cosine.hpp>
#include <limber/schedule/piecewise.hpp>
#include <limber/schedule/polynomial.hpp>
#include <limber/schedule/product.hpp>
#include <limber/schedule/scaling.hpp>
#include <limber/schedule/schedule.hpp>
#include <limber/schedule/sequence.hpp>
#include <limber/schedule/step_decay.hpp>
#include <limber/schedule/warmup.hpp>
