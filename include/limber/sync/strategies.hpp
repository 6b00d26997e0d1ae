// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// All strategies. limber.hpp brings those of presets.hpp; the others come by their own headers, or by this
/// one.

#include <limber/sync/abs_sgd.hpp>
#include <limber/sync/asynchronous_elastic.hpp>
#include <limber/sync/asynchronous_gossip.hpp>
#include <limber/sync/elastic_averaging.hpp>
#include <limber/sync/gossip.hpp>
#include <limber/sync/parameter_server.hpp>
#include <limber/sync/presets.hpp>
#include <limber/sync/push_sum.hpp>
#include <limber/sync/streaming_diloco.hpp>
