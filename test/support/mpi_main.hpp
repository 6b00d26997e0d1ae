// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// For tests that run under mpiexec: included once, after Boost.Test. The whole program runs on every rank.
///
/// Rank 0 prints as usual, the others only if something failed on them. When all have come to the end, a rank
/// on which all was well fails with those on which it was not.

#include <limber/comm/mpi.hpp>

#include <boost/test/results_collector.hpp>
#include <boost/test/results_reporter.hpp>
#include <boost/test/tree/traverse.hpp>
#include <boost/test/tree/visitor.hpp>
#include <boost/test/unit_test.hpp>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <memory>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace limber::testing {

/// What every rank has besides the communicators under test.
class mpi_world {
 public:
  mpi_world() : environment_(threading_of_tests) {
    MPI_Comm_dup(MPI_COMM_WORLD, &control_);
    MPI_Comm_rank(control_, &rank_);
    MPI_Comm_size(control_, &size_);
  }
  [[nodiscard]] int rank() const { return rank_; }
  [[nodiscard]] int size() const { return size_; }
  [[nodiscard]] MPI_Comm control() const { return control_; }

  /// Waits without taking the core from others. Who waits longer than any deadline of a test ends all.
  void meet() const {
    MPI_Request all = MPI_REQUEST_NULL;
    MPI_Ibarrier(control_, &all);
    double const start = steady_seconds();
    for (int done = 0; MPI_Test(&all, &done, MPI_STATUS_IGNORE) == MPI_SUCCESS && done == 0;) {
      std::this_thread::sleep_for(std::chrono::microseconds(200));
      if (steady_seconds() - start < 60) continue;
      std::fprintf(stderr, "rank %d waited 60 s for the others to end a part\n", rank_);
      MPI_Abort(MPI_COMM_WORLD, EXIT_FAILURE);
    }
  }
  /// The messages of all ranks, on every rank.
  [[nodiscard]] std::vector<std::string> gather(std::string const& mine) const {
    constexpr int longest = 1000;
    std::string padded = mine.substr(0, longest - 1);
    padded.resize(longest);
    std::string all(static_cast<std::size_t>(longest * size_), '\0');
    meet();
    MPI_Allgather(padded.data(), longest, MPI_CHAR, all.data(), longest, MPI_CHAR, control_);
    std::vector<std::string> out;
    for (int r = 0; r < size_; ++r) out.emplace_back(all.c_str() + r * longest);
    return out;
  }

 private:
  static constexpr auto threading_of_tests = mpi::threading::serialized;
  mpi::environment environment_;
  MPI_Comm control_ = MPI_COMM_NULL;
  int rank_ = 0, size_ = 1;
};

inline std::unique_ptr<mpi_world>& the_world() {
  static std::unique_ptr<mpi_world> one;
  return one;
}

/// Calls f(communicator&) on the first n ranks; the others wait. What any rank throws, every rank throws.
template <class C = mpi::communicator, class F>
void on_ranks(int n, mpi::options const& how, F f) {
  mpi_world const& all = *the_world();
  MPI_Comm part = MPI_COMM_NULL;
  MPI_Comm_split(all.control(), all.rank() < n ? 0 : MPI_UNDEFINED, 0, &part);
  std::string mine;
  if (part != MPI_COMM_NULL) {
    try {
      C comm(part, how);
      f(comm);
    } catch (std::exception const& e) {
      mine = text("rank ", all.rank(), ": ", e.what());
      // At once: the others may be waiting for this rank, and never come to the end.
      std::fprintf(stderr, "%s\n", mine.c_str());
    }
    MPI_Comm_free(&part);
  }
  for (auto const& message : all.gather(mine))
    if (!message.empty()) throw std::runtime_error(message);
}

/// Whether any case has failed so far; sums over suites are not there before the fixture has ended.
[[nodiscard]] inline bool failed_here() {
  using namespace boost::unit_test;
  struct failures : test_tree_visitor {
    bool any = false;
    void visit(test_case const& c) override {
      auto const& r = results_collector.results(c.p_id);
      any |= r.p_assertions_failed > r.p_expected_failures || r.p_aborted || r.p_timed_out;
    }
  } seen;
  traverse_test_tree(framework::master_test_suite().p_id, seen, true);
  return seen.any;
}

/// Starts and ends MPI around all cases.
struct mpi_program {
  mpi_program() {
    the_world() = std::make_unique<mpi_world>();
    if (the_world()->rank() == 0) return;
    if (std::freopen("/dev/null", "w", stdout) == nullptr) std::perror("stdout");
    boost::unit_test::unit_test_log.set_stream(log);
    boost::unit_test::results_reporter::set_stream(log);
  }
  ~mpi_program() {
    bool const passed = !failed_here();
    int const rank = the_world()->rank();
    if (!passed && rank != 0) std::cerr << text("rank ", rank, ":\n", log.str()) << std::flush;
    auto const failed = the_world()->gather(passed ? "" : text("rank ", rank, " failed"));
    the_world().reset();
    for (auto const& message : failed) {
      if (message.empty()) continue;
      if (rank == 0) std::printf("%s; its lines are above\n", message.c_str());
      if (!passed) continue;
      std::fflush(nullptr);
      std::_Exit(EXIT_FAILURE);
    }
  }
  std::ostringstream& log = *new std::ostringstream;  // Boost.Test writes there after this has gone
};
BOOST_TEST_GLOBAL_FIXTURE(mpi_program);

}  // namespace limber::testing
