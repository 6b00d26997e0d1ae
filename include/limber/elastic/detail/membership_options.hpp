// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Timeouts of a membership, and the error of a worker that was fenced.

#include <limber/core/config.hpp>
#include <limber/core/error.hpp>
#include <limber/elastic/detail/store_key.hpp>
#include <limber/elastic/store.hpp>

#include <unistd.h>

#include <cstdint>
#include <functional>
#include <random>
#include <string>
#include <utility>

namespace limber::elastic {

/// 64 random bits of the operating system.
[[nodiscard]] inline std::uint64_t random_word() {
  std::random_device source;
  return (std::uint64_t{source()} << 32) | source();
}

/// "host-pid", in the characters that ids may have.
[[nodiscard]] inline std::string default_worker_name() {
  char host[32] = {};
  if (::gethostname(host, sizeof host - 1) != 0) host[0] = '\0';
  std::string name = host[0] == '\0' || host[0] == '.' ? "worker" : host;
  for (char& c : name)
    if (!detail::is_safe(c)) c = '_';
  return text(name, "-", ::getpid());
}

/// Timeouts of a membership, in seconds of the clock in `poll`.
struct membership_options {
  double deadline = 30;  ///< that of the communicators: a slower worker is not waited for
  double grace = 1;  ///< for workers that register after one has met a deadline, and for joiners; ≤ deadline
  double suspicion = 0.5;   ///< for a worker whose connection broke to register; ≤ deadline
  int min_workers = 1;      ///< that start a run, or restart it when all of its workers are dead
  double settle = 1;        ///< for which the set of starting workers must not change before they start
  double beat_every = 0.5;  ///< between two heartbeats
  double dead_after = 0;    ///< without heartbeat until joiners take a worker for dead; 0: twice the deadline
  double join_deadline = 600;                           ///< how long `join` waits
  polling poll{};                                       ///< how the store is polled
  std::function<std::uint64_t()> random = random_word;  ///< for ids and prefixes
};

/// The next generation was decided without this worker. It must not write any shared state; it may `join`
/// again.
class fenced : public error {
 public:
  fenced(failure where, i64 generation) : error(std::move(where)), generation_(generation) {}

  /// The latest generation, of which this worker is no member.
  [[nodiscard]] i64 generation() const noexcept { return generation_; }

 private:
  i64 generation_;
};

}  // namespace limber::elastic
