// SPDX-License-Identifier: Apache-2.0
// labels: unit mpi
// timeout: 60
// needs: MPI
// ranks: 2
// other ranks: 2
// fails: rank 1 has thrown and is about to leave
#define BOOST_TEST_MODULE limber.comm.mpi_exception
#include <limber/comm/mpi.hpp>

#include <boost/test/unit_test.hpp>

#include <cstdio>
#include <cstdlib>
#include <stdexcept>
#include <vector>

// MPI_Finalize would wait for rank 0, which waits for rank 1. The launcher has to end rank 0, at once.
BOOST_AUTO_TEST_CASE(a_rank_that_leaves_by_an_exception_ends_the_job) {
  try {
    limber::mpi::environment const mpi;
    limber::mpi::communicator comm(MPI_COMM_WORLD, {.deadline = 50});
    if (comm.rank() == 1) throw std::runtime_error("rank 1 has thrown and is about to leave");
    std::vector<float> in(10), out(10);
    comm.all_reduce(limber::const_view(in), limber::view(out)).wait();
  } catch (std::runtime_error const& e) {
    std::fprintf(stderr, "%s\n", e.what());
    std::fflush(nullptr);
    std::_Exit(EXIT_FAILURE);
  }
}
