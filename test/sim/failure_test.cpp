// SPDX-License-Identifier: Apache-2.0
// labels: unit
// needs: context
#define BOOST_TEST_MODULE limber.sim.failure
#include <limber/sim/sim.hpp>

#include <boost/test/unit_test.hpp>

#include <core/says.hpp>
#include <sim/both.hpp>

#include <cstddef>
#include <exception>
#include <functional>
#include <stdexcept>
#include <string>
#include <vector>

using namespace limber;
using namespace limber::test;

namespace {

/// The error of each worker, and its time.
struct outcome {
  std::vector<failure> where;
  std::vector<double> when;
  std::string thrown;
  sim::report report;
};

template <class F>
outcome observe(sim::cluster const& c, F f) {
  outcome out;
  out.where.resize(c.workers.size());
  out.when.resize(c.workers.size(), -1);
  try {
    out.report = sim::run(c, [&](sim::worker& me) {
      auto const rank = static_cast<std::size_t>(me.rank());
      try {
        f(me);
      } catch (error const& e) {
        out.where[rank] = e.where();
        out.when[rank] = me.now();
        throw;
      }
    });
  } catch (std::exception const& e) { out.thrown = e.what(); }
  return out;
}

template <class F>
void under_all_schedulers(sim::cluster c, F f) {
  for (auto const how : schedulers()) {
    c.how = how;
    f(c);
  }
}

}  // namespace

BOOST_AUTO_TEST_CASE(a_deadlock_names_who_waits_for_what) {
  under_all_schedulers(idle_cluster(3), [](auto const& c) {
    auto const o = observe(c, [](sim::worker& me) {
      std::vector<float> data(4), out(4);
      me.compute(2);
      if (me.rank() < 2) me.comm().all_reduce(const_view(data, "layer 1"), view(out)).wait();
      if (me.rank() == 2) me.comm().recv(view(data, "answer"), 0);
    });
    std::string const all =
        "deadlock at 2 s: worker 0 waits in all_reduce of 4 f32 (sum) of 'layer 1' for rank 2; worker 1 "
        "waits "
        "in all_reduce of 4 f32 (sum) of 'layer 1' for rank 2; worker 2 waits in recv of 'answer' from rank "
        "0";
    for (auto const& f : o.where) {
      BOOST_TEST(f.engine == "sim");
      BOOST_TEST(f.reason == all);
    }
    BOOST_TEST(o.where[0].call == "all_reduce");
    BOOST_TEST(o.where[0].bucket == "layer 1");
    BOOST_TEST(o.where[0].rank == 2);
    BOOST_TEST(o.where[2].call == "recv");
    BOOST_TEST(o.where[2].rank == 0);
    BOOST_TEST(o.thrown.find("worker 2 waits in recv") != std::string::npos);
  });
}

BOOST_AUTO_TEST_CASE(every_endless_wait_is_a_deadlock) {
  std::vector<std::function<void(sim::worker&)>> const ways{
      [](sim::worker& me) { me.comm().listen(); },
      [](sim::worker& me) {
        while (!me.comm().poll(1)) continue;
      },
      [](sim::worker& me) { (void)me.comm().shrink(std::vector<int>{}); },
      [](sim::worker& me) { (void)me.regroup(); }, [](sim::worker& me) { me.comm().barrier(); }};
  char const* const names[] = {"waits in listen", "waits in poll", "waits in shrink",
                               "waits in regroup for worker 1", "waits in barrier for rank 1"};
  for (std::size_t k = 0; k < ways.size(); ++k) {
    auto const o = observe(idle_cluster(2), [&](sim::worker& me) {
      if (me.rank() == 0) ways[k](me);
      std::vector<float> data(1);
      me.comm().recv(view(data), 0);
    });
    BOOST_TEST(o.thrown.find(text("worker 0 ", names[k])) != std::string::npos, o.thrown);
  }
}

BOOST_AUTO_TEST_CASE(a_deadlock_of_many_has_a_short_message) {
  auto const o = observe(idle_cluster(100), [](sim::worker& me) {
    if (me.rank() > 50) me.comm().listen();
    me.comm().barrier();
  });
  BOOST_TEST(o.where[99].reason.find("92 more wait; this one, in listen") != std::string::npos,
             o.where[99].reason);
  BOOST_TEST(o.where[99].reason.size() < 2000u);
}

