// SPDX-License-Identifier: Apache-2.0
// labels: contract gloo memory
// timeout: 600
// needs: gloo
#define BOOST_TEST_MODULE limber.comm.gloo_contract
#include <boost/test/unit_test.hpp>

#include <comm/gloo_worlds.hpp>
#include <support/contract_values.hpp>

#include <tuple>

struct gloo_harness {
  using communicator = limber::gloo_engine::communicator;
  static constexpr int largest_world = 8;
  static constexpr bool rank_order = false;  // a ring
  static constexpr int skipped_parts = 1;    // bits and cutting
  template <class T>
  using buffer = limber::test::host_buffer<T>;
  template <class F>
  static void run(int n, F f) {
    limber::test::run_gloo(n, f);
  }
};
using contract_harnesses = std::tuple<gloo_harness>;

#include <support/collective_contract.hpp>
