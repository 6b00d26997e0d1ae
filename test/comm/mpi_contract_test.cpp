// SPDX-License-Identifier: Apache-2.0
// labels: contract mpi
// timeout: 300
// needs: MPI
// ranks: 1 2 3 5 8
// other ranks: 2
// sanitizers: address
#define BOOST_TEST_MODULE limber.comm.mpi_contract
#include <boost/test/unit_test.hpp>

#include <support/contract_values.hpp>
#include <support/mpi_main.hpp>

#include <tuple>
#include <utility>

/// A world of as many ranks as mpiexec has started; a part for other worlds does nothing.
template <limber::i64 largest_call>
struct mpi_harness {
  using communicator = limber::mpi::communicator;
  static constexpr int largest_world = 8;
  static constexpr bool rank_order = false;
  static constexpr int skipped_parts = 3;  // bits and cutting, revoke, shrink
  template <class T>
  using buffer = limber::test::host_buffer<T>;
  template <class F>
  static void run(int n, F f) {
    if (n == limber::testing::the_world()->size())
      limber::testing::on_ranks(n, {.deadline = 30, .largest_call = largest_call}, std::move(f));
  }
};
/// The same in calls of at most 1000 bytes is in mpi_test.cpp: a million elements would be too many calls.
using contract_harnesses = std::tuple<mpi_harness<limber::i64{1} << 30>>;

#include <support/collective_contract.hpp>
