// SPDX-License-Identifier: Apache-2.0
// labels: unit contract sanitize
// timeout: 300
#define BOOST_TEST_MODULE limber.comm.checked
#include <limber/comm/checked.hpp>
#include <limber/comm/self.hpp>
#include <limber/comm/threads.hpp>

#include <boost/test/unit_test.hpp>

#include <support/threads_harness.hpp>

#include <atomic>
#include <chrono>
#include <functional>
#include <limits>
#include <span>
#include <stdexcept>
#include <string>
#include <thread>
#include <tuple>
#include <vector>

using contract_harnesses =
    std::tuple<limber::test::threads_harness<limber::checked<limber::threads::communicator&>, 3>>;

#include <support/collective_contract.hpp>

namespace limber::test {

using engine = threads::communicator;
using checked_engine = checked<engine&>;

/// A minimal collective, without a mailbox.
struct bare {
  self inner;
  int rank() const { return 0; }
  int size() const { return 1; }
  auto all_reduce(const_tensor_view in, tensor_view out, reduction how = reduction::sum) {
    return inner.all_reduce(in, out, how);
  }
  auto reduce_scatter(const_tensor_view in, tensor_view out) { return inner.reduce_scatter(in, out); }
  auto all_gather(const_tensor_view in, tensor_view out) { return inner.all_gather(in, out); }
  auto broadcast(tensor_view data, int root) { return inner.broadcast(data, root); }
  void barrier() {}
};
/// A minimal collective with a mailbox.
struct bare_with_mailbox : bare {
  void post(int peer, i64 tag, std::span<std::byte const> bytes) { inner.post(peer, tag, bytes); }
  std::optional<message> poll(i64 tag) { return inner.poll(tag); }
  void listen() { inner.listen(); }
};

template <class C>
concept checkable = requires {
  typename checked<C>;
};
static_assert(collective<bare> && !mailbox<bare> && !checkable<bare>, "checked must demand a mailbox");
static_assert(checkable<bare_with_mailbox>);

using small = checked<bare_with_mailbox>;
static_assert(collective<small> && mailbox<small>);
static_assert(!point_to_point<small> && !splittable<small> && !revocable<small> && !shrinkable<small>,
              "checked must not invent capabilities");
static_assert(point_to_point<checked_engine> && splittable<checked_engine> && revocable<checked_engine>);
static_assert(shrinkable<checked_engine> && mailbox<checked_engine>);

struct outcome {
  std::vector<failure> ranks;
  std::vector<double> seconds;
};

/// Runs f on n checked ranks until all have ended.
template <class F>
[[nodiscard]] outcome observe(int n, F f, check_options how = {}) {
  outcome out{std::vector<failure>(static_cast<std::size_t>(n)),
              std::vector<double>(static_cast<std::size_t>(n))};
  threads::run(n, [&](engine& e) {
    auto const r = static_cast<std::size_t>(e.rank());
    checked comm(e, how);
    double const start = steady_seconds();
    try {
      f(comm);
    } catch (error const& failed) { out.ranks[r] = failed.where(); }
    out.seconds[r] = steady_seconds() - start;
  });
  return out;
}

void sum(checked_engine& comm, std::string_view name, std::size_t n = 8) {
  std::vector<float> in(n, 1), out(n);
  comm.all_reduce(const_view(in, name), view(out)).wait();
}

void expect_on_all(outcome const& o, std::string const& call, int rank, std::string const& bucket,
                   std::string const& reason) {
  for (auto const& f : o.ranks) {
    BOOST_TEST(f.engine == "checked");
    BOOST_TEST(f.call == call);
    BOOST_TEST(f.rank == rank);
    BOOST_TEST(f.bucket == bucket);
    BOOST_TEST(f.reason == reason);
  }
}

BOOST_AUTO_TEST_CASE(a_skipped_call_is_named_with_the_bucket_that_was_skipped) {
  for (int const culprit : {0, 1, 3}) {
    auto const o = observe(4, [=](checked_engine& comm) {
      sum(comm, "first");
      if (comm.rank() != culprit) sum(comm, "second");
      sum(comm, "third");
    });
    expect_on_all(
        o, "all_reduce", culprit, "second",
        text(
            "rank ", culprit,
            " calls all_reduce of 8 f32 (sum) of 'third', the others all_reduce of 8 f32 (sum) of 'second'"));
  }
}

BOOST_AUTO_TEST_CASE(reordered_calls_are_named) {
  auto const o = observe(3, [](checked_engine& comm) {
    sum(comm, comm.rank() == 2 ? "b" : "a");
    sum(comm, comm.rank() == 2 ? "a" : "b");
  });
  expect_on_all(o, "all_reduce", 2, "a",
                "rank 2 calls all_reduce of 8 f32 (sum) of 'b', the others all_reduce of 8 f32 (sum) of 'a'");
}

BOOST_AUTO_TEST_CASE(a_different_size_dtype_operation_reduction_or_root_is_named) {
  struct example {
    std::function<void(checked_engine&)> odd;
    std::string text;
  };
  std::vector<float> in(8), out(8);
  std::vector<example> const examples{
      {[](checked_engine& c) { sum(c, "w", 9); }, "all_reduce of 9 f32 (sum) of 'w'"},
      {[](checked_engine& c) {
         std::vector<double> a(8), b(8);
         c.all_reduce(const_view(a, "w"), view(b)).wait();
       },
       "all_reduce of 8 f64 (sum) of 'w'"},
      {[&](checked_engine& c) { c.all_reduce(const_view(in, "w"), view(out), reduction::max).wait(); },
       "all_reduce of 8 f32 (max) of 'w'"},
      {[](checked_engine& c) { c.barrier(); }, "barrier"},
      {[](checked_engine& c) { (void)c.split(1); }, "split"}};
  for (auto const& e : examples) {
    auto const o = observe(3, [&](checked_engine& comm) {
      sum(comm, "before");
      comm.rank() == 1 ? e.odd(comm) : sum(comm, "w");
    });
    expect_on_all(o, "all_reduce", 1, "w",
                  "rank 1 calls " + e.text + ", the others all_reduce of 8 f32 (sum) of 'w'");
  }
  auto const roots = observe(3, [](checked_engine& comm) {
    std::vector<float> data(2);
    comm.broadcast(view(data, "seed"), comm.rank() == 0 ? 1 : 2).wait();
  });
  expect_on_all(
      roots, "broadcast", 0, "seed",
      "rank 0 calls broadcast of 2 f32 from rank 1 of 'seed', the others broadcast of 2 f32 from rank 2 of "
      "'seed'");
}

BOOST_AUTO_TEST_CASE(no_data_moves_before_the_calls_were_compared) {
  std::vector<float> kept(8, -1);
  (void)observe(2, [&](checked_engine& comm) {
    std::vector<float> in(8, 1), out(8, -1);
    try {
      comm.all_reduce(const_view(in, comm.rank() == 0 ? "x" : "y"), view(out)).wait();
    } catch (error const&) {
      if (comm.rank() == 0) kept = out;
      throw;
    }
  });
  BOOST_TEST(kept == std::vector<float>(8, -1.f));
}

BOOST_AUTO_TEST_CASE(several_ranks_that_differ_are_all_named) {
  auto const o = observe(5, [](checked_engine& comm) {
    sum(comm, "w", comm.rank() == 1 ? 4 : comm.rank() == 3 ? 5 : 6);
  });
  expect_on_all(o, "all_reduce", 1, "w",
                "rank 1 calls all_reduce of 4 f32 (sum) of 'w', the others all_reduce of 6 f32 (sum) of 'w'; "
                "rank 3 calls all_reduce of 5 f32 (sum) of 'w', the others all_reduce of 6 f32 (sum) of 'w'");
}

BOOST_AUTO_TEST_CASE(an_absent_rank_is_named_within_the_deadline) {
  for (int const culprit : {0, 2}) {
    auto const o = observe(3,
                           [=](checked_engine& comm) {
                             sum(comm, "present");
                             if (comm.rank() == culprit)
                               std::this_thread::sleep_for(std::chrono::milliseconds(1000));
                             if (comm.rank() != culprit) sum(comm, "absent");
                           },
                           {.deadline = 0.4});
    for (std::size_t r = 0; r < 3; ++r) {
      if (static_cast<int>(r) == culprit) continue;
      BOOST_TEST(o.ranks[r].engine == "checked");
      BOOST_TEST(o.ranks[r].call == "all_reduce");
      BOOST_TEST(o.ranks[r].bucket == "absent");
      BOOST_TEST(o.ranks[r].rank == culprit);
      BOOST_TEST(o.ranks[r].reason == text("rank ", culprit,
                                           " did not come to all_reduce of 8 f32 (sum) of 'absent' within ",
                                           culprit == 0 ? 0.4 : 0.32, " s"));
      BOOST_TEST(o.seconds[r] < 0.95);
    }
  }
}

BOOST_AUTO_TEST_CASE(a_rank_that_is_too_late_gets_the_error_too) {
  for (int const culprit : {0, 1}) {
    auto const o = observe(2,
                           [=](checked_engine& comm) {
                             if (comm.rank() == culprit)
                               std::this_thread::sleep_for(std::chrono::milliseconds(500));
                             sum(comm, "late");
                           },
                           {.deadline = 0.2});
    for (auto const& f : o.ranks) {
      BOOST_TEST(f.call == "all_reduce");
      BOOST_TEST(f.bucket == "late");
      BOOST_TEST(f.rank == culprit);
    }
  }
}

/// A clock that one rank advances while others wait.
struct manual_clock {
  std::atomic<double> now{0};
  std::atomic<int> pauses{0};

