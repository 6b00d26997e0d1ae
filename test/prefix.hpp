// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Precompiled for all tests. Without boost/test/unit_test.hpp: that one reads the test's module name.

#include <boost/test/framework.hpp>
#include <boost/test/test_tools.hpp>
#include <boost/test/tree/auto_registration.hpp>
#include <boost/test/tree/global_fixture.hpp>
#include <boost/test/tree/test_case_template.hpp>

#include <algorithm>
#include <cmath>
#include <functional>
#include <random>
#include <span>
#include <string>
#include <vector>
