// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// How patient a membership is, and how it says that others went on without this worker.

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

/// 64 bits that nobody else draws.
[[nodiscard]] inline std::uint64_t random_word() {
  std::random_device source;
  return (std::uint64_t{source()} << 32) | source();
}

/// "host-pid", of characters that ids may have.
[[nodiscard]] inline std::string default_worker_name() {
  char host[32] = {};
  if (::gethostname(host, sizeof host - 1) != 0) host[0] = '\0';
  std::string name = host[0] == '\0' || host[0] == '.' ? "worker" : host;
  for (char& c : name)
    if (!detail::is_safe(c)) c = '_';
  return text(name, "-", ::getpid());
}

/// How patient a membership is. All times in seconds of the clock in `poll`.
struct membership_options {
  double deadline = 30;  ///< the communicators' deadline: a worker that is slower is no longer waited for
  double grace = 1;      ///< for those who come after somebody met a deadline, and for joiners; ≤ deadline
  double suspicion = 0.5;  ///< a worker whose connection broke gets so long to show that it lives; ≤ deadline
  int min_workers = 1;     ///< that begin a run, or begin it again when all of its workers are dead
  double settle = 1;       ///< so long nobody else may come or vanish before they begin
  double beat_every = 0.5;  ///< between two signs of life
  double dead_after = 0;    ///< of silence until a worker counts as dead for joiners; 0: twice the deadline
  double join_deadline = 600;                           ///< how long `join` waits
  polling poll{};                                       ///< how the store is looked at
  std::function<std::uint64_t()> random = random_word;  ///< for ids and prefixes
};

/// The next generation was agreed without this worker. It must not write anything any more; it may `join`.
class fenced : public error {
 public:
  fenced(failure where, i64 generation) : error(std::move(where)), generation_(generation) {}

  /// The newest generation, which others are in.
  [[nodiscard]] i64 generation() const noexcept { return generation_; }

 private:
  i64 generation_;
};

}  // namespace limber::elastic
