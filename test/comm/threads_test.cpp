// SPDX-License-Identifier: Apache-2.0
// labels: unit sanitize
// timeout: 120
#define BOOST_TEST_MODULE limber.comm.threads
#include <limber/comm/threads.hpp>

#include <boost/test/unit_test.hpp>

#include <comm/observe.hpp>

#include <atomic>
#include <cstddef>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace limber::test {

BOOST_AUTO_TEST_CASE(ranks_that_are_not_needed_any_more_may_leave) {
  auto const r = observe(3, [](communicator& comm) {
    sum(comm);
    if (comm.rank() == 2) return;
    sleep(0.02);
    std::vector<float> data(2, static_cast<float>(comm.rank()));
    if (comm.rank() == 0) comm.send(const_view(data), 1);
    if (comm.rank() == 1) comm.recv(view(data), 0);
  });
  BOOST_TEST(r.thrown == "");
}

BOOST_AUTO_TEST_CASE(revoking_a_part_leaves_the_whole_alone) {
  auto const r = observe(4, [](communicator& comm) {
    auto part = comm.split(comm.rank() / 2);
    if (comm.rank() == 0) part.revoke("a tea break");
    if (comm.rank() < 2) try {
        part.barrier();
        throw std::logic_error("a revoked group must throw");
      } catch (error const& e) {
        if (e.where().reason != "a tea break") throw;
      }
    else
      part.barrier();
    sum(comm);
  });
  BOOST_TEST(r.thrown == "");
}

BOOST_AUTO_TEST_CASE(survivors_of_a_rank_that_threw_shrink_and_continue) {
  std::atomic<int> survived{0};
  auto const r = observe(4, [&](communicator& comm) {
    sum(comm);
    if (comm.rank() == 1) throw std::runtime_error("lost at sea");
    try {
      sum(comm);
      sum(comm);
    } catch (error const& e) {
      int const lost[] = {e.where().rank};
      comm = comm.shrink(lost);
    }
    if (comm.size() != 3) throw std::logic_error("three must be left");
    for (int k = 0; k < 10; ++k) sum(comm);
    ++survived;
  });
  BOOST_TEST(survived.load() == 3);
  BOOST_TEST(r.thrown == "lost at sea");
}

BOOST_AUTO_TEST_CASE(a_second_loss_while_shrinking_is_named_and_survived) {
  std::atomic<int> survived{0};
  auto const r = observe(4, [&](communicator& comm) {
    if (comm.rank() == 3) throw std::runtime_error("first");
    std::vector<int> lost{3};
    try {
      comm.barrier();
    } catch (error const&) {
      if (comm.rank() == 2) throw std::runtime_error("second");
      try {
        (void)comm.shrink(lost);
      } catch (error const& e) {
        if (e.where().call != "shrink" || e.where().reason != "rank 2 left as well; shrink without it") throw;
        lost = {e.where().rank, 3};
        comm = comm.shrink(lost);
      }
    }
    sum(comm);
    ++survived;
  });
  BOOST_TEST(survived.load() == 2);
  BOOST_TEST((r.thrown == "first"), r.thrown);
}

BOOST_AUTO_TEST_CASE(survivors_must_agree_on_the_lost_ranks) {
  auto const r = observe(4,
                         [](communicator& comm) {
                           std::vector<int> const lost{comm.rank() == 0 ? 3 : 2};
                           if (comm.rank() > 1) return sleep(0.5);
                           (void)comm.shrink(lost);
                         },
                         {.deadline = 5});
  for (std::size_t const k : {0u, 1u}) {
    bool const zero_first = r.ranks[k].rank == 0;
    BOOST_TEST(r.ranks[k].call == "shrink");
    BOOST_TEST(r.ranks[k].reason == (zero_first
                                         ? "rank 0 continues without rank 3 but rank 1 without rank 2"
                                         : "rank 1 continues without rank 2 but rank 0 without rank 3"));
  }
  auto const late = observe(3,
                            [](communicator& comm) {
                              int const lost[] = {2};
                              if (comm.rank() == 0) (void)comm.shrink(lost);
                              if (comm.rank() == 1) sleep(0.5);
                            },
                            {.deadline = 0.1});
  expect_failure(late.ranks[0], "shrink", 1, "", "rank 1 did not call shrink within 0.1 s");
}

BOOST_AUTO_TEST_CASE(bad_lists_of_lost_ranks_are_refused) {
  threads::world w(3);
  auto comm = w.communicator(1);
  auto const refused = [&](std::vector<int> const& lost, std::string const& message) {
    BOOST_CHECK_EXCEPTION((void)comm.shrink(lost), std::invalid_argument,
                          [&](std::exception const& e) { return e.what() == "limber: " + message; });
  };
  refused({3}, "shrink: lost rank must lie in [0, 3), got 3");
  refused({2, 0}, "shrink: lost ranks must be sorted, got 0 after 2");
  refused({0, 0}, "shrink: lost ranks must be sorted, got 0 after 0");
  refused({1}, "shrink: rank 1 cannot call itself lost");
}

