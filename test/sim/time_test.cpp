// SPDX-License-Identifier: Apache-2.0
// labels: unit property
// needs: context
// sanitizers: address
#define BOOST_TEST_MODULE limber.sim.time
#include <limber/sim/sim.hpp>

#include <boost/test/unit_test.hpp>

#include <core/says.hpp>
#include <sim/both.hpp>

#include <cmath>
#include <cstddef>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

using namespace limber;
using namespace limber::test;

namespace {

// When compute(samples) that starts at `start` ends.
double end_of(sim::cluster const& c, double start, double samples) {
  double end = 0;
  sim::run(c, [&](sim::worker& me) {
    if (me.rank() != 0) return;
    me.sleep(start);
    me.compute(samples);
    end = me.now();
  });
  return end;
}

}  // namespace

BOOST_AUTO_TEST_CASE(computing_takes_a_call_and_its_samples) {
  auto c = idle_cluster(1);
  c.workers[0] = {.seconds_per_call = 0.5, .seconds_per_sample = 0.25};
  BOOST_TEST(end_of(c, 1, 8) == 3.5);
  BOOST_TEST(end_of(c, 1, 0) == 1.5);
}

BOOST_AUTO_TEST_CASE(a_slowdown_counts_exactly_for_the_time_it_covers) {
  auto c = idle_cluster(2);
  c.slowdowns = {{.worker = 0, .from = 10, .until = 20, .factor = 4}};
  BOOST_TEST(end_of(c, 0, 10) == 10);
  BOOST_TEST(end_of(c, 8, 1) == 9);
  BOOST_TEST(end_of(c, 8, 3) == 14);            // 2 before, 1 more at a quarter of the speed
  BOOST_TEST(end_of(c, 8, 2 + 2.5 + 3) == 23);  // all of it, and 3 after
  BOOST_TEST(end_of(c, 12, 1) == 16);
  BOOST_TEST(end_of(c, 20, 1) == 21);
  c.slowdowns.push_back({.worker = 0, .from = 15, .factor = 2});  // without end, overlapping the first
  BOOST_TEST(end_of(c, 10, 1.25 + 0.5) == 19);
  BOOST_TEST(end_of(c, 30, 1) == 32);
  c.slowdowns[0].worker = c.slowdowns[1].worker = 1;  // of another worker
  BOOST_TEST(end_of(c, 8, 3) == 11);
  c.slowdowns = {{.worker = 0, .from = 2, .until = 6, .factor = 0.5}};
  BOOST_TEST(end_of(c, 0, 4) == 3);  // faster
}

BOOST_AUTO_TEST_CASE(jitter_has_mean_one_and_its_sigma_and_belongs_to_a_worker) {
  int const draws = 20000;
  auto c = idle_cluster(2);
  for (auto& s : c.workers) s.jitter = 0.4;
  std::vector<std::vector<double>> took(2);
  auto once = [&] {
    for (auto& t : took) t.clear();
    sim::run(c, [&](sim::worker& me) {
      for (int k = 0; k < draws; ++k) {
        double const before = me.now();
        me.compute(1);
        took[static_cast<std::size_t>(me.rank())].push_back(me.now() - before);
      }
    });
  };
  once();
  auto const first = took;
  BOOST_TEST((first[0] != first[1]));
  for (auto const& t : first) {
    double mean = 0, of_logs = 0, square = 0;
    for (double const x : t) {
      mean += x / draws;
      of_logs += std::log(x) / draws;
    }
    for (double const x : t) square += (std::log(x) - of_logs) * (std::log(x) - of_logs) / draws;
    // Four standard errors.
    BOOST_TEST(std::abs(mean - 1) < 4 * std::sqrt((std::exp(0.16) - 1) / draws));
    BOOST_TEST(std::abs(of_logs + 0.08) < 4 * 0.4 / std::sqrt(draws));
    BOOST_TEST(std::abs(std::sqrt(square) - 0.4) < 4 * 0.4 / std::sqrt(2. * draws));
  }
  once();
  BOOST_TEST((took == first));
  c.seed = 1;
  once();
  BOOST_TEST((took != first));
}

