// SPDX-License-Identifier: Apache-2.0
// labels: unit sanitize
// timeout: 120
#define BOOST_TEST_MODULE limber.comm.threads_failure
#include <limber/comm/threads.hpp>

#include <boost/test/unit_test.hpp>

#include <comm/observe.hpp>

#include <atomic>
#include <cstddef>
#include <functional>
#include <memory>
#include <random>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace limber::test {

BOOST_AUTO_TEST_CASE(a_rank_that_throws_before_an_operation_fails_the_others_with_its_reason) {
  for (int const n : {2, 5}) {
    auto const r = observe(n, [](communicator& comm) {
      sum(comm);
      if (comm.rank() == 1) throw std::runtime_error("out of paper");
      sum(comm, 8, "bucket 2");
    });
    BOOST_TEST(r.thrown == "out of paper");
    BOOST_TEST(!r.is_limber_error);
    BOOST_TEST(r.seconds < at_once);
    for (int k = 0; k < n; ++k)
      if (k != 1)
        expect_failure(r.ranks[static_cast<std::size_t>(k)], "all_reduce", 1, "bucket 2",
                       "rank 1 threw: out of paper");
  }
}

BOOST_AUTO_TEST_CASE(the_reason_is_known_even_if_the_exception_passes_requests_and_split_groups) {
  auto const r = observe(4, [](communicator& comm) {
    auto pair = comm.split(comm.rank() / 2);
    std::vector<float> in(100, 1), out(100), more(100);
    auto first = comm.all_reduce(const_view(in, "a"), view(out));
    auto second = pair.all_reduce(const_view(in, "b"), view(more));
    if (comm.rank() == 2) throw std::runtime_error("stumbled");
    first.wait();
    second.wait();
    pair.barrier();
    comm.barrier();
  });
  BOOST_TEST(r.thrown == "stumbled");
  BOOST_TEST(r.seconds < at_once);
  for (std::size_t const k : {0u, 1u, 3u}) {
    // Rank 0 of the pair.
    BOOST_TEST((r.ranks[k].reason == "rank 2 threw: stumbled" ||
                (k == 3 && r.ranks[k].reason == "rank 0 (rank 2 of the world) threw: stumbled")),
               r.ranks[k].reason);
  }
}

