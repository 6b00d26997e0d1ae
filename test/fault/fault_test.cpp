// SPDX-License-Identifier: Apache-2.0
// labels: fault gloo
// timeout: 1800
// needs: gloo
// sanitizers: no
#define BOOST_TEST_MODULE limber.fault.fault
#include <boost/test/unit_test.hpp>

#include <comm/gloo_worlds.hpp>
#include <fault/fault_run.hpp>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <map>
#include <string>
#include <vector>

namespace limber::test {

namespace {

int runs_asked_for() {
  char const* const asked = std::getenv("LIMBER_FAULTS");
  return asked ? std::max(1, std::atoi(asked)) : 20;
}
std::uint64_t first_seed() {
  char const* const asked = std::getenv("LIMBER_FAULT_SEED");
  return asked ? std::strtoull(asked, nullptr, 10) : 0;
}

void print(char const* what, std::vector<double> seconds) {
  if (seconds.empty()) return;
  std::ranges::sort(seconds);
  std::printf("seconds until training continued after %s: median %.2f, worst %.2f of %zu\n", what,
              seconds[seconds.size() / 2], seconds.back(), seconds.size());
}

}  // namespace

// With logical shards neither deaths nor the number of workers change a bit.
BOOST_AUTO_TEST_CASE(nothing_is_lost_after_any_death_or_stop) {
  rendezvous_folder const place;
  fault_outcome const calm =
      fault_driver({.what = training_kind::shards, .workers = 2}, place.path() / "calm").run();
  for (auto const& f : calm.faults) BOOST_ERROR("undisturbed: " + f);

  std::vector<double> kills, stops;
  int died = 0, stopped = 0, fenced = 0, late = 0, failed = 0;
  i64 generations = 0;
  int const runs = runs_asked_for();
  for (int k = 0; k < runs; ++k) {
    std::uint64_t const seed = first_seed() + static_cast<std::uint64_t>(k);
    auto const plan = plan_of(seed);
    auto const folder = place.path() / std::to_string(seed);
    double const start = steady_seconds();
    auto out = fault_driver(plan, folder).run();
    if (plan.what == training_kind::shards && out.model != calm.model && !out.model.empty())
      out.faults.push_back("other bits than in an undisturbed run");
    if (std::getenv("LIMBER_LOG"))
      std::fprintf(stderr, "seed %d %s, kind %d, %d workers: %d died, %d stopped, %lld generations, %.1f s\n",
                   static_cast<int>(seed), plan.name.c_str(), static_cast<int>(plan.what), plan.workers,
                   out.died, out.stopped, static_cast<long long>(out.generations), steady_seconds() - start);
    for (auto const& f : out.faults)
      BOOST_ERROR("LIMBER_FAULT_SEED=" << seed << " LIMBER_FAULTS=1 (" << plan.name << ", training "
                                       << static_cast<int>(plan.what) << ", " << plan.workers
                                       << " workers): " << f);
    failed += out.faults.empty() ? 0 : 1;
    kills.insert(kills.end(), out.after_kill.begin(), out.after_kill.end());
    stops.insert(stops.end(), out.after_stop.begin(), out.after_stop.end());
    died += out.died;
    stopped += out.stopped;
    fenced += out.fenced;
    late += out.late;
    generations += out.generations;
    std::filesystem::remove_all(folder);
  }
  std::printf(
      "%d runs, %d failed: %d workers died, %d stopped, %d were fenced, %d came too late; %lld generations\n",
      runs, failed, died, stopped, fenced, late, static_cast<long long>(generations));
  print("a death", kills);
  print("a stop", stops);
  // The runs must contain enough faults.
  if (runs >= 20) {
    BOOST_TEST(died >= runs / 3);
    BOOST_TEST(stopped >= runs / 10);
    BOOST_TEST(kills.size() >= static_cast<std::size_t>(runs) / 4);
  }
}

BOOST_AUTO_TEST_CASE(a_worker_that_connects_too_late_is_fenced_and_joins_again) {
  rendezvous_folder const place;
  fault_plan plan{.pause = 50};
  plan.faults_by_worker[1] = {.what = fault_point::kind::connects_late};
  auto const out = fault_driver(plan, place.path() / "run").run();
  for (auto const& f : out.faults) BOOST_ERROR(f);
  BOOST_TEST(out.fenced == 1);
  BOOST_TEST(out.finished == 3);
}

// The folder becomes a file: nothing can be read or written, and no worker hangs.
BOOST_AUTO_TEST_CASE(a_store_that_is_gone_ends_the_run_with_a_clear_error) {
  rendezvous_folder const place;
  std::filesystem::create_directories(place.path() / "histories");
  crew workers(3, [&](int rank, voice const& say) {
    work_on_ledger({.folder = place.path(), .id = rank, .workers = 3}, training_kind::allreduce, say);
  });
  for (int r = 0; r < 3; ++r) BOOST_TEST_REQUIRE(workers.hear(r, 20).has_value());
  std::filesystem::rename(place.path() / "store", place.path() / "gone");
  std::ofstream(place.path() / "store") << "no folder";
  auto const endings = workers.join(20);
  for (auto const& e : endings) {
    BOOST_TEST((e.how == ending::kind::threw), e.what);
    BOOST_TEST_REQUIRE(e.where.has_value(), e.what);
    BOOST_TEST(e.where->engine == "store", e.what);
    BOOST_TEST(e.what.find((place.path() / "store").string()) != std::string::npos, e.what);
  }
}

}  // namespace limber::test