// 1 and 3 seconds of computing, then 2 (0.5 + 8/(2·8)) = 2 seconds of all-reduce; three rounds.
BOOST_AUTO_TEST_CASE(times_add_up_as_computed_by_hand) {
  auto c = idle_cluster(2);
  c.workers[1].seconds_per_sample = 3;
  c.network = {.latency = 0.5, .bandwidth = 8};
  auto const r = sim::run(c, [](sim::worker& me) {
    std::vector<float> in(2), out(2);
    for (int k = 0; k < 3; ++k) {
      me.compute(1);
      me.comm().all_reduce(view(in), view(out)).wait();
      me.note("end of round", me.now());
    }
    if (me.rank() == 0) me.sleep(5);
  });
  BOOST_TEST(r.seconds == 20);
  BOOST_TEST(r.workers[0].busy == 3);
  BOOST_TEST(r.workers[0].waiting == 12);
  BOOST_TEST(r.workers[0].sleeping == 5);
  BOOST_TEST(r.workers[0].lifetime() == 20);
  BOOST_TEST(r.workers[1].busy == 9);
  BOOST_TEST(r.workers[1].waiting == 6);
  BOOST_TEST(r.workers[1].lifetime() == 15);
  BOOST_TEST(r.utilisation() == 12.0 / 35);
  BOOST_TEST(r.samples() == 6);
  BOOST_TEST(r.bytes() == 3 * 2 * 8);  // 2 (p − 1)/p n each
  BOOST_TEST(r.workers[0].operations == 3);
  BOOST_TEST(r.workers[0].messages == 0);
  BOOST_TEST(r.values("end of round", 1) == (std::vector<double>{5, 10, 15}),
             boost::test_tools::per_element());
  BOOST_TEST(r.of("end of round").size() == 6u);
  BOOST_TEST(r.of("end of round")[1].rank == 1);
  BOOST_TEST(r.of("end of round")[1].time == 5);
  BOOST_TEST(r.values("another").empty());
}

BOOST_AUTO_TEST_CASE(a_report_counts_and_finds_values) {
  sim::report r;
  for (double const x : {4., 3., 2.5, 0.5, 1.}) r.notes.push_back({10 * x, 0, "loss", x});
  r.notes.push_back({7, 0, "gain", 1});
  BOOST_TEST(r.histogram("loss", {0.5, 1, 3, 4}) == (std::vector<i64>{1, 2, 1}),
             boost::test_tools::per_element());
  BOOST_TEST(r.time_to("loss", 3) == 30);
  BOOST_TEST(r.time_to("loss", 0.1) == std::numeric_limits<double>::infinity());
  BOOST_CHECK_EXCEPTION((void)r.histogram("loss", {1}), std::invalid_argument, says("2 edges", "1"));
  BOOST_CHECK_EXCEPTION((void)r.histogram("loss", {1, 1}), std::invalid_argument, says("ascend"));
  BOOST_TEST(sim::report{}.utilisation() == 1);
}

BOOST_AUTO_TEST_CASE(what_happens_at_one_time_happens_in_order_of_rank) {
  std::vector<int> order;
  sim::run(idle_cluster(3), [&](sim::worker& me) {
    for (int k = 0; k < 2; ++k) {
      order.push_back(me.rank());
      me.compute(me.rank() == 1 ? 2 : 1);  // both arrive at 2
    }
    if (me.rank() != 1) order.push_back(10 + me.rank());
  });
  BOOST_TEST(order == (std::vector<int>{0, 1, 2, 0, 2, 10, 1, 12}), boost::test_tools::per_element());
}

BOOST_AUTO_TEST_CASE(a_clock_reads_virtual_time) {
  sim::run(idle_cluster(1), [](sim::worker& me) {
    auto const clock = me.clock();
    me.compute(2.5);
    if (clock() != 2.5 || me.now() != 2.5) throw std::logic_error("the clock stands still");
  });
}

BOOST_AUTO_TEST_CASE(misuse_names_the_argument) {
  auto thrown = [](auto f) {
    std::string message;
    try {
      sim::run(idle_cluster(2), [&](sim::worker& me) {
        if (me.rank() == 0) f(me);
      });
    } catch (std::invalid_argument const& e) { message = e.what(); }
    return message;
  };
  BOOST_TEST(thrown([](auto& me) { me.compute(-1); }).find("samples must be") != std::string::npos);
  BOOST_TEST(thrown([](auto& me) { me.sleep(-1); }).find("seconds must be") != std::string::npos);
}

BOOST_AUTO_TEST_CASE(a_communicator_belongs_to_its_worker) {
  sim::communicator* of_first = nullptr;
  BOOST_CHECK_EXCEPTION(sim::run(idle_cluster(2),
                                 [&](sim::worker& me) {
                                   if (me.rank() == 0) of_first = &me.comm();
                                   me.compute(1);
                                   if (me.rank() == 1) of_first->barrier();
                                   me.compute(1);
                                 }),
                        std::invalid_argument, says("of worker 0 was used by worker 1"));
}
