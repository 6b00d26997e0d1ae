// SPDX-License-Identifier: Apache-2.0
// labels: unit property
// optimize: 1
#define BOOST_TEST_MODULE limber.schedule.schedules
#include <boost/test/unit_test.hpp>

#include <schedule/every_schedule.hpp>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numbers>
#include <string_view>
#include <type_traits>
#include <vector>

using namespace limber;
using namespace limber::literals;
using test::at_sample;
using test::at_step;

namespace {

constexpr double rounding = 1e-13;  // absolute; rates are at most 1

// Compares a schedule in steps, samples and epochs with the formula f(t), t in the schedule's own unit.
template <class Make, class Formula>
void follows(char const* name, Make make, Formula f) {
  for (double const T : {1.0, 2.0, 3.0, 10.0, 97.0}) {
    auto const in_steps = make(steps(T));
    auto const in_samples = make(samples(T));
    auto const in_epochs = make(epochs(T));
    std::vector<i64> times;
    for (i64 t = 0; t <= 3 * static_cast<i64>(T) + 2; ++t) times.push_back(t);
    times.insert(times.end(), {i64{1} << 20, i64{1} << 31});
    for (i64 const t : times) {
      double const expected = f(static_cast<double>(t), T);
      BOOST_TEST_CONTEXT(name << " T=" << T << " t=" << t) {
        BOOST_TEST(std::abs(in_steps(at_step(t)) - expected) <= rounding);
        BOOST_TEST(std::abs(in_samples(at_sample(t, 7)) - expected) <= rounding);
        BOOST_TEST(std::abs(in_epochs(at_sample(t * 7, 7)) - expected) <= rounding);
        double const half = f(static_cast<double>(t) + 0.5, T);
        BOOST_TEST(std::abs(in_epochs(at_sample(t * 8 + 4, 8)) - half) <= rounding);
      }
    }
  }
}

double wave(double x) { return (1 + std::cos(std::numbers::pi * x)) / 2; }

}  // namespace

BOOST_AUTO_TEST_CASE(warmup_follows_its_formula) {
  follows(
      "warmup", [](amount T) { return warmup(T); }, [](double t, double T) { return t < T ? t / T : 1; });
  follows(
      "warmup from", [](amount T) { return warmup(T, 0.25); },
      [](double t, double T) { return t < T ? 0.25 + 0.75 * t / T : 1; });
}

BOOST_AUTO_TEST_CASE(
    a_warmup_of_4_steps_runs_at_0_then_quarters_and_its_fifth_update_is_the_first_at_full_rate) {
  warmup const s(4_steps);
  double const expected[] = {0, 0.25, 0.5, 0.75, 1, 1, 1};
  for (i64 t = 0; t < 7; ++t) BOOST_TEST(s(at_step(t)) == expected[t]);
  BOOST_TEST(warmup(4_steps, 0.1)(at_step(0)) == 0.1);
  for (double const from : {0.0, 0.1, 0.3, 0.7, 1.0}) BOOST_TEST(warmup(3_steps, from)(at_step(3)) == 1.0);
}

BOOST_AUTO_TEST_CASE(decays_in_steps_follow_their_formulas) {
  follows(
      "step_decay", [](amount T) { return step_decay{.every = T, .factor = 0.5}; },
      [](double t, double T) { return std::pow(0.5, std::floor(t / T)); });
  follows(
      "multi_step",
      [](amount T) {
        return multi_step({T, {2 * T.value, T.in}, {2.5 * T.value, T.in}}, 0.2);
      },
      [](double t, double T) {
        return t < T ? 1 : t < 2 * T ? 0.2 : t < 2.5 * T ? 0.04 : 0.008;
      });
}

BOOST_AUTO_TEST_CASE(smooth_decays_follow_their_formulas) {
  follows(
      "exponential", [](amount T) { return exponential{.every = T, .factor = 0.9}; },
      [](double t, double T) { return std::exp(std::log(0.9) * t / T); });
  follows(
      "linear", [](amount T) { return polynomial{.length = T}; },
      [](double t, double T) { return t < T ? 1 - t / T : 0; });
  follows(
      "polynomial", [](amount T) { return polynomial{.length = T, .power = 2, .to = 0.1}; },
      [](double t, double T) { return t < T ? 0.1 + 0.9 * (1 - t / T) * (1 - t / T) : 0.1; });
  follows(
      "inverse_sqrt", [](amount T) { return inverse_sqrt(T); },
      [](double t, double T) { return std::sqrt(T / (T + t)); });
}

BOOST_AUTO_TEST_CASE(cosines_follow_their_formulas) {
  follows(
      "cosine", [](amount T) { return cosine(T); },
      [](double t, double T) { return t < T ? wave(t / T) : 0; });
  follows(
      "cosine to", [](amount T) { return cosine(T, 0.2); },
      [](double t, double T) { return t < T ? 0.2 + 0.8 * wave(t / T) : 0.2; });
  follows(
      "restarts", [](amount T) { return cosine_restarts{.period = T, .to = 0.1}; },
      [](double t, double T) { return 0.1 + 0.9 * wave(std::fmod(t, T) / T); });
}

