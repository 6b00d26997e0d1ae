// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Decides the members of each generation of a run: start, join, leave, failure.

#include <limber/core/config.hpp>
#include <limber/core/error.hpp>
#include <limber/core/math.hpp>
#include <limber/elastic/detail/decision.hpp>
#include <limber/elastic/detail/membership_options.hpp>
#include <limber/elastic/detail/membership_records.hpp>
#include <limber/elastic/detail/store_client.hpp>
#include <limber/elastic/store.hpp>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace limber::elastic {

/// One worker's membership in a run, which is a sequence of generations 1, 2, …
///
///     elastic::membership m{store};
///     auto now = m.join();                          // starts the run, or waits to be admitted
///     for (;;) try {
///         train(communicator(now.prefix, now.rank, now.size()));    // calls m.beat()
///         break;
///       } catch (limber::error const& e) {
///         m.announce(now, elastic::ending::lost_connection, broken);  // before the connections are closed
///         close(communicator);
///         now = m.next(now);                        // throws fenced if it is no member
///       }
///     m.leave(now);
///
/// **Decision.** The record gen/⟨g⟩/members decides the members of generation g: the first worker that puts
/// it wins, and all others follow it. Survivors keep the order of their ranks; joiners follow, ordered by id.
/// Survivors decide when each member of g − 1 is registered, has left, or is suspected (its connection broke,
/// and it did not register for `suspicion` seconds); or else after they have waited `deadline` seconds, or
/// `grace` if one of them has met a deadline. So a decision takes at most `deadline` seconds from the first
/// announcement. There is no quorum: a single survivor continues alone, and all others are fenced.
///
/// **Begin.** Each member then acknowledges the decision, and generation g begins when all have. If one has
/// not within `grace`, g is void, and g + 1 is decided at once, as a successor of g − 1. The first worker
/// that puts gen/⟨g⟩/verdict decides this.
///
/// **Joiners** send heartbeats under join/⟨id⟩ and are admitted when the survivors decide. They decide alone
/// only if no generation ever began, or if all members of the last one have left or have sent no heartbeat
/// for `dead_after` seconds. **A run whose workers do not call `beat` looks dead**, and a joiner would
/// restart it.
///
/// **Ids** are `name` and 16 random digits, new at each `join`: an id joins once, and identifies its worker
/// in all generations.
///
/// Cost     while waiting, one list of the store every `poll.every` seconds; at the end of a generation of n
///          workers 2 n + 2 small writes and n² small reads; while training, one write and two reads a worker
///          every `beat_every` seconds.
/// Errors   limber::error of engine "store" or "membership"; nothing is retried, and every wait has a
///          timeout. std::invalid_argument for a membership_view of another worker, and options out of range.
/// Threads  `beat` may be called from any thread at any time, all other members from one thread.
template <store Store>
class membership {
 public:
  /// @param in    outlives this
  /// @param name  1 to 64 letters, digits, ".", "_" or "-", the first not "."; part of the id, for logs
  explicit membership(Store& in, std::string name = default_worker_name(), membership_options how = {})
      : store_(in),
        store_client_(in),
        name_(std::move(name)),
        how_(checked(std::move(how))),
        heartbeat_(in, how_.beat_every, how_.poll.clock) {
    expects(name_.size() <= 64 && detail::is_safe_name(name_), "membership: the name \"",
            state::printable(name_),
            "\" must have 1 to 64 letters, digits, '.', '_' or '-', and not begin with '.'");
  }

  /// Starts the run together with other joiners, or waits until this worker is admitted. Blocks for at most
  /// `join_deadline` seconds.
  /// @throws limber::error at the deadline; the message says how many joiners were waiting
  [[nodiscard]] membership_view join() {
    reset();
    double const start = clock();
    double next_beat = start;
    detail::bootstrap known(-1, std::nullopt, std::nullopt);
    for (;;) {
      double const now = clock();
      auto const o = store_client_.read_overview();
      if (i64 const latest = o.latest(); latest != known.latest_generation) {
        auto decided = latest > 0 ? store_client_.view_of(latest, id_) : std::nullopt;
        if (decided && decided->rank >= 0 && await_begin(*decided).what == detail::generation_state::begun)
          return admit(*std::move(decided), o);
        heartbeat_.stop();
        // A decision that was removed again is outdated: read the newer one.
        bool const is_gone = latest > 0 && !decided;
        known = detail::bootstrap(is_gone ? -1 : latest, std::move(decided), std::nullopt);
      } else if (o.of(latest).has_state && !known.state) {
        if (auto const what = store_client_.state_of(latest))
          known = detail::bootstrap(latest, known.latest_view, what);
      }
      if (now >= next_beat) {
        store_.replace(detail::join_key(id_), text(++heartbeats_));
        next_beat = now + how_.beat_every;
        observe_joiners(o, now);
        known.observe_members(o, now, how_.dead_after, [&](std::string const& id) {
          return o.alive.contains(id) ? store_client_.worker_entry(detail::alive_key(id)) : std::nullopt;
        });
      }
      if (now - start >= how_.join_deadline) fail_join(known, o);
      if (known.latest_generation >= 0 && try_bootstrap(known, o, now)) continue;
      how_.poll.pause(how_.poll.every);
    }
  }

