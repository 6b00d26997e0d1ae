// SPDX-License-Identifier: Apache-2.0
// labels: unit
// timeout: 60
#define BOOST_TEST_MODULE limber.comm.gloo_processes
#include <boost/test/unit_test.hpp>

#include <support/processes.hpp>

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <thread>

// The tests of processes find what goes wrong in any of them.

namespace limber::test {

std::string thrown_by_run(int n, void (*f)(int), double seconds = 20) {
  try {
    run_processes(n, f, seconds);
  } catch (std::exception const& e) { return e.what(); }
  return {};
}

void pause(double seconds) { std::this_thread::sleep_for(std::chrono::duration<double>(seconds)); }

BOOST_AUTO_TEST_CASE(processes_that_finish_are_no_failure) {
  BOOST_TEST(thrown_by_run(3, [](int) {}) == "");
}

BOOST_AUTO_TEST_CASE(a_failure_on_rank_1_alone_is_seen) {
  BOOST_TEST(thrown_by_run(3, [](int rank) {
               if (rank == 1) throw std::runtime_error("no luck");
             }) == "rank 1: no luck");
  BOOST_TEST(thrown_by_run(2, [](int rank) {
               if (rank == 1) throw 5;
             }) == "rank 1: something that is no std::exception");
}

BOOST_AUTO_TEST_CASE(a_rank_that_crashes_or_exits_is_seen) {
  BOOST_TEST(thrown_by_run(3, [](int rank) {
               if (rank == 2) std::abort();
             }) == text("rank 2: killed by signal ", SIGABRT));
  BOOST_TEST(thrown_by_run(2, [](int rank) {
               if (rank == 1) ::_exit(3);
             }) == "rank 1: exit status 3");
}

BOOST_AUTO_TEST_CASE(a_rank_that_hangs_or_is_stopped_is_killed_at_the_deadline) {
  double const start = steady_seconds();
  BOOST_TEST(thrown_by_run(
                 2,
                 [](int rank) {
                   if (rank == 1) pause(1000);
                 },
                 0.5) == "rank 1: did not end within 0.5 s");
  BOOST_TEST(thrown_by_run(
                 2,
                 [](int rank) {
                   if (rank == 0) std::raise(SIGSTOP);
                 },
                 0.5) == "rank 0: did not end within 0.5 s");
  BOOST_TEST(steady_seconds() - start < 20);
}

BOOST_AUTO_TEST_CASE(a_limber_error_keeps_its_fields) {
  crew workers(2, [](int rank, voice const&) {
    if (rank == 1) throw error({"gloo", "all_reduce", 7, 3, "bucket", "why"});
  });
  auto const endings = workers.join(20);
  BOOST_TEST((endings[0].how == ending::kind::finished));
  BOOST_TEST((endings[1].how == ending::kind::threw));
  BOOST_TEST(endings[1].what == "limber: gloo: all_reduce: why [code 7] [rank 3] [bucket]");
  BOOST_REQUIRE(endings[1].where.has_value());
  failure const& f = *endings[1].where;
  BOOST_TEST((f.engine == "gloo" && f.call == "all_reduce" && f.code == 7 && f.rank == 3));
  BOOST_TEST((f.bucket == "bucket" && f.reason == "why"));
}

BOOST_AUTO_TEST_CASE(what_processes_say_is_heard_in_order_and_whole) {
  std::string const bytes(300'000, '\0');
  crew workers(2, [&](int rank, voice const& say) {
    say(text("rank ", rank));
    say(bytes);
    say("");
  });
  for (int const r : {1, 0}) {
    BOOST_TEST(workers.hear(r, 20).value() == text("rank ", r));
    BOOST_TEST((workers.hear(r, 20).value() == bytes));
    BOOST_TEST(workers.hear(r, 20).value() == "");
    BOOST_TEST(!workers.hear(r, 20).has_value());
  }
  expect_finished(workers.join(20));
}

BOOST_AUTO_TEST_CASE(signals_reach_the_process_they_are_meant_for) {
  crew workers(3, [](int rank, voice const& say) {
    say("up");
    if (rank == 2) return;
    for (int k = 0;; ++k) {
      pause(0.02);
      if (rank == 1) say("still here");
    }
  });
  for (int r = 0; r < 3; ++r) BOOST_TEST(workers.hear(r, 20).value() == "up");
  workers.signal(1, SIGSTOP);
  while (workers.hear(1, 0.3)) continue;
  workers.signal(1, SIGCONT);
  BOOST_TEST(workers.hear(1, 20).value() == "still here");
  workers.signal(0, SIGKILL);
  workers.signal(1, SIGTERM);
  int const extra = workers.start([](int rank, voice const& say) { say(text("late ", rank)); });
  BOOST_TEST(workers.hear(extra, 20).value() == "late 3");
  auto const endings = workers.join(20);
  BOOST_TEST(endings[0].what == text("killed by signal ", SIGKILL));
  BOOST_TEST(endings[1].what == text("killed by signal ", SIGTERM));
  BOOST_TEST((endings[2].how == ending::kind::finished));
  BOOST_TEST((endings[3].how == ending::kind::finished));
  workers.signal(2, SIGKILL);  // has ended
}

}  // namespace limber::test
