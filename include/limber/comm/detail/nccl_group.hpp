// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// One rank's part of an NCCL communicator: what is in flight, and how it ends.
///
/// A group is alive until its first failure, whatever that is: a deadline, an error that NCCL reports, a
/// revocation heard from another rank, a request destroyed. Then operations are stopped by revoking, so
/// that none touches the caller's memory once an error was thrown, and every later call throws the same
/// reason. Where NCCL cannot revoke, or does not become quiet, the communicator is aborted.

#include <limber/comm/detail/nccl_bootstrap.hpp>
#include <limber/comm/detail/nccl_call.hpp>
#include <limber/comm/detail/nccl_engine.hpp>
#include <limber/comm/detail/nccl_staging.hpp>
#include <limber/core/error.hpp>

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <memory>
#include <numeric>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace limber::nccl {

namespace detail {

template <engine E>
class group {
 public:
  using comm_type = typename E::comm_type;
  using event_type = typename E::event_type;
  using stream_type = typename E::stream_type;

  group(E e, options const& o, int on, std::string called, int r, std::vector<int> ranks)
      : engine(std::move(e)), how(o), rank(r), device(on), name(std::move(called)), world(std::move(ranks)) {}
  /// With stream and events; `native` is to be filled by init, split or shrink.
  [[nodiscard]] static std::shared_ptr<group> make(E e, options const& how, int device, std::string name,
                                                   int rank, std::vector<int> world) {
    auto made = std::make_shared<group>(std::move(e), how, device, std::move(name), rank, std::move(world));
    on_device<E> const here(made->engine, device);
    must("start", made->engine.make_stream(made->own));
    must("start", made->engine.make_event(made->forked));
    must("start", made->engine.make_event(made->joined));
    return made;
  }
  group(group const&) = delete;
  group& operator=(group const&) = delete;
  ~group() {
    leave();
    on_device<E> const here(engine, device);
    slots.release(engine, own);
    for (auto& f : flights_)
      if (f.event) (void)engine.drop_event(f.event);
    if (forked) (void)engine.drop_event(forked);
    if (joined) (void)engine.drop_event(joined);
    if (own) (void)engine.drop_stream(own);
  }

  [[nodiscard]] int size() const noexcept { return static_cast<int>(world.size()); }
  [[nodiscard]] bool failed() const noexcept { return failed_.has_value(); }
  [[nodiscard]] ending how_it_ended() const noexcept { return ending_; }
  [[nodiscard]] std::string who(int r) const {
    int const w = world[static_cast<std::size_t>(r)];
    return w == r ? text("rank ", r) : text("rank ", r, " (rank ", w, " of the world)");
  }
  [[nodiscard]] double now() const { return how.clock(); }

  /// An answer outside of any operation.
  static void must(std::string_view what, answer const& a) {
    if (a.failed()) throw error({"nccl", std::string(what), a.code, -1, {}, a.reason});
  }

  void check(call const& c) const {
    if (failed_) throw thrown(c);
  }
  [[nodiscard]] error thrown(call const& c) const {
    return error(
        {"nccl", std::string(c.name), failed_->code, failed_->rank, std::string(c.bucket), failed_->reason});
  }

  /// An answer that an operation cannot do without.
  void need(call const& c, answer const& a) {
    if (!a.failed()) return;
    end({a.code, -1, text(who(rank), ": ", c.describe(), ": ", a.reason)});
    throw thrown(c);
  }

  /// Polls until `poll` says done, and looks for errors, revocations and the deadline meanwhile.
  template <class Poll>
  void watch(call const& c, double since, Poll poll) {
    for (int looks = 0;; ++looks) {
      answer const a = poll();
      need(c, a);
      if (a.is == state::done) return;
      look_around(c);
      if (now() - since > how.deadline) {
        late(c);
        throw thrown(c);
      }
      if (looks >= hasty_looks) how.pause();
    }
  }

  /// Non-blocking calls take effect in the background: only after this is the operation on the stream,
  /// and an event recorded behind it.
  void settle(call const& c) {
    watch(c, now(), [&] { return engine.async_state(native); });
  }

  /// Throws if NCCL reports an error or another rank ended the group. Does not synchronize.
  void look_around(call const& c) {
    need(c, engine.async_state(native));
    if (auto v = heard()) {
      bool const roll = v->code == late_code;
      if (roll) v->code = 0;
      end(std::move(*v), {.told = true, .roll = roll});
      throw thrown(c);
    }
  }

  // Flights ---------------------------------------------------------------------------------------

