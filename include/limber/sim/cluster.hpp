// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The description of a virtual cluster.

#include <limber/core/error.hpp>
#include <limber/core/math.hpp>
#include <limber/sim/cost.hpp>

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

namespace limber::sim {

/// How workers are scheduled; the trace is the same.
enum class scheduler : std::uint8_t {
  automatic,  ///< fibers; threads in builds for AddressSanitizer or ThreadSanitizer
  fibers,     ///< one stack per worker, on the calling thread; not supported by ThreadSanitizer
  threads     ///< one thread per worker, of which one runs at a time
};

/// How fast a worker computes: compute(n) takes seconds_per_call + n · seconds_per_sample.
struct speed {
  double seconds_per_call = 0;    ///< ≥ 0
  double seconds_per_sample = 1;  ///< ≥ 0
  double jitter = 0;              ///< σ ≥ 0 of a lognormal factor of mean 1, drawn for every compute()
};

/// From `from` until `until`, computations of the worker take `factor` times as long. Overlapping factors
/// multiply.
struct slowdown {
  int worker = 0;
  double from = 0, until = infinite;
  double factor = 1;  ///< > 0; below 1 it is faster
};

/// The worker dies: its stack is unwound at that time.
struct death {
  int worker = 0;
  double at = 0;
};

/// The worker starts at that time, not at 0; the others admit it by worker::regroup.
struct join {
  int worker = 0;
  double at = 0;
};

/// A virtual cluster: workers, links, and scheduled events.
///
///     sim::cluster c{.workers = std::vector(8, sim::speed{.seconds_per_sample = 1e-3}),
///                    .network = {.latency = 50e-6, .bandwidth = 1.25e9}};
///
/// Units    seconds, bytes, and bytes a second.
/// Links    workers k · block_size … (k + 1) · block_size − 1 are one block. Messages within a block, and
///          operations of a group that lies in one, use `inside`; all others use `network`.
struct cluster {
  std::vector<speed> workers;  ///< one entry per worker
  link network{};
  link inside{};
  int block_size = 0;  ///< 0: no blocks
  topology reduce = topology::ring;
  std::vector<slowdown> slowdowns{};
  std::vector<death> deaths{};
  std::vector<join> joins{};
  double byte_scale =
      1;  ///< n bytes cost as much as n · byte_scale, so a small model can represent a large one
  double detection = 1;  ///< seconds until a death is known to the other workers
  std::uint64_t seed = 0;
  std::size_t stack_bytes = std::size_t{256} << 10;  ///< of each fiber
  scheduler how = scheduler::automatic;

  [[nodiscard]] int size() const noexcept { return static_cast<int>(workers.size()); }

  /// The link between two workers.
  [[nodiscard]] link const& between(int a, int b) const noexcept {
    return block_size > 0 && a / block_size == b / block_size ? inside : network;
  }

  /// @throws std::invalid_argument naming the field and its value
  void validate() const {
    expects(!workers.empty(), "cluster: workers: at least 1 is needed, got 0");
    for (speed const& s : workers) {
      check("workers: seconds_per_call", s.seconds_per_call);
      check("workers: seconds_per_sample", s.seconds_per_sample);
      check("workers: jitter", s.jitter);
    }
    check("network", network);
    check("inside", inside);
    expects(block_size >= 0, "cluster: block_size must not be negative, got ", block_size);
    for (slowdown const& s : slowdowns) {
      check_worker("slowdowns", s.worker);
      check("slowdowns: from", s.from);
      expects(s.until > s.from, "cluster: slowdowns: until must be after from = ", s.from, ", got ", s.until);
      expects(s.factor > 0 && math::finite(s.factor), "cluster: slowdowns: factor must be positive, got ",
              s.factor);
    }
    for (death const& d : deaths) {
      check_worker("deaths", d.worker);
      check("deaths: at", d.at);
    }
    std::vector<char> joined(workers.size());
    for (join const& j : joins) {
      check_worker("joins", j.worker);
      check("joins: at", j.at);
      auto& mark = joined[static_cast<std::size_t>(j.worker)];
      expects(mark == 0, "cluster: joins: worker ", j.worker, " joins twice");
      mark = 1;
    }
    expects(joins.size() < workers.size(), "cluster: joins: a worker must be present at the start, but all ",
            workers.size(), " workers join later");
    check("byte_scale", byte_scale);
    check("detection", detection);
    expects(stack_bytes >= (std::size_t{16} << 10), "cluster: stack_bytes must be at least 16384, got ",
            stack_bytes);
  }

 private:
  static void check(std::string_view what, double value) {
    expects(value >= 0 && math::finite(value), "cluster: ", what, " must be a number of at least 0, got ",
            value);
  }
  static void check(std::string_view what, link const& l) {
    expects(l.latency >= 0 && math::finite(l.latency), "cluster: ", what,
            ": latency must be a number of at least 0, got ", l.latency);
    expects(l.bandwidth > 0, "cluster: ", what, ": bandwidth must be positive, got ", l.bandwidth);
  }
  void check_worker(std::string_view what, int worker) const {
    expects(worker >= 0 && worker < size(), "cluster: ", what, ": worker must lie in [0, ", size(), "), got ",
            worker);
  }
};

}  // namespace limber::sim
