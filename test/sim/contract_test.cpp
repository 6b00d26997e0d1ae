// SPDX-License-Identifier: Apache-2.0
// labels: contract sanitize
// optimize: 1
// timeout: 300
// needs: context
// sanitizers: address
#define BOOST_TEST_MODULE limber.sim.contract
#include <limber/sim/sim.hpp>

#include <boost/test/unit_test.hpp>

#include <support/contract_values.hpp>

#include <cstddef>
#include <tuple>
#include <type_traits>
#include <vector>

template <limber::sim::scheduler How>
struct sim_harness {
  using communicator = limber::sim::communicator;
  static constexpr int largest_world = 8;
  static constexpr bool rank_order = true;
  static constexpr int skipped_parts = 0;
  template <class T>
  using buffer = limber::test::host_buffer<T>;
  template <class F>
  static void run(int n, F f) {
    limber::sim::cluster c{.workers = std::vector<limber::sim::speed>(static_cast<std::size_t>(n)),
                           .network = {.latency = 1e-5, .bandwidth = 1e9},
                           .how = How};
    limber::sim::run(c, [&](limber::sim::worker& me) { f(me.comm()); });
  }
};

// ThreadSanitizer does not support fibers.
using contract_harnesses = std::conditional_t<
    limber::sim::detail::thread_sanitizer, std::tuple<sim_harness<limber::sim::scheduler::threads>>,
    std::tuple<sim_harness<limber::sim::scheduler::fibers>, sim_harness<limber::sim::scheduler::threads>>>;

#include <support/collective_contract.hpp>
