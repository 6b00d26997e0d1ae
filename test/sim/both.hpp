// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The schedulers of this build, and small programs for the virtual cluster.

#include <limber/sim/sim.hpp>

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace limber::test {

/// ThreadSanitizer does not support fibers.
[[nodiscard]] inline std::vector<sim::scheduler> schedulers() {
  if (sim::detail::thread_sanitizer) return {sim::scheduler::threads};
  return {sim::scheduler::fibers, sim::scheduler::threads};
}

/// n workers that take a second a sample, on links that cost nothing.
[[nodiscard]] inline sim::cluster idle_cluster(int n) {
  return {.workers = std::vector<sim::speed>(static_cast<std::size_t>(n))};
}

inline void post(sim::communicator& comm, int peer, std::string_view words, i64 tag = 0) {
  comm.post(peer, tag, std::as_bytes(std::span(words)));
}
/// The sender and its words: "2:hello"; empty if nothing has arrived.
[[nodiscard]] inline std::string polled(sim::communicator& comm, i64 tag = 0) {
  auto const m = comm.poll(tag);
  if (!m) return {};
  return std::to_string(m->source) + ":" +
         std::string(reinterpret_cast<char const*>(m->bytes.data()), m->bytes.size());
}

/// Σ of one number over the ranks.
inline float sum(sim::communicator& comm, float x, std::string_view name = "w") {
  std::vector<float> in{x}, out(1);
  comm.all_reduce(const_view(in, name), view(out)).wait();
  return out[0];
}

}  // namespace limber::test
