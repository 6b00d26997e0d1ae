// SPDX-License-Identifier: Apache-2.0
// labels: unit property
#define BOOST_TEST_MODULE limber.rule.wrappers
#include "paper.hpp"
#include "same_bits.hpp"

#include <boost/test/unit_test.hpp>

#include <string>
#include <type_traits>

using namespace limber;
using namespace limber::testing;

BOOST_AUTO_TEST_CASE_TEMPLATE(clipping_far_away_changes_no_bit, T, scalars) {
  for_each_rule([](auto const& rule) {
    holds(same_trajectory<T>(rule, clipped{rule, 1e30}), name_of_rule(rule));
  });
}

BOOST_AUTO_TEST_CASE_TEMPLATE(an_average_beside_the_model_changes_no_bit_of_it, T, scalars) {
  for_each_rule([](auto const& rule) {
    holds(same_trajectory<T>(rule, ema{rule, 0.9}), name_of_rule(rule));
  });
}

BOOST_AUTO_TEST_CASE_TEMPLATE(a_master_of_the_same_precision_changes_no_bit, T, scalars) {
  int mastered = 0;
  for_each_rule([&](auto const& rule) {
    if constexpr (!has_master<std::decay_t<decltype(rule)>>) {
      ++mastered;
      holds(same_trajectory<T>(rule, master{rule}), name_of_rule(rule));
    }
  });
  BOOST_TEST(mastered > 25);
}

BOOST_AUTO_TEST_CASE(wrappers_in_any_order_are_the_same_rule) {
  auto const any_order = [](auto const&... rule) {
    auto const compare = [](auto const& inner) {
      std::string const name = name_of_rule(inner);
      auto const reference = clipped{inner, 1.0};
      holds(same_trajectory<float>(reference, master{clipped{inner, 1.0}}), name);
      holds(same_trajectory<float>(reference, clipped{master{inner}, 1.0}), name);
      holds(same_trajectory<float>(reference, ema{clipped{master{inner}, 1.0}, 0.5}), name);
      holds(same_trajectory<float>(reference, master{ema{clipped{inner, 1.0}, 0.5}}), name);
    };
    (compare(rule), ...);
  };
  any_order(descent{}, sgd{}, sgd{.momentum = 0.9}, adamw{}, lars{.weight_decay = 0.01}, lars{.momentum = 0},
            lamb{});
}