BOOST_AUTO_TEST_CASE(a_death_is_known_after_the_detection_and_survivors_shrink) {
  auto base = idle_cluster(4);
  base.deaths = {{.worker = 2, .at = 1.5}};
  base.detection = 0.5;
  under_all_schedulers(base, [](auto const& c) {
    std::vector<float> sums(4);
    std::vector<int> unwound(4);
    auto const r = sim::run(c, [&](sim::worker& me) {
      struct unwound_mark {
        int& mark;
        ~unwound_mark() { mark = 1; }
      } const w{unwound[static_cast<std::size_t>(me.rank())]};
      me.compute(1);
      sum(me.comm(), 1);
      me.compute(me.rank() == 2 ? 10 : 0.25);
      try {
        sum(me.comm(), 1, "second");
        throw std::logic_error("no error");
      } catch (error const& e) {
        if (e.where().reason != "rank 2 died at 1.5 s without calling all_reduce of 1 f32 (sum)") throw;
        if (e.where().rank != 2 || e.where().bucket != "second" || me.now() != 2) throw;
      }
      auto rest = me.comm().shrink(std::vector<int>{2});
      if (rest.size() != 3) throw std::logic_error("who else is missing?");
      sums[static_cast<std::size_t>(me.rank())] = sum(rest, static_cast<float>(rest.rank()));
    });
    BOOST_TEST(unwound[2] == 1);
    BOOST_TEST(r.workers[2].died);
    BOOST_TEST(!r.workers[1].died);
    BOOST_TEST(r.workers[2].ended == 1.5);
    BOOST_TEST(r.workers[2].busy == 1.5);
    BOOST_TEST(r.seconds == 2);
    for (std::size_t const k : {0u, 1u, 3u}) BOOST_TEST(sums[k] == 3);
  });
}

BOOST_AUTO_TEST_CASE(operations_in_flight_at_a_death_complete_on_no_rank) {
  auto c = idle_cluster(3);
  c.network = {.latency = 1};  // an all-reduce takes 4
  c.deaths = {{.worker = 1, .at = 5}};
  std::vector<double> failed(3);
  auto const r = sim::run(c, [&](sim::worker& me) {
    std::vector<float> in(1), out(2);
    auto first = me.comm().all_reduce(view(in), view(out).sub(0, 1));
    auto second = me.comm().all_reduce(view(in), view(out).sub(1, 1));
    first.wait();  // 4
    try {
      second.wait();  // would be 8
    } catch (error const& e) {
      if (!says("rank 1 died at 5 s during all_reduce")(e)) throw;
      failed[static_cast<std::size_t>(me.rank())] = me.now();
    }
  });
  BOOST_TEST(failed == (std::vector<double>{6, 0, 6}), boost::test_tools::per_element());
}

// Rank 0 dies, and its buffers are destroyed, before the others arrive.
BOOST_AUTO_TEST_CASE(the_memory_of_a_dead_rank_is_not_read) {
  auto c = idle_cluster(2);
  c.deaths = {{.worker = 0, .at = 1}};
  auto const o = observe(c, [](sim::worker& me) {
    std::vector<float> in(1000), out(1000);
    if (me.rank() == 1) me.compute(1.5);  // before the detection at 2
    auto q = me.comm().all_reduce(view(in), view(out));
    me.compute(2);
    q.wait();
  });
  BOOST_TEST(o.where[1].reason == "rank 0 died at 1 s during all_reduce of 1000 f32 (sum)");
}

BOOST_AUTO_TEST_CASE(the_mailbox_works_after_a_death) {
  auto c = idle_cluster(3);
  c.network = {.latency = 0, .bandwidth = 100};
  c.deaths = {{.worker = 2, .at = 1.5}};
  std::string const hundred(100, 'x');
  std::vector<std::string> seen;
  sim::run(c, [&](sim::worker& me) {
    auto& comm = me.comm();
    if (me.rank() == 2) {
      post(comm, 0, hundred);  // leaves until 1
      post(comm, 0, hundred);  // until 2: lost
      me.compute(100);
    }
    if (me.rank() == 1) {
      me.sleep(5);
      post(comm, 2, "are you there?");  // vanishes
      post(comm, 0, "hello");
    }
    while (me.rank() == 0 && seen.size() < 2) {
      comm.listen();
      for (std::string m; !(m = polled(comm)).empty();) seen.push_back(m.substr(0, 3));
    }
  });
  BOOST_TEST(seen == (std::vector<std::string>{"2:x", "1:h"}), boost::test_tools::per_element());
}

