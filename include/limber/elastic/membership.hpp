// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Who is in the next generation of a run: starting, joining, leaving and surviving.

#include <limber/core/config.hpp>
#include <limber/core/error.hpp>
#include <limber/elastic/detail/ballot.hpp>
#include <limber/elastic/detail/candidacy.hpp>
#include <limber/elastic/detail/meeting.hpp>
#include <limber/elastic/detail/membership_options.hpp>
#include <limber/elastic/detail/notes.hpp>
#include <limber/elastic/detail/pulse.hpp>
#include <limber/elastic/detail/watch.hpp>
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
///     auto now = m.join();                          // begins the run, or waits to be let in
///     for (;;) try {
///         train(communicator(now.prefix, now.rank, now.size()));    // calls m.beat()
///         break;
///       } catch (limber::error const& e) {
///         m.announce(now, elastic::ending::lost_connection, broken);  // before the connections are closed
///         close(communicator);
///         now = m.next(now);                        // throws fenced if the others went on without
///       }
///     m.leave(now);
///
/// **Agreement.** What stands under gen/⟨g⟩/members decides who is in generation g: the first to put it
/// wins, all others obey. Survivors keep the order of their ranks; joiners follow, ordered by id. Survivors
/// decide when each worker of g − 1 is here, has left, or is suspected (its connection broke, and it has not
/// come for `suspicion` seconds), or else when they have waited `deadline` seconds, or `grace` if one of them
/// has met a deadline. So it takes at most `deadline` from the moment the first one announced the end. There
/// is no quorum: a single survivor goes on alone, and everybody else is fenced.
///
/// **Beginning.** Then each of them says that it has read the decision, and generation g begins when all
/// have; if one has not within `grace`, g is void and g + 1 is decided at once, as though g had never been.
/// This too is put once and for all, under gen/⟨g⟩/verdict.
///
/// **Joiners** beat under join/⟨id⟩ and come in when the survivors meet. They decide alone only if no
/// generation ever began, or all workers of the last have left or not beaten for `dead_after` seconds.
/// **A run whose workers do not call `beat` looks dead**, and a joiner would start it over.
///
/// **Ids** are `name` and 16 random digits, new at each `join`: an id joins once, and keeps its worker
/// recognisable from generation to generation.
///
/// Cost     while waiting, one list of the store every `poll.every` seconds; at the end of a generation of n
///          workers 2 n + 2 small writes and n² small reads; while training, one write and two reads a
///          worker every `beat_every` seconds.
/// Errors   limber::error of engine "store" or "membership" as they come: nothing is tried again, nothing
///          hangs. std::invalid_argument for a roster that is not this worker's, and options out of range.
/// Threads  `beat` may be called from any thread at any time, all else from one.
template <store Store>
class membership {
 public:
  /// @param in    outlives this
  /// @param name  1 to 64 letters, digits, ".", "_" or "-", of which the first is no "."; for people to read
  explicit membership(Store& in, std::string name = default_worker_name(), membership_options how = {})
      : store_(in),
        notes_(in),
        name_(std::move(name)),
        how_(checked(std::move(how))),
        pulse_(in, how_.beat_every, how_.poll.clock) {
    expects(name_.size() <= 64 && detail::is_safe_name(name_), "membership: the name \"",
            detail::printable(name_),
            "\" must have 1 to 64 letters, digits, '.', '_' or '-', and not begin with '.'");
  }

