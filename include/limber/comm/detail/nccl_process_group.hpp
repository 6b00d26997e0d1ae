// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// One rank's part of an NCCL communicator: operations in flight, failures, destruction.
///
/// A group fails at its first error: a deadline, an error that NCCL reports, a revocation by another rank, or
/// a request that was destroyed. Its operations are then stopped by revoking the communicator, so that none
/// accesses the caller's memory after an error was thrown, and every later call throws the same reason. If
/// NCCL cannot revoke, or does not become idle, the communicator is aborted.

#include <limber/comm/detail/nccl_bootstrap.hpp>
#include <limber/comm/detail/nccl_engine.hpp>
#include <limber/core/error.hpp>

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <numeric>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace limber::nccl {

namespace detail {

template <engine E>
class process_group final : public limber::detail::process_group {
 public:
  using comm_type = typename E::comm_type;
  using event_type = typename E::event_type;
  using stream_type = typename E::stream_type;

  process_group(E e, options const& o, int on, std::string called, int r, std::vector<int> ranks)
      : limber::detail::process_group("nccl"),
        engine(std::move(e)),
        how(o),
        rank(r),
        device(on),
        name(std::move(called)),
        world(std::move(ranks)) {}
  /// Creates stream and events; init, split or shrink then sets `native`.
  void open() {
    on_device<E> const here(engine, device);
    must("start", engine.make_stream(own));
    must("start", engine.make_event(forked));
    must("start", engine.make_event(joined));
  }
  ~process_group() override {
    leave(rank, false);
    on_device<E> const here(engine, device);
    slots.release(engine, own);
    for (auto& f : ops_)
      if (f.event) (void)engine.drop_event(f.event);
    if (forked) (void)engine.drop_event(forked);
    if (joined) (void)engine.drop_event(joined);
    if (own) (void)engine.drop_stream(own);
  }

  [[nodiscard]] int size() const noexcept override { return static_cast<int>(world.size()); }
  [[nodiscard]] std::string rank_name(int r) const {
    int const w = world[static_cast<std::size_t>(r)];
    return w == r ? text("rank ", r) : text("rank ", r, " (rank ", w, " of the world)");
  }
  [[nodiscard]] double now() const { return how.clock(); }

  /// Checks the result of a call outside of any operation.
  static void must(std::string_view what, answer const& a) {
    if (a.failed()) throw error({"nccl", std::string(what), a.code, -1, {}, a.reason});
  }

  void check(call const& c) const { check_alive(c.name, c.bucket); }
  [[nodiscard]] error failure_error(call const& c) const {
    return limber::detail::process_group::failure_error(c.name, c.bucket);
  }

  /// Checks the result of a call that an operation needs; a failure ends the group.
  void need(call const& c, answer const& a) {
    if (!a.failed()) return;
    end({-1, text(rank_name(rank), ": ", c.describe(), ": ", a.reason), a.code});
    throw failure_error(c);
  }

  /// Polls until ready(); false once `seconds` have passed since `start`.
  template <class Ready>
  [[nodiscard]] bool until(double start, double seconds, Ready ready) {
    for (int polls = 0; !ready(); ++polls) {
      if (now() - start > seconds) return false;
      if (polls >= polls_without_pause) how.pause();
    }
    return true;
  }

  /// Polls until `poll` returns done, and checks errors, revocations and the deadline meanwhile.
  template <class Poll>
  void poll_until(call const& c, double since, Poll poll) {
    bool const in_time = until(since, how.deadline, [&] {
      answer const a = poll();
      need(c, a);
      if (a.is != state::done) poll_errors(c);
      return a.is == state::done;
    });
    if (in_time) return;
    time_out(c);
    throw failure_error(c);
  }

  /// Waits until a non-blocking call has taken effect: only then is the operation on the stream, and an event
  /// can be recorded after it.
  void await_enqueued(call const& c) {
    poll_until(c, now(), [&] { return engine.async_state(native); });
  }

  /// Throws if NCCL reports an error or another rank ended the group. Does not synchronize.
  void poll_errors(call const& c) {
    need(c, engine.async_state(native));
    if (auto v = remote_failure()) {
      bool const find_missing = v->code == timeout_code;
      if (find_missing) v->code = 0;
      end(std::move(*v), {.announced = true, .find_missing = find_missing});
      throw failure_error(c);
    }
  }

  // Operations in flight --------------------------------------------------------------------------

  // Of nccl_operation.hpp.
  i64 start(int, signature const& s, const_tensor_view in, tensor_view out) override;
  void send(int, int peer, const_tensor_view in) override;
  void recv(int, int peer, tensor_view out) override;
  void revoke(std::string const& reason) override { end({-1, reason}); }
  // Of nccl_operation.hpp.
  [[nodiscard]] place split(int, int color) override;
  [[nodiscard]] place shrink(int, std::span<int const> lost) override;

  /// The number of an operation that is not in use.
  [[nodiscard]] i64 take_op(call const& c) {
    auto free = std::ranges::find_if(ops_, [](auto const& f) { return !f.open && !f.staged; });
    i64 const number = free - ops_.begin();
    if (free != ops_.end()) {
      *free = in_flight_op<E>{.made = c, .event = free->event};
    } else {
      ops_.push_back({.made = c});
      need(c, engine.make_event(ops_.back().event));
    }
    return number;
  }
  [[nodiscard]] in_flight_op<E>& op(i64 number) { return ops_[static_cast<std::size_t>(number)]; }

  void finish(group_call& c) override {
    in_flight_op<E>& f = op(c.sequence);
    on_device<E> const here(engine, device);
    if (!f.complete) {
      check(f.made);
      poll_until(f.made, since(f), [&] { return engine.query(f.event); });
    }
    if (f.staged && f.out.length > 0)
      std::memcpy(f.out.data, f.staged->pinned + f.from, static_cast<std::size_t>(f.out.bytes()));
    release_op(f);
  }

  /// Does not synchronize.
  [[nodiscard]] bool done(group_call& c) override {
    in_flight_op<E>& f = op(c.sequence);
    if (f.complete || failed_) return true;
    on_device<E> const here(engine, device);
    if (engine.query(f.event).is != state::pending) return true;
    return engine.async_state(native).failed() || now() - since(f) > how.deadline || poll_remote_failure();
  }

  void drop(group_call& c, bool unwinding) noexcept override {
    in_flight_op<E>& f = op(c.sequence);
    try {
      end({rank, limber::detail::dropped_text(rank_name(rank), f.made.describe(), {}, unwinding)});
    } catch (...) {  // out of memory for the message: stops all the same
      stop();
    }
    release_op(f);
  }

  // Failures and destruction ----------------------------------------------------------------------

  struct end_options {
    bool announced = false;     ///< another rank has published the failure
    bool find_missing = false;  ///< determine the missing ranks
  };

  /// Ends the group; only the first reason counts. Publishes it if there is a store, and stops operations in
  /// flight.
  void end(group_failure v, end_options m = {false, false}) {
    if (failed_) return;
    failed_ = std::move(v);
    // Operations that are complete by now stay valid.
    for (auto& f : ops_)
      if (f.open && engine.query(f.event).is == state::done) f.complete = true;
    try {
      if (how.notices && !m.announced)
        (void)how.notices.put(
            failure_key(),
            text(failed_->rank, " ", m.find_missing ? timeout_code : failed_->code, " ", failed_->reason));
      if (m.find_missing) find_missing_ranks();
    } catch (std::exception const&) {  // the store is unreachable as well; the reason stays
    }
    stop();
  }

  void time_out(call const& c) {
    std::string reason = text(c.describe(), " (call ", calls, ") did not complete within ", how.deadline,
                              " s on ", rank_name(rank), " of ", size());
    if (!how.notices && size() > 1) reason += "; who is missing is known only with options::notices";
    end({-1, std::move(reason)}, {.find_missing = true});
  }

  /// Leaves the communicator: finalizes it, or aborts it after a failure. Synchronizes the communicator's
  /// stream, for at most min(deadline, 10) seconds.
  void leave(int, bool) noexcept override {
    if (!native) return;
    on_device<E> const here(engine, device);
    bool const busy = std::ranges::any_of(ops_, [](auto const& f) { return f.open; });
    try {
      if (busy) end({rank, text(rank_name(rank), " left with operations in flight")});
    } catch (...) { stop(); }
    if (!native) return;
    if (!failed_ && flush())
      (void)engine.destroy(native);
    else
      (void)engine.abort(native);
    native = comm_type{};
  }

  E engine;
  options how;
  comm_type native{};
  stream_type own{};
  event_type forked{}, joined{};
  int rank;
  int device;
  std::string name;
  std::vector<int> world;  ///< by rank: its rank in the first communicator
  slot_pool<E> slots{};
  i64 calls = 0;
  int children = 0;
  /// Locations of new handles: NCCL writes them asynchronously.
  std::deque<comm_type> pending_comms{};

 private:
  [[nodiscard]] place divide(int kind, std::vector<int> const& members, std::string const& called);
  void complete(i64 number) { wait_for({number, rank}); }

  static constexpr int polls_without_pause = 200;
  static constexpr int timeout_code = -1;
  static constexpr double store_poll_interval = 0.05;  // seconds between two polls of the store

  [[nodiscard]] std::string failure_key() const { return text("ended.", name); }
  [[nodiscard]] std::string progress_key() const { return text("at.", name); }

  [[nodiscard]] double since(in_flight_op<E>& f) const {
    if (f.since < 0) f.since = now();
    return f.since;
  }

  /// Polls the store for a failure of another rank. An unreachable store is not an error.
  [[nodiscard]] bool poll_remote_failure() {
    if (remote_entry_) return true;
    if (!how.notices || size() == 1) return false;
    double const t = now();
    if (t - last_poll_ < store_poll_interval) return false;
    last_poll_ = t;
    try {
      remote_entry_ = how.notices.get(failure_key());
    } catch (std::exception const&) { return false; }
    return remote_entry_.has_value();
  }
  [[nodiscard]] std::optional<group_failure> remote_failure() {
    if (!poll_remote_failure()) return std::nullopt;
    group_failure v;
    char const* const last = remote_entry_->data() + remote_entry_->size();
    auto at = std::from_chars(remote_entry_->data(), last, v.rank).ptr;
    if (at != last) at = std::from_chars(at + 1, last, v.code).ptr;
    v.reason = std::string(at == last ? at : at + 1, last);
    return v;
  }

  /// Each waiting rank publishes the number of its call; ranks without a number, or with a lower one, are
  /// missing.
  void find_missing_ranks() {
    if (!how.notices || size() == 1) return;
    (void)how.notices.put(text(progress_key(), ".", rank), text(calls));
    double const start = now(), patience = std::min(how.deadline / 4, 2.0);
    std::vector<int> missing(world.size());
    std::iota(missing.begin(), missing.end(), 0);
    std::vector<int> behind;
    await_keys(
        how.notices, progress_key(), missing, how.pause, [&] { return now() - start > patience; },
        [&](int r, std::string const& said) {
          if (std::strtoll(said.c_str(), nullptr, 10) < calls) behind.push_back(r);
        });
    if (!missing.empty())
      failed_->reason +=
          text("; ", ranks_text(missing), missing.size() == 1 ? " is" : " are", " not waiting in it");
    if (!behind.empty()) {
      std::ranges::sort(behind);
      failed_->reason +=
          text("; ", ranks_text(behind), missing.size() == 1 ? " is" : " are", " at an earlier call");
    }
    if (!missing.empty() || !behind.empty()) failed_->rank = missing.empty() ? behind[0] : missing[0];
  }

  /// Stops all operations; returns when none uses memory any more.
  void stop() noexcept {
    if (!native || end_state_ != end_state::none) return;
    on_device<E> const here(engine, device);
    if constexpr (E::can_revoke) {
      bool clean = !engine.revoke(native).failed();
      if (await_idle([&] {
            answer const a = engine.async_state(native);
            if (a.failed()) clean = false;
            return !a.pending() && !engine.idle(own).pending();
          })) {
        end_state_ = clean ? end_state::revoked : end_state::unclean;
        return;
      }
    }
    (void)engine.abort(native);
    native = comm_type{};
    end_state_ = end_state::aborted;
    (void)await_idle([&] { return !engine.idle(own).pending(); });
  }

  template <class Ready>
  [[nodiscard]] bool await_idle(Ready ready) noexcept {
    try {
      return until(now(), std::min(how.deadline, 10.0), ready);
    } catch (...) { return false; }
  }

  [[nodiscard]] bool flush() noexcept {
    bool failed = engine.finalize(native).failed();
    return !failed && await_idle([&] {
      answer const a = engine.async_state(native);
      failed |= a.failed();
      return !a.pending();
    }) && !failed;
  }

  void release_op(in_flight_op<E>& f) noexcept {
    // After a failure an operation may still be running, so its slot is not reused.
    if (f.staged && !failed_) f.staged->taken = false;
    f.staged = nullptr;
    f.open = false;
  }

  i64 barrier_in_ = 1, barrier_out_ = 0;
  std::deque<in_flight_op<E>> ops_;  ///< by number
  end_state end_state_ = end_state::none;
  std::optional<std::string> remote_entry_;
  double last_poll_ = -1e300;
};

}  // namespace detail
}  // namespace limber::nccl
