// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Runs ranks of `threads` and reports the failure of each.

#include <limber/comm/threads.hpp>

#include <boost/test/unit_test.hpp>

#include <chrono>
#include <exception>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

namespace limber::test {

using threads::communicator;

/// The failure of each rank, and the exception of `run`.
struct report {
  std::vector<failure> ranks;
  std::string thrown;
  bool is_limber_error = false;
  double seconds = 0;
};

template <class F>
[[nodiscard]] report observe(int n, F f, threads::options how = {}) {
  report out;
  out.ranks.resize(static_cast<std::size_t>(n));
  double const start = steady_seconds();
  try {
    threads::run(
        n,
        [&](communicator& comm) {
          auto const rank = static_cast<std::size_t>(comm.rank());
          try {
            f(comm);
          } catch (error const& e) {
            out.ranks[rank] = e.where();
            throw;
          }
        },
        how);
  } catch (error const& e) {
    out.thrown = e.what();
    out.is_limber_error = true;
  } catch (std::exception const& e) { out.thrown = e.what(); }
  out.seconds = steady_seconds() - start;
  return out;
}

inline void expect_failure(failure const& f, std::string const& call, int rank, std::string const& bucket,
                           std::string const& reason) {
  BOOST_TEST(f.engine == "threads");
  BOOST_TEST(f.call == call);
  BOOST_TEST(f.rank == rank);
  BOOST_TEST(f.bucket == bucket);
  BOOST_TEST(f.reason == reason);
}

inline void sleep(double seconds) { std::this_thread::sleep_for(std::chrono::duration<double>(seconds)); }

inline void sum(communicator& comm, std::size_t n = 8, std::string_view name = "w") {
  std::vector<float> in(n, 1), out(n);
  comm.all_reduce(const_view(in, name), view(out)).wait();
  for (float const x : out)
    if (x != static_cast<float>(comm.size())) throw std::logic_error("wrong sum");
}

inline double const at_once = 10;  // seconds on a loaded machine, against a deadline of 60

}  // namespace limber::test
