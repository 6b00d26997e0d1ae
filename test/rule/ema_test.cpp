// SPDX-License-Identifier: Apache-2.0
// labels: unit property
#define BOOST_TEST_MODULE limber.rule.ema
#include "paper.hpp"

#include <limber/rule/ema.hpp>
#include <limber/rule/lamb.hpp>
#include <limber/rule/lars.hpp>
#include <limber/rule/master.hpp>
#include <limber/rule/sgd.hpp>

#include <boost/test/unit_test.hpp>

#include <cmath>

using namespace limber;
using namespace limber::testing;

BOOST_AUTO_TEST_CASE_TEMPLATE(the_average_follows_the_formula_from_the_first_parameters, T, scalars) {
  for (double const decay : {0.0, 0.25, 0.9, 0.999}) {
    drive<ema<sgd>, T> run(ema{sgd{.momentum = 0.9}, decay}, as<T>(start));
    vector e = start;
    for (i64 t = 1; t <= trajectory_length; ++t) {
      run.step(as<T>(gradient_at(t, start.size())), 0.05 * rate_at(t));
      for (std::size_t i = 0; i < e.size(); ++i) {
        e[i] = decay * e[i] + (1 - decay) * static_cast<double>(run.p()[i]);
        double const error = std::abs(static_cast<double>(run.slot(0)[i]) - e[i]);
        double const size = std::max({std::abs(e[i]), std::abs(start[i]), 1.0});
        BOOST_TEST(error <= error_limit<T> * double{std::numeric_limits<T>::epsilon()} * size);
      }
    }
  }
}

// Parameters stand still: p₀ − η at once, so e − p = dᵗ (p₀ − p).
BOOST_AUTO_TEST_CASE(the_average_approaches_a_model_at_rest_geometrically) {
  drive<ema<descent>, double> run(ema{descent{}, 0.75}, {2.0});
  run.step({1.0}, 1);
  for (int t = 1; t <= 60; ++t) {
    BOOST_TEST(run.p()[0] == 1.0);
    BOOST_TEST(run.slot(0)[0] == 1 + std::pow(0.75, t), boost::test_tools::tolerance(1e-14));
    run.step({0.0}, 1);
  }
}

BOOST_AUTO_TEST_CASE(the_average_is_of_the_model_before_it_is_rounded_for_storage) {
  drive<ema<descent>, float, bf16> run(ema{descent{}, 0.0}, {bf16(1.0f)});
  run.step({-0.001f}, 1);
  BOOST_TEST(static_cast<float>(run.p()[0]) == 1.0f);
  BOOST_TEST(run.slot(0)[0] == 1.001f);
}

BOOST_AUTO_TEST_CASE(the_average_is_the_first_slot_and_the_master_moves_back_by_one) {
  using deep = ema<master<lamb>>;
  static_assert(has_master<deep> && deep::master_slot == 1 && two_pass<deep> && needs_value_norm<deep>);
  static_assert(!uses_norms<deep> && uses_norms<ema<lars>> && needs_value_norm<ema<lars>>);
  static_assert(!has_master<ema<sgd>> && !needs_value_norm<ema<sgd>>);
  static_assert(ema<ema<master<sgd>>>::master_slot == 2);
  static_assert(deep::slots[0] == slot::weight && deep::slots[1] == slot::weight);
  static_assert(deep::slots[2] == slot::moment && deep::slots[3] == slot::moment);
  BOOST_TEST(slots_used(ema{sgd{}, 0.5}) == 1);
  BOOST_TEST(slots_used(ema{sgd{.momentum = 0.5}, 0.5}) == 2);
  BOOST_TEST(slots_used(ema{adamw{}, 0.5}) == 3);
  BOOST_TEST(rounding_of(ema{master{sgd{}, true, 5}, 0.5}, 9).seed == 5u);
}

BOOST_AUTO_TEST_CASE(hyper_parameters_out_of_range_are_named_with_their_value) {
  check_refused(ema{sgd{}, 1.0}, {"ema", "decay", "[0, 1)", "got 1"});
  check_refused(ema{sgd{}, -0.5}, {"ema", "decay", "got -0.5"});
  check_refused(ema{sgd{}, not_a_number}, {"ema", "decay", "nan"});
  check_refused(ema{sgd{.momentum = 2}, 0.5}, {"sgd", "momentum", "got 2"});
  BOOST_CHECK_NO_THROW(check(ema{sgd{}, 0.0}));
}