  /// Begins the run with others, or waits until it lets this worker in. Blocks, for `join_deadline` at most.
  /// @throws limber::error if nobody let it in by then; the message says how many were waiting
  [[nodiscard]] roster join() {
    begin_anew();
    double const start = clock();
    double next_beat = start;
    detail::candidacy mine(-1, std::nullopt, std::nullopt);
    for (;;) {
      double const now = clock();
      auto const o = notes_.look();
      if (i64 const latest = o.latest(); latest != mine.behind()) {
        auto decided = latest > 0 ? notes_.decision_on(latest, id_) : std::nullopt;
        if (decided && decided->rank >= 0 && begins(*decided).what == detail::verdict::begun)
          return admitted(*std::move(decided), o);
        pulse_.stop();
        // A decision that is gone again is old: look for the newer one.
        bool const gone = latest > 0 && !decided;
        mine = detail::candidacy(gone ? -1 : latest, std::move(decided), std::nullopt);
      } else if (o.of(latest).judged && !mine.knows_the_verdict()) {
        if (auto const what = notes_.verdict_on(latest))
          mine = detail::candidacy(latest, mine.newest(), what);
      }
      if (now >= next_beat) {
        store_.replace(detail::join_key(id_), text(++beats_));
        next_beat = now + how_.beat_every;
        watch_joiners(o, now);
        mine.look_inside(o, now, how_.dead_after, [&](std::string const& id) {
          return o.alive.contains(id) ? notes_.individual(detail::alive_key(id)) : std::nullopt;
        });
      }
      if (now - start >= how_.join_deadline) give_up(mine, o);
      if (mine.behind() >= 0 && come_in(mine, o, now)) continue;
      how_.poll.pause(how_.poll.every);
    }
  }

  /// Tells the others that generation `mine` has ended here, and that this worker lives. To be called
  /// before its connections are closed, or others take it for dead. Does not wait.
  /// @param suspects  ranks of `mine` whose connection broke
  /// @throws std::invalid_argument if `mine` is not of this worker, or a suspect is none of its other ranks
  void announce(roster const& mine, ending why, std::span<int const> suspects = {}) {
    expect_mine("announce", mine);
    for (int const r : suspects)
      expects(r >= 0 && r < mine.size() && r != mine.rank, "membership: announce: rank ", r, " of ",
              mine.size(), " cannot be suspected by rank ", mine.rank);
    meet(mine, {why, {suspects.begin(), suspects.end()}});
    announced_ = mine.generation;
  }

  /// The generation after `mine`, whose end was announced. Waits for the others as described above.
  /// @throws fenced if the others went on without this worker
  /// @throws std::invalid_argument if `mine` is not of this worker, or its end was not announced
  [[nodiscard]] roster next(roster const& mine) {
    expect_mine("next", mine);
    expects(announced_ == mine.generation, "membership: next: announce the end of generation ",
            mine.generation, " first");
    roster ended = mine;
    auto was = detail::verdict::begun;
    for (;;) {
      roster coming = agreed(ended, was);
      auto const start = begins(coming);
      if (start.what == detail::verdict::begun) return admitted(std::move(coming), notes_.look());
      if (!start.what) fence(mine, coming.generation + 1);
      meet(coming, {ending::deadline, start.missing});
      ended = std::move(coming);
      was = detail::verdict::is_void;
    }
  }

  /// Both in one, for communicators whose connections are closed already or may stay open.
  [[nodiscard]] roster next(roster const& mine, ending why, std::span<int const> suspects = {}) {
    announce(mine, why, suspects);
    return next(mine);
  }

  /// True if anybody has ended generation `mine`, or a newer one stands. Lists the store once. For
  /// strategies that communicate rarely, and before anything is written that only a member may write.
  [[nodiscard]] bool over(roster const& mine) {
    auto const o = notes_.look();
    return !o.generations.empty() && o.generations.rbegin()->first > mine.generation;
  }

  /// Those who wait to be let in and live: who have beaten since the last call. Removes what the dead left.
  /// For one worker to call now and then; the end of the generation is for all to agree on.
  [[nodiscard]] std::vector<std::string> joiners() {
    auto const o = notes_.look();
    double const now = clock();
    watch_joiners(o, now);
    std::vector<std::string> out;
    for (std::string const& id : o.joining) {
      if (joining_.lives(id, now, living * how_.beat_every)) out.push_back(id);
      if (joining_.silence(id, now) >= how_.dead_after) store_.remove(detail::join_key(id));
    }
    return out;
  }

