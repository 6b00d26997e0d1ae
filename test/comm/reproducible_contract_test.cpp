// SPDX-License-Identifier: Apache-2.0
// labels: contract
// timeout: 300
#define BOOST_TEST_MODULE limber.comm.reproducible_contract
#include <limber/comm/reproducible.hpp>
#include <limber/comm/threads.hpp>

#include <boost/test/unit_test.hpp>

#include <support/contract_values.hpp>

#include <tuple>

struct reproducible_harness {
  using communicator = limber::reproducible<limber::threads::communicator&>;
  static constexpr int largest_world = 8;
  static constexpr bool rank_order = false;
  // A block with something non-finite is NaN, and zeros are +0: in reproducible_sums_test.cpp.
  static constexpr bool sums_by_blocks = true;
  static constexpr int skipped_parts = 2;
  template <class T>
  using buffer = limber::test::host_buffer<T>;
  template <class F>
  static void run(int n, F f) {
    limber::threads::run(n, [&](limber::threads::communicator& engine) {
      // The suite's sums of f64 are longer than control values.
      communicator comm(engine, {.longest_double = 2'000'000});
      f(comm);
    });
  }
};
using contract_harnesses = std::tuple<reproducible_harness>;

#include <support/collective_contract.hpp>
