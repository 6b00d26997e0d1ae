// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// LIMBER_REQUIRE: BOOST_REQUIRE for loops of a million rounds. Boost's own takes a microsecond where nothing
/// fails, and ten times that under a sanitizer; this one asks Boost to report what has failed already.

#include <boost/test/unit_test.hpp>

#define LIMBER_REQUIRE(...)                         \
  do {                                              \
    if (!(__VA_ARGS__)) BOOST_REQUIRE(__VA_ARGS__); \
  } while (false)
