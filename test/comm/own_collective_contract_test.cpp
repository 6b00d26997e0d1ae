// SPDX-License-Identifier: Apache-2.0
// labels: contract
// timeout: 120
#define BOOST_TEST_MODULE limber.comm.own_collective_contract
#include "../../examples/own_collective.hpp"

#include <limber/comm/threads.hpp>
#include <limber/limber.hpp>

#include <boost/test/unit_test.hpp>

#include <support/contract_values.hpp>
#include <support/processes.hpp>

#include <array>
#include <chrono>
#include <thread>
#include <tuple>

namespace limber::test {

/// f(socket_collective&) in n processes.
template <class F>
void run_sockets(int n, F f, int deadline_ms = 10'000) {
  std::vector<std::array<int, 2>> pairs(static_cast<std::size_t>(n));
  for (auto& p : pairs)
    if (::socketpair(AF_UNIX, SOCK_STREAM, 0, p.data()) != 0) throw std::runtime_error("socketpair");
  auto const in_process = [&](int rank) {
    std::vector<int> mine;
    for (std::size_t r = 0; r < pairs.size(); ++r) {
      auto& [of_root, of_other] = pairs[r];
      if (rank == 0) mine.push_back(of_root);
      if (rank == static_cast<int>(r) && rank != 0) mine.push_back(of_other);
      ::close(rank == 0 ? of_other : of_root);
      if (rank != 0 && rank != static_cast<int>(r)) ::close(of_other);
    }
    example::socket_collective comm{rank, n, mine, deadline_ms};
    f(comm);
  };
  auto const close_all = [&] {
    for (auto const& p : pairs)
      for (int const fd : p) ::close(fd);
  };
  crew workers(n, [&](int rank, voice const&) { in_process(rank); });
  close_all();
  expect_finished(workers.join(60));
}

}  // namespace limber::test

struct own_harness {
  using communicator = example::socket_collective;
  static constexpr int largest_world = 3;
  static constexpr bool rank_order = true;
  static constexpr int skipped_parts = 5;  // messages, split, mailbox, revoke, shrink
  template <class T>
  using buffer = limber::test::host_buffer<T>;
  template <class F>
  static void run(int n, F f) {
    limber::test::run_sockets(n, f);
  }
};
using contract_harnesses = std::tuple<own_harness>;

#include <support/collective_contract.hpp>

namespace limber::test {

BOOST_AUTO_TEST_CASE(a_rank_that_ends_is_named_at_once) {
  run_sockets(3, [](example::socket_collective& comm) {
    if (comm.rank() == 1) return;
    std::vector<float> const in(4, 1);
    std::vector<float> out(4);
    double const start = steady_seconds();
    try {
      comm.all_reduce(const_view(in, "w"), view(out)).wait();
      throw std::logic_error("nothing was thrown");
    } catch (error const& e) {
      demand(e.where().rank == (comm.rank() == 0 ? 1 : 0), e.what());
      demand(e.where().reason == text("rank ", comm.rank() == 0 ? 1 : 0, " has ended"), e.what());
    }
    demand(steady_seconds() - start < 5, "it took too long");
  });
}

BOOST_AUTO_TEST_CASE(a_rank_that_does_not_come_is_named_at_the_deadline) {
  run_sockets(
      3,
      [](example::socket_collective& comm) {
        if (comm.rank() == 2) std::this_thread::sleep_for(std::chrono::seconds(1));
        try {
          comm.barrier();
          throw std::logic_error("nothing was thrown");
        } catch (error const& e) {
          demand(comm.rank() != 0 || e.where().reason == "rank 2 did not come within the deadline", e.what());
        }
      },
      300);
}

BOOST_AUTO_TEST_CASE(different_calls_are_named) {
  run_sockets(2, [](example::socket_collective& comm) {
    std::vector<float> const in(4, 1);
    std::vector<float> out(4), small(2);
    try {
      comm.rank() == 0 ? comm.all_reduce(const_view(in), view(out)) : comm.broadcast(view(small), 0);
      throw std::logic_error("nothing was thrown");
    } catch (error const& e) {
      demand(comm.rank() != 0 || e.where().reason == "rank 1 called broadcast of 2 f32 from rank 0",
             e.what());
    }
  });
}

}  // namespace limber::test
