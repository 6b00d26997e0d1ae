// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Options of the NCCL backend, and its internal types.

#include <limber/comm/detail/nccl_engine.hpp>
#include <limber/comm/detail/nccl_kv_store.hpp>
#include <limber/comm/detail/nccl_staging.hpp>
#include <limber/comm/detail/process_group.hpp>
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
  double rendezvous_deadline = 300;       ///< seconds until all ranks must have met at the start, > 0
  clock_function clock = steady_seconds;  ///< on a virtual clock, give a `pause` that lets it advance
  /// Called between polls of an operation, except the first ones.
  std::function<void()> pause = [] { std::this_thread::sleep_for(std::chrono::microseconds(20)); };
  kv_store notices{};  ///< carries revocations and the names of missing ranks; bootstrap_file's serves
  int device = -1;     ///< the GPU; −1: the local rank's, or the current one where that is not known
};

namespace detail {

using limber::detail::group_call;
using limber::detail::group_failure;
using limber::detail::operation;
using limber::detail::place;
using limber::detail::ranks_text;
using limber::detail::shared_group;
using limber::detail::signature;

/// A call, for error messages.
struct call {
  std::string_view name{};
  std::string_view bucket{};
  signature what{};
  int peer = -1;  ///< of send and recv

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

/// The state of a communicator after a failure.
enum class end_state : std::uint8_t {
  none,     ///< alive
  revoked,  ///< operations are stopped; can be shrunk
  unclean,  ///< operations are stopped, but the revoke failed: shrink with the abort flag
  aborted,  ///< the communicator is destroyed
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
struct in_flight_op {
  detail::call made{};
  typename E::event_type event{};
  slot* staged = nullptr;
  tensor_view out{};  ///< host memory to which wait() copies the result
  i64 from = 0;       ///< the offset of the result in the pinned memory of the slot
  double since = -1;  ///< when waiting began
  bool open = false;  ///< not waited for yet
  bool complete = false;
};

}  // namespace detail
}  // namespace limber::nccl
