// SPDX-License-Identifier: Apache-2.0
// labels: unit memory
#define BOOST_TEST_MODULE limber.core.clock
#include <limber/core/clock.hpp>

#include <boost/test/unit_test.hpp>

#include <chrono>
#include <thread>

BOOST_AUTO_TEST_CASE(the_default_clock_counts_seconds_and_never_runs_backwards) {
  limber::clock_function const clock = limber::steady_seconds;
  double const begin = clock();
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  double before = clock();
  BOOST_TEST(before - begin >= 0.02);
  BOOST_TEST(before - begin < 60);
  for (int i = 0; i < 1000; ++i) {
    double const now = clock();
    BOOST_TEST_REQUIRE(now >= before);
    before = now;
  }
}

BOOST_AUTO_TEST_CASE(a_virtual_clock_is_any_function) {
  double now = 5;
  limber::clock_function const clock = [&now] { return now; };
  now += 2.5;
  BOOST_TEST(clock() == 7.5);
}
