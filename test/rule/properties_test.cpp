// SPDX-License-Identifier: Apache-2.0
// labels: unit property
#define BOOST_TEST_MODULE limber.rule.properties
#include "paper.hpp"
#include "same_bits.hpp"

#include <boost/test/unit_test.hpp>

#include <cmath>
#include <string>
#include <type_traits>

using namespace limber;
using namespace limber::testing;

namespace {

template <class R>
bool has_layer(R const& rule, std::string const& name) {
  for (auto const& layer : layers_of(rule))
    if (layer == name) return true;
  return false;
}

/// A rate at which the rule comes from a distance of about 1 to an optimum in some hundred steps.
template <class R>
double good_rate(R const& rule) {
  if (has_layer(rule, "lars")) return 10;
  if (has_layer(rule, "lamb")) return 0.05;
  if (has_layer(rule, "adagrad")) return 1;
  if (has_layer(rule, "descent") || has_layer(rule, "sgd")) return 0.1;
  return 0.05;
}

}  // namespace

BOOST_AUTO_TEST_CASE_TEMPLATE(a_zero_gradient_from_the_start_changes_nothing_without_decay, T, scalars) {
  for_each_rule([](auto const& listed) {
    auto const rule = without_decay(listed);
    drive<std::decay_t<decltype(rule)>, T> run(rule, as<T>(start));
    for (i64 t = 1; t <= 5; ++t) run.step(std::vector<T>(start.size(), T(0)), 0.1 * rate_at(t));
    holds(same_bits(run.p(), as<T>(start)), name_of_rule(rule));
  });
}

BOOST_AUTO_TEST_CASE_TEMPLATE(decay_pulls_towards_zero_without_a_gradient, T, scalars) {
  int rules_with_decay = 0;
  for_each_rule([&](auto rule) {
    bool decays = false;
    rule = with_innermost(rule, [&](auto& inner) {
      if constexpr (requires { inner.weight_decay; }) inner.weight_decay = 0.125, decays = true;
    });
    if (!decays) return;
    ++rules_with_decay;
    drive<decltype(rule), T> run(rule, as<T>(start));
    run.step(std::vector<T>(start.size(), T(0)), 0.01);
    for (std::size_t i = 0; i < start.size(); ++i) {
      T const before = static_cast<T>(start[i]), after = run.p()[i];
      holds(std::abs(after) < std::abs(before) && after * before > 0, name_of_rule(rule));
    }
  });
  BOOST_TEST(rules_with_decay > 25);
}

BOOST_AUTO_TEST_CASE_TEMPLATE(every_rule_descends_a_parabola, T, scalars) {
  for_each_rule([](auto const& listed) {
    auto const rule = without_decay(listed);
    vector const optimum{1, -1, 0.5, 2}, curvature{1, 0.5, 2, 1};
    vector const p0{1.5, 0.5, -0.5, 1};
    auto const value = [&](auto const& p) {
      double f = 0;
      for (std::size_t i = 0; i < p0.size(); ++i)
        f += curvature[i] * std::pow(static_cast<double>(p[i]) - optimum[i], 2) / 2;
      return f;
    };
    drive<std::decay_t<decltype(rule)>, T> run(rule, as<T>(p0));
    i64 const steps = 1500;
    for (i64 t = 0; t < steps; ++t) {
      std::vector<T> g;
      for (std::size_t i = 0; i < p0.size(); ++i)
        g.push_back(static_cast<T>(curvature[i] * (static_cast<double>(run.p()[i]) - optimum[i])));
      run.step(g, good_rate(rule) * (1 - static_cast<double>(t) / static_cast<double>(steps)));
    }
    holds(value(run.p()) < 1e-3 * value(p0), text(name_of_rule(rule), " ends at ", value(run.p())));
  });
}

BOOST_AUTO_TEST_CASE_TEMPLATE(the_mirror_image_of_a_problem_has_the_mirror_image_of_the_path, T, scalars) {
  for_each_rule([](auto const& rule) {
    using R = std::decay_t<decltype(rule)>;
    auto mirrored = as<T>(start);
    for (T& x : mirrored) x = -x;
    drive<R, T> run(rule, as<T>(start)), mirror(rule, mirrored);
    bool equal = true;
    for (i64 t = 1; t <= 100; ++t) {
      auto g = as<T>(gradient_at(t, start.size()));
      run.step(g, 0.01 * rate_at(t));
      for (T& x : g) x = -x;
      mirror.step(g, 0.01 * rate_at(t));
      for (std::size_t i = 0; i < start.size(); ++i) equal = equal && run.p()[i] == -mirror.p()[i];
    }
    holds(equal, name_of_rule(rule));
  });
}

// Where no norm is asked for, an element depends on itself alone: a tensor may be cut anywhere.
BOOST_AUTO_TEST_CASE_TEMPLATE(elements_are_independent_given_the_norms, T, scalars) {
  int independent = 0;
  for_each_rule([&](auto const& rule) {
    using R = std::decay_t<decltype(rule)>;
    if constexpr (!two_pass<R> && !needs_value_norm<R>) {
      ++independent;
      drive<R, T> whole(rule, as<T>(start));
      for (i64 t = 1; t <= 50; ++t) whole.step(as<T>(gradient_at(t, start.size())), 0.01, 3);
      for (std::size_t i = 0; i < start.size(); ++i) {
        drive<R, T> alone(rule, {static_cast<T>(start[i])});
        for (i64 t = 1; t <= 50; ++t) alone.step({static_cast<T>(gradient_at(t, start.size())[i])}, 0.01, 3);
        holds(same_bits(alone.p(), {whole.p()[i]}), name_of_rule(rule));
      }
    }
  });
  BOOST_TEST(independent > 25);
}

BOOST_AUTO_TEST_CASE(plain_sgd_is_descent_bit_for_bit) {
  BOOST_TEST(same_trajectory<float>(descent{}, sgd{}));
  BOOST_TEST(same_trajectory<double>(descent{}, sgd{}));
}

BOOST_AUTO_TEST_CASE(what_a_rule_says_of_its_slots_is_consistent_and_its_coefficients_are_plain) {
  for_each_rule([](auto const& rule) {
    using R = std::decay_t<decltype(rule)>;
    int const used = slots_used(rule);
    holds(used >= 0 && used <= static_cast<int>(R::slots.size()), name_of_rule(rule));
    static_assert(std::is_trivially_copyable_v<coefficients_of<R, float>>);
    static_assert(std::is_trivially_copyable_v<coefficients_of<R, double>>);
    static_assert(std::is_trivially_copyable_v<R>);
    if constexpr (has_master<R>) {
      static_assert(R::slots[static_cast<std::size_t>(R::master_slot)] == slot::weight);
      holds(R::master_slot < used, name_of_rule(rule));
    }
  });
}
