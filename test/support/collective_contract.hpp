// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// What every collective must do, as test cases. A backend's test file defines its harness first:
///
///     #define BOOST_TEST_MODULE limber.comm.threads
///     #include <boost/test/unit_test.hpp>
///     struct threads_harness {
///       using communicator = limber::threads::communicator;
///       static constexpr int largest_world = 8;
///       static constexpr bool rank_order = true;          // sums are known to the bit
///       static constexpr int skipped_parts = 0;           // how many need what the engine does not model
///       template <class T>
///       using buffer = limber::test::host_buffer<T>;      // or one in device memory
///       template <class F>
///       static void run(int n, F f);                      // f(communicator&) on n ranks
///     };
///     using contract_harnesses = std::tuple<threads_harness>;
///     #include <support/collective_contract.hpp>
///
/// (host_buffer comes from support/contract_values.hpp.) The function object handed to `run` is called
/// once a rank, in whatever thread or process that rank lives, and reports by throwing, because
/// Boost.Test's checks belong to one thread; `run` throws again what it threw. Parts that need a capability
/// the engine lacks are counted and printed as skipped.

#include <limber/comm/collective.hpp>
#include <limber/comm/detail/signature.hpp>

#include <support/contract_capabilities.hpp>
#include <support/contract_operations.hpp>

#include <cstdio>

namespace limber::test {

BOOST_AUTO_TEST_SUITE(contract)

BOOST_AUTO_TEST_CASE(as_many_parts_are_skipped_as_declared) {
  std::printf("contract: %d parts skipped\n", skipped_parts());
  BOOST_TEST(skipped_parts() == declared_skips(static_cast<contract_harnesses const*>(nullptr)));
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace limber::test
