// SPDX-License-Identifier: Apache-2.0
// labels: gloo
// timeout: 60
// needs: gloo
#define BOOST_TEST_MODULE limber.comm.gloo_checked
#include <limber/comm/checked.hpp>

#include <boost/test/unit_test.hpp>

#include <comm/gloo_worlds.hpp>

#include <chrono>
#include <csignal>
#include <cstddef>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

// What `checked` promises, between processes.

namespace limber::test {

using comm_type = checked<gloo_engine::communicator>;

void pause(double seconds) { std::this_thread::sleep_for(std::chrono::duration<double>(seconds)); }

template <class T = float>
void sum(comm_type& comm, std::string_view bucket, std::size_t n = 8) {
  std::vector<T> const in(n, T(1));
  std::vector<T> out(n);
  comm.all_reduce(const_view(in, bucket), view(out)).wait();
  if (out[0] != T(comm.size())) throw std::logic_error("the sum is wrong");
}

constexpr double deadline = 1;

/// Runs f(communicator&) on 3 ranks that first sum 'a'; every rank must fail with this within the deadline.
template <class F>
void expect_named(F f, std::string const& call, std::string const& bucket, int rank,
                  std::string const& reason) {
  rendezvous_folder const place;
  crew workers(3, [&](int r, voice const& say) {
    comm_type comm(place.join(r, 3, {.deadline = 30}), {.deadline = deadline});
    sum(comm, "a");
    double const start = steady_seconds();
    try {
      f(comm);
    } catch (error const&) {
      if (steady_seconds() - start > deadline + 0.5) say("late");
      throw;
    }
  });
  auto const endings = workers.join(20);
  for (int r = 0; r < 3; ++r) {
    ending const& e = endings[static_cast<std::size_t>(r)];
    BOOST_TEST(!workers.hear(r, 0.01).has_value());
    if (r == rank && e.how == ending::kind::finished) continue;  // it made no further call
    BOOST_REQUIRE_MESSAGE(e.where.has_value(), e.what);
    BOOST_TEST(e.where->engine == "checked");
    BOOST_TEST(e.where->call == call);
    BOOST_TEST(e.where->bucket == bucket);
    BOOST_TEST(e.where->rank == rank);
    BOOST_TEST(e.where->reason == reason);
  }
}

BOOST_AUTO_TEST_CASE(a_skipped_call_is_named) {
  expect_named(
      [](comm_type& c) {
        if (c.rank() != 1) sum(c, "b");
        sum(c, "c");
      },
      "all_reduce", "b", 1,
      "rank 1 calls all_reduce of 8 f32 (sum) of 'c', the others all_reduce of 8 f32 (sum) of 'b'");
}

BOOST_AUTO_TEST_CASE(reordered_calls_are_named) {
  expect_named(
      [](comm_type& c) {
        sum(c, c.rank() == 2 ? "c" : "b");
        sum(c, c.rank() == 2 ? "b" : "c");
      },
      "all_reduce", "b", 2,
      "rank 2 calls all_reduce of 8 f32 (sum) of 'c', the others all_reduce of 8 f32 (sum) of 'b'");
  expect_named([](comm_type& c) { c.rank() == 0 ? c.barrier() : sum(c, "b"); }, "all_reduce", "b", 0,
               "rank 0 calls barrier, the others all_reduce of 8 f32 (sum) of 'b'");
}

BOOST_AUTO_TEST_CASE(a_wrong_size_is_named) {
  expect_named([](comm_type& c) { sum(c, "b", c.rank() == 1 ? 9 : 8); }, "all_reduce", "b", 1,
               "rank 1 calls all_reduce of 9 f32 (sum) of 'b', the others all_reduce of 8 f32 (sum) of 'b'");
}

BOOST_AUTO_TEST_CASE(a_wrong_dtype_is_named) {
  expect_named([](comm_type& c) { c.rank() == 1 ? sum<double>(c, "b") : sum(c, "b"); }, "all_reduce", "b", 1,
               "rank 1 calls all_reduce of 8 f64 (sum) of 'b', the others all_reduce of 8 f32 (sum) of 'b'");
}

BOOST_AUTO_TEST_CASE(an_absent_rank_is_named) {
  for (int const absent : {1, 2})
    expect_named(
        [=](comm_type& c) {
          if (c.rank() == absent) return pause(2);
          sum(c, "b");
        },
        "all_reduce", "b", absent,
        text("rank ", absent, " did not come to all_reduce of 8 f32 (sum) of 'b' within ", 0.8 * deadline,
             " s"));
  // Rank 0 compares, and is missed by the others themselves.
  expect_named(
      [=](comm_type& c) {
        if (c.rank() == 0) return pause(2);
        sum(c, "b");
      },
      "all_reduce", "b", 0,
      text("rank 0 did not come to all_reduce of 8 f32 (sum) of 'b' within ", deadline, " s"));
}

BOOST_AUTO_TEST_CASE(a_rank_that_died_is_named_at_once_with_operation_and_bucket) {
  rendezvous_folder const place;
  crew workers(3, [&](int r, voice const& say) {
    comm_type comm(place.join(r, 3, {.deadline = 30}), {.deadline = 30});
    sum(comm, "a");
    say("ready");
    if (r == 2) pause(1000);
    sum(comm, "b");
  });
  for (int r = 0; r < 3; ++r) BOOST_TEST(workers.hear(r, 20).value_or("") == "ready");
  double const start = steady_seconds();
  workers.signal(2, SIGKILL);
  auto const endings = workers.join(20);
  BOOST_TEST(steady_seconds() - start < 10);
  for (std::size_t const r : {0u, 1u}) {
    BOOST_REQUIRE_MESSAGE(endings[r].where.has_value(), endings[r].what);
    BOOST_TEST(endings[r].where->call == "all_reduce");
    BOOST_TEST(endings[r].where->bucket == "b");
    BOOST_TEST(endings[r].where->rank == 2);
    BOOST_TEST(endings[r].where->reason.find("the connection to rank 2 was lost") != std::string::npos);
  }
}

BOOST_AUTO_TEST_CASE(correct_programs_pass) {
  rendezvous_folder const place;
  run_processes(4, [&](int r) {
    comm_type comm(place.join(r, 4));
    for (int k = 0; k < 20; ++k) {
      sum(comm, "a");
      comm.barrier();
    }
    auto half = comm.split(r / 2);
    sum(half, "b");
  });
}

}  // namespace limber::test