  /// Announces that generation `mine` has ended for this worker, and that the worker is alive. Must be called
  /// before its connections are closed, since others take a closed connection for a failure. Does not wait.
  /// @param suspects  ranks of `mine` whose connection broke
  /// @throws std::invalid_argument if `mine` belongs to another worker, or a suspect is not one of its other
  ///         ranks
  void announce(membership_view const& mine, ending why, std::span<int const> suspects = {}) {
    expect_mine("announce", mine);
    for (int const r : suspects)
      expects(r >= 0 && r < mine.size() && r != mine.rank, "membership: announce: rank ", r, " of ",
              mine.size(), " cannot be suspected by rank ", mine.rank);
    register_presence(mine, {why, {suspects.begin(), suspects.end()}});
    announced_ = mine.generation;
  }

  /// The generation after `mine`, whose end was announced. Waits for the decision as described above.
  /// @throws fenced if this worker is not a member of it
  /// @throws std::invalid_argument if `mine` belongs to another worker, or its end was not announced
  [[nodiscard]] membership_view next(membership_view const& mine) {
    expect_mine("next", mine);
    expects(announced_ == mine.generation, "membership: next: announce the end of generation ",
            mine.generation, " first");
    membership_view ended = mine;
    auto state = detail::generation_state::begun;
    for (;;) {
      membership_view coming = await_decision(ended, state);
      auto const start = await_begin(coming);
      if (start.what == detail::generation_state::begun)
        return admit(std::move(coming), store_client_.read_overview());
      if (!start.what) fence(mine, coming.generation + 1);
      register_presence(coming, {ending::deadline, start.missing});
      ended = std::move(coming);
      state = detail::generation_state::is_void;
    }
  }

  /// Both calls, for communicators whose connections are closed already or may stay open.
  [[nodiscard]] membership_view next(membership_view const& mine, ending why,
                                     std::span<int const> suspects = {}) {
    announce(mine, why, suspects);
    return next(mine);
  }

  /// True if a worker has ended generation `mine`, or a newer one was decided. Lists the store once. For
  /// strategies that communicate rarely, and before writes that are reserved to members.
  [[nodiscard]] bool over(membership_view const& mine) {
    auto const o = store_client_.read_overview();
    return !o.generations.empty() && o.generations.rbegin()->first > mine.generation;
  }

  /// The ids of live joiners: those whose heartbeat changed since the last call. Removes the entries of dead
  /// ones. To be called periodically by one member; all members must agree before the generation ends.
  [[nodiscard]] std::vector<std::string> joiners() {
    auto const o = store_client_.read_overview();
    double const now = clock();
    observe_joiners(o, now);
    std::vector<std::string> out;
    for (std::string const& id : o.joining) {
      if (joiner_heartbeats_.pulse_of(id, now, missable_beats * how_.beat_every) == detail::pulse::alive)
        out.push_back(id);
      if (joiner_heartbeats_.silence(id, now) >= how_.dead_after) store_.remove(detail::join_key(id));
    }
    return out;
  }

  /// Writes the heartbeat, at most every `beat_every` seconds; does nothing while this worker is in no
  /// generation.
  ///
  /// False once a newer generation was decided without this worker, which a worker that does not communicate
  /// would miss: then it must not write any shared state, as after `fenced`, and may `join`.
  bool beat() { return heartbeat_.beat(); }

  /// Leaves the run: no worker waits for this one any more. A run that all workers have left may restart at
  /// once. Must be called before the connections are closed.
  void leave(membership_view const& mine) {
    expect_mine("leave", mine);
    heartbeat_.stop();
    store_.replace(detail::worker_key(mine.generation + 1, "left", id_), "left");
    store_.remove(detail::alive_key(id_));
  }

