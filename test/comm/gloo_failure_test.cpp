// SPDX-License-Identifier: Apache-2.0
// labels: gloo
// timeout: 180
// needs: gloo
#define BOOST_TEST_MODULE limber.comm.gloo_failure
#include <boost/test/unit_test.hpp>

#include <comm/gloo_worlds.hpp>

#include <chrono>
#include <csignal>
#include <cstddef>
#include <optional>
#include <random>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace limber::test {

using comm_type = gloo_engine::communicator;

void pause(double seconds) { std::this_thread::sleep_for(std::chrono::duration<double>(seconds)); }

void sum(comm_type& comm, std::size_t n = 8, std::string_view bucket = "w") {
  std::vector<float> const in(n, 1);
  std::vector<float> out(n);
  comm.all_reduce(const_view(in, bucket), view(out)).wait();
}

/// n processes that call f(communicator&, voice const&).
template <class F>
struct world {
  rendezvous_folder place;
  crew workers;
  world(int n, gloo_engine::options how, F f)
      : workers(n, [this, n, how, f](int rank, voice const& say) {
          auto comm = place.join(rank, n, how);
          f(comm, say);
        }) {}
};

/// Checks the limber::error of engine "gloo" that a process threw.
failure failure_in(ending const& e) {
  BOOST_TEST((e.how == ending::kind::threw), e.what);
  BOOST_REQUIRE_MESSAGE(e.where.has_value(), e.what);
  BOOST_TEST(e.where->engine == "gloo");
  return *e.where;
}
void expect_failure(ending const& e, std::string const& call, std::string const& bucket, int rank,
                    std::string const& reason) {
  failure const f = failure_in(e);
  BOOST_TEST(f.call == call);
  BOOST_TEST(f.bucket == bucket);
  BOOST_TEST(f.rank == rank);
  BOOST_TEST(f.reason == reason);
}

std::string lost(int rank) {
  return text("the connection to rank ", rank, " was lost: its process has ended or is out of reach");
}
std::string silent(std::string const& who, std::string const& call, double deadline) {
  return text(who, " not answer, being stopped or out of reach: ", call, " did not end within ", deadline,
              " s");
}

/// Much less than all deadlines in this file that must not be waited for.
constexpr double at_once = 10;

BOOST_AUTO_TEST_CASE(a_rank_killed_before_an_operation_is_named_at_once) {
  for (int const n : {2, 4}) {
    world w(n, {.deadline = 40}, [](comm_type& comm, voice const& say) {
      sum(comm);
      say("ready");
      if (comm.rank() == 1) pause(1000);
      sum(comm, 8, "bucket 2");
    });
    for (int r = 0; r < n; ++r) BOOST_TEST(w.workers.hear(r, 30).value_or("") == "ready");
    double const start = steady_seconds();
    w.workers.signal(1, SIGKILL);
    auto const endings = w.workers.join(30);
    BOOST_TEST(steady_seconds() - start < at_once);
    for (int r = 0; r < n; ++r)
      if (r != 1) expect_failure(endings[static_cast<std::size_t>(r)], "all_reduce", "bucket 2", 1, lost(1));
  }
}

BOOST_AUTO_TEST_CASE(ranks_killed_inside_large_operations_are_named_at_once) {
  std::mt19937 random(7);
  for (int round = 0; round < 12; ++round) {
    int const n = 2 + round % 4, victim = static_cast<int>(random() % static_cast<unsigned>(n));
    world w(n, {.deadline = 40}, [](comm_type& comm, voice const& say) {
      comm.barrier();
      say("ready");
      for (;;) sum(comm, 3'000'000, "large");
    });
    for (int r = 0; r < n; ++r) BOOST_TEST(w.workers.hear(r, 30).value_or("") == "ready");
    pause(1e-3 * static_cast<double>(random() % 60));
    double const start = steady_seconds();
    w.workers.signal(victim, SIGKILL);
    auto const endings = w.workers.join(30);
    BOOST_TEST(steady_seconds() - start < at_once);
    for (int r = 0; r < n; ++r)
      if (r != victim)
        expect_failure(endings[static_cast<std::size_t>(r)], "all_reduce", "large", victim, lost(victim));
  }
}