BOOST_AUTO_TEST_CASE(restarts_with_a_multiplier_lengthen_each_cycle) {
  for (double const m : {1.5, 2.0, 3.0}) {
    cosine_restarts const s{.period = 10_steps, .multiplier = m, .to = 0.1};
    for (i64 t = 0; t < 3000; ++t) {
      double rest = static_cast<double>(t), cycle = 10;
      while (rest >= cycle) {
        rest -= cycle;
        cycle *= m;
      }
      BOOST_TEST(std::abs(s(at_step(t)) - (0.1 + 0.9 * wave(rest / cycle))) <= 1e-12);
    }
  }
  // The restart itself must not fall to the wrong side: 1, not 0.
  cosine_restarts const s{.period = 1_epochs, .multiplier = 2};
  for (i64 n = 0; n < 40; ++n) BOOST_TEST(s(at_sample(((i64{1} << n) - 1) * 1000, 1000)) >= 1 - rounding);
}

BOOST_AUTO_TEST_CASE(one_cycle_follows_its_formula) {
  follows(
      "one_cycle", [](amount T) { return one_cycle{.length = T, .rise = 0.25, .from = 0.1, .to = 0.01}; },
      [](double t, double T) {
        double const x = std::min(1.0, t / T);
        return x < 0.25 ? 0.1 + 0.9 * (1 - wave(x / 0.25)) : 0.01 + 0.99 * wave((x - 0.25) / 0.75);
      });
  one_cycle const s{.length = 100_steps};
  BOOST_TEST(s(at_step(0)) == 0.04);
  BOOST_TEST(s(at_step(30)) == 1.0);
  BOOST_TEST(s(at_step(100)) == 4e-6);
}

BOOST_AUTO_TEST_CASE(warmup_stable_decay_follows_its_formula) {
  follows(
      "wsd",
      [](amount T) {
        return warmup_stable_decay(T, {2 * T.value, T.in}, {3 * T.value, T.in}, 0.1);
      },
      [](double t, double T) {
        return t < T ? t / T : t < 3 * T ? 1 : t < 6 * T ? 0.1 + 0.9 * (1 - (t - 3 * T) / (3 * T)) : 0.1;
      });
  BOOST_TEST((warmup_stable_decay(1_epochs, 5_epochs, cosine(3_epochs)).length == 9_epochs));
}

BOOST_AUTO_TEST_CASE(ends_are_exact) {
  for (double const T : {1.0, 2.0, 3.0, 1e6, 0x1p53}) {
    for (i64 const t : {static_cast<i64>(T), i64{1} << 53}) {
      BOOST_TEST(warmup(steps(T), 0.3)(at_step(t)) == 1.0);
      BOOST_TEST(cosine(steps(T))(at_step(t)) == 0.0);
      BOOST_TEST(cosine(steps(T), 0.1)(at_step(t)) == 0.1);
      BOOST_TEST((polynomial{.length = steps(T), .power = 3, .to = 0.1}(at_step(t)) == 0.1));
      BOOST_TEST((one_cycle{.length = steps(T), .to = 0.1}(at_step(t)) == 0.1));
    }
    BOOST_TEST(cosine(steps(T))(at_step(0)) == 1.0);
    BOOST_TEST((polynomial{.length = steps(T), .to = 0.7}(at_step(0)) == 1.0));
  }
}