BOOST_AUTO_TEST_CASE(a_message_from_a_dead_rank_arrives_if_it_was_sent_completely) {
  auto c = idle_cluster(2);
  c.network = {.latency = 3, .bandwidth = 4};
  c.deaths = {{.worker = 1, .at = 2}};
  std::vector<double> times;
  auto const o = observe(c, [&](sim::worker& me) {
    std::vector<float> data(1);
    if (me.rank() == 1) {
      me.comm().send(view(data), 0);
      me.compute(100);
    }
    me.comm().recv(view(data), 1);
    times.push_back(me.now());
    me.comm().recv(view(data, "more"), 1);
  });
  BOOST_TEST(times == (std::vector<double>{4}), boost::test_tools::per_element());
  BOOST_TEST(o.where[0].call == "recv");
  BOOST_TEST(o.where[0].bucket == "more");
  BOOST_TEST(o.where[0].reason == "rank 1 died at 2 s");
  BOOST_TEST(o.when[0] == 4);
}

BOOST_AUTO_TEST_CASE(a_survivor_that_dies_before_the_others_shrank_is_named) {
  auto c = idle_cluster(3);
  c.deaths = {{.worker = 2, .at = 1}, {.worker = 1, .at = 3}};
  auto const o = observe(c, [](sim::worker& me) {
    me.compute(me.rank() == 1 ? 100 : 2);
    (void)me.comm().shrink(std::vector<int>{2});
  });
  BOOST_TEST(o.where[0].reason == "rank 1 died at 3 s as well; shrink without it");
  BOOST_TEST(o.where[0].rank == 1);
  BOOST_TEST(o.when[0] == 4);
}

BOOST_AUTO_TEST_CASE(joiners_and_live_workers_regroup) {
  auto base = idle_cluster(4);
  base.joins = {{.worker = 1, .at = 2.5}, {.worker = 3, .at = 6.5}};
  under_all_schedulers(base, [](auto const& c) {
    std::vector<std::vector<float>> sums(4);
    std::vector<int> ranks(4);
    auto const r = sim::run(c, [&](sim::worker& me) {
      bool const joins = me.rank() % 2 == 1;
      auto comm = joins ? me.regroup() : me.comm().split(0);
      while (me.now() < 10) {
        me.compute(1);
        sums[static_cast<std::size_t>(me.rank())].push_back(sum(comm, 1));
        // All must agree that a worker waits.
        if (sum(comm, me.regrouping() ? 1.f : 0.f) == static_cast<float>(comm.size())) comm = me.regroup();
      }
      ranks[static_cast<std::size_t>(me.rank())] = comm.rank();
    });
    BOOST_TEST(r.workers[1].started == 2.5);
    BOOST_TEST(r.workers[1].waiting == 0.5);
    BOOST_TEST(r.seconds == 10);
    BOOST_TEST(sums[0] == (std::vector<float>{2, 2, 2, 3, 3, 3, 3, 4, 4, 4}),
               boost::test_tools::per_element());
    BOOST_TEST(sums[1] == (std::vector<float>{3, 3, 3, 3, 4, 4, 4}), boost::test_tools::per_element());
    BOOST_TEST(sums[3] == (std::vector<float>{4, 4, 4}), boost::test_tools::per_element());
    BOOST_TEST(ranks == (std::vector<int>{0, 1, 2, 3}), boost::test_tools::per_element());
  });
}

BOOST_AUTO_TEST_CASE(a_joiner_has_no_group_before_it_regroups) {
  auto c = idle_cluster(2);
  c.joins = {{.worker = 1, .at = 1}};
  auto const o = observe(c, [](sim::worker& me) {
    if (me.comm().size() != 1) throw std::logic_error("the joiner is in the first group");
  });
  BOOST_TEST(o.thrown.find("worker 1 joined later and belongs to no group") != std::string::npos, o.thrown);
}

BOOST_AUTO_TEST_CASE(regroup_waits_until_the_others_know_of_a_death) {
  auto c = idle_cluster(3);
  c.deaths = {{.worker = 0, .at = 1}};
  c.detection = 4;
  std::vector<double> when(3);
  std::vector<int> ranks(3, -1);
  sim::run(c, [&](sim::worker& me) {
    auto const i = static_cast<std::size_t>(me.rank());
    if (me.rank() == 0) me.compute(100);
    me.compute(2);
    auto comm = me.regroup();
    when[i] = me.now();
    ranks[i] = comm.rank();
    if (sum(comm, 1) != 2) throw std::logic_error("two are left");
  });
  BOOST_TEST(when == (std::vector<double>{0, 5, 5}), boost::test_tools::per_element());
  BOOST_TEST(ranks == (std::vector<int>{-1, 0, 1}), boost::test_tools::per_element());
}

