// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The two kinds of failure: the caller's mistake, and an engine's.

#include <limber/core/config.hpp>

#include <sstream>
#include <stdexcept>
#include <string>
#include <utility>

namespace limber {

/// Joins its arguments to one text, as an output stream prints them.
template <class... Parts>
[[nodiscard]] std::string text(Parts const&... parts) {
  std::ostringstream out;
  out.precision(12);
  (out << ... << parts);
  return std::move(out).str();
}

/// Misuse: throws with `parts` as the message unless `ok`. The message names argument and value.
///
///     expects(momentum >= 0 && momentum < 1, "sgd: momentum must lie in [0, 1), got ", momentum);
///
/// @throws std::invalid_argument "limber: " followed by the parts
template <class... Parts>
void expects(bool ok, Parts const&... parts) {
  if (!ok) throw std::invalid_argument(text("limber: ", parts...));
}

/// Where an engine failed. Fields that do not apply keep their defaults.
struct failure {
  std::string engine{};  ///< "threads", "mpi", "nccl", …
  std::string call{};    ///< the operation: "all_reduce", "broadcast", …
  int code = 0;          ///< the engine's own code, 0 when it has none
  int rank = -1;         ///< the rank at fault, −1 when unknown
  std::string bucket{};  ///< the tensor or bucket in flight, empty when none
  std::string reason{};  ///< what happened, and what to do next
};

/// An engine failed, a peer died or a deadline passed. `where()` is for programs, `what()` for people.
class error : public std::runtime_error {
 public:
  explicit error(failure where) : std::runtime_error(describe(where)), where_(std::move(where)) {}

  [[nodiscard]] failure const& where() const noexcept { return where_; }

 private:
  [[nodiscard]] static std::string describe(failure const& f) {
    std::string out = text("limber: ", f.engine, ": ", f.call, ": ", f.reason);
    if (f.code != 0) out += text(" [code ", f.code, "]");
    if (f.rank >= 0) out += text(" [rank ", f.rank, "]");
    if (!f.bucket.empty()) out += text(" [", f.bucket, "]");
    return out;
  }

  failure where_;
};

}  // namespace limber
