// SPDX-License-Identifier: Apache-2.0
// labels: unit mpi
// needs: MPI
// ranks: 2 3
// other ranks: 2
// sanitizers: no
#define BOOST_TEST_MODULE limber.comm.mpi_training
#include <limber/comm/checked.hpp>
#include <limber/comm/launch.hpp>
#include <limber/comm/threads.hpp>
#include <limber/optimizer.hpp>
#include <limber/rule/sgd.hpp>
#include <limber/sync/presets.hpp>

#include <boost/test/unit_test.hpp>

#include <support/contract_values.hpp>
#include <support/mpi_main.hpp>
#include <support/toy_model.hpp>

#include <string>
#include <vector>

namespace limber::test {

using limber::testing::on_ranks;
using limber::testing::run_of;
using limber::testing::the_world;
using limber::testing::toy_model;

/// Twenty steps; rank 0 has another number of samples at each, and sometimes none.
template <class C>
[[nodiscard]] std::vector<float> trained(C& comm) {
  toy_model<float> m;
  optimizer opt{m.parameters(), sgd{.momentum = 0.9, .weight_decay = 1e-4}, 0.02, sync::allreduce{}, comm};
  i64 first = 0;
  for (int t = 0; t < 20; ++t) {
    i64 const odd = t % 5;
    i64 const mine = comm.rank() == 0 ? odd : 4;
    m.backward(run_of(comm.rank() == 0 ? first : first + odd + 4 * (comm.rank() - 1), mine));
    opt.step(mine);
    first += odd + 4 * (comm.size() - 1);
  }
  opt.finish();
  return m.all();
}

BOOST_AUTO_TEST_CASE(replicas_are_equal_bit_for_bit_and_close_to_those_of_threads) {
  int const n = the_world()->size();
  std::vector<float> by_threads;
  threads::run(n, [&](threads::communicator& comm) {
    auto const model = trained(comm);
    if (comm.rank() == 0) by_threads = model;
  });
  BOOST_TEST(testing::distance(by_threads, toy_model<float>{}.all()) > 0.1);  // the model has changed
  on_ranks(n, {.deadline = 30}, [&](mpi::communicator& comm) {
    auto const model = trained(comm);
    std::vector<float> others(model.size() * static_cast<std::size_t>(n));
    comm.all_gather(const_view(model), view(others)).wait();
    for (std::size_t i = 0; i < others.size(); ++i)
      demand(same_bits(others[i], model[i % model.size()]), "replicas differ at ", i);
    double const apart = testing::distance(model, by_threads);
    demand(apart < 1e-6, "MPI is ", apart, " from threads");
  });
}

// The environment of mpiexec of either library agrees with MPI.
BOOST_AUTO_TEST_CASE(the_launcher_is_read_from_the_environment) {
  launch_facts const facts = facts_from_environment();
  BOOST_TEST(facts.rank == the_world()->rank());
  BOOST_TEST(facts.size == the_world()->size());
  BOOST_TEST((facts.launcher == "Open MPI" || facts.launcher == "PMI"), facts.launcher);
  MPI_Comm machine = MPI_COMM_NULL;
  MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &machine);
  int local = 0;
  MPI_Comm_rank(machine, &local);
  MPI_Comm_free(&machine);
  BOOST_TEST(facts.local_rank == local);
  auto const jobs = the_world()->gather(facts.job);
  for (auto const& job : jobs) BOOST_TEST(job == jobs[0]);
}

}  // namespace limber::test
