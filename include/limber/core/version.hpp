// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The version of Limber, the only place that says it: CMake reads these three lines.

#define LIMBER_VERSION_MAJOR 0
#define LIMBER_VERSION_MINOR 1
#define LIMBER_VERSION_PATCH 0
