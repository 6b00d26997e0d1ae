// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// How the calls of a `gloo` group are made, and how their failures are handled.

#include <limber/comm/detail/gloo_process_group.hpp>

#include <algorithm>
#include <chrono>
#include <exception>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>

namespace limber::gloo_engine::detail {

inline i64 process_group::start(int, signature const& s, const_tensor_view in, tensor_view out) {
  rank_buffers const memory{in.data, out.data};
  std::string_view const bucket = limber::detail::bucket_of(in, out);
  std::unique_lock const lock(mutex_);
  check_alive(limber::detail::name_of(s.what), bucket);
  if (size_ == 1) {
    perform_alone(s, memory);
    taken_ = completed_ = ++started_;
    return started_;
  }
  calls_.push_back({s, memory, bucket});
  ++started_;
  recent_[static_cast<std::size_t>(started_) % recent_.size()] = s;
  notify_workers();
  return started_;
}

inline void process_group::finish(group_call& c) {
  std::unique_lock lock(mutex_);
  while (completed_ < c.sequence) {
    state const now = at(c.sequence).now;
    // Once nothing runs, an earlier call will not end.
    if (now != state::running && (now != state::ended || running_ == 0))
      check_alive(limber::detail::name_of(c.what), c.bucket);
    if (may_take() && taken_ < c.sequence) {
      if (taken_ + 1 == started_) eager_ = false;
      run_next(lock);
    } else {
      sleep(lock, c.sequence);
    }
  }
  if (may_take()) notify_workers();
}

inline bool process_group::done(group_call& c) {
  std::scoped_lock const lock(mutex_);
  if (completed_ >= c.sequence || (failed_ && running_ == 0)) return true;
  if (may_take()) worker_cv_.notify_one();
  return false;
}

inline void process_group::drop(group_call& c, bool unwinding) noexcept {
  std::unique_lock lock(mutex_);
  fail({rank_, limber::detail::dropped_text(text("rank ", rank_), limber::detail::name_of(c.what), c.bucket,
                                            unwinding)});
  while (completed_ < c.sequence && at(c.sequence).now == state::running) sleep(lock);
}

inline limber::detail::place process_group::make_subgroup(char const* called, std::string name,
                                                          participants who) {
  int const rank = limber::detail::rank_among(who.ranks, rank_);
  try {
    return {join(setup_, std::move(name), rank, who), rank};
  } catch (error const& e) {
    failure f = e.where();
    f.call = called;
    throw error(std::move(f));
  }
}

inline limber::detail::place process_group::split(int, int color) {
  std::vector<i64> colors(static_cast<std::size_t>(size_));
  i64 const mine = color;
  i64 const sequence =
      start(rank_, {operation::split, reduction::sum, dtype::int64, 1, 0},
            {reinterpret_cast<std::byte const*>(&mine), 1, dtype::int64}, limber::view(colors));
  wait_for({sequence, rank_, operation::split});
  return make_subgroup("split", text(name_, "/split", ++splits_, ".", color),
                       {limber::detail::ranks_of_color(colors, mine)});
}

inline limber::detail::place process_group::shrink(int, std::span<int const> lost) {
  std::vector<int> const lost_ranks(lost.begin(), lost.end());
  std::string list;
  for (int const r : lost) list += text(list.empty() ? "" : ".", r);
  auto made =
      make_subgroup("shrink", text(name_, "/less", list, "-", ++shrinks_[list]),
                    {limber::detail::survivors_of(lost, size_), [this](int r) { return absence_reason(r); }});
  // The ranks in `lost` are notified, if they are alive.
  std::string const reason = limber::detail::shrunk_text(ranks_text(lost_ranks));
  std::scoped_lock const lock(mutex_);
  if (!failed_)
    for (int const r : lost) send_failure(r, {r, reason});
  fail({lost.empty() ? -1 : lost[0], reason}, false);
  return made;
}

/// Makes the oldest call that no thread has taken. @pre may_take()
inline void process_group::run_next(std::unique_lock<std::mutex>& lock) {
  i64 const sequence = ++taken_;
  call& c = at(sequence);
  c.now = state::running;
  ++running_;
  lock.unlock();
  std::exception_ptr cause;
  try {
    perform(connections_.collectives, sequence, c.what, c.memory);
  } catch (...) { cause = std::current_exception(); }
  lock.lock();
  if (cause) fail_call(lock, c, cause);
  c.now = cause ? state::failed : state::ended;
  --running_;
  while (!calls_.empty() && calls_.front().now == state::ended) {
    calls_.pop_front();
    ++completed_;
  }
  if (failed_ || (awaited_ > 0 && completed_ >= awaited_)) wake();
  if (failed_) worker_cv_.notify_one();
}

/// Fails the group after a call that ended with `cause`. A rank that closed its connections has sent the
/// reason; if a connection broke, the message connection to that rank breaks as well, which is detected.
inline void process_group::fail_call(std::unique_lock<std::mutex>& lock, call const& c,
                                     std::exception_ptr cause) {
  std::string const name = text_of(c.what);
  try {
    std::rethrow_exception(cause);
  } catch (wait_cancelled const&) {
    if (!failed_) fail({rank_, text(name, " was cancelled")});
  } catch (connection_broken const& e) {
    bool const known = e.peer >= 0 && e.peer < size_;
    double const start = how_.clock(), timeout = std::clamp(0.25 * how_.deadline, 0.2, 2.0);
    while (!failed_ && !(known && peer(e.peer).left) && how_.clock() - start < timeout) sleep(lock);
    if (failed_) return;
    if (known && peer(e.peer).left)
      fail({e.peer, text("rank ", e.peer, " left without calling ", name)});
    else
      fail({e.peer, text("the connection to rank ", e.peer, " broke in ", name, ": ", e.what()), 0, known});
  } catch (std::exception const& e) { fail({rank_, text(name, ": ", e.what())}); }
}

/// Notifies the worker threads of queued calls, unless the user is expected to wait for them soon.
inline void process_group::notify_workers() {
  bool const several = started_ - taken_ > 1;
  if (workers_.empty()) workers_.emplace_back([this] { run_first_worker(); });
  if (eager_ || several || idle_) worker_cv_.notify_one();
  if (!several && !working_) return;
  if (static_cast<int>(workers_.size()) < how_.lanes) workers_.emplace_back([this] { run_worker(); });
  extra_workers_cv_.notify_one();
}

/// The loop of the first worker: polls the queue for a while after the last call.
inline void process_group::run_first_worker() {
  std::unique_lock lock(mutex_);
  i64 seen = started_;
  for (int quiet = 0; !stopped_;) {
    if (may_take()) {
      eager_ = working_ = true;
      run_next(lock);
      working_ = false;
    } else if (failed_ && running_ == 0 && !closed_) {
      closed_ = true;
      lock.unlock();
      connections_.collectives->close();
      lock.lock();
    } else if (quiet < 50) {
      worker_cv_.wait_for(lock, std::chrono::milliseconds(1));
      quiet = std::exchange(seen, started_) == started_ ? quiet + 1 : 0;
    } else {
      idle_ = true;
      worker_cv_.wait(lock);
      idle_ = false;
      quiet = 0;
    }
  }
}

inline void process_group::run_worker() {
  std::unique_lock lock(mutex_);
  while (!stopped_) {
    if (may_take())
      run_next(lock);
    else
      extra_workers_cv_.wait(lock);
  }
}

inline void process_group::fail(group_failure v, bool announce) {
  if (failed_) return;
  failed_ = std::move(v);
  if (failed_->lost && failed_->rank >= 0) peer(failed_->rank).broken = true;
  if (announce && connections_.messages)
    for (int r = 0; r < size_; ++r)
      if (r != rank_) send_failure(r, *failed_);
  if (connections_.collectives) connections_.collectives->cancel();
  user_cv_.notify_all();
  worker_cv_.notify_one();
}

inline void process_group::send_failure(int r, group_failure const& v) {
  limber::detail::packer p;
  p.put(v.rank).put(v.lost).put(std::string_view(v.reason));
  if (connections_.messages) connections_.messages->post(r, {.kind = message_kind::failure}, p.bytes());
}

/// Queries other ranks about calls that make no progress. Called in the thread of the messages.
inline void process_group::check_progress() {
  std::scoped_lock const lock(mutex_);
  if (failed_ || running_ == 0) return failure_detector_.reset();
  switch (failure_detector_.check(how_.clock(), how_.deadline, connections_.collectives->progress(),
                                  completed_ + 1)) {
    case failure_detector::action::wait: return;
    case failure_detector::action::query: {
      i64 const next = failure_detector_.next();
      failure_detector_.record_reply(rank_, next, {started_, call_text(next)});
      for (int r = 0; r < size_; ++r) {
        if (r == rank_) continue;
        if (peer(r).left)
          failure_detector_.record_reply(r, next, {peer(r).started, {}, true});
        else
          connections_.messages->post(r, {.tag = next, .kind = message_kind::query}, {});
      }
      return;
    }
    case failure_detector::action::diagnose:
      return fail(failure_detector_.diagnose(call_text(failure_detector_.next()), how_.deadline));
  }
}

inline process_group::~process_group() {
  {
    std::scoped_lock const lock(mutex_);
    stopped_ = true;
    worker_cv_.notify_one();
    extra_workers_cv_.notify_all();
  }
  for (auto& w : workers_) w.join();
  if (!connections_.messages) return;
  // Sent first, since ranks would otherwise take the leave message for the cause of the failure.
  if (failed_)
    for (int r = 0; r < size_; ++r)
      if (r != rank_) send_failure(r, *failed_);
  for (int r = 0; r < size_; ++r)
    if (r != rank_) connections_.messages->post(r, {.tag = started_, .kind = message_kind::leave}, {});
  // Earlier messages must be sent; a failed group does not wait for long.
  connections_.messages->flush(failed_ ? std::min(0.2, how_.deadline) : how_.deadline);
  connections_.messages->stop();
}

}  // namespace limber::gloo_engine::detail
