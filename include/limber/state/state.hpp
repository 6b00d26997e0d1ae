// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Checkpoints: `save`, `state::latest`, `load`.

#include <limber/state/folder.hpp>
#include <limber/state/load.hpp>
#include <limber/state/save.hpp>