  [[nodiscard]] flight<E>& take_flight(call const& c) {
    for (auto& f : flights_)
      if (!f.open && !f.staged) {
        f = flight<E>{.event = f.event};
        return f;
      }
    flights_.emplace_back();
    need(c, engine.make_event(flights_.back().event));
    return flights_.back();
  }

  void finish(flight<E>& f, call const& c) {
    on_device<E> const here(engine, device);
    if (!f.complete) {
      check(c);
      watch(c, since(f), [&] { return engine.query(f.event); });
    }
    if (f.staged && f.out.length > 0)
      std::memcpy(f.out.data, f.staged->pinned + f.from, static_cast<std::size_t>(f.out.bytes()));
    give_back(f);
  }

  /// True when finish would return or throw without waiting.
  [[nodiscard]] bool done(flight<E>& f) {
    if (f.complete || failed_) return true;
    on_device<E> const here(engine, device);
    if (engine.query(f.event).is != state::pending) return true;
    return engine.async_state(native).failed() || now() - since(f) > how.deadline || heard_note();
  }

  /// A request was destroyed before it was waited for. When this returns its memory is no longer used.
  void drop(flight<E>& f, call const& c, bool unwinding) noexcept {
    try {
      std::string const what = c.describe();
      end({0, rank,
           unwinding ? text(who(rank), " was left by an exception with its ", what, " in flight")
                     : text(who(rank), " destroyed its ", what, " before it was waited for")});
    } catch (...) {  // out of memory for the message: stopped all the same
      stop();
    }
    give_back(f);
  }

  // The end ---------------------------------------------------------------------------------------

  struct manner {
    bool told = false;  ///< another rank has told everybody
    bool roll = false;  ///< find out who is missing
  };

  /// The first reason stands. Tells the others where there is a board, and stops what is in flight.
  void end(verdict v, manner m = {false, false}) {
    if (failed_) return;
    failed_ = std::move(v);
    // What is complete by now stays good.
    for (auto& f : flights_)
      if (f.open && engine.query(f.event).is == state::done) f.complete = true;
    try {
      if (how.notices && !m.told)
        (void)how.notices.put(
            ended_note(), text(failed_->rank, " ", m.roll ? late_code : failed_->code, " ", failed_->reason));
      if (m.roll) call_the_roll();
    } catch (std::exception const&) {  // the board is out of reach as well: the reason stands
    }
    stop();
  }

  void late(call const& c) {
    std::string reason = text(c.describe(), " (call ", calls, ") did not complete within ", how.deadline,
                              " s on ", who(rank), " of ", size());
    if (!how.notices && size() > 1) reason += "; who is missing is known only with options::notices";
    end({0, -1, std::move(reason)}, {.roll = true});
  }

  /// Leaves the communicator: flushes it when all is well, aborts it when it is not. Synchronizes the
  /// communicator's stream, for min(deadline, 10) seconds at most.
  void leave() noexcept {
    if (!native) return;
    on_device<E> const here(engine, device);
    bool const busy = std::ranges::any_of(flights_, [](auto const& f) { return f.open; });
    try {
      if (busy) end({0, rank, text(who(rank), " left with operations in flight")});
    } catch (...) { stop(); }
    if (!native) return;
    if (!failed_ && flushed())
      (void)engine.destroy(native);
    else
      (void)engine.abort(native);
    native = comm_type{};
  }

  /// Waits until communicator `parent` has made what it was asked for, and that is usable.
  /// @param missing  what to say at the deadline
  void born(std::string_view what, comm_type parent, comm_type const& child, double deadline,
            std::function<std::string()> const& missing) {
    double const start = now();
    for (int looks = 0;; ++looks) {
      answer a = engine.async_state(parent);
      if (a.is == state::done && child && child != parent) a = engine.async_state(child);
      if (a.failed()) throw error({"nccl", std::string(what), a.code, -1, {}, advised(a.reason)});
      if (a.is == state::done) {
        if (child) return;
        throw error({"nccl", std::string(what), 0, -1, {}, "NCCL made no communicator"});
      }
      if (now() - start > deadline) throw error({"nccl", std::string(what), 0, -1, {}, missing()});
      if (looks >= hasty_looks) how.pause();
    }
  }

  /// Notes of this communicator by the ranks in `expected` that are not there.
  [[nodiscard]] std::vector<int> absent(std::string const& mark, std::vector<int> const& expected) const {
    std::vector<int> out;
    for (int const r : expected)
      if (!how.notices.get(text(mark, ".", r))) out.push_back(r);
    return out;
  }