  check_options options(double deadline) {
    return {.deadline = deadline,
            .clock = [this] { return now.load(); },
            .pause =
                [this] {
                  ++pauses;
                  std::this_thread::sleep_for(std::chrono::microseconds(50));
                }};
  }
  void let_others_look() const {
    for (int const seen = pauses; pauses < seen + 40;)
      std::this_thread::sleep_for(std::chrono::microseconds(50));
  }
  void advance(double seconds) {
    let_others_look();
    now = now + seconds;
    let_others_look();
  }
};

BOOST_AUTO_TEST_CASE(a_rank_ahead_does_not_blame_rank_0_for_another_rank) {
  // Rank 1 waits longest; rank 0 arrives shortly before rank 1's deadline, rank 2 never.
  manual_clock clock;
  std::atomic<int> ended{0};
  auto const o = observe(
      3,
      [&](checked_engine& comm) {
        if (comm.rank() == 2) {
          while (ended < 2) std::this_thread::sleep_for(std::chrono::milliseconds(1));
          return;
        }
        if (comm.rank() == 0) clock.advance(90);
        try {
          sum(comm, "w");
        } catch (error const&) {
          ++ended;
          throw;
        }
      },
      clock.options(100));
  for (std::size_t const r : {0u, 1u}) {
    BOOST_TEST(o.ranks[r].rank == 2);
    BOOST_TEST(o.ranks[r].reason == "rank 2 did not come to all_reduce of 8 f32 (sum) of 'w' within 80 s");
  }
}

BOOST_AUTO_TEST_CASE(a_slow_rank_is_waited_for_and_old_requests_are_ignored) {
  manual_clock clock;
  auto const o = observe(
      3,
      [&](checked_engine& comm) {
        for (int k = 0; k < 4; ++k) {
          // Within the deadline, but so late that the others have requested a reply of rank 0.
          if (comm.rank() == 0) clock.advance(90);
          sum(comm, "w");
        }
      },
      clock.options(100));
  for (auto const& f : o.ranks) BOOST_TEST(f.reason == "");
}

BOOST_AUTO_TEST_CASE(the_deadline_is_measured_by_the_injected_clock) {
  std::atomic<int> pauses{0};
  auto const o =
      observe(2,
              [&](checked_engine& comm) {
                if (comm.rank() == 1)
                  while (pauses < 700) std::this_thread::yield();
                else
                  sum(comm, "w");
              },
              {.deadline = 1000, .clock = [&] { return 1.0 * pauses; }, .pause = [&] { ++pauses; }});
  BOOST_TEST(o.ranks[0].rank == 1);
  BOOST_TEST(o.ranks[0].reason.find("within 800 s") != std::string::npos);
  BOOST_TEST(o.seconds[0] < 10);
}

BOOST_AUTO_TEST_CASE(plans_are_compared) {
  auto const o = observe(3, [](checked_engine& comm) {
    comm.plan_hash(17);
    sum(comm, "w");
    if (comm.rank() == 2) comm.plan_hash(18);
    sum(comm, "w");
  });
  expect_on_all(o, "all_reduce", 2, "w", "rank 2 has plan hash 18, the others 17");
}

BOOST_AUTO_TEST_CASE(sequence_numbers_are_compared) {
  std::vector<failure> seen(2);
  threads::run(2, [&](engine& e) {
    checked comm(e);
    sum(comm, "w");
    // A rank that recreated its checker has another sequence number for the same call.
    checked fresh(e);
    try {
      sum(e.rank() == 0 ? comm : fresh, "w");
    } catch (error const& failed) { seen[static_cast<std::size_t>(e.rank())] = failed.where(); }
  });
  expect_on_all({seen, {}}, "all_reduce", 1, "w", "rank 1 is at call 1, the others at 2");
}

BOOST_AUTO_TEST_CASE(after_a_failure_every_call_throws_the_same_error) {
  auto const o = observe(2, [](checked_engine& comm) {
    std::string first;
    try {
      sum(comm, "w", comm.rank() == 0 ? 1 : 2);
    } catch (error const& e) { first = e.what(); }
    try {
      comm.barrier();
    } catch (error const& e) {
      if (first != e.what()) throw std::logic_error("another error: " + std::string(e.what()));
      throw;
    }
    throw std::logic_error("a failed checker must throw");
  });
  BOOST_TEST(o.ranks[0].rank == 1);
}

BOOST_AUTO_TEST_CASE(a_rank_that_dies_is_named_with_operation_and_bucket) {
  std::vector<failure> seen(3);
  BOOST_CHECK_EXCEPTION(threads::run(3,
                                     [&](engine& e) {
                                       checked comm(e);
                                       sum(comm, "w");
                                       if (comm.rank() == 1) throw std::runtime_error("power cut");
                                       try {
                                         sum(comm, "v");
                                       } catch (error const& failed) {
                                         seen[static_cast<std::size_t>(comm.rank())] = failed.where();
                                         throw;
                                       }
                                     }),
                        std::runtime_error,
                        [](std::exception const& e) { return e.what() == std::string("power cut"); });
  for (std::size_t const r : {0u, 2u}) {
    BOOST_TEST(seen[r].engine == "threads");
    BOOST_TEST(seen[r].call == "all_reduce");
    BOOST_TEST(seen[r].bucket == "v");
    BOOST_TEST(seen[r].rank == 1);
    BOOST_TEST(seen[r].reason == "rank 1 threw: power cut");
  }
}

BOOST_AUTO_TEST_CASE(split_groups_are_checked_on_their_own) {
  auto const o = observe(4,
                         [](checked_engine& comm) {
                           auto part = comm.split(comm.rank() / 2);
                           std::vector<float> in(8), out(8);
                           for (int k = 0; k <= comm.rank() / 2; ++k)
                             part.all_reduce(const_view(in, "w"), view(out)).wait();
                           if (comm.rank() != 3) comm.barrier();
                           if (comm.rank() == 3) part.barrier();
                           if (comm.rank() == 2) part.all_reduce(const_view(in, "x"), view(out)).wait();
                         },
                         {.deadline = 0.5});
  // Rank 3 skipped the barrier of all; no rank of the other part is blamed for it.
  for (std::size_t const r : {0u, 1u, 2u}) BOOST_TEST(o.ranks[r].rank == 3, o.ranks[r].reason);
}

BOOST_AUTO_TEST_CASE(reserved_tags_and_bad_options_are_refused) {
  self alone;
  checked comm(alone);
  i64 const lowest = std::numeric_limits<i64>::min();
  auto const refused = [](auto f, std::string const& message) {
    BOOST_CHECK_EXCEPTION(f(), std::invalid_argument,
                          [&](std::exception const& e) { return e.what() == "limber: checked: " + message; });
  };
  refused([&] { (void)comm.poll(lowest); }, "poll: tag -9223372036854775808 is reserved");
  refused([&] { comm.post(0, lowest + 1, {}); }, "post: tag -9223372036854775807 is reserved");
  BOOST_CHECK_NO_THROW(comm.post(0, lowest + 2, {}));
  refused([&] { checked bad(alone, {.deadline = -1}); }, "deadline must be > 0 s, got -1");
  refused([&] { checked bad(alone, {.clock = nullptr}); }, "clock is empty");
  refused([&] { checked bad(alone, {.pause = nullptr}); }, "pause is empty");
}

BOOST_AUTO_TEST_CASE(an_engine_can_be_owned) {
  checked comm(self{});
  static_assert(std::is_same_v<decltype(comm), checked<self>>);
  std::vector<float> in{3}, out(1);
  comm.all_reduce(const_view(in), view(out)).wait();
  BOOST_TEST(out[0] == 3);
}

}  // namespace limber::test
