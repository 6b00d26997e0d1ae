// SPDX-License-Identifier: Apache-2.0
// labels: unit property
#define BOOST_TEST_MODULE limber.rule.master
#include "paper.hpp"

#include <limber/rule/lamb.hpp>
#include <limber/rule/lars.hpp>
#include <limber/rule/master.hpp>
#include <limber/rule/sgd.hpp>

#include <boost/test/unit_test.hpp>

#include <cmath>

using namespace limber;
using namespace limber::testing;

namespace {

template <class R>
concept can_be_mastered = requires {
  typename master<R>;
};

}  // namespace

// 2⁻¹² is a sixteenth of bf16's last place at 1: without a master no such step is ever seen.
BOOST_AUTO_TEST_CASE(small_steps_add_up_in_the_master_and_vanish_without_one) {
  drive<descent, float, bf16> bare(descent{}, {bf16(1.0f)});
  drive<master<descent>, float, bf16> mastered(master{descent{}}, {bf16(1.0f)});
  for (int t = 1; t <= 64; ++t) {
    bare.step({-1.0f}, std::ldexp(1.0, -12));
    mastered.step({-1.0f}, std::ldexp(1.0, -12));
    float const model = 1 + std::ldexp(static_cast<float>(t), -12);
    BOOST_TEST(static_cast<float>(bare.p()[0]) == 1.0f);
    BOOST_TEST(mastered.slot(0)[0] == model);
    BOOST_TEST(mastered.p()[0].bits == bf16(model).bits);
  }
  BOOST_TEST(static_cast<float>(mastered.p()[0]) == 1 + 1.0f / 64);
}

// The master's trajectory is the rule's own in fp32, whatever the parameter is stored in.
BOOST_AUTO_TEST_CASE(the_model_does_not_depend_on_the_type_of_the_parameter) {
  auto const compare = [](auto const& inner) {
    using R = std::decay_t<decltype(inner)>;
    std::vector<float> const p = as<float>(start);  // exact in bf16 and f16 too
    std::vector<bf16> p16;
    std::vector<f16> ph;
    for (float const x : p) p16.emplace_back(x), ph.emplace_back(x);
    drive<R, float> reference(inner, p);
    drive<master<R>, float, bf16> nearest(master{inner}, p16);
    drive<master<R>, float, bf16> stochastic(master{inner, true, 11}, p16);
    drive<master<R>, float, f16> half(master{inner}, ph);
    for (i64 t = 1; t <= 100; ++t) {
      auto const g = as<float>(gradient_at(t, p.size()));
      reference.step(g, 0.01 * rate_at(t));
      nearest.step(g, 0.01 * rate_at(t));
      stochastic.step(g, 0.01 * rate_at(t));
      half.step(g, 0.01 * rate_at(t));
      BOOST_TEST(nearest.slot(0) == reference.p(), boost::test_tools::per_element());
      BOOST_TEST(stochastic.slot(0) == reference.p(), boost::test_tools::per_element());
      BOOST_TEST(half.slot(0) == reference.p(), boost::test_tools::per_element());
      for (std::size_t i = 0; i < p.size(); ++i) {
        float const w = reference.p()[i];
        BOOST_TEST(nearest.p()[i].bits == bf16(w).bits);
        BOOST_TEST(half.p()[i].bits == f16(w).bits);
        // Stochastic rounding goes to a neighbour: less than one place (2⁻⁷) away.
        BOOST_TEST(std::abs(static_cast<float>(stochastic.p()[i]) - w) <= std::ldexp(std::abs(w), -7));
      }
    }
  };
  compare(sgd{.momentum = 0.9, .weight_decay = 0.01});
  compare(adamw{});
  compare(lars{.weight_decay = 0.01});
  compare(lamb{});
  compare(clipped{lamb{}, 0.5});
}

BOOST_AUTO_TEST_CASE(stochastic_rounding_is_keyed_by_seed_and_update_and_right_on_average) {
  auto const rule = master{descent{}, true, 42};
  rounding const how = rounding_of(rule, 7);
  BOOST_TEST(how.stochastic);
  BOOST_TEST(how.seed == 42u);
  BOOST_TEST(how.step == 7u);
  BOOST_TEST(!rounding_of(master{descent{}}, 7).stochastic);

  std::size_t const n = 20000;
  float const model = 1 + 0.3f / 128;  // 0.3 of the way to the next bf16
  drive<master<descent>, float, bf16> run(rule, std::vector<bf16>(n, bf16(1.0f)));
  run.step(std::vector<float>(n, 1 - model), 1);
  double up = 0;
  for (bf16 const p : run.p()) up += static_cast<float>(p) > 1 ? 1 : 0;
  BOOST_TEST(std::abs(up / static_cast<double>(n) - 0.3) < 0.015);  // 4.6 standard deviations
  auto const first = run.p();
  run.step(std::vector<float>(n, 0.0f), 1);
  std::size_t changed = 0;
  for (std::size_t i = 0; i < n; ++i) changed += first[i].bits != run.p()[i].bits ? 1 : 0;
  BOOST_TEST(changed > n / 3);  // 2 · 0.3 · 0.7 of them, because the update is part of the key
  BOOST_TEST(changed < n / 2);
}

BOOST_AUTO_TEST_CASE(the_master_is_the_first_slot_and_there_is_one) {
  static_assert(has_master<master<sgd>> && master<sgd>::master_slot == 0);
  static_assert(master<lamb>::slots.size() == 3 && master<lamb>::slots[0] == slot::weight);
  static_assert(two_pass<master<lamb>> && !uses_norms<master<lamb>> && needs_value_norm<master<lamb>>);
  static_assert(uses_norms<master<lars>> && !two_pass<master<lars>> && !needs_value_norm<master<sgd>>);
  static_assert(can_be_mastered<sgd> && can_be_mastered<ema<sgd>>);
  static_assert(!can_be_mastered<master<sgd>> && !can_be_mastered<ema<clipped<master<sgd>>>>);
  BOOST_TEST(slots_used(master{sgd{}}) == 1);
  BOOST_TEST(slots_used(master{sgd{.momentum = 0.5}}) == 2);
  BOOST_TEST(slots_used(master{lamb{}}) == 3);
}

BOOST_AUTO_TEST_CASE(bad_hyper_parameters_of_the_inner_rule_are_found) {
  check_refused(master{sgd{.momentum = 1}}, {"sgd", "momentum", "got 1"});
  check_refused(master{clipped{adamw{.eps = 0}, 1.0}}, {"adamw", "eps", "got 0"});
  BOOST_CHECK_NO_THROW(check(master{adamw{}}));
}
