// SPDX-License-Identifier: Apache-2.0
// needs: MPI
// ranks: 2

/// @file
/// What mpi::communicator adds to MPI: run under mpiexec.
///
/// blocking      all_reduce(…).wait() beside MPI_Iallreduce and MPI_Wait
/// non-blocking  start, done() until it is true, beside MPI_Iallreduce and MPI_Test; every poll gives the
///               core away (sched_yield), so that both see the same machine
/// The last rows have no bound: MPI_Allreduce, which is free to use other algorithms, beside
///               all_reduce(…).wait()

#include <limber/comm/mpi.hpp>

#include <comm/collective_cost.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdio>
#include <exception>
#include <iterator>
#include <span>
#include <string>
#include <thread>
#include <vector>

namespace limber::bench {
namespace {

int measure(cost_options const& how) {
  mpi::communicator comm;
  MPI_Comm engine = MPI_COMM_NULL;
  MPI_Comm_dup(MPI_COMM_WORLD, &engine);
  std::vector<float> in(cost_sizes[std::size(cost_sizes) - 1] / sizeof(float), 1), out(in.size());
  auto const settle = [&] { MPI_Barrier(engine); };

  char library[MPI_MAX_LIBRARY_VERSION_STRING] = "";
  int length = 0;
  MPI_Get_library_version(library, &length);
  std::string name(library, static_cast<std::size_t>(length));
  name.erase(std::min({name.find(','), name.find('\n'), name.size()}));
  for (char& c : name)
    if (c == '\t') c = ' ';
  cost_table table(how, comm.rank(), text(name, ", ", comm.size(), " processes"));

  auto const direct_start = [&](std::size_t n) {
    MPI_Request q = MPI_REQUEST_NULL;
    MPI_Iallreduce(in.data(), out.data(), static_cast<int>(n), MPI_FLOAT, MPI_SUM, engine, &q);
    return q;
  };
  auto const start = [&](std::size_t n) {
    return comm.all_reduce(const_view(std::span(in).first(n), "in"), view(std::span(out).first(n)));
  };
  for (std::size_t const bytes : cost_sizes) {
    std::size_t const n = bytes / sizeof(float);
    table.add(
        {"all_reduce", "blocking", bytes}, settle,
        [&] {
          MPI_Request q = direct_start(n);
          MPI_Wait(&q, MPI_STATUS_IGNORE);
        },
        [&] { start(n).wait(); });
    table.add(
        {"all_reduce", "non-blocking", bytes}, settle,
        [&] {
          MPI_Request q = direct_start(n);
          for (int done = 0; MPI_Test(&q, &done, MPI_STATUS_IGNORE) == MPI_SUCCESS && done == 0;)
            std::this_thread::yield();
        },
        [&] {
          for (auto q = start(n); !q.done();) std::this_thread::yield();
        });
  }
  int const status = table.finish();
  cost_table other({.pairs = how.pairs, .quick = how.quick, .bounded = false}, comm.rank(),
                   "beside MPI_Allreduce");
  for (std::size_t const bytes : cost_sizes) {
    std::size_t const n = bytes / sizeof(float);
    other.add(
        {"MPI_Allreduce", "blocking", bytes}, settle,
        [&] { MPI_Allreduce(in.data(), out.data(), static_cast<int>(n), MPI_FLOAT, MPI_SUM, engine); },
        [&] { start(n).wait(); });
  }
  MPI_Comm_free(&engine);
  return status;
}

}  // namespace
}  // namespace limber::bench

int main(int argc, char** argv) {
  try {
    limber::mpi::environment const mpi;
    return limber::bench::measure(limber::bench::cost_options_of(argc, argv));
  } catch (std::exception const& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return 1;
  }
}
