// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Everything that needs only a C++20 compiler. Engines are included by name: limber/comm/….

#include <limber/batch/policies.hpp>
#include <limber/comm/checked.hpp>
#include <limber/comm/self.hpp>
#include <limber/comm/threads.hpp>
#include <limber/optimizer.hpp>
#include <limber/rule/rules.hpp>
#include <limber/schedule/schedules.hpp>
#include <limber/sync/presets.hpp>
