// SPDX-License-Identifier: Apache-2.0
// labels: contract sanitize memory
// optimize: 1
// timeout: 300
#define BOOST_TEST_MODULE limber.comm.threads_contract
#include <limber/comm/threads.hpp>

#include <boost/test/unit_test.hpp>

#include <support/contract_values.hpp>

#include <tuple>
#include <utility>

struct threads_harness {
  using communicator = limber::threads::communicator;
  static constexpr int largest_world = 8;
  static constexpr bool rank_order = true;
  static constexpr int skipped_parts = 0;
  template <class T>
  using buffer = limber::test::host_buffer<T>;
  template <class F>
  static void run(int n, F f) {
    limber::threads::run(n, std::move(f));
  }
};
using contract_harnesses = std::tuple<threads_harness>;

#include <support/collective_contract.hpp>