  /// This worker's id, empty before the first `join`.
  [[nodiscard]] std::string const& id() const noexcept { return id_; }

 private:
  static constexpr double missable_beats = 4;  // heartbeats that may be missed

  [[nodiscard]] static membership_options checked(membership_options how) {
    expects(how.deadline > 0, "membership: deadline must be positive, got ", how.deadline);
    expects(how.grace >= 0 && how.grace <= how.deadline,
            "membership: grace must lie in [0, deadline = ", how.deadline, "], got ", how.grace);
    expects(how.suspicion >= 0 && how.suspicion <= how.deadline,
            "membership: suspicion must lie in [0, deadline = ", how.deadline, "], got ", how.suspicion);
    expects(how.min_workers >= 1, "membership: min_workers must be at least 1, got ", how.min_workers);
    expects(how.settle >= 0, "membership: settle must not be negative, got ", how.settle);
    expects(how.beat_every > 0, "membership: beat_every must be positive, got ", how.beat_every);
    if (how.dead_after == 0) how.dead_after = 2 * how.deadline;
    expects(how.dead_after >= how.deadline && how.dead_after >= missable_beats * how.beat_every,
            "membership: dead_after must be at least deadline = ", how.deadline, " and ", missable_beats,
            " times beat_every = ", how.beat_every, ", got ", how.dead_after);
    expects(how.join_deadline > 0, "membership: join_deadline must be positive, got ", how.join_deadline);
    expects(how.poll.every > 0, "membership: poll.every must be positive, got ", how.poll.every);
    return how;
  }

  [[nodiscard]] double clock() const { return how_.poll.clock(); }

  [[nodiscard]] error timed_out(std::string_view call, std::string what) const {
    return detail::membership_error(call, ETIMEDOUT, text(std::move(what), " (", id_, ")"));
  }

  /// Registers for the decision after `ended`.
  void register_presence(membership_view const& ended, detail::presence const& said) {
    heartbeat_.begin_regroup();
    store_client_.put_presence(ended.generation + 1, id_, said);
  }

  /// Reads the store until look(overview, now, again) returns a value; it sets `again` where it has decided.
  ///
  /// Measures the wait by the time for which this worker was running: a process that was stopped for an hour
  /// has not waited for an hour, and reads the store again before it times out.
  template <class Look>
  [[nodiscard]] auto await(std::string const& what, Look const& look) {
    double last = clock(), waited = 0;
    for (bool again = false;; again = false) {
      // The clock is read first: a process that is stopped after this line reads the store again before it
      // decides.
      double const now = clock();
      beat();
      if (auto found = look(store_client_.read_overview(), now, again)) return *std::move(found);
      waited += math::min(now - std::exchange(last, now), how_.deadline / 4);
      if (waited > 2 * how_.deadline + how_.grace)
        throw timed_out("next", text(what, " was not decided within ", waited, " s"));
      if (!again) how_.poll.pause(how_.poll.every);
    }
  }

  /// Waits for the decision after `ended`, for which this worker is registered, and takes it when that is
  /// due.
  [[nodiscard]] membership_view await_decision(membership_view const& ended, detail::generation_state state) {
    i64 const coming = ended.generation + 1;
    detail::regroup survivors(ended, state, how_);
    return await(text("generation ", coming), [&](auto const& o, double now, bool& again) {
      i64 const latest = o.latest();
      std::optional<membership_view> decided;
      if (latest == coming) decided = store_client_.view_of(coming, id_);
      if (latest > coming || (decided && decided->rank < 0)) fence(ended, latest);
      if (latest >= coming) return decided;
      if (latest < ended.generation && !store_.get(detail::members_key(ended.generation)))
        throw detail::membership_error("next", ENOENT,
                                       text("generation ", ended.generation, " has vanished from the store"));
      // The latest decision in the store counts, whether or not it is this one: this worker may have been
      // stopped for several generations, whose first records are removed.
      auto const decision = survivors.decision(o.of(coming), o.joining, now, [&](std::string const& id) {
        return store_client_.presence_of(id, ended);
      });
      again = decision.has_value();
      if (again) store_client_.decide(*decision, how_.random());
      return decided;
    });
  }

  struct begin_status {
    std::optional<detail::generation_state> what{};  ///< empty if a newer generation was decided meanwhile
    std::vector<int> missing{};
  };

