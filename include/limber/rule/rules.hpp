// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// All update rules.

#include <limber/rule/adagrad.hpp>
#include <limber/rule/adam.hpp>
#include <limber/rule/adamw.hpp>
#include <limber/rule/clipped.hpp>
#include <limber/rule/descent.hpp>
#include <limber/rule/ema.hpp>
#include <limber/rule/lamb.hpp>
#include <limber/rule/lars.hpp>
#include <limber/rule/lion.hpp>
#include <limber/rule/master.hpp>
#include <limber/rule/rule.hpp>
#include <limber/rule/sgd.hpp>
