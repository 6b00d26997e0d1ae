// SPDX-License-Identifier: Apache-2.0
// labels: unit memory
#define BOOST_TEST_MODULE limber.core.units
#include <limber/core/units.hpp>

#include <boost/test/unit_test.hpp>

#include <concepts>

using namespace limber;
using namespace limber::literals;

BOOST_AUTO_TEST_CASE(literals_carry_value_and_unit) {
  static_assert(5_epochs == amount{5, unit::epochs});
  static_assert(0.5_epochs == amount{0.5, unit::epochs});
  static_assert(1000_steps == amount{1000, unit::steps});
  static_assert(1'000'000_samples == amount{1e6, unit::samples});
  BOOST_TEST((7_steps == steps(7)));
  BOOST_TEST((7_samples == samples(7)));
  BOOST_TEST((7_epochs == epochs(7)));
  BOOST_TEST((0_steps == amount{}));
}

BOOST_AUTO_TEST_CASE(different_units_are_different_amounts) {
  BOOST_TEST(!(5_epochs == 5_steps));
  BOOST_TEST(!(5_samples == 5_steps));
  BOOST_TEST(!(5_steps == 6_steps));
  // No number turns into an amount by itself, and no amount into a number.
  static_assert(!std::convertible_to<double, amount> && !std::convertible_to<amount, double>);
}

BOOST_AUTO_TEST_CASE(units_have_names) {
  BOOST_TEST(name_of(unit::steps) == "steps");
  BOOST_TEST(name_of(unit::samples) == "samples");
  BOOST_TEST(name_of(unit::epochs) == "epochs");
}
