// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Options of the NCCL backend, and what its parts pass to each other.

#include <limber/comm/detail/nccl_board.hpp>
#include <limber/comm/detail/nccl_engine.hpp>
#include <limber/comm/detail/nccl_staging.hpp>
#include <limber/comm/detail/signature.hpp>
#include <limber/core/clock.hpp>
#include <limber/core/error.hpp>

#include <chrono>
#include <functional>
#include <string>
#include <string_view>
#include <thread>

namespace limber::nccl {

struct options {
  double deadline = 60;                   ///< seconds of `clock` that an operation waits for the others, > 0
  double meeting = 300;                   ///< the same until all have come at the start, > 0
  clock_function clock = steady_seconds;  ///< on a virtual clock, give a `pause` that lets it advance
  /// Between two looks at an operation; the first looks follow each other without it.
  std::function<void()> pause = [] { std::this_thread::sleep_for(std::chrono::microseconds(20)); };
  board notices{};  ///< carries revocations and the names of missing ranks; bootstrap_file's serves
  int device = -1;  ///< the GPU; −1: the local rank's, or the current one where that is not known
};

namespace detail {

using limber::detail::operation;
using limber::detail::signature;

/// What is being called, for messages.
struct call {
  std::string_view name;
  std::string_view bucket{};
  signature what{};
  int peer = -1;  ///< of a message

  [[nodiscard]] static call of(signature const& s, std::string_view bucket) {
    return {limber::detail::name_of(s.what), bucket, s};
  }
  [[nodiscard]] std::string describe() const {
    std::string out(name);
    if (peer >= 0)
      out += text(" of ", what.count, " ", limber::name_of(what.type), name == "send" ? " to" : " from",
                  " rank ", peer);
    else if (name == limber::detail::name_of(what.what))
      out = limber::detail::text_of(what);
    if (!bucket.empty()) out += text(" of '", bucket, "'");
    return out;
  }
};

struct verdict {
  int code = 0;
  int rank = -1;
  std::string reason{};
};

/// What follows a failure.
enum class ending : std::uint8_t {
  none,     ///< alive
  revoked,  ///< stopped; can be shrunk
  unclean,  ///< stopped, but NCCL would not be revoked: to be shrunk with its abort flag
  aborted,  ///< gone
};

/// Makes `device` current for a scope.
template <engine E>
class on_device {
 public:
  on_device(E& e, int device) : engine_(e) {
    if (engine_.device(before_).failed()) before_ = device;
    if (before_ != device) changed_ = !engine_.use_device(device).failed();
  }
  on_device(on_device const&) = delete;
  on_device& operator=(on_device const&) = delete;
  ~on_device() {
    if (changed_) (void)engine_.use_device(before_);
  }

 private:
  E& engine_;
  int before_ = 0;
  bool changed_ = false;
};

/// An operation between its start and its wait.
template <engine E>
struct flight {
  typename E::event_type event{};
  slot* staged = nullptr;
  tensor_view out{};  ///< host memory that the result is copied to when it was waited for
  i64 from = 0;       ///< where in the slot's pinned part the result is
  double since = -1;  ///< when waiting began
  bool open = false;  ///< nobody has waited yet
  bool complete = false;
};

}  // namespace detail
}  // namespace limber::nccl