BOOST_AUTO_TEST_CASE(two_that_die_at_once_are_both_known_to_be_lost) {
  world w(5, {.deadline = 40}, [](comm_type& comm, voice const& say) {
    comm.barrier();
    say("ready");
    try {
      for (;;) sum(comm, 100'000, "shared");
    } catch (error const& e) {
      // The second may be detected later than the first.
      for (double const start = steady_seconds(); steady_seconds() - start < 20 && comm.broken().size() < 2;)
        pause(0.01);
      for (int const r : comm.broken()) say(text(r));
      throw;
    }
  });
  for (int r = 0; r < 5; ++r) BOOST_TEST(w.workers.hear(r, 30).value_or("") == "ready");
  w.workers.signal(0, SIGKILL);
  w.workers.signal(3, SIGKILL);
  auto const endings = w.workers.join(30);
  for (int const r : {1, 2, 4}) {
    failure const f = failure_in(endings[static_cast<std::size_t>(r)]);
    BOOST_TEST((f.rank == 0 || f.rank == 3));
    BOOST_TEST(f.reason == lost(f.rank));
    BOOST_TEST(w.workers.hear(r, 1).value_or("") == "0");
    BOOST_TEST(w.workers.hear(r, 1).value_or("") == "3");
  }
}

BOOST_AUTO_TEST_CASE(a_stopped_rank_is_named_within_the_deadline_and_gets_an_error_when_it_continues) {
  for (bool const inside : {false, true}) {
    double const deadline = 2;
    world w(4, {.deadline = deadline}, [&](comm_type& comm, voice const& say) {
      comm.barrier();
      say("ready");
      try {
        while (inside) sum(comm, 1'000'000, "large");
        if (comm.rank() == 2) pause(0.5);
        sum(comm, 1'000'000, "large");
      } catch (error const&) {
        for (int const r : comm.broken()) say(text("broken ", r));
        say("failed");
        throw;
      }
    });
    for (int r = 0; r < 4; ++r) BOOST_TEST(w.workers.hear(r, 30).value_or("") == "ready");
    pause(inside ? 0.03 : 0.1);
    double const start = steady_seconds();
    w.workers.signal(2, SIGSTOP);
    for (int const r : {0, 1, 3}) BOOST_TEST(w.workers.hear(r, 30).value_or("") == "failed");
    BOOST_TEST(steady_seconds() - start < deadline + 0.5);
    BOOST_TEST(steady_seconds() - start > 0.5 * deadline);
    w.workers.signal(2, SIGCONT);
    std::string const reason = silent("rank 2 does", "all_reduce of 1000000 f32 (sum)", deadline);
    for (ending const& e : w.workers.join(30)) expect_failure(e, "all_reduce", "large", 2, reason);
  }
}

BOOST_AUTO_TEST_CASE(ranks_that_are_late_are_named_at_the_deadline) {
  world w(4, {.deadline = 1}, [](comm_type& comm, voice const&) {
    sum(comm);
    if (comm.rank() % 2 == 1) pause(2.5);
    sum(comm, 8, "late");
  });
  for (ending const& e : w.workers.join(30))
    expect_failure(e, "all_reduce", "late", 1,
                   "rank 1, rank 3 did not call all_reduce of 8 f32 (sum) within 1 s");
}

BOOST_AUTO_TEST_CASE(a_rank_with_a_different_call_is_named_at_the_deadline_and_no_process_crashes) {
  struct other {
    void (*call)(comm_type&);
    std::string name;
  };
  for (auto const& [call, name] : {other{[](comm_type& c) { sum(c, 9); }, "all_reduce of 9 f32 (sum)"},
                                   other{[](comm_type& c) { c.barrier(); }, "barrier"},
                                   other{[](comm_type& c) {
                                           std::vector<double> in(8), out(8);
                                           c.all_reduce(const_view(in), view(out)).wait();
                                         },
                                         "all_reduce of 8 f64 (sum)"}}) {
    world w(3, {.deadline = 0.5}, [call = call](comm_type& comm, voice const&) {
      if (comm.rank() == 1) return call(comm);
      sum(comm);
    });
    auto const endings = w.workers.join(30);
    std::string const reason = text("rank 1 called ", name, " where others called all_reduce of 8 f32 (sum)");
    for (std::size_t const r : {0u, 1u, 2u}) {
      failure const f = failure_in(endings[r]);
      BOOST_TEST(f.rank == 1);
      BOOST_TEST(f.reason == reason);
    }
  }
}

BOOST_AUTO_TEST_CASE(a_rank_that_leaves_or_throws_is_named_by_those_who_need_it) {
  for (bool const throws : {false, true}) {
    world w(3, {.deadline = 40}, [&](comm_type& comm, voice const&) {
      sum(comm);
      if (comm.rank() == 2) pause(0.1);  // so that the others have completed the first call as well
      if (comm.rank() == 2 && throws) {
        std::vector<float> in(8), out(8);
        auto const q = comm.all_reduce(const_view(in, "held"), view(out));
        throw std::runtime_error("test exception");
      }
      if (comm.rank() == 2) return;
      pause(0.2);
      try {
        sum(comm, 3, "tail");
      } catch (error const&) {
        if (!comm.broken().empty()) throw std::logic_error("who left or threw is not lost");
        throw;
      }
    });
    double const start = steady_seconds();
    auto const endings = w.workers.join(30);
    BOOST_TEST(steady_seconds() - start < at_once);
    for (std::size_t const r : {0u, 1u})
      expect_failure(endings[r], "all_reduce", "tail", 2,
                     throws ? "rank 2 was left by an exception with its all_reduce of 'held' in flight"
                            : "rank 2 left without calling all_reduce of 3 f32 (sum)");
    BOOST_TEST((endings[2].how == (throws ? ending::kind::threw : ending::kind::finished)));
  }
}

BOOST_AUTO_TEST_CASE(a_request_destroyed_unwaited_ends_the_group_and_its_memory_is_free) {
  world w(3, {.deadline = 40}, [](comm_type& comm, voice const&) {
    for (int k = 0; k < 3; ++k) {
      std::optional<std::vector<float>> in(std::in_place, 2'000'000, 1.f), out(std::in_place, 2'000'000);
      auto q = std::optional(comm.all_reduce(const_view(*in, "dropped"), view(*out)));
      if (comm.rank() == 1) {
        pause(0.002 * k);
        q.reset();
        in.reset();
        out.reset();
        std::vector<float> reused(6'000'000, 2.f);
        pause(0.1);
        for (float const x : reused)
          if (x != 2.f) throw std::logic_error("memory was written after its request had gone");
      } else {
        q->wait();
      }
    }
  });
  for (ending const& e : w.workers.join(30))
    expect_failure(e, "all_reduce", "dropped", 1,
                   "rank 1 destroyed its all_reduce of 'dropped' before it was waited for");
}

BOOST_AUTO_TEST_CASE(a_revocation_ends_calls_in_flight_with_its_reason_and_messages_can_still_be_read) {
  world w(4, {.deadline = 40}, [](comm_type& comm, voice const&) {
    std::byte const bytes[] = {std::byte(comm.rank())};
    for (int r = 0; r < comm.size(); ++r) comm.post(r, 5, bytes);
    comm.barrier();
    if (comm.rank() == 3) {
      pause(0.3);
      comm.revoke("enough");
    }
    std::string reasons;
    for (int k = 0; k < 3; ++k) {
      try {
        sum(comm, 8, "revoked");
      } catch (error const& e) { reasons += e.where().reason + ";"; }
    }
    if (reasons != "enough;enough;enough;") throw std::logic_error(reasons);
    for (int k = 0; k < 4; ++k)
      if (auto const m = comm.poll(5); !m || m->bytes[0] != std::byte(m->source))
        throw std::logic_error("an earlier message is lost");
    (void)comm.poll(5);
  });
  double const start = steady_seconds();
  for (ending const& e : w.workers.join(30)) expect_failure(e, "poll", "", -1, "enough");
  BOOST_TEST(steady_seconds() - start < at_once);
}

BOOST_AUTO_TEST_CASE(the_last_rank_to_detect_the_end_still_gets_its_cause) {
  world w(3, {.deadline = 10}, [](comm_type& comm, voice const& say) {
    comm.barrier();
    say("ready");
    if (comm.rank() == 2) {
      pause(0.2);
      // The reason reaches rank 0, which is stopped, after this.
      comm.post(0, 1, std::vector<std::byte>(100'000'000));
      comm.revoke("revoked by the test");
      pause(2);
    } else {
      if (comm.rank() == 0) pause(0.2);
      sum(comm, 10, "in");  // rank 1 ends as soon as this throws
    }
  });
  for (int r = 0; r < 3; ++r) BOOST_TEST(w.workers.hear(r, 30).value_or("") == "ready");
  pause(0.1);
  w.workers.signal(0, SIGSTOP);
  pause(0.6);
  w.workers.signal(0, SIGCONT);
  auto const endings = w.workers.join(30);
  for (std::size_t const r : {0u, 1u}) {
    BOOST_TEST_REQUIRE(endings[r].where.has_value(), endings[r].what);
    BOOST_TEST(endings[r].where->reason == "revoked by the test");
  }
}

BOOST_AUTO_TEST_CASE(after_a_failure_every_call_throws_the_same_at_once) {
  world w(2, {.deadline = 40}, [](comm_type& comm, voice const& say) {
    comm.barrier();
    say("ready");
    if (comm.rank() == 1) pause(1000);
    std::vector<float> a(4), b(4), c(8);
    auto const fails = [&](std::string const& call, auto f) {
      double const start = steady_seconds();
      try {
        f();
      } catch (error const& e) {
        if (e.where().call != call || e.where().reason != lost(1) || e.where().rank != 1) throw;
        if (call != "all_reduce" && steady_seconds() - start > 0.5) throw std::logic_error(call + " waited");
        return;
      }
      throw std::logic_error(call + " did not fail");
    };
    for (int k = 0; k < 2; ++k) {
      fails("all_reduce", [&] { comm.all_reduce(const_view(a, "a"), view(b)).wait(); });
      fails("reduce_scatter", [&] { comm.reduce_scatter(const_view(c), view(b)).wait(); });
      fails("all_gather", [&] { comm.all_gather(const_view(a), view(c)).wait(); });
      fails("broadcast", [&] { comm.broadcast(view(a), 1).wait(); });
      fails("barrier", [&] { comm.barrier(); });
      fails("split", [&] { (void)comm.split(1); });
      fails("send", [&] { comm.send(const_view(a), 1); });
      fails("recv", [&] { comm.recv(view(a), 1); });
      fails("post", [&] { comm.post(0, 1, {}); });
      fails("poll", [&] { (void)comm.poll(1); });
      fails("listen", [&] { comm.listen(); });
    }
    if (comm.broken() != std::vector<int>{1}) throw std::logic_error("broken() does not name rank 1");
  });
  for (int r = 0; r < 2; ++r) BOOST_TEST(w.workers.hear(r, 30).value_or("") == "ready");
  w.workers.signal(1, SIGKILL);
  auto const endings = w.workers.join(30);
  BOOST_TEST((endings[0].how == ending::kind::finished), endings[0].what);
}

BOOST_AUTO_TEST_CASE(several_calls_in_flight_all_fail_and_complete_ones_stay_valid) {
  world w(3, {.deadline = 40}, [](comm_type& comm, voice const& say) {
    std::vector<std::vector<float>> in(6, std::vector<float>(200'000, 1)),
        out(6, std::vector<float>(200'000));
    std::vector<gloo_engine::request> open;
    for (std::size_t k = 0; k < 2; ++k) open.push_back(comm.all_reduce(const_view(in[k], "k"), view(out[k])));
    while (!open[1].done()) pause(0.001);
    say("ready");
    if (comm.rank() == 1) pause(1000);
    for (std::size_t k = 2; k < 6; ++k) open.push_back(comm.all_reduce(const_view(in[k], "k"), view(out[k])));
    while (!open[5].done()) pause(0.001);
    int failed = 0;
    for (std::size_t k = 6; k-- > 0;) {
      try {
        open[k].wait();
        if (k > 1 || out[k][7] != 3) throw std::logic_error(text("call ", k, " is not complete"));
      } catch (error const&) { ++failed; }
    }
    if (failed != 4) throw std::logic_error(text(failed, " of 4 calls failed"));
  });
  for (int r = 0; r < 3; ++r) BOOST_TEST(w.workers.hear(r, 30).value_or("") == "ready");
  w.workers.signal(1, SIGKILL);
  auto const endings = w.workers.join(30);
  for (std::size_t const r : {0u, 2u})
    BOOST_TEST((endings[r].how == ending::kind::finished), endings[r].what);
}

BOOST_AUTO_TEST_CASE(survivors_of_deaths_shrink_and_continue_and_shrink_again) {
  world w(5, {.deadline = 5, .rendezvous_deadline = 20}, [](comm_type& comm, voice const& say) {
    auto const until_failure = [&](comm_type& c) {
      try {
        for (;;) sum(c, 100'000);
      } catch (error const&) {
        for (double const start = steady_seconds(); steady_seconds() - start < 10 && c.broken().empty();)
          pause(0.01);
      }
      return c.broken();
    };
    auto const check = [&](comm_type& c, float expected) {
      std::vector<float> const in(1, 1);
      std::vector<float> out(1);
      c.all_reduce(const_view(in), view(out)).wait();
      if (out[0] != expected) throw std::logic_error("the survivors do not add up");
    };
    say("ready");
    auto rest = comm.shrink(until_failure(comm));
    check(rest, 4);
    say(text("shrunk to ", rest.rank()));
    auto fewer = rest.shrink(until_failure(rest));
    check(fewer, 3);
    say(text("shrunk to ", fewer.rank()));
    // The first world sees the second death as well.
    if (comm.broken() != std::vector<int>{0, 3} || rest.broken() != std::vector<int>{2})
      throw std::logic_error("the lost are not who died");
  });
  for (int r = 0; r < 5; ++r) BOOST_TEST(w.workers.hear(r, 30).value_or("") == "ready");
  pause(0.05);
  w.workers.signal(0, SIGKILL);
  for (int const r : {1, 2, 3, 4})
    BOOST_TEST(w.workers.hear(r, 30).value_or("") == text("shrunk to ", r - 1));
  w.workers.signal(3, SIGKILL);  // rank 2 of the rest
  auto const endings = w.workers.join(30);
  for (int const r : {1, 2, 4}) {
    BOOST_TEST(w.workers.hear(r, 1).value_or("") == text("shrunk to ", r == 4 ? 2 : r - 1));
    BOOST_TEST((endings[static_cast<std::size_t>(r)].how == ending::kind::finished),
               endings[static_cast<std::size_t>(r)].what);
  }
}

BOOST_AUTO_TEST_CASE(a_survivor_that_dies_or_is_missing_during_shrink_is_named) {
  world w(4, {.deadline = 5, .rendezvous_deadline = 2}, [](comm_type& comm, voice const& say) {
    comm.barrier();
    say("ready");
    if (comm.rank() >= 2) pause(1000);
    int const lost[] = {3};
    try {
      (void)comm.shrink(lost);
    } catch (error const& e) { say(text(e.where().call, " ", e.where().rank, " ", e.where().reason)); }
    int const both[] = {2, 3};
    auto rest = comm.shrink(both);
    rest.barrier();
    say("continued");
  });
  for (int r = 0; r < 4; ++r) BOOST_TEST(w.workers.hear(r, 30).value_or("") == "ready");
  w.workers.signal(3, SIGKILL);
  pause(0.2);
  w.workers.signal(2, SIGKILL);
  for (int const r : {0, 1}) {
    BOOST_TEST(w.workers.hear(r, 30).value_or("") ==
               text("shrink 2 ", lost(2), "; shrink without it as well"));
    BOOST_TEST(w.workers.hear(r, 30).value_or("") == "continued");
  }
  // All ranks are alive, but one does not call shrink.
  world v(3, {.deadline = 5, .rendezvous_deadline = 0.8}, [](comm_type& comm, voice const&) {
    if (comm.rank() == 1) return pause(3);
    int const none[] = {2};
    if (comm.rank() == 0) (void)comm.shrink(none);
    if (comm.rank() == 2) pause(3);
  });
  expect_failure(v.workers.join(30)[0], "shrink", "", 1, "rank 1 of 2 did not come within 0.8 s");
}

BOOST_AUTO_TEST_CASE(a_rank_that_the_others_lost_finds_its_group_failed) {
  world w(3, {.deadline = 1, .rendezvous_deadline = 20}, [](comm_type& comm, voice const& say) {
    comm.barrier();
    say("ready");
    if (comm.rank() == 1) {
      pause(3);
      sum(comm, 8, "woken");
      return;
    }
    int const lost[] = {1};
    auto rest = comm.shrink(lost);
    rest.barrier();
    pause(3.5);  // not gone yet when it wakes
  });
  for (int r = 0; r < 3; ++r) BOOST_TEST(w.workers.hear(r, 30).value_or("") == "ready");
  auto const endings = w.workers.join(30);
  expect_failure(endings[1], "all_reduce", "woken", 1, "the ranks continue in a new group without rank 1");
  for (std::size_t const r : {0u, 2u})
    BOOST_TEST((endings[r].how == ending::kind::finished), endings[r].what);
}

BOOST_AUTO_TEST_CASE(destructors_do_not_wait_for_a_stopped_rank) {
  world w(3, {.deadline = 2}, [](comm_type& comm, voice const& say) {
    comm.barrier();
    say("ready");
    if (comm.rank() == 1) pause(1000);
    pause(0.3);
    // More than the sockets accept, to a rank that does not read, and a call that never completes.
    std::vector<std::byte> const much(20'000'000);
    comm.post(1, 1, much);
    std::vector<float> in(100'000), out(100'000);
    try {
      auto const q = comm.all_reduce(const_view(in), view(out));
      pause(0.05);
    } catch (error const&) {
      // The other rank has destroyed its request already.
    }
  });
  for (int r = 0; r < 3; ++r) BOOST_TEST(w.workers.hear(r, 30).value_or("") == "ready");
  w.workers.signal(1, SIGSTOP);
  double const start = steady_seconds();
  for (int const r : {0, 2}) BOOST_TEST(!w.workers.hear(r, 30).has_value());
  BOOST_TEST(steady_seconds() - start < at_once);
  w.workers.signal(1, SIGKILL);
  auto const endings = w.workers.join(30);
  for (std::size_t const r : {0u, 2u})
    BOOST_TEST((endings[r].how == ending::kind::finished), endings[r].what);
}

}  // namespace limber::test
