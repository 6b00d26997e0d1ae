// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The model that the tests of sessions train, and session options with short timeouts.

#include <limber/elastic/session.hpp>
#include <limber/limber.hpp>

#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace limber::testing {

/// One weight per sample: above 0 once the sample is part of the model.
struct ledger_model {
  std::vector<float> w, g;
  explicit ledger_model(i64 n) : w(static_cast<std::size_t>(n)), g(w.size()) {}
  [[nodiscard]] std::vector<tensor> parameters() { return {{"w", w, g}}; }
  void backward(std::span<i64 const> samples) {
    for (i64 const s : samples) g[static_cast<std::size_t>(s)] -= 1;
  }
};

[[nodiscard]] inline options ledger_options(i64 size, any_policy batch) {
  options o;
  o.batch = std::move(batch);
  o.epoch_size = size;
  o.gradient = gradient_is::sum;
  o.buckets.first_bytes = o.buckets.bytes = 256;
  return o;
}

/// Options of worker `id` of `workers` that start together. LIMBER_LOG=1 prints its log.
[[nodiscard]] inline elastic::session_options hurried_session(int id, int workers, double deadline) {
  elastic::session_options how;
  how.name = text("w", id);
  how.check_every = 4;
  how.membership = {.deadline = deadline, .grace = 0.2, .suspicion = 0.05, .min_workers = workers};
  how.membership.settle = 0.05;
  how.membership.beat_every = 0.05;
  how.membership.join_deadline = 10;
  how.membership.poll.every = 0.002;
  how.log = [id](std::string const& line) {
    if (std::getenv("LIMBER_LOG")) std::fprintf(stderr, "w%d: %s\n", id, line.c_str());
  };
  return how;
}

}  // namespace limber::testing