  /// A sign of life, written at most every `beat_every` seconds; nothing while this worker is in no
  /// generation.
  ///
  /// False once a newer generation was agreed without this worker, which it could miss while it waits for
  /// nobody: then it must not write anything any more, as after `fenced`, and may `join`.
  bool beat() { return pulse_.beat(); }

  /// Goes for good: nobody waits for this worker any more. A run that all have left may begin again at once.
  /// To be called before the connections are closed.
  void leave(roster const& mine) {
    expect_mine("leave", mine);
    pulse_.stop();
    store_.replace(detail::left_key(mine.generation + 1, id_), "left");
    store_.remove(detail::alive_key(id_));
  }

  /// This worker's id, empty before the first `join`.
  [[nodiscard]] std::string const& id() const noexcept { return id_; }

 private:
  static constexpr double living = 4;  // beats that may be missed

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
    expects(how.dead_after >= how.deadline && how.dead_after >= living * how.beat_every,
            "membership: dead_after must be at least deadline = ", how.deadline, " and ", living,
            " times beat_every = ", how.beat_every, ", got ", how.dead_after);
    expects(how.join_deadline > 0, "membership: join_deadline must be positive, got ", how.join_deadline);
    expects(how.poll.every > 0, "membership: poll.every must be positive, got ", how.poll.every);
    return how;
  }

  [[nodiscard]] double clock() const { return how_.poll.clock(); }

  [[nodiscard]] error late(std::string_view call, std::string what) const {
    return detail::membership_error(call, ETIMEDOUT, text(std::move(what), " (", id_, ")"));
  }

  /// Shows up for the meeting after `ended`.
  void meet(roster const& ended, detail::presence const& said) {
    pulse_.meet();
    notes_.come(ended.generation + 1, id_, said);
  }

  /// The decision of the meeting after `ended`, which this worker has come to.
  [[nodiscard]] roster agreed(roster const& ended, detail::verdict was) {
    i64 const coming = ended.generation + 1;
    detail::meeting here(ended, was, {how_.deadline, how_.grace, how_.suspicion});
    detail::patience_clock timer(clock(), how_.deadline / 4);
    for (;;) {
      // The clock first: whoever was stopped for long after this line looks again before it decides.
      double const now = clock();
      beat();
      auto const o = notes_.look();
      i64 const latest = o.latest();
      if (latest > coming) fence(ended, latest);
      if (latest == coming) {
        if (auto decided = notes_.decision_on(coming, id_)) {
          if (decided->rank < 0) fence(ended, latest);
          return *std::move(decided);
        }
      }
      if (double const waited = timer.waited(now); waited > 2 * how_.deadline + how_.grace)
        throw late("next", text("generation ", coming, " was not agreed within ", waited, " s"));
      if (latest < coming) {
        if (latest < ended.generation && !store_.get(detail::members_key(ended.generation)))
          throw detail::membership_error(
              "next", ENOENT, text("generation ", ended.generation, " has vanished from the store"));
        here.see(o.of(coming), o.joining, now,
                 [&](std::string const& id) { return notes_.presence_of(id, ended); });
        // Whatever becomes of this, the newest decision that stands there now is obeyed: this worker may
        // have slept through several generations, of which the first are cleaned up.
        if (auto const decision = here.decision(now)) {
          notes_.decide(*decision, how_.random());
          continue;
        }
      }
      how_.poll.pause(how_.poll.every);
    }
  }

  struct beginning {
    std::optional<detail::verdict> what{};  ///< nothing if a newer generation was decided meanwhile
    std::vector<int> missing{};
  };

  /// Whether all of `coming` have read that they are in. Whoever died since it came to the meeting is
  /// noticed here, within `grace`, and not by a communicator that waits for it.
  [[nodiscard]] beginning begins(roster const& coming) {
    pulse_.start(coming.generation, id_);
    store_.replace(detail::ready_key(coming.generation, id_), "ready");
    double const start = clock();
    detail::patience_clock timer(start, how_.deadline / 4);
    for (;;) {
      double const now = clock();
      beat();
      auto const o = notes_.look();
      auto const& all = o.of(coming.generation);
      if (o.latest() > coming.generation) return {};
      beginning found;
      for (int r = 0; r < coming.size(); ++r)
        if (!all.ready.contains(coming.ids[static_cast<std::size_t>(r)])) found.missing.push_back(r);
      if (all.judged) found.what = notes_.verdict_on(coming.generation);
      if (found.what) return found;
      if (double const waited = timer.waited(now); waited > 2 * how_.deadline + how_.grace)
        throw late("next", text("no verdict on generation ", coming.generation, " within ", waited, " s"));
      if (found.missing.empty() || now - start >= how_.grace) {
        notes_.decide(coming.generation,
                      found.missing.empty() ? detail::verdict::begun : detail::verdict::is_void);
        continue;
      }
      how_.poll.pause(how_.poll.every);
    }
  }

  void begin_anew() {
    pulse_.stop();
    announced_ = 0;
    joining_.keep({});
    std::uint64_t word = how_.random();
    std::string digits;
    for (int k = 0; k < 16; ++k, word >>= 4) digits += "0123456789abcdef"[word & 15u];
    id_ = text(name_, "-", digits);
  }

  void watch_joiners(detail::overview const& o, double now) {
    joining_.keep(o.joining);
    for (std::string const& id : o.joining)
      if (id != id_) joining_.see(id, notes_.individual(detail::join_key(id)), now);
  }

  /// True if this worker has decided something.
  bool come_in(detail::candidacy& mine, detail::overview const& o, double now) {
    i64 const coming = mine.behind() + 1;
    if (!mine.doors_are_open(o)) return false;
    if (!o.of(coming).here.contains(id_)) {
      notes_.come(coming, id_, {});
      return false;
    }
    if (!mine.may_begin()) return false;
    double const patience = living * how_.beat_every;
    auto const decision = mine.decision(
        o, now, how_.min_workers, how_.settle,
        [&](std::string const& id) {
          return id == id_ || (o.joining.contains(id) && joining_.lives(id, now, patience));
        },
        [&](std::string const& id) {
          return o.joining.contains(id) && joining_.may_live(id, now, patience);
        });
    if (decision) notes_.decide(*decision, how_.random());
    return decision.has_value();
  }

  [[noreturn]] void give_up(detail::candidacy const& mine, detail::overview const& o) {
    store_.remove(detail::here_key(mine.behind() + 1, id_));
    store_.remove(detail::join_key(id_));
    std::string const state =
        mine.may_begin()
            ? text(mine.able(), " of the ", how_.min_workers, " workers that begin a run were there")
            : text("generation ", mine.behind(), " goes on and let in none of the ", o.joining.size(),
                   " that wait");
    throw late("join", text("not let in within ", how_.join_deadline, " s: ", state));
  }

  [[nodiscard]] roster admitted(roster r, detail::overview const& o) {
    if (o.joining.contains(id_)) store_.remove(detail::join_key(id_));
    if (r.rank == 0) notes_.clean_up(r, o);
    return r;
  }

  [[noreturn]] void fence(roster const& mine, i64 latest) {
    pulse_.stop();
    throw fenced({"membership",
                  "next",
                  0,
                  mine.rank,
                  {},
                  text("generation ", latest, " was agreed without this worker (", id_,
                       "), which came too late after generation ", mine.generation, "; it may join again")},
                 latest);
  }

  void expect_mine(std::string_view call, roster const& mine) const {
    expects(mine.generation >= 1 && mine.rank >= 0 && mine.rank < mine.size() &&
                mine.ids[static_cast<std::size_t>(mine.rank)] == id_,
            "membership: ", call, ": the roster of generation ", mine.generation, " is not one of ",
            id_.empty() ? "a worker that has not joined" : id_);
  }

  Store& store_;
  detail::notes<Store> notes_;
  std::string name_;
  membership_options how_;
  detail::pulse<Store> pulse_;
  std::string id_;
  i64 announced_ = 0;
  unsigned long long beats_ = 0;  // of `join`
  detail::watch joining_;
};

}  // namespace limber::elastic