  [[nodiscard]] static std::string advised(std::string reason) {
    if (reason.find("Duplicate GPU") != std::string::npos)
      reason +=
          "; NCCL wants a GPU for every rank: start as many ranks on a machine as it has GPUs, and give each "
          "its "
          "own (options::device, or the local rank)";
    return reason;
  }

  E engine;
  options how;
  comm_type native{};
  stream_type own{};
  event_type forked{}, joined{};
  int rank;
  int device;
  std::string name;
  std::vector<int> world;  ///< by rank: who it is among the ranks of the first communicator
  slot_pool<E> slots{};
  i64 calls = 0;
  int children = 0;
  /// NCCL writes new handles when it gets to it: they need a place that lasts.
  std::deque<comm_type> births{};

 private:
  static constexpr int hasty_looks = 200;
  static constexpr int late_code = -1;
  static constexpr double listening = 0.05;  // seconds between two looks at the board

  [[nodiscard]] std::string ended_note() const { return text("ended.", name); }
  [[nodiscard]] std::string roll_mark() const { return text("at.", name); }

  [[nodiscard]] double since(flight<E>& f) const {
    if (f.since < 0) f.since = now();
    return f.since;
  }

  /// A look at the board now and then; a board out of reach is no reason to stop training.
  [[nodiscard]] bool heard_note() {
    if (news_) return true;
    if (!how.notices || size() == 1) return false;
    double const t = now();
    if (t - listened_ < listening) return false;
    listened_ = t;
    try {
      news_ = how.notices.get(ended_note());
    } catch (std::exception const&) { return false; }
    return news_.has_value();
  }
  [[nodiscard]] std::optional<verdict> heard() {
    if (!heard_note()) return std::nullopt;
    verdict v;
    char const* const last = news_->data() + news_->size();
    auto at = std::from_chars(news_->data(), last, v.rank).ptr;
    if (at != last) at = std::from_chars(at + 1, last, v.code).ptr;
    v.reason = std::string(at == last ? at : at + 1, last);
    return v;
  }

  /// Everybody who waits says at which call; who says nothing, or is behind, is missing.
  void call_the_roll() {
    if (!how.notices || size() == 1) return;
    (void)how.notices.put(text(roll_mark(), ".", rank), text(calls));
    double const start = now(), patience = std::min(how.deadline / 4, 2.0);
    std::vector<int> missing(world.size());
    std::iota(missing.begin(), missing.end(), 0);
    std::vector<int> behind;
    for (;;) {
      std::erase_if(missing, [&](int r) {
        auto const said = how.notices.get(text(roll_mark(), ".", r));
        if (!said) return false;
        if (std::strtoll(said->c_str(), nullptr, 10) < calls) behind.push_back(r);
        return true;
      });
      if (missing.empty() || now() - start > patience) break;
      how.pause();
    }
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

  /// Returns when no operation uses memory any more.
  void stop() noexcept {
    if (!native || ending_ != ending::none) return;
    on_device<E> const here(engine, device);
    if constexpr (E::can_revoke) {
      bool clean = !engine.revoke(native).failed();
      if (quiet([&] {
            answer const a = engine.async_state(native);
            if (a.failed()) clean = false;
            return !a.pending() && !engine.idle(own).pending();
          })) {
        ending_ = clean ? ending::revoked : ending::unclean;
        return;
      }
    }
    (void)engine.abort(native);
    native = comm_type{};
    ending_ = ending::aborted;
    (void)quiet([&] { return !engine.idle(own).pending(); });
  }

  template <class Ready>
  [[nodiscard]] bool quiet(Ready ready) noexcept {
    try {
      double const start = now();
      for (int looks = 0; !ready(); ++looks) {
        if (now() - start > std::min(how.deadline, 10.0)) return false;
        if (looks >= hasty_looks) how.pause();
      }
      return true;
    } catch (...) { return false; }
  }

  [[nodiscard]] bool flushed() noexcept {
    bool failed = engine.finalize(native).failed();
    return !failed && quiet([&] {
      answer const a = engine.async_state(native);
      failed |= a.failed();
      return !a.pending();
    }) && !failed;
  }

  void give_back(flight<E>& f) noexcept {
    // After a failure an operation may still be on its way: its slot is not used again.
    if (f.staged && !failed_) f.staged->taken = false;
    f.staged = nullptr;
    f.open = false;
  }

  std::deque<flight<E>> flights_;
  std::optional<verdict> failed_;
  ending ending_ = ending::none;
  std::optional<std::string> news_;
  double listened_ = -1e300;
};

}  // namespace detail
}  // namespace limber::nccl
