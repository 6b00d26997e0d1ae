// SPDX-License-Identifier: Apache-2.0
// labels: unit mpi
// timeout: 60
// needs: MPI
// ranks: 2
// other ranks: 2
// fails: limber: mpi: all_reduce: rank 0 of 2 waited 0.5 s: .*MPI cannot take the call back.* .bucket 7.
#define BOOST_TEST_MODULE limber.comm.mpi_fatal
#include <boost/test/unit_test.hpp>

#include <support/mpi_main.hpp>

#include <chrono>
#include <thread>
#include <vector>

// Rank 1 never comes, and would sleep on: the deadline of rank 0 must end the whole job.
BOOST_AUTO_TEST_CASE(the_deadline_of_one_rank_ends_all) {
  limber::mpi::communicator comm(MPI_COMM_WORLD, {.deadline = 0.5});
  if (comm.rank() == 1) std::this_thread::sleep_for(std::chrono::seconds(50));
  std::vector<float> in(10), out(10);
  comm.all_reduce(limber::const_view(in, "bucket 7"), limber::view(out)).wait();
}
