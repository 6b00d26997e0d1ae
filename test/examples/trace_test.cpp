// SPDX-License-Identifier: Apache-2.0
// labels: unit
#define BOOST_TEST_MODULE limber.examples.trace
#include "../../examples/language_model/trace.hpp"

#include <boost/test/unit_test.hpp>

#include <cmath>
#include <limits>
#include <vector>

using example::resize_record;
using example::trace;
using limber::i64;

namespace {

constexpr double infinite = std::numeric_limits<double>::infinity();

// 100 updates of 10 samples, then 200 of 40; the probe's loss is a function of the update.
template <class Loss>
trace run(Loss loss, i64 spacing = 1'000'000) {
  trace t({1000, 9000}, spacing);
  for (i64 step = 1, samples = 0; step <= 300; ++step) {
    i64 const batch = step <= 100 ? 10 : 40;
    samples += batch;
    int const workers = step <= 100 ? 1 : 4;
    if (t.due(samples, step, workers, batch)) t.add({samples, step, workers, 0.1, loss(step)});
  }
  return t;
}

}  // namespace

BOOST_AUTO_TEST_CASE(a_spike_is_the_worst_of_60_updates_over_the_mean_of_20) {
  auto const t = run([](i64 step) {
    if (step == 80 || step == 161) return 100.0;  // just outside both windows
    if (step == 81) return 3.0;                   // the first that the level counts
    if (step == 100) return 5.0;                  // and the last
    if (step == 160) return 9.0;                  // the last that the spike counts
    return step == 101 ? 6.0 : 4.0;
  });
  auto const r = t.resizes();
  BOOST_TEST_REQUIRE(r.size() == 1u);
  BOOST_TEST(r[0].samples == 1000);
  BOOST_TEST(r[0].steps == 100);
  BOOST_TEST(r[0].from == 1);
  BOOST_TEST(r[0].to == 4);
  BOOST_TEST(r[0].level == 4.0);
  BOOST_TEST(r[0].worst == 9.0);
  BOOST_TEST(r[0].spike() == 2.25);
  BOOST_TEST(t.worst_spike() == 2.25);
}

BOOST_AUTO_TEST_CASE(the_first_update_after_the_resize_counts_and_the_last_before_does_not) {
  auto const t = run([](i64 step) { return step == 101 ? 8.0 : step == 100 ? 24.0 : 4.0; });
  BOOST_TEST(t.resizes()[0].level == 5.0);
  BOOST_TEST(t.resizes()[0].worst == 8.0);
}

BOOST_AUTO_TEST_CASE(a_loss_that_only_falls_has_a_spike_below_one) {
  BOOST_TEST(run([](i64 step) { return 1.0 / static_cast<double>(step); }).worst_spike() < 1);
}

BOOST_AUTO_TEST_CASE(a_loss_that_is_no_number_is_an_infinite_spike) {
  for (double const bad : {infinite, -infinite, std::nan("")}) {
    BOOST_TEST(run([&](i64 step) { return step == 130 ? bad : 4.0; }).worst_spike() == infinite);
    BOOST_TEST(run([&](i64 step) { return step >= 90 ? bad : 4.0; }).worst_spike() == infinite);
  }
}

BOOST_AUTO_TEST_CASE(the_probe_is_evaluated_every_update_near_resizes_and_seldom_elsewhere) {
  auto const t = run([](i64) { return 4.0; }, 2000);
  i64 near = 0, far = 0;
  for (auto const& p : t.points()) ++(p.steps > 80 && p.steps <= 160 ? near : far);
  BOOST_TEST(near == 80);
  BOOST_TEST(far >= 4);
  BOOST_TEST(far <= 12);
  BOOST_TEST(t.points().front().steps == 1);
  BOOST_TEST(t.points().back().steps == 300);
}

BOOST_AUTO_TEST_CASE(the_window_ends_at_the_next_resize) {
  trace t({100, 150, 1000}, 1'000'000);
  for (i64 step = 1; step <= 100; ++step) {
    // Updates of 10 samples: resizes after update 10 and after update 15.
    if (t.due(step * 10, step, step <= 10 ? 1 : step <= 15 ? 2 : 3, 10)) {
      t.add({step * 10, step, 1, 0.1, step <= 10 ? 1.0 : step <= 15 ? 2.0 : 7.0});
    }
  }
  auto const r = t.resizes();
  BOOST_TEST_REQUIRE(r.size() == 2u);
  BOOST_TEST(r[0].spike() == 2.0);
  BOOST_TEST(r[1].from == 2);
  BOOST_TEST(r[1].to == 3);
  BOOST_TEST(r[1].level == 20.0 / 15);
  BOOST_TEST(r[1].worst == 7.0);
}
