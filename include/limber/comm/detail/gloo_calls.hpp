// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// How the calls of a `gloo` group are made, and what becomes of those that fail.

#include <limber/comm/detail/gloo_group.hpp>

#include <algorithm>
#include <chrono>
#include <exception>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>

namespace limber::gloo::detail {

inline i64 group::start(signature const& s, share memory, std::string_view bucket) {
  std::unique_lock const lock(door_);
  check_alive(limber::detail::name_of(s.what), bucket);
  if (size_ == 1) {
    perform_alone(s, memory);
    taken_ = completed_ = ++started_;
    return started_;
  }
  calls_.push_back({s, memory, bucket});
  ++started_;
  recent_[static_cast<std::size_t>(started_) % recent_.size()] = s;
  call_workers();
  return started_;
}

inline void group::finish(i64 sequence, operation what, std::string_view bucket) {
  std::unique_lock lock(door_);
  while (completed_ < sequence) {
    state const now = at(sequence).now;
    if (failed_ && now != state::running && now != state::ended)
      throw thrown(limber::detail::name_of(what), bucket);
    if (failed_ && now == state::ended && running_ == 0)
      throw thrown(limber::detail::name_of(what), bucket);  // an earlier one will not end
    if (may_take() && taken_ < sequence) {
      if (taken_ + 1 == started_) eager_ = false;
      work(lock);
    } else {
      sleep(lock, sequence);
    }
  }
  if (may_take()) call_workers();
}

inline bool group::done(i64 sequence) {
  std::scoped_lock const lock(door_);
  if (completed_ >= sequence || (failed_ && running_ == 0)) return true;
  if (may_take()) alarm_.notify_one();
  return false;
}

inline void group::drop(i64 sequence, operation what, std::string_view bucket, bool unwinding) {
  std::unique_lock lock(door_);
  fail({rank_, text("rank ", rank_, unwinding ? " was left by an exception with its " : " destroyed its ",
                    limber::detail::name_of(what), bucket.empty() ? "" : " of '", bucket,
                    bucket.empty() ? "" : "'", unwinding ? " in flight" : " before it was waited for")});
  while (completed_ < sequence && at(sequence).now == state::running) sleep(lock);
}

/// Makes the oldest call that nobody has taken. @pre may_take()
inline void group::work(std::unique_lock<std::mutex>& lock) {
  i64 const sequence = ++taken_;
  call& c = at(sequence);
  c.now = state::running;
  ++running_;
  lock.unlock();
  std::exception_ptr cause;
  try {
    perform(links_.lines, sequence, c.what, c.memory);
  } catch (...) { cause = std::current_exception(); }
  lock.lock();
  if (cause) explain(lock, c, cause);
  c.now = cause ? state::failed : state::ended;
  --running_;
  while (!calls_.empty() && calls_.front().now == state::ended) {
    calls_.pop_front();
    ++completed_;
  }
  if (failed_ || (awaited_ > 0 && completed_ >= awaited_)) wake();
  if (failed_) alarm_.notify_one();
}

/// Fails the group because of a call that ended with `cause`. Whoever closed a connection says why, in a
/// letter; a connection that closed by itself has taken the letters' with it, which is noticed as well.
inline void group::explain(std::unique_lock<std::mutex>& lock, call const& c, std::exception_ptr cause) {
  std::string const name = text_of(c.what);
  try {
    std::rethrow_exception(cause);
  } catch (called_off const&) {
    if (!failed_) fail({rank_, text(name, " was called off")});
  } catch (line_broken const& e) {
    bool const known = e.peer >= 0 && e.peer < size_;
    double const start = how_.clock(), patience = std::clamp(0.25 * how_.deadline, 0.2, 2.0);
    while (!failed_ && !(known && peer(e.peer).left) && how_.clock() - start < patience) sleep(lock);
    if (failed_) return;
    if (known && peer(e.peer).left)
      fail({e.peer, text("rank ", e.peer, " left without calling ", name)});
    else
      fail({e.peer, text("the connection to rank ", e.peer, " broke in ", name, ": ", e.what()), known});
  } catch (std::exception const& e) { fail({rank_, text(name, ": ", e.what())}); }
}

/// Somebody has to make the calls in the queue, unless the user waits for them soon.
inline void group::call_workers() {
  bool const several = started_ - taken_ > 1;
  if (workers_.empty()) workers_.emplace_back([this] { serve_first(); });
  if (eager_ || several || dozing_) alarm_.notify_one();
  if (!several && !working_) return;
  if (static_cast<int>(workers_.size()) < how_.lanes) workers_.emplace_back([this] { serve(); });
  reserve_.notify_one();
}

/// The first worker's life: while calls are being made it also looks at the queue now and then.
inline void group::serve_first() {
  std::unique_lock lock(door_);
  i64 seen = started_;
  for (int quiet = 0; !stopped_;) {
    if (may_take()) {
      eager_ = working_ = true;
      work(lock);
      working_ = false;
    } else if (failed_ && running_ == 0 && !closed_) {
      closed_ = true;
      lock.unlock();
      links_.lines->close();
      lock.lock();
    } else if (quiet < 50) {
      alarm_.wait_for(lock, std::chrono::milliseconds(1));
      quiet = std::exchange(seen, started_) == started_ ? quiet + 1 : 0;
    } else {
      dozing_ = true;
      alarm_.wait(lock);
      dozing_ = false;
      quiet = 0;
    }
  }
}

inline void group::serve() {
  std::unique_lock lock(door_);
  while (!stopped_) {
    if (may_take())
      work(lock);
    else
      reserve_.wait(lock);
  }
}

inline void group::fail(verdict v, bool announce) {
  if (failed_) return;
  failed_ = std::move(v);
  if (failed_->lost && failed_->rank >= 0) peer(failed_->rank).broken = true;
  if (announce && links_.office)
    for (int r = 0; r < size_; ++r)
      if (r != rank_) tell(r, *failed_);
  if (links_.lines) links_.lines->cut();
  bell_.notify_all();
  alarm_.notify_one();
}

inline void group::tell(int r, verdict const& v) {
  limber::detail::packer p;
  p.put(v.rank).put(v.lost).put(std::string_view(v.reason));
  letter_head head;
  head.kind = letter_kind::verdict;
  if (links_.office) links_.office->post(r, head, p.bytes());
}

/// Asks about calls that do not end. In the postman's thread.
inline void group::tick() {
  std::scoped_lock const lock(door_);
  if (failed_ || running_ == 0) return watch_.rest();
  switch (watch_.look(how_.clock(), how_.deadline, links_.lines->progress(), completed_ + 1)) {
    case deadline_watch::advice::wait: return;
    case deadline_watch::advice::ask: {
      letter_head head;
      head.kind = letter_kind::inquiry;
      head.tag = watch_.next();
      watch_.answer(rank_, watch_.next(), {started_, call_text(watch_.next())});
      for (int r = 0; r < size_; ++r) {
        if (r == rank_) continue;
        if (peer(r).left)
          watch_.answer(r, watch_.next(), {peer(r).started, {}, true});
        else
          links_.office->post(r, head, {});
      }
      return;
    }
    case deadline_watch::advice::judge: return fail(watch_.judge(call_text(watch_.next()), how_.deadline));
  }
}

inline group::~group() {
  {
    std::scoped_lock const lock(door_);
    stopped_ = true;
    alarm_.notify_one();
    reserve_.notify_all();
  }
  for (auto& w : workers_) w.join();
  if (!links_.office) return;
  // Who hears this before what ended the group would take the goodbye for its cause.
  if (failed_)
    for (int r = 0; r < size_; ++r)
      if (r != rank_) tell(r, *failed_);
  letter_head head;
  head.kind = letter_kind::goodbye;
  head.tag = started_;
  for (int r = 0; r < size_; ++r)
    if (r != rank_) links_.office->post(r, head, {});
  // What was posted before must arrive; those who failed need not wait for anybody.
  links_.office->flush(failed_ ? std::min(0.2, how_.deadline) : how_.deadline);
  links_.office->stop();
}

}  // namespace limber::gloo::detail