BOOST_AUTO_TEST_CASE(a_boundary_missed_by_rounding_alone_counts_as_reached) {
  for (i64 const epoch_size : {10, 30, 100, 1000, 50'000}) {
    for (i64 n = 1; n < 200; ++n) {
      auto const at = at_sample(n * epoch_size / 10, epoch_size);
      auto const before = at_sample(n * epoch_size / 10 - 1, epoch_size);
      step_decay const decay{.every = 0.1_epochs, .factor = 0.5};
      BOOST_TEST(decay(at) == std::ldexp(1.0, -static_cast<int>(n)));
      BOOST_TEST(decay(before) == std::ldexp(1.0, 1 - static_cast<int>(n)));
      BOOST_TEST((cosine_restarts{.period = 0.1_epochs}(at) == 1.0));
    }
  }
  step_decay const decay{.every = 3_steps, .factor = 1 - 0x1p-40};
  BOOST_TEST(decay(at_step(1'000'000'000'001)) == decay(at_step(999'999'999'999)));
  BOOST_TEST(decay(at_step(1'000'000'000'002)) < decay(at_step(1'000'000'000'001)));
}

BOOST_AUTO_TEST_CASE(no_schedule_is_ever_negative_infinite_or_nan_where_the_epoch_is_known) {
  std::mt19937_64 random(1);
  std::vector<progress> all{progress{}, at_step(i64{1} << 53), at_sample(i64{1} << 62, 1),
                            at_sample(i64{1} << 62, i64{1} << 40),
                            progress{.steps = i64{1} << 62, .samples = std::numeric_limits<i64>::max()}};
  // Before any offset: counters that a wrong subtraction would give.
  all.push_back({.steps = -5, .samples = -5});
  all.push_back({.steps = -(i64{1} << 53), .samples = -(i64{1} << 62)});
  for (i64 t = 0; t < 4; ++t) all.push_back({.steps = t, .samples = t});
  for (int i = 0; i < 500; ++i) all.push_back(test::random_progress(random));
  for (unit const u : {unit::steps, unit::samples, unit::epochs}) {
    for (double const T : {1.0, 2.0, 3.0, 1000.0, 0x1p53, 0.001, 1e-300, 1e300}) {
      test::for_every_schedule({T, u}, [&](char const* name, auto const& s) {
        for (progress const& p : all) {
          double const rate = s(p);
          BOOST_TEST_CONTEXT(name << " T=" << T << ' ' << name_of(u) << " steps=" << p.steps << " samples="
                                  << p.samples << " epoch_size=" << p.epoch_size << " rate=" << rate) {
            if (!(std::isfinite(rate) && rate >= 0)) BOOST_ERROR("not a rate");
          }
        }
      });
    }
  }
}

BOOST_AUTO_TEST_CASE(in_epochs_of_unknown_size_the_rate_of_every_schedule_is_nan_and_else_it_is_finite) {
  for (unit const u : {unit::steps, unit::samples, unit::epochs}) {
    for (double const T : {1.0, 3.0, 1000.0, 1e-300, 1e300}) {
      test::for_every_schedule({T, u}, [&](char const* name, auto const& s) {
        for (i64 const t : {i64{0}, i64{1}, i64{5000}, i64{1} << 62}) {
          progress const p{.steps = t, .samples = t, .epoch_size = 0, .base_steps = static_cast<double>(t)};
          bool const alone = std::string_view(name) == "lasting";  // nothing follows: its end does not matter
          BOOST_TEST_CONTEXT(name << " T=" << T << ' ' << name_of(u) << " t=" << t)
          BOOST_TEST(std::isnan(s(p)) == (any_schedule(s).counts_epochs() && !alone));
        }
      });
    }
  }
}

BOOST_AUTO_TEST_CASE(a_value_depends_on_progress_alone_and_a_copy_of_the_bytes_is_the_schedule) {
  std::mt19937_64 random(2);
  std::vector<progress> points;
  for (int i = 0; i < 200; ++i) points.push_back(test::random_progress(random));
  for (unit const u : {unit::steps, unit::samples, unit::epochs}) {
    test::for_every_schedule({17, u}, [&](char const* name, auto const& s) {
      using S = std::remove_cvref_t<decltype(s)>;
      static_assert(std::is_trivially_copyable_v<S> && schedule<S>);
      std::vector<double> in_order;
      for (progress const& p : points) in_order.push_back(s(p));
      std::vector<std::size_t> order(points.size());
      for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
      std::shuffle(order.begin(), order.end(), random);
      S resumed = s;
      alignas(S) unsigned char bytes[sizeof(S)];
      std::memcpy(bytes, &s, sizeof s);
      std::memcpy(&resumed, bytes, sizeof s);
      for (std::size_t const i : order) {
        progress p;
        std::memcpy(&p, &points[i], sizeof p);
        double const again = resumed(p);
        BOOST_TEST_CONTEXT(name) BOOST_TEST(std::memcmp(&again, &in_order[i], sizeof again) == 0);
      }
    });
  }
}

BOOST_AUTO_TEST_CASE(only_decays_and_warmups_with_an_end_are_finite) {
  static_assert(finite_schedule<warmup> && finite_schedule<cosine> && finite_schedule<polynomial> &&
                finite_schedule<one_cycle> && finite_schedule<lasting<constant>>);
  static_assert(!finite_schedule<constant> && !finite_schedule<step_decay> && !finite_schedule<multi_step> &&
                !finite_schedule<exponential> && !finite_schedule<inverse_sqrt> &&
                !finite_schedule<cosine_restarts> && !finite_schedule<linear_scaling>);
  BOOST_TEST((warmup(5_epochs).length == 5_epochs));
  BOOST_TEST((cosine(85_epochs).length == 85_epochs));
  BOOST_TEST((polynomial{.length = 3_steps}.length == 3_steps));
}

BOOST_AUTO_TEST_CASE(every_schedule_can_be_copied_to_a_device_and_one_with_memory_of_its_own_cannot) {
  test::for_every_schedule(10_epochs,
                           []<class S>(char const*, S const&) { static_assert(device_schedule<S>); });
  struct table {
    std::vector<double> rates;
    double operator()(progress const&) const { return rates[0]; }
  };
  static_assert(schedule<table> && !device_schedule<table>);
  static_assert(!device_schedule<product<table, cosine>> && !device_schedule<clamp<table>>);
  static_assert(!device_schedule<switched<table, constant>> && !device_schedule<lasting<table>>);
  static_assert(!device_schedule<sequence<cosine, table>>);
}
