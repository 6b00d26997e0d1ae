// SPDX-License-Identifier: Apache-2.0
// labels: unit repro
#define BOOST_TEST_MODULE limber.schedule.noisy_quadratic
#include <limber/schedule/schedules.hpp>

#include <boost/test/unit_test.hpp>

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

using namespace limber;

// What a batch k times as large with a rate k times as large does to momentum SGD, exactly.
//
//     f(w) = h w²/2      g = h w + ξ, Var ξ = σ²/B      v ← μ v + g      w ← w − η v      (outside form)
//
// Excess loss is h E[w²]/2. The recursion over (E w², E wv, E v²) has no sampling error. "Peak" is the
// largest excess loss after a switch over the steady level before it; h = σ² = 1, and both cancel in the
// ratio.

namespace {

constexpr double base_rate = 0.02;  // ηh at batch 1
constexpr int window = 400;         // updates observed after a switch; the ramps of 8k last 128 at most
constexpr double percent = 0.01;

struct moments {
  double ww = 0, wv = 0, vv = 0;

  void step(double rate, double batch, double mu) {
    double const wv_new = mu * wv + ww;                                 // E[w v']
    double const vv_new = mu * mu * vv + 2 * mu * wv + ww + 1 / batch;  // E[v'²]
    ww = ww - 2 * rate * wv_new + rate * rate * vv_new;
    wv = wv_new - rate * vv_new;
    vv = vv_new;
  }
};

// E[v'²] of the next update: its variance is rate² times this, whatever was before.
double next_velocity(moments m, double batch, double mu) {
  m.step(0, batch, mu);
  return m.vv;
}

moments steady(double rate, double batch, double mu) {
  moments m;
  for (int i = 0; i < 20'000; ++i) m.step(rate, batch, mu);
  return m;
}

// The library's part: progress with a ramp, and the schedule that reads it.
struct switched_run {
  linear_scaling lr = dynamic_sgd(base_rate, 1);
  progress at;
  moments state;
  double mu;
  double before;

  switched_run(double from, double to, ramp_rule rule, double momentum = 0.9) : mu(momentum) {
    at.steps = 1000;
    at.batch = {.from = from, .to = from};
    state = steady(lr(at), from, mu);
    before = state.ww;
    at.batch = at.batch.rearmed(at.steps, to, rule);
  }

  // One update at the new batch; returns the excess loss over the level before.
  double step() {
    state.step(lr(at), at.planned_batch(), mu);
    ++at.steps;
    return state.ww / before;
  }

  double peak() {
    double highest = 0;
    for (int i = 0; i < window; ++i) highest = std::max(highest, step());
    return highest;
  }
};

constexpr ramp_rule fixed_8{.steps_per_growth = 8, .proportional = false, .on_decrease = true};
constexpr ramp_rule proportional_8k{};
constexpr double growths[] = {4, 8, 16};

void peaks_are(ramp_rule rule, bool grows, double const (&expected)[3]) {
  for (int i = 0; i < 3; ++i) {
    double const k = growths[i];
    double const peak = grows ? switched_run(1, k, rule).peak() : switched_run(k, 1, rule).peak();
    BOOST_TEST_MESSAGE("k = " << k << ": peak " << peak);
    BOOST_TEST_CONTEXT("k = " << k << ": peak " << peak << ", expected " << expected[i]) {
      BOOST_TEST(std::abs(peak - expected[i]) <= percent * expected[i]);
    }
  }
}

}  // namespace

BOOST_AUTO_TEST_CASE(the_level_before_is_the_stationary_solution) {
  // Closed form of the stationary second moment of heavy ball with additive noise.
  for (double const mu : {0.0, 0.5, 0.9}) {
    double const a = base_rate;
    double const expected = a * (1 + mu) / ((1 - mu) * (2 * (1 + mu) - a));
    BOOST_TEST(std::abs(steady(a, 1, mu).ww - expected) <= 1e-12 * expected);
  }
  BOOST_TEST(std::abs(steady(base_rate, 1, 0.9).ww / 2 - 0.0503) < 1e-4);
}

BOOST_AUTO_TEST_CASE(
    the_first_update_after_an_immediate_switch_has_k_squared_the_variance_of_the_unscaled_one) {
  for (double const k : growths) {
    switched_run const run(1, k, immediate);
    double const v2 = next_velocity(run.state, k, 0.9);
    progress unscaled = run.at;
    unscaled.batch = {.from = 1, .to = 1};
    double const scaled_variance = run.lr(run.at) * run.lr(run.at) * v2;
    double const unscaled_variance = run.lr(unscaled) * run.lr(unscaled) * v2;
    BOOST_TEST(scaled_variance / unscaled_variance == k * k);
    // The default ramp's first update has moved by one part in 8k: hardly more than unscaled.
    switched_run const ramped(1, k, proportional_8k);
    double const f = 1 + (k - 1) / (8 * k);
    BOOST_TEST(std::abs(std::pow(ramped.lr(ramped.at) / base_rate, 2) - f * f) <= 1e-12);
    BOOST_TEST(f * f < 1.26);
  }
}

BOOST_AUTO_TEST_CASE(an_immediate_increase_multiplies_the_loss) {
  peaks_are(immediate, true, {2.66, 5.37, 11.46});
}

BOOST_AUTO_TEST_CASE(a_ramp_of_8_updates_leaves_a_spike) { peaks_are(fixed_8, true, {1.49, 2.26, 3.81}); }

BOOST_AUTO_TEST_CASE(a_ramp_of_8k_updates_leaves_none) {
  peaks_are(proportional_8k, true, {1.02, 1.04, 1.09});
  // What remains is the higher steady level of the larger rate, not a spike: it is never exceeded by 1 %.
  for (double const k : growths) {
    double const level = steady(base_rate * k, k, 0.9).ww / steady(base_rate, 1, 0.9).ww;
    BOOST_TEST(switched_run(1, k, proportional_8k).peak() <= level * (1 + percent));
  }
}

BOOST_AUTO_TEST_CASE(counting_the_ramp_from_0_would_be_one_update_later) {
  double const expected[] = {1.40, 1.97, 3.25};
  for (int i = 0; i < 3; ++i) {
    switched_run run(1, growths[i], fixed_8);
    ++run.at.batch.begin;
    double const peak = run.peak();
    BOOST_TEST_CONTEXT("k = " << growths[i] << ": peak " << peak) {
      BOOST_TEST(std::abs(peak - expected[i]) <= percent * expected[i]);
    }
  }
}

BOOST_AUTO_TEST_CASE(an_immediate_decrease_is_safe_and_a_ramped_one_is_not) {
  for (double const k : growths) {
    BOOST_TEST(switched_run(k, 1, immediate).peak() < 1);
    // The default rule does not ramp a decrease.
    BOOST_TEST(switched_run(k, 1, proportional_8k).peak() == switched_run(k, 1, immediate).peak());
  }
  peaks_are(fixed_8, false, {1.53, 2.61, 4.69});
}

BOOST_AUTO_TEST_CASE(without_momentum_the_level_moves_to_its_new_steady_state_and_never_above_it) {
  // Not with `on_decrease`: that runs the old rate at the new, noisier batch, which needs no momentum to
  // hurt.
  for (ramp_rule const rule : {immediate, ramp_rule{.proportional = false}, proportional_8k}) {
    for (double const k : growths) {
      for (bool const grows : {true, false}) {
        double const from = grows ? 1 : k, to = grows ? k : 1;
        switched_run run(from, to, rule, 0);
        double const after = steady(base_rate * to, to, 0).ww / run.before;
        double last = 1, highest = 0;
        for (int i = 0; i < window; ++i) {
          last = run.step();
          highest = std::max(highest, last);
        }
        BOOST_TEST_CONTEXT("k = " << k << ", grows = " << grows << ", highest " << highest << ", after "
                                  << after) {
          BOOST_TEST(highest <= std::max(1.0, after) * (1 + 1e-12));
          BOOST_TEST(std::abs(last - after) <= 1e-6 * after);
        }
      }
    }
  }
}

BOOST_AUTO_TEST_CASE(the_recursion_describes_simulated_runs) {
  constexpr int runs = 20'000, settle = 250, observed = 40;
  double const k = 8, mu = 0.9;
  switched_run exact(1, k, immediate);
  std::vector<double> w(runs), v(runs);
  std::mt19937_64 random(11);
  std::normal_distribution<double> noise;
  double square = 0;
  for (int i = -settle; i < observed; ++i) {
    double const rate = i < 0 ? base_rate : exact.lr(exact.at), batch = i < 0 ? 1 : k;
    square = 0;
    for (std::size_t r = 0; r < w.size(); ++r) {
      v[r] = mu * v[r] + w[r] + noise(random) / std::sqrt(batch);
      w[r] -= rate * v[r];
      square += w[r] * w[r];
    }
    square /= runs;
    if (i < 0) continue;
    (void)exact.step();
    // w is normal, so its mean square has a standard deviation of √(2/n) of itself; five of them.
    double const error = 5 * std::sqrt(2.0 / runs) * exact.state.ww;
    BOOST_TEST_CONTEXT("update " << i) BOOST_TEST(std::abs(square - exact.state.ww) <= error);
  }
}