BOOST_AUTO_TEST_CASE(messages_that_do_not_match_or_do_not_arrive_are_errors) {
  auto const misfit = observe(2, [](communicator& comm) {
    std::vector<float> four(4);
    std::vector<double> doubles(3);
    if (comm.rank() == 0) comm.send(const_view(four), 1);
    if (comm.rank() == 1) comm.recv(view(doubles, "d"), 0);
    comm.barrier();
  });
  expect_failure(misfit.ranks[1], "recv", 1, "d", "rank 1 receives 3 f64 but rank 0 sent 4 f32");
  BOOST_TEST(misfit.ranks[0].reason == "rank 1 receives 3 f64 but rank 0 sent 4 f32");
  auto const gone = observe(2, [](communicator& comm) {
    std::vector<float> four(4);
    if (comm.rank() == 1) comm.recv(view(four, "d"), 0);
  });
  expect_failure(gone.ranks[1], "recv", 0, "d", "rank 0 has left and sends nothing to rank 1");
  auto const late = observe(2,
                            [](communicator& comm) {
                              std::vector<float> four(4);
                              if (comm.rank() == 1) comm.recv(view(four, "d"), 0);
                              if (comm.rank() == 0) sleep(0.5);
                            },
                            {.deadline = 0.1});
  expect_failure(late.ranks[1], "recv", 0, "d", "rank 0 sent nothing to rank 1 within 0.1 s");
  auto const thrown = observe(2, [](communicator& comm) {
    std::vector<float> four(4);
    if (comm.rank() == 0) throw std::runtime_error("test exception");
    comm.recv(view(four, "d"), 0);
  });
  expect_failure(thrown.ranks[1], "recv", 0, "d", "rank 0 threw: test exception");
}

BOOST_AUTO_TEST_CASE(messages_from_before_a_failure_are_delivered_before_the_error) {
  auto const r = observe(2, [](communicator& comm) {
    std::byte const bytes[] = {std::byte{1}};
    if (comm.rank() == 0) {
      comm.post(1, 5, bytes);
      throw std::runtime_error("posted and died");
    }
    sleep(0.1);
    if (!comm.poll(5)) throw std::logic_error("the message was lost");
    (void)comm.poll(5);
  });
  BOOST_TEST(r.thrown == "posted and died");
  expect_failure(r.ranks[1], "poll", 0, "", "rank 0 threw: posted and died");
}

BOOST_AUTO_TEST_CASE(worlds_and_options_are_checked) {
  auto const refused = [](auto f, std::string const& message) {
    BOOST_CHECK_EXCEPTION(f(), std::invalid_argument,
                          [&](std::exception const& e) { return e.what() == "limber: threads: " + message; });
  };
  refused([] { threads::world w(0); }, "a world needs at least 1 rank, got 0");
  refused([] { threads::run(-3, [](communicator&) {}); }, "a world needs at least 1 rank, got -3");
  refused([] { threads::world w(1, {.deadline = 0}); }, "deadline must be > 0 s, got 0");
  refused([] { threads::world w(1, {.clock = nullptr}); }, "clock is empty");
  threads::world w(2);
  refused([&] { (void)w.communicator(2); }, "rank must lie in [0, 2), got 2");
  auto mine = w.communicator(0);
  refused([&] { (void)w.communicator(0); }, "the communicator of rank 0 was taken before");
  auto other = std::move(mine);
  refused([&] { mine.barrier(); }, "this communicator was moved from");
}

BOOST_AUTO_TEST_CASE(a_world_works_with_threads_of_the_users_own) {
  threads::world w(2);
  std::thread other([c = w.communicator(1)]() mutable { sum(c); });
  auto mine = w.communicator(0);
  sum(mine);
  other.join();
  BOOST_CHECK_EXCEPTION(mine.barrier(), error, [](error const& e) {
    return e.where().rank == 1 && e.where().reason == "rank 1 left without calling barrier";
  });
}

BOOST_AUTO_TEST_CASE(a_users_own_thread_that_unwinds_fails_the_others_at_once) {
  threads::world w(2);
  std::thread other([c = w.communicator(1)]() mutable {
    try {
      auto local = std::move(c);
      throw std::runtime_error("test exception");
    } catch (std::runtime_error const&) {}
  });
  auto mine = w.communicator(0);
  BOOST_CHECK_EXCEPTION(mine.barrier(), error, [](error const& e) {
    return e.where().rank == 1 && e.where().reason == "rank 1 was left by an exception";
  });
  other.join();
}

BOOST_AUTO_TEST_CASE(a_rank_whose_handle_was_not_taken_leaves_with_its_world) {
  auto w = std::make_unique<threads::world>(2);
  auto mine = w->communicator(0);
  w.reset();
  BOOST_CHECK_EXCEPTION(mine.barrier(), error, [](error const& e) {
    return e.where().reason == "rank 1 left without calling barrier";
  });
}

BOOST_AUTO_TEST_CASE(no_rank_leaves_a_barrier_before_all_have_arrived) {
  std::atomic<int> came{0};
  auto const r = observe(6, [&](communicator& comm) {
    for (int round = 1; round <= 50; ++round) {
      ++came;
      comm.barrier();
      if (came < 6 * round) throw std::logic_error("passed a barrier too early");
      comm.barrier();
    }
  });
  BOOST_TEST(r.thrown == "");
}

BOOST_AUTO_TEST_CASE(hundreds_of_operations_may_be_in_flight) {
  auto const r = observe(3, [](communicator& comm) {
    std::vector<std::vector<i64>> in, out(300);
    std::vector<threads::request> open;
    for (i64 k = 0; k < 300; ++k) in.push_back({k, comm.rank()});
    for (std::size_t k = 0; k < 300; ++k) {
      out[k].resize(2);
      open.push_back(comm.all_reduce(const_view(in[k]), view(out[k])));
    }
    for (std::size_t k = 300; k-- > 0;) {
      open[k].wait();
      if (out[k] != std::vector<i64>{3 * static_cast<i64>(k), 3}) throw std::logic_error("wrong sum");
    }
  });
  BOOST_TEST(r.thrown == "");
}

BOOST_AUTO_TEST_CASE(sixty_four_ranks_on_a_small_machine_do_many_small_operations) {
  auto const r = observe(64, [](communicator& comm) {
    for (int k = 0; k < 50; ++k) sum(comm);
    sum(comm, 20'000);
  });
  BOOST_TEST(r.thrown == "");
}

}  // namespace limber::test
