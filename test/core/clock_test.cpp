// SPDX-License-Identifier: Apache-2.0
// labels: unit memory
#define BOOST_TEST_MODULE limber.core.clock
#include <limber/core/clock.hpp>

#include <boost/test/unit_test.hpp>

#include <chrono>
#include <functional>
#include <thread>
#include <utility>

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

BOOST_AUTO_TEST_CASE(it_is_the_steady_clock) {
  auto const standard = [] {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
  };
  double const before = standard(), now = limber::steady_seconds(), after = standard();
  BOOST_TEST(now >= before - 1e-6);
  BOOST_TEST(now <= after + 1e-6);
}

BOOST_AUTO_TEST_CASE(a_virtual_clock_is_any_function) {
  double now = 5;
  limber::clock_function const clock = [&now] { return now; };
  now += 2.5;
  BOOST_TEST(clock() == 7.5);
  limber::clock_function counting = [n = 0]() mutable { return ++n; };
  BOOST_TEST(counting() == 1);
  limber::clock_function copy = counting;
  BOOST_TEST(counting() == 2);
  BOOST_TEST(copy() == 2);
  std::function<double()> const erased = [] { return 3.5; };
  copy = erased;
  BOOST_TEST(copy() == 3.5);
  copy = clock;
  counting = std::move(copy);
  BOOST_TEST(counting() == 7.5);
  counting = limber::steady_seconds;
  BOOST_TEST(counting() != 7.5);
}

BOOST_AUTO_TEST_CASE(an_empty_clock_compares_equal_to_nullptr) {
  struct options {
    limber::clock_function clock = limber::steady_seconds;
  };
  BOOST_TEST((options{}.clock != nullptr));
  BOOST_TEST((options{.clock = [] { return 1; }}.clock != nullptr));
  BOOST_TEST((options{.clock = nullptr}.clock == nullptr));
  double (*none)() = nullptr;
  BOOST_TEST((options{.clock = none}.clock == nullptr));
  BOOST_TEST((limber::clock_function() == nullptr));
  limber::clock_function from = [] { return 1.0; }, to = std::move(from);
  BOOST_TEST((from == nullptr));
  BOOST_TEST((nullptr != to));
}