BOOST_AUTO_TEST_CASE(the_first_exception_is_thrown_again_and_quoted_to_the_others) {
  under_all_schedulers(idle_cluster(3), [](auto const& c) {
    auto const o = observe(c, [](sim::worker& me) {
      std::vector<float> in(4), out(4);
      auto half = me.comm().split(me.rank() / 2);
      auto open = me.comm().all_reduce(const_view(in, "w"), view(out));
      me.compute(1);
      if (me.rank() == 1) throw std::runtime_error("test exception");
      open.wait();
      me.comm().barrier();
    });
    BOOST_TEST(o.thrown == "test exception");
    for (std::size_t const k : {0u, 2u}) {
      BOOST_TEST(o.where[k].engine == "sim");
      BOOST_TEST(o.where[k].rank == 1);
      BOOST_TEST(o.where[k].reason == "rank 1 threw: test exception");
    }
  });
}

BOOST_AUTO_TEST_CASE(an_exception_that_passed_requests_and_was_caught_fails_the_group) {
  auto const o = observe(idle_cluster(2), [](sim::worker& me) {
    std::vector<float> other(8), sums(8);
    try {
      std::vector<float> in(8), out(8);
      auto q = me.comm().all_reduce(view(in), view(out));
      if (me.rank() == 0) throw std::runtime_error("test exception");
      me.compute(1);
      q.wait();
    } catch (std::runtime_error const& e) {
      if (std::string(e.what()) != "test exception") throw;
    }
    me.compute(5);
  });
  BOOST_TEST(o.where[1].reason == "rank 0 was left by an exception with operations in flight, and continued");
}

BOOST_AUTO_TEST_CASE(ranks_that_leave_or_call_something_else_or_forget_a_request_are_named) {
  auto const reason = [](auto f) { return observe(idle_cluster(3), f).where[0].reason; };
  BOOST_TEST(reason([](sim::worker& me) {
               if (me.rank() != 2) sum(me.comm(), 1);
             }) == "rank 2 left without calling all_reduce of 1 f32 (sum)");
  BOOST_TEST(reason([](sim::worker& me) {
               me.compute(me.rank());
               if (me.rank() == 2)
                 me.comm().barrier();
               else
                 sum(me.comm(), 1);
             }) == "rank 0 called all_reduce of 1 f32 (sum) where rank 2 called barrier");
  BOOST_TEST(reason([](sim::worker& me) {
               std::vector<float> in(1), out(1);
               if (me.rank() == 1) {
                 auto const forgotten = me.comm().all_reduce(const_view(in, "w"), view(out));
                 return;
               }
               sum(me.comm(), 1);
             }) == "rank 1 destroyed its all_reduce of 'w' before it was waited for");
}

// Each worker is inside its own catch block while the others throw and catch.
BOOST_AUTO_TEST_CASE(exceptions_of_workers_do_not_mix) {
  under_all_schedulers(idle_cluster(4), [](auto const& c) {
    std::vector<std::string> caught(4);
    std::vector<int> in_flight(4, -1);
    sim::run(c, [&](sim::worker& me) {
      auto const i = static_cast<std::size_t>(me.rank());
      struct sleeper {
        sim::worker& me;
        int& count;
        ~sleeper() {
          me.sleep(1);  // while the exception propagates
          count = std::uncaught_exceptions();
        }
      };
      try {
        sleeper const s{me, in_flight[i]};
        me.compute(0.1 * (me.rank() + 1));
        throw std::runtime_error(text("of ", me.rank()));
      } catch (std::runtime_error const&) {
        me.compute(2 + 0.3 * (4 - me.rank()));
        try {
          me.compute(0.5);
          throw std::logic_error(text("inner of ", me.rank()));
        } catch (std::logic_error const& inner) {
          me.compute(1);
          caught[i] = inner.what();
        }
        me.compute(1);
        try {
          throw;  // the outer one
        } catch (std::exception const& e) { caught[i] += text(", then ", e.what()); }
      }
      if (std::uncaught_exceptions() != 0 || std::current_exception())
        throw std::logic_error("an exception is left");
    });
    for (std::size_t k = 0; k < 4; ++k) {
      BOOST_TEST(caught[k] == text("inner of ", k, ", then of ", k));
      BOOST_TEST(in_flight[k] == 1);
    }
  });
}

BOOST_AUTO_TEST_CASE(a_revoked_group_fails_at_once) {
  auto const o = observe(idle_cluster(2), [](sim::worker& me) {
    me.compute(1 + 2 * me.rank());
    if (me.rank() == 1) me.comm().revoke("revoked by the test");
    me.comm().barrier();
  });
  BOOST_TEST(o.where[0].reason == "revoked by the test");
  BOOST_TEST(o.when[0] == 3);
}
