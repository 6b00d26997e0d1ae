// SPDX-License-Identifier: Apache-2.0
// labels: unit
// needs: ZLIB
#define BOOST_TEST_MODULE limber.examples.elastic_audit
#include "../../examples/elastic_processes/audit.hpp"
#include "files.hpp"

#include <boost/test/unit_test.hpp>

#include <algorithm>
#include <fstream>
#include <numeric>
#include <string>
#include <vector>

using namespace example;
using limber::i64;
using limber::elastic::sample_range;

namespace {

constexpr audited what{12, 2, 7};

// Positions [first, end) of the permutation of an epoch, as samples.
std::vector<i64> positions(i64 epoch, i64 first, i64 end) {
  limber::sampler order(what.size, what.seed);
  order.restore({what.size, what.seed, epoch, 0});
  std::vector<i64> const share{what.size};
  auto const all = order.deal(share, 0);
  return {all.begin() + first, all.begin() + end};
}

// Two workers and two calls per epoch; in the first call of the second epoch worker b dies, and the samples
// of both are dealt again to a.
std::vector<history> example_run() {
  finished const end{2, 24, 99, 0.5, 0.9};
  entered const first{1, 0, 0, 0, {}}, second{2, 12, 1, 0, {}};
  history a{"a",
            {{1, 1, 0, positions(0, 0, 3)},
             {1, 2, 0, positions(0, 6, 9)},
             {1, 3, 1, positions(1, 0, 3)},
             {2, 3, 1, positions(1, 0, 6)},
             {2, 4, 1, positions(1, 6, 12)}},
            {first, second},
            {end}};
  history b{"b",
            {{1, 1, 0, positions(0, 3, 6)}, {1, 2, 0, positions(0, 9, 12)}, {1, 3, 1, positions(1, 3, 6)}},
            {first},
            {}};
  return {a, b};
}

bool finds(std::vector<history> const& all, std::string const& fault) {
  auto const f = audit(what, all).faults;
  for (auto const& one : f) BOOST_TEST_MESSAGE(one);
  return std::ranges::any_of(f, [&](auto const& one) { return one.find(fault) != std::string::npos; });
}

}  // namespace

BOOST_AUTO_TEST_CASE(a_correct_run_passes) {
  auto const f = audit(what, example_run());
  BOOST_TEST(f.faults == std::vector<std::string>{}, boost::test_tools::per_element());
  BOOST_TEST(f.generations == 2);
  BOOST_TEST(f.finished == 1);
  BOOST_TEST(f.computed == 30);
  BOOST_TEST(f.again == 6);
  BOOST_TEST(f.parameters == 99u);
  BOOST_TEST(f.bits == 0.5);
}

// b's last assignment was part of an update before it died, and a's model has it.
BOOST_AUTO_TEST_CASE(a_dead_workers_last_assignment_counts_if_the_survivors_hold_it) {
  auto all = example_run();
  all[0].assignments[3].samples = positions(1, 6, 9);
  all[0].assignments[4].samples = positions(1, 9, 12);
  all[0].generations[1] = {2, 18, 1, 6, {}};
  BOOST_TEST(audit(what, all).faults == std::vector<std::string>{}, boost::test_tools::per_element());
  all[0].generations[1] = {2, 15, 1, 6, {{1, 3, 3}}};  // b's part of it died with b
  BOOST_TEST(finds(all, "epoch 1: 3 samples were never consumed"));
  all[0].assignments.push_back({2, 5, 1, positions(1, 3, 6)});
  BOOST_TEST(audit(what, all).faults == std::vector<std::string>{}, boost::test_tools::per_element());
}

BOOST_AUTO_TEST_CASE(faults_are_found) {
  auto all = example_run();
  all[0].assignments.pop_back();
  BOOST_TEST(finds(all, "epoch 1: 6 samples were never consumed"));

  all = example_run();
  all[1].assignments[0].samples = positions(0, 0, 3);
  BOOST_TEST(finds(all, "epoch 0: 3 samples were never consumed"));
  BOOST_TEST(finds(all, "epoch 0: 3 samples were consumed more than once"));

  all = example_run();
  all[0].assignments.push_back({2, 5, 2, positions(2, 0, 3)});
  BOOST_TEST(finds(all, "beyond the last"));

  all = example_run();
  all[0].end[0].samples = 23;
  BOOST_TEST(finds(all, "the parameters hold 23 samples, 24 were consumed"));

  all = example_run();
  all[0].generations[1].samples = 11;
  BOOST_TEST(finds(all, "generation 2 began with 11 samples in its parameters, but 12 were consumed"));

  all = example_run();
  all[0].generations[1] = {2, 12, 1, 0, {{0, 7, 1}}};
  BOOST_TEST(finds(all, "generation 1, call 2: 1 of an assignment of 3 are outstanding"));

  all = example_run();
  all[1].generations.push_back({2, 12, 0, 6, {}});
  BOOST_TEST(finds(all, "generation 2: b does not know the same"));

  all = example_run();
  all[1].end = {{2, 24, 98, 0.5, 0.9}};
  BOOST_TEST(finds(all, "b ended with other parameters"));
  all[1].end = {{2, 24, 99, 0.4, 0.9}};
  BOOST_TEST(finds(all, "b ended in another state"));

  all = example_run();
  all[0].end.clear();
  BOOST_TEST(finds(all, "no worker finished"));
}

BOOST_AUTO_TEST_CASE(a_history_is_read_as_it_was_written_except_an_incomplete_line) {
  limber::test::temporary_folder const folder;
  auto const file = folder.path() / "worker-3.txt";
  std::vector<i64> const samples{5, 3, 11};
  {
    history_writer history_log(file);
    history_log.note(entered{4, 100, 1, 2, {{0, 1, 2}, {1, 7, 3}}});
    history_log.note(4, 17, {1, samples});
    history_log.note(4, 18, {1, {}});
    history_log.note(finished{4, 200, 0xfedc'ba98'7654'3210u, 0.1, 0.25});
  }
  std::ofstream(file, std::ios::app) << "dealt 4 19 1 5 6";
  auto const all = read_histories(folder.path());
  BOOST_TEST_REQUIRE(all.size() == 1);
  history const& h = all[0];
  BOOST_TEST(h.worker == "worker-3");
  BOOST_TEST_REQUIRE(h.assignments.size() == 2);
  BOOST_TEST(h.assignments[0].generation == 4);
  BOOST_TEST(h.assignments[0].call == 17);
  BOOST_TEST(h.assignments[0].epoch == 1);
  BOOST_TEST(h.assignments[0].samples == samples, boost::test_tools::per_element());
  BOOST_TEST(h.assignments[1].samples.empty());
  BOOST_TEST_REQUIRE(h.generations.size() == 1);
  BOOST_TEST((h.generations[0] == entered{4, 100, 1, 2, {{0, 1, 2}, {1, 7, 3}}}));
  BOOST_TEST_REQUIRE(h.end.size() == 1);
  BOOST_TEST((h.end[0] == finished{4, 200, 0xfedc'ba98'7654'3210u, 0.1, 0.25}));

  std::ofstream(file) << "nonsense\n";
  BOOST_CHECK_THROW((void)read_history(file), std::runtime_error);
}
