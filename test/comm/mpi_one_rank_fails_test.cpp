// SPDX-License-Identifier: Apache-2.0
// labels: unit mpi
// timeout: 60
// needs: MPI
// ranks: 2 3
// other ranks: 2
// fails: on_rank_1_only
#define BOOST_TEST_MODULE limber.comm.mpi_one_rank_fails
#include <boost/test/unit_test.hpp>

#include <support/mpi_main.hpp>

// What proves that the other tests can fail: ctest sees it, and the failure is printed.
BOOST_AUTO_TEST_CASE(on_rank_1_only) { BOOST_TEST(limber::testing::the_world()->rank() != 1); }