BOOST_AUTO_TEST_CASE(a_failing_rank_frees_no_memory_that_others_still_read) {
  for (int round = 0; round < 30; ++round) {
    auto const r = observe(3, [&](communicator& comm) {
      auto in = std::make_unique<std::vector<float>>(300'000, 1.f);
      auto out = std::make_unique<std::vector<float>>(300'000);
      auto request = comm.all_reduce(const_view(*in, "large"), view(*out));
      if (comm.rank() == round % 3) throw std::runtime_error("gone with the memory");
      try {
        request.wait();
      } catch (error const&) {
        // After wait() has thrown, the views need not be valid any more, although the request still exists.
        in.reset();
        out.reset();
        throw;
      }
    });
    BOOST_TEST(r.thrown == "gone with the memory");
  }
}

BOOST_AUTO_TEST_CASE(a_revocation_during_the_work_frees_no_memory_that_others_still_read) {
  for (int round = 0; round < 40; ++round) {
    auto const r = observe(4, [&](communicator& comm) {
      auto in = std::make_unique<std::vector<double>>(200'000, 1.);
      auto out = std::make_unique<std::vector<double>>(200'000);
      comm.barrier();
      auto request = comm.all_reduce(const_view(*in, "large"), view(*out));
      if (comm.rank() == 3) sleep(5e-5 * round);
      if (comm.rank() == 3) comm.revoke("enough");
      try {
        request.wait();
      } catch (error const& e) {
        in.reset();
        out.reset();
        if (e.where().reason != "enough") throw std::logic_error(e.what());
      }
    });
    // A rank that calls after the revocation gets an error at the start.
    BOOST_TEST((r.thrown.empty() || r.thrown == "limber: threads: all_reduce: enough [large]"), r.thrown);
  }
}

BOOST_AUTO_TEST_CASE(a_rank_that_leaves_early_is_named_by_those_who_need_it) {
  auto const r = observe(3, [](communicator& comm) {
    sum(comm);
    if (comm.rank() == 2) return;
    sum(comm, 3, "tail");
  });
  BOOST_TEST(r.is_limber_error);
  BOOST_TEST(r.seconds < at_once);
  for (std::size_t const k : {0u, 1u})
    expect_failure(r.ranks[k], "all_reduce", 2, "tail",
                   "rank 2 left without calling all_reduce of 3 f32 (sum)");
}

BOOST_AUTO_TEST_CASE(all_ranks_that_are_late_are_named_at_the_deadline) {
  auto const r = observe(4,
                         [](communicator& comm) {
                           sum(comm);
                           if (comm.rank() % 2 == 1) sleep(0.8);
                           sum(comm, 8, "late");
                         },
                         {.deadline = 0.2});
  for (auto const& f : r.ranks)
    expect_failure(f, "all_reduce", 1, "late",
                   "rank 1, rank 3 did not call all_reduce of 8 f32 (sum) within 0.2 s");
  BOOST_TEST(r.thrown ==
             "limber: threads: all_reduce: rank 1, rank 3 did not call all_reduce of 8 f32 (sum) within 0.2 "
             "s [rank 1] "
             "[late]");
}

BOOST_AUTO_TEST_CASE(waiting_ranks_fail_at_the_deadline_and_not_much_later) {
  std::atomic<double> waited{0};
  (void)observe(2,
                [&](communicator& comm) {
                  if (comm.rank() == 1) return sleep(1.5);
                  double const start = steady_seconds();
                  try {
                    comm.barrier();
                  } catch (error const&) { waited = steady_seconds() - start; }
                },
                {.deadline = 0.2});
  BOOST_TEST(waited.load() >= 0.2);
  BOOST_TEST(waited.load() < 1);
}

BOOST_AUTO_TEST_CASE(a_poller_of_done_meets_the_deadline_too) {
  auto const r = observe(2,
                         [](communicator& comm) {
                           std::vector<float> in(3), out(3);
                           if (comm.rank() == 1) return sleep(0.6);
                           auto q = comm.all_reduce(const_view(in, "polled"), view(out));
                           while (!q.done()) sleep(0.005);
                           q.wait();
                         },
                         {.deadline = 0.1});
  expect_failure(r.ranks[0], "all_reduce", 1, "polled",
                 "rank 1 did not call all_reduce of 3 f32 (sum) within 0.1 s");
}

BOOST_AUTO_TEST_CASE(the_deadline_is_measured_by_the_injected_clock) {
  std::atomic<double> now{0};
  auto const r = observe(2,
                         [&](communicator& comm) {
                           if (comm.rank() == 0) return comm.barrier();
                           sleep(0.3);  // longer than any poll interval, but no time on the clock
                           now = 1000;
                           while (now < 2000) {
                             sleep(0.01);
                             now = now + 50;
                           }
                         },
                         {.deadline = 100, .clock = [&] { return now.load(); }});
  BOOST_TEST(r.seconds < at_once);
  expect_failure(r.ranks[0], "barrier", 1, "", "rank 1 did not call barrier within 100 s");
}

BOOST_AUTO_TEST_CASE(a_slow_rank_within_the_deadline_is_waited_for) {
  auto const r = observe(3,
                         [](communicator& comm) {
                           for (int k = 0; k < 4; ++k) {
                             if (comm.rank() == k % 3) sleep(0.1);
                             sum(comm);
                           }
                         },
                         {.deadline = 5});
  BOOST_TEST(r.thrown == "");
}

BOOST_AUTO_TEST_CASE(calls_that_differ_are_named_on_all_ranks) {
  struct example {
    std::function<void(communicator&, std::vector<float>&, std::vector<float>&)> odd;
    std::string call, text;
  };
  std::vector<double> const wide(8);
  std::vector<example> const examples{
      {[](auto& c, auto& a, auto&) { c.broadcast(view(a, "x"), 0).wait(); }, "broadcast",
       "broadcast of 8 f32 from rank 0"},
      {[](auto& c, auto& a, auto& b) { c.all_reduce(view(a, "x").sub(0, 7), view(b).sub(0, 7)).wait(); },
       "all_reduce", "all_reduce of 7 f32 (sum)"},
      {[&](auto& c, auto&, auto&) {
         std::vector<double> out(8);
         c.all_reduce(const_view(wide, "x"), view(out)).wait();
       },
       "all_reduce", "all_reduce of 8 f64 (sum)"},
      {[](auto& c, auto& a, auto& b) { c.all_reduce(const_view(a, "x"), view(b), reduction::max).wait(); },
       "all_reduce", "all_reduce of 8 f32 (max)"},
      {[](auto& c, auto&, auto&) { (void)c.split(0); }, "split", "split"}};
  for (auto const& e : examples) {
    auto const r = observe(3, [&](communicator& comm) {
      std::vector<float> in(8), out(8);
      if (comm.rank() == 2) sleep(0.03);  // so that one rank differs from two
      if (comm.rank() == 2) return e.odd(comm, in, out);
      comm.all_reduce(const_view(in, "w"), view(out)).wait();
    });
    BOOST_TEST(r.seconds < at_once);
    for (std::size_t k = 0; k < 3; ++k) {
      BOOST_TEST(r.ranks[k].call == (k == 2 ? e.call : "all_reduce"));
      BOOST_TEST(r.ranks[k].rank == 2);
      std::string const tail = " called all_reduce of 8 f32 (sum) where rank 2 called " + e.text;
      BOOST_TEST((r.ranks[k].reason == "rank 0" + tail || r.ranks[k].reason == "rank 1" + tail),
                 r.ranks[k].reason);
    }
  }
  auto const roots = observe(2, [](communicator& comm) {
    std::vector<i64> data(5);
    comm.broadcast(view(data, "seed"), comm.rank()).wait();
  });
  for (auto const& f : roots.ranks)
    expect_failure(f, "broadcast", 1, "seed",
                   "rank 0 called broadcast of 5 int64 from rank 0 where rank 1 called broadcast of 5 int64 "
                   "from rank 1");
}

BOOST_AUTO_TEST_CASE(of_two_ranks_that_throw_one_is_reported_and_nobody_hangs) {
  for (int round = 0; round < 20; ++round) {
    auto const r = observe(4, [&](communicator& comm) {
      sum(comm);
      if (comm.rank() % 2 == 0) throw std::runtime_error(text("double fault of ", comm.rank()));
      sum(comm);
    });
    BOOST_TEST((r.thrown == "double fault of 0" || r.thrown == "double fault of 2"), r.thrown);
    BOOST_TEST(r.seconds < at_once);
    for (std::size_t const k : {1u, 3u})
      BOOST_TEST(r.ranks[k].reason ==
                 text("rank ", r.ranks[k].rank, " threw: double fault of ", r.ranks[k].rank));
  }
}

BOOST_AUTO_TEST_CASE(an_exception_of_no_standard_type_is_passed_on) {
  bool caught = false;
  std::string reason;
  try {
    threads::run(2, [&](communicator& comm) {
      if (comm.rank() == 1) throw 42;
      try {
        comm.barrier();
      } catch (error const& e) {
        reason = e.where().reason;
        throw;
      }
    });
  } catch (int const number) { caught = number == 42; }
  BOOST_TEST(caught);
  BOOST_TEST(reason == "rank 1 threw something that is no std::exception");
}

BOOST_AUTO_TEST_CASE(a_request_that_is_destroyed_unwaited_ends_the_group) {
  auto const r = observe(3, [](communicator& comm) {
    std::vector<float> in(4), out(4);
    {
      auto q = comm.all_reduce(const_view(in, "dropped"), view(out));
      if (comm.rank() != 1) q.wait();
    }
    comm.barrier();
    comm.barrier();
  });
  BOOST_TEST(r.is_limber_error);
  BOOST_TEST(r.seconds < at_once);
  for (auto const& f : r.ranks) {
    BOOST_TEST(f.rank == 1);
    BOOST_TEST(f.reason == "rank 1 destroyed its all_reduce of 'dropped' before it was waited for");
  }
}

BOOST_AUTO_TEST_CASE(an_exception_that_is_caught_after_it_passed_a_request_still_ends_the_group) {
  auto const r = observe(2, [](communicator& comm) {
    std::vector<float> in(4), out(4);
    try {
      auto q = comm.all_reduce(const_view(in, "w"), view(out));
      if (comm.rank() == 1) throw std::runtime_error("swallowed");
      q.wait();
    } catch (std::runtime_error const& e) {
      if (std::string(e.what()) != "swallowed") throw;
    }
    comm.barrier();
  });
  BOOST_TEST(r.seconds < at_once);
  BOOST_TEST(r.ranks[0].rank == 1);
  BOOST_TEST(r.ranks[0].reason == "rank 1 was left by an exception with operations in flight, and continued");
}

BOOST_AUTO_TEST_CASE(failures_in_a_split_group_name_the_rank_of_the_world) {
  auto const r = observe(4, [](communicator& comm) {
    auto part = comm.split(comm.rank() / 2);
    if (comm.rank() == 3) throw std::runtime_error("fell over");
    part.barrier();
    comm.barrier();
  });
  expect_failure(r.ranks[2], "barrier", 1, "", "rank 1 (rank 3 of the world) threw: fell over");
  expect_failure(r.ranks[0], "barrier", 3, "", "rank 3 threw: fell over");
}

BOOST_AUTO_TEST_CASE(random_runs_give_right_sums_or_the_right_failure) {
  enum class fault { none, throws_before, throws_in_flight, leaves, mismatch, drops };
  for (unsigned seed = 0; seed < 200; ++seed) {
    std::mt19937 draw(seed);
    int const n = 2 + static_cast<int>(draw() % 5), steps = 1 + static_cast<int>(draw() % 12);
    int const victim = static_cast<int>(draw() % static_cast<unsigned>(n));
    int const when = static_cast<int>(draw() % static_cast<unsigned>(steps));
    auto const what = static_cast<fault>(draw() % 6);
    std::vector<std::size_t> lengths;
    for (int s = 0; s < steps; ++s) lengths.push_back(draw() % 4 == 0 ? 30'000 : draw() % 200);
    auto const r = observe(n, [&](communicator& comm) {
      std::mt19937 jitter(seed * 97 + static_cast<unsigned>(comm.rank()));
      for (int s = 0; s < steps; ++s) {
        bool const fails = comm.rank() == victim && s == when;
        std::size_t length = lengths[static_cast<std::size_t>(s)];
        if (fails && what == fault::throws_before) throw std::runtime_error("random fault");
        if (fails && what == fault::leaves) return;
        if (fails && what == fault::mismatch) ++length;
        if (jitter() % 4 == 0) std::this_thread::yield();
        std::vector<double> in(length, 1.0 + comm.rank()), out(length), control{1}, count(1);
        auto q = comm.all_reduce(const_view(in, "data"), view(out));
        auto c = comm.all_reduce(const_view(control, "control"), view(count));
        if (fails && what == fault::throws_in_flight) throw std::runtime_error("random fault");
        if (fails && what == fault::drops) {
          c.wait();
          continue;
        }
        if (jitter() % 2 == 0) c.wait();
        q.wait();
        c.wait();
        for (double const x : out)
          if (x != 0.5 * n * (n + 1)) throw std::logic_error("wrong sum");
        if (count[0] != n) throw std::logic_error("wrong count");
      }
      comm.barrier();
    });
    BOOST_TEST_CONTEXT("seed " << seed) {
      BOOST_TEST(r.seconds < at_once);
      if (what == fault::none)
        BOOST_TEST(r.thrown == "");
      else if (what == fault::throws_before || what == fault::throws_in_flight)
        BOOST_TEST(r.thrown == "random fault");
      else
        BOOST_TEST(r.is_limber_error, r.thrown);
      if (what == fault::leaves || what == fault::drops)
        BOOST_TEST(r.thrown.find(text("[rank ", victim, "]")) != std::string::npos, r.thrown);
      if (what == fault::mismatch)
        BOOST_TEST(r.thrown.find(text("rank ", victim, " called")) != std::string::npos, r.thrown);
    }
  }
}

}  // namespace limber::test