  /// Waits until all members of `coming` have acknowledged the decision. A worker that failed after it
  /// registered is detected here, within `grace`, and not by a communicator that waits for it.
  [[nodiscard]] begin_status await_begin(membership_view const& coming) {
    heartbeat_.start(coming.generation, id_);
    store_.replace(detail::worker_key(coming.generation, "ready", id_), "ready");
    double const start = clock();
    auto const look = [&](auto const& o, double now, bool& again) -> std::optional<begin_status> {
      auto const& all = o.of(coming.generation);
      if (o.latest() > coming.generation) return begin_status{};
      begin_status found;
      for (int r = 0; r < coming.size(); ++r)
        if (!all.ready.contains(coming.ids[static_cast<std::size_t>(r)])) found.missing.push_back(r);
      if (all.has_state) found.what = store_client_.state_of(coming.generation);
      if (found.what) return found;
      again = found.missing.empty() || now - start >= how_.grace;
      if (again)
        store_client_.decide(coming.generation, found.missing.empty() ? detail::generation_state::begun
                                                                      : detail::generation_state::is_void);
      return std::nullopt;
    };
    return await(text("whether generation ", coming.generation, " begins"), look);
  }

  void reset() {
    heartbeat_.stop();
    announced_ = 0;
    joiner_heartbeats_.retain({});
    std::uint64_t word = how_.random();
    std::string digits;
    for (int k = 0; k < 16; ++k, word >>= 4) digits += "0123456789abcdef"[word & 15u];
    id_ = text(name_, "-", digits);
  }

  void observe_joiners(detail::overview const& o, double now) {
    joiner_heartbeats_.retain(o.joining);
    for (std::string const& id : o.joining)
      if (id != id_) joiner_heartbeats_.observe(id, store_client_.worker_entry(detail::join_key(id)), now);
  }

  /// Registers this joiner, or decides. @return whether it has decided
  bool try_bootstrap(detail::bootstrap& known, detail::overview const& o, double now) {
    i64 const coming = known.latest_generation + 1;
    if (!known.may_join(o)) return false;
    if (!o.of(coming).here.contains(id_)) {
      store_client_.put_presence(coming, id_, {});
      return false;
    }
    if (!known.run_is_dead) return false;
    double const patience = missable_beats * how_.beat_every;
    auto const decision = known.decision(o, now, how_.min_workers, how_.settle, [&](std::string const& id) {
      if (id == id_) return detail::pulse::alive;
      return o.joining.contains(id) ? joiner_heartbeats_.pulse_of(id, now, patience) : detail::pulse::dead;
    });
    if (decision) store_client_.decide(*decision, how_.random());
    return decision.has_value();
  }

  [[noreturn]] void fail_join(detail::bootstrap const& known, detail::overview const& o) {
    store_.remove(detail::worker_key(known.latest_generation + 1, "here", id_));
    store_.remove(detail::join_key(id_));
    std::string const state =
        known.run_is_dead ? text(known.eligible.size(), " of the ", how_.min_workers,
                                 " workers that start a run were present")
                          : text("generation ", known.latest_generation,
                                 " continues and admitted none of the ", o.joining.size(), " joiners");
    throw timed_out("join", text("not admitted within ", how_.join_deadline, " s: ", state));
  }

  [[nodiscard]] membership_view admit(membership_view r, detail::overview const& o) {
    if (o.joining.contains(id_)) store_.remove(detail::join_key(id_));
    if (r.rank == 0) store_client_.clean_up(r, o);
    return r;
  }

  [[noreturn]] void fence(membership_view const& mine, i64 latest) {
    heartbeat_.stop();
    std::string reason =
        text("generation ", latest, " was decided without this worker (", id_,
             "), which registered too late after generation ", mine.generation, "; it may join again");
    throw fenced({"membership", "next", 0, mine.rank, {}, std::move(reason)}, latest);
  }

  void expect_mine(std::string_view call, membership_view const& mine) const {
    expects(mine.generation >= 1 && mine.rank >= 0 && mine.rank < mine.size() &&
                mine.ids[static_cast<std::size_t>(mine.rank)] == id_,
            "membership: ", call, ": the view of generation ", mine.generation, " does not belong to ",
            id_.empty() ? "a worker that has not joined" : id_);
  }

  Store& store_;
  detail::store_client<Store> store_client_;
  std::string name_;
  membership_options how_;
  detail::heartbeat<Store> heartbeat_;
  std::string id_;
  i64 announced_ = 0;
  unsigned long long heartbeats_ = 0;  // written by `join`
  detail::failure_detector joiner_heartbeats_;
};

}  // namespace limber::elastic
