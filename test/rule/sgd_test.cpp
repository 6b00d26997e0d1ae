// SPDX-License-Identifier: Apache-2.0
// labels: unit property
#define BOOST_TEST_MODULE limber.rule.sgd
#include "paper.hpp"

#include <limber/rule/sgd.hpp>

#include <boost/test/unit_test.hpp>

#include <cmath>
#include <vector>

using namespace limber;
using namespace limber::testing;

namespace {

constexpr auto inside = momentum_form::inside;
constexpr double mu = 0.9, wd = 0.01, damp = 0.4;

/// p ← p − η v for every element, v made by `buffer(v, g, p, occasion)`.
template <class Buffer>
formula with_buffer(Buffer buffer) {
  return [buffer, v = zeros()](occasion now, vector g, vector& p) mutable {
    for (std::size_t i = 0; i < p.size(); ++i) p[i] -= buffer(v[i], g[i], p[i], now);
  };
}

/// The last parameters of a run of `steps` updates with rates rate(t).
template <class T, class Rate>
std::vector<T> end_of(sgd rule, i64 steps, Rate rate) {
  drive<sgd, T> run(rule, as<T>(start));
  for (i64 t = 1; t <= steps; ++t) run.step(as<T>(gradient_at(t, start.size())), rate(t));
  return run.p();
}

double largest_difference(std::vector<double> const& a, std::vector<double> const& b) {
  double largest = 0;
  for (std::size_t i = 0; i < a.size(); ++i)
    largest = std::max(largest, std::abs(a[i] - b[i]) / std::max(std::abs(a[i]), std::abs(b[i])));
  return largest;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(follows_the_formula)

BOOST_AUTO_TEST_CASE_TEMPLATE(without_momentum, T, scalars) {
  check_follows<T>(sgd{}, 0.05, [] {
    return with_buffer([](double&, double g, double, occasion now) { return now.rate * g; });
  });
}

BOOST_AUTO_TEST_CASE_TEMPLATE(heavy_ball_outside, T, scalars) {
  check_follows<T>(sgd{.momentum = mu}, 0.05, [] {
    return with_buffer([](double& v, double g, double, occasion now) {
      v = mu * v + g;
      return now.rate * v;
    });
  });
}

BOOST_AUTO_TEST_CASE_TEMPLATE(coupled_decay_enters_before_momentum, T, scalars) {
  check_follows<T>(sgd{.momentum = mu, .weight_decay = wd}, 0.05, [] {
    return with_buffer([](double& v, double g, double p, occasion now) {
      v = mu * v + (g + wd * p);
      return now.rate * v;
    });
  });
}

BOOST_AUTO_TEST_CASE_TEMPLATE(coupled_decay_without_momentum, T, scalars) {
  check_follows<T>(sgd{.weight_decay = wd}, 0.05, [] {
    return with_buffer([](double&, double g, double p, occasion now) { return now.rate * (g + wd * p); });
  });
}

BOOST_AUTO_TEST_CASE_TEMPLATE(decoupled_decay_shrinks_the_parameter, T, scalars) {
  check_follows<T>(sgd{.momentum = mu, .weight_decay = wd, .decoupled = true}, 0.05, [] {
    return with_buffer([](double& v, double g, double p, occasion now) {
      v = mu * v + g;
      return p - ((1 - now.rate * wd) * p - now.rate * v);
    });
  });
}

BOOST_AUTO_TEST_CASE_TEMPLATE(nesterov_as_pytorch_writes_it, T, scalars) {
  check_follows<T>(sgd{.momentum = mu, .weight_decay = wd, .nesterov = true}, 0.05, [] {
    return with_buffer([](double& v, double g, double p, occasion now) {
      g = g + wd * p;
      v = mu * v + g;
      return now.rate * (g + mu * v);
    });
  });
}

BOOST_AUTO_TEST_CASE_TEMPLATE(dampening_spares_the_first_gradient, T, scalars) {
  check_follows<T>(sgd{.momentum = mu, .dampening = damp}, 0.05, [] {
    return with_buffer([](double& v, double g, double, occasion now) {
      v = now.t == 1 ? g : mu * v + (1 - damp) * g;
      return now.rate * v;
    });
  });
}

BOOST_AUTO_TEST_CASE_TEMPLATE(inside_with_correction, T, scalars) {
  check_follows<T>(sgd{.momentum = mu, .weight_decay = wd, .form = inside}, 0.05, [] {
    return with_buffer([](double& u, double g, double p, occasion now) {
      u = mu * (now.rate / now.previous_rate) * u + now.rate * (g + wd * p);
      return u;
    });
  });
}

BOOST_AUTO_TEST_CASE_TEMPLATE(inside_without_correction, T, scalars) {
  check_follows<T>(sgd{.momentum = mu, .form = inside, .momentum_correction = false}, 0.05, [] {
    return with_buffer([](double& u, double g, double, occasion now) {
      u = mu * u + now.rate * g;
      return u;
    });
  });
}

BOOST_AUTO_TEST_CASE_TEMPLATE(inside_with_dampening, T, scalars) {
  check_follows<T>(sgd{.momentum = mu, .dampening = damp, .form = inside}, 0.05, [] {
    return with_buffer([](double& u, double g, double, occasion now) {
      u = now.t == 1 ? now.rate * g : mu * (now.rate / now.previous_rate) * u + now.rate * (1 - damp) * g;
      return u;
    });
  });
}

BOOST_AUTO_TEST_SUITE_END()

BOOST_AUTO_TEST_SUITE(forms_of_momentum)

BOOST_AUTO_TEST_CASE(are_one_algorithm_at_a_constant_rate_with_or_without_correction) {
  auto const constant = [](i64) { return 0.05; };
  for (bool const nesterov : {false, true})
    for (bool const corrected : {false, true}) {
      sgd const outside{.momentum = mu, .weight_decay = wd, .nesterov = nesterov};
      sgd other = outside;
      other.form = inside;
      other.momentum_correction = corrected;
      BOOST_TEST(largest_difference(end_of<double>(outside, 200, constant),
                                    end_of<double>(other, 200, constant)) < 1e-12);
    }
}

BOOST_AUTO_TEST_CASE(stay_one_algorithm_under_any_rates_if_corrected_and_only_then) {
  auto const changing = [](i64 t) { return 0.05 * rate_at(t); };
  sgd const rules[] = {{.momentum = mu},
                       {.momentum = mu, .weight_decay = wd},
                       {.momentum = mu, .weight_decay = wd, .nesterov = true},
                       {.momentum = mu, .weight_decay = wd, .decoupled = true},
                       {.momentum = 0.5, .dampening = damp}};
  for (sgd const& outside : rules)
    for (i64 const steps : {1, 2, 21, 81, 82, 121, 122, 300}) {
      sgd corrected = outside, not_corrected = outside;
      corrected.form = not_corrected.form = inside;
      not_corrected.momentum_correction = false;
      auto const expected = end_of<double>(outside, steps, changing);
      BOOST_TEST(largest_difference(expected, end_of<double>(corrected, steps, changing)) < 1e-12);
      if (steps > 1)
        BOOST_TEST(largest_difference(expected, end_of<double>(not_corrected, steps, changing)) > 1e-4);
    }
}

// v_t = (1 − μᵗ)/(1 − μ) under a gradient of 1, and Σ v by summing that.
BOOST_AUTO_TEST_CASE(have_the_closed_form_of_a_constant_gradient) {
  double const eta = 0.25, p0 = 3;
  for (momentum_form const form : {momentum_form::outside, inside}) {
    drive<sgd, double> run(sgd{.momentum = mu, .form = form}, {p0});
    for (int t = 1; t <= 200; ++t) {
      run.step({1.0}, eta);
      double const power = std::pow(mu, t);
      double const moved = eta * (t / (1 - mu) - mu * (1 - power) / ((1 - mu) * (1 - mu)));
      BOOST_TEST(run.p()[0] == p0 - moved, boost::test_tools::tolerance(1e-12));
    }
  }
}

// One gradient of 1 at rate η, then nothing at rate η': what momentum still moves is η' Σ μᵏ outside
// and corrected, η Σ μᵏ without correction.
BOOST_AUTO_TEST_CASE(differ_in_closed_form_in_what_momentum_moves_after_a_change_of_rate) {
  double const eta = 0.25, later = 4;
  struct {
    sgd rule;
    double moves;
  } const cases[] = {{{.momentum = mu}, later},
                     {{.momentum = mu, .form = inside}, later},
                     {{.momentum = mu, .form = inside, .momentum_correction = false}, eta}};
  for (auto const& [rule, moves] : cases) {
    drive<sgd, double> run(rule, {100});
    run.step({1.0}, eta);
    for (int t = 1; t <= 200; ++t) {
      run.step({0.0}, later);
      double const moved = eta + moves * mu * (1 - std::pow(mu, t)) / (1 - mu);
      BOOST_TEST(run.p()[0] == 100 - moved, boost::test_tools::tolerance(1e-12));
    }
  }
}

BOOST_AUTO_TEST_CASE_TEMPLATE(pass_through_a_rate_of_zero_without_a_nan, T, scalars) {
  drive<sgd, T> run(sgd{.momentum = mu, .form = inside}, {T{1}});
  run.step({T{1}}, 0.5);
  T const before = run.p()[0];
  for (int t = 0; t < 3; ++t) {
    run.step({T{1}}, 0);
    BOOST_TEST(run.p()[0] == before);
    BOOST_TEST(run.slot(0)[0] == 0);
  }
  run.step({T{1}}, 0.5);  // as the first update of a new buffer
  BOOST_TEST(run.p()[0] == before - T{0.5});
}

BOOST_AUTO_TEST_CASE_TEMPLATE(survive_a_jump_of_the_rate_out_of_range, T, scalars) {
  drive<sgd, T> run(sgd{.momentum = mu, .form = inside}, {T{1}});
  run.step({T{1}}, std::numeric_limits<double>::denorm_min());
  run.step({T{1}}, 0.5);
  BOOST_TEST(run.p()[0] == T{0.5});
  BOOST_TEST(math::finite(run.slot(0)[0]));
}

BOOST_AUTO_TEST_SUITE_END()

BOOST_AUTO_TEST_SUITE(first_update_of_a_buffer)

// Whether a buffer is new is a fact of the buffer: one flag for all tensors would dampen the first
// gradient of a late one, or spare a gradient of an old one.
BOOST_AUTO_TEST_CASE_TEMPLATE(belongs_to_its_own_tensor, T, scalars) {
  for (momentum_form const form : {momentum_form::outside, inside}) {
    sgd const rule{.momentum = mu, .dampening = damp, .form = form};
    drive<sgd, T> old_one(rule, {T{1}}), late(rule, {T{1}}), alone(rule, {T{1}});
    double expected_v = 0;
    for (i64 t = 1; t <= 60; ++t) {
      auto const g = as<T>(gradient_at(t, 1));
      old_one.step(g, 0.25);
      expected_v = t == 1 ? double{g[0]} : mu * expected_v + (1 - damp) * double{g[0]};
      T const v = form == inside ? old_one.slot(0)[0] * 4 : old_one.slot(0)[0];
      BOOST_TEST(v == static_cast<T>(expected_v), boost::test_tools::tolerance(T(1e-4)));
      if (t < 50) continue;
      late.step(g, 0.25);
      if (t == 50) {
        T const first = form == inside ? g[0] / 4 : g[0];
        BOOST_TEST(late.slot(0)[0] == first);
        BOOST_TEST(late.p()[0] == 1 - g[0] / 4, boost::test_tools::tolerance(T(1e-6)));
      }
    }
    for (i64 t = 50; t <= 60; ++t) alone.step(as<T>(gradient_at(t, 1)), 0.25);
    BOOST_TEST(late.p()[0] == alone.p()[0]);
    BOOST_TEST(late.slot(0)[0] == alone.slot(0)[0]);
    BOOST_TEST(late.t() == 11);
    BOOST_TEST(old_one.t() == 60);
  }
}

BOOST_AUTO_TEST_SUITE_END()

BOOST_AUTO_TEST_SUITE(without_momentum)

BOOST_AUTO_TEST_CASE_TEMPLATE(uses_no_slot_and_gives_the_bits_that_a_slot_would_give, T, scalars) {
  for (momentum_form const form : {momentum_form::outside, inside})
    for (double const decay : {0.0, wd})
      for (bool const decoupled : {false, true}) {
        sgd const rule{.weight_decay = decay, .decoupled = decoupled, .form = form};
        BOOST_TEST(slots_used(rule) == 0);
        std::vector<T> with = as<T>(start), without = with;
        std::vector<T> v(start.size(), T{0});
        for (i64 t = 1; t <= 100; ++t) {
          double const previous = rate_at(t == 1 ? 1 : t - 1);
          auto const c = rule.at<T>({t, rate_at(t), previous});
          auto const g = as<T>(gradient_at(t, start.size()));
          for (std::size_t i = 0; i < start.size(); ++i) {
            with[i] = sgd::update(c, with[i], g[i], v[i]);
            without[i] = sgd::update(c, without[i], g[i]);
          }
        }
        BOOST_TEST(with == without, boost::test_tools::per_element());
      }
  BOOST_TEST(slots_used(sgd{.momentum = 0.5}) == 1);
}

BOOST_AUTO_TEST_SUITE_END()

BOOST_AUTO_TEST_CASE(hyper_parameters_out_of_range_are_named_with_their_value) {
  check_refused(sgd{.momentum = 1}, {"sgd", "momentum", "[0, 1)", "got 1"});
  check_refused(sgd{.momentum = -0.5}, {"sgd", "momentum", "got -0.5"});
  check_refused(sgd{.momentum = not_a_number}, {"sgd", "momentum", "nan"});
  check_refused(sgd{.weight_decay = -0.25}, {"sgd", "weight_decay", "got -0.25"});
  check_refused(sgd{.weight_decay = infinity}, {"sgd", "weight_decay", "inf"});
  check_refused(sgd{.weight_decay = not_a_number}, {"sgd", "weight_decay", "nan"});
  check_refused(sgd{.momentum = 0.5, .dampening = 1.5}, {"sgd", "dampening", "got 1.5"});
  check_refused(sgd{.momentum = 0.5, .dampening = not_a_number}, {"sgd", "dampening", "nan"});
  check_refused(sgd{.nesterov = true}, {"sgd", "nesterov", "momentum > 0", "momentum 0"});
  check_refused(sgd{.momentum = 0.5, .nesterov = true, .dampening = 0.25},
                {"sgd", "nesterov", "dampening 0", "dampening 0.25"});
  check_refused(sgd{.dampening = 0.25}, {"sgd", "dampening 0.25", "without momentum"});
  BOOST_CHECK_NO_THROW(check(sgd{.momentum = 0.999, .weight_decay = 5, .nesterov = true}));
}
