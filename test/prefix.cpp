// SPDX-License-Identifier: Apache-2.0
// Exists so that test/prefix.hpp is compiled once.
#include <boost/test/unit_test.hpp>

BOOST_AUTO_TEST_CASE(the_precompiled_prefix_links) { BOOST_TEST(true); }
