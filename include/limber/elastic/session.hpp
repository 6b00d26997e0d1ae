// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// A training run whose workers come, go and die: the loop around optimizer, membership and communicator.

#include <limber/comm/collective.hpp>
#include <limber/core/error.hpp>
#include <limber/elastic/dealer.hpp>
#include <limber/elastic/membership.hpp>
#include <limber/optimizer/recovery.hpp>
#include <limber/optimizer/report.hpp>

#include <algorithm>
#include <array>
#include <atomic>
#include <concepts>
#include <cstddef>
#include <functional>
#include <memory>
#include <numeric>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace limber::elastic {

/// What a session is told once.
struct session_options {
  std::string name = default_worker_name();  ///< of this worker, for people to read
  membership_options membership{};
  i64 max_failures = 20;  ///< generations in a row that end without a step, before the last error is thrown
  i64 look_every = 10;    ///< calls of step() between two looks at who waits to be let in, or wants to leave
  /// Where nobody joins, those who are left shrink their communicator (ncclCommShrink, say) instead of
  /// calling `connect`. If that fails, the generation ends, and the next one connects. Alike on all workers.
  bool shrink = false;
  std::function<void(std::string const&)> tell = [](std::string const&) {};  ///< one line for each change
};

/// True for errors that a new communicator can mend: an engine's, not misuse, and not what training itself
/// gives up at.
[[nodiscard]] inline bool is_engine_failure(error const& e) {
  for (std::string_view const own :
       {"optimizer", "sync", "elastic", "membership", "store", "state", "dealer"})
    if (e.where().engine == own) return false;
  return true;
}

/// A worker's part in an elastic run.
///
///     elastic::directory_store store("/shared/run");
///     elastic::session run(store, [&](elastic::roster const& r) { return gloo::communicator(…); });
///     optimizer opt{model, rule, schedule, strategy, run.communicator(), {.batch = …}};
///     elastic::dealer samples(data.size(), seed);
///     run.train(opt, samples, [&] { return samples.epoch() == 90; },
///               [&](elastic::hand const& h) { backward(model, h.samples); });
///
/// Generations  a death, a joiner, a leaver end one; whoever is left agrees on the next (`membership`),
///              connects, and goes on: `optimizer::recover` hands state over, `dealer` deals again what
///              nobody's parameters hold. A call of `compute` may come to nothing: its samples are then
///              computed again, or by others.
/// Fenced       a worker that was too slow comes back as a newcomer, and its state is replaced.
/// Consumed     an update that was made anywhere among the survivors stands, any other is void. Without a
///              merge of all models (gossip, elastic averaging, push-sum) what a worker did since its last
///              exchange is dealt again when it dies.
/// Strategies   all that let ranks step equally often; others are a compile-time error.
/// Errors       those of `membership` and the optimizer, and engine failures that no new generation mends:
///              a single worker's. std::invalid_argument if the batch policy has no plan for the survivors.
/// Threads      one, the caller's.
///
/// @tparam Connect  makes the communicator of a generation, of whatever engine. Its meeting place needs a
///                  name that no generation before it used: roster::prefix
template <store Store, std::invocable<roster const&> Connect>
class session {
 public:
  using communicator_type = std::invoke_result_t<Connect&, roster const&>;

  /// Joins the run, or begins it, and connects. Blocks as `membership::join` does.
  session(Store& in, Connect connect, session_options how = {})
      : how_(checked(std::move(how))),
        members_(in, how_.name, how_.membership),
        connect_(std::move(connect)) {
    expects(!how_.shrink || shrinks, "session: shrink is set, but the communicator of this engine has none");
    now_ = members_.join();
    was_ = ranks_of(now_);
    while (!comm_) try {
        retrying([&] { ended_ ? go_on() : open(); });
      } catch (fenced const& e) { come_back(e); }
  }

  [[nodiscard]] communicator_type& communicator() noexcept { return *comm_; }
  /// The generation that this worker is in.
  [[nodiscard]] roster const& now() const noexcept { return now_; }

  /// Trains until until() is true, and ends the run for all of its workers; or until this one has left.
  /// @param until    asked between calls of step(), where all workers know the same: samples.epoch(),
  ///                 opt.now()
  /// @param compute  compute(hand) fills the gradient of the hand's samples, which may be none
  /// @param stepped  stepped(step_report) after every call of step() that stands. May communicate, as `save`
  ///                 and `evaluate` do: if an engine fails in it, the generation ends, and the step stands
  template <class Optimizer, class Until, class Compute, class Stepped = limber::detail::untold>
  void train(Optimizer& opt, dealer& samples, Until const& until, Compute&& compute, Stepped&& stepped = {}) {
    static_assert(Optimizer::paced,
                  "limber: an elastic session needs a strategy in which all ranks step equally often");
    expects(!left_, "session: this worker has left the run");
    while (!left_) {
      // What is done next depends on what is known after a recovery, never before.
      if (!attempt(opt, samples, [] {})) continue;
      if (until()) {
        if (attempt(opt, samples, [&] { close(opt, samples); })) leave();
      } else {
        attempt(opt, samples, [&] {
          if (step(opt, samples, compute)) stepped(opt.last());
        });
      }
    }
  }

  /// At the next look this worker leaves, and `train` returns; the others go on without it. May be called
  /// from a signal handler.
  void ask_to_leave() noexcept { leaving_ = true; }
  /// True once this worker has left, or the run has ended: the session is over, the parameters stay.
  [[nodiscard]] bool left() const noexcept { return left_; }

  /// A sign of life for a long computation, or newcomers might take this worker for dead.
  void beat() { members_.beat(); }
  /// True if the others may have gone on without this worker: then nothing may be written that only a member
  /// may write, such as a checkpoint.
  [[nodiscard]] bool over() { return members_.over(now_); }

 private:
  [[nodiscard]] static session_options checked(session_options how) {
    expects(how.look_every >= 1, "session: look_every must be at least 1, got ", how.look_every);
    expects(how.max_failures >= 1, "session: max_failures must be at least 1, got ", how.max_failures);
    expects(how.tell != nullptr, "session: tell is empty");
    return how;
  }
  [[nodiscard]] static std::vector<int> ranks_of(roster const& r) {
    std::vector<int> all(r.ids.size());
    std::iota(all.begin(), all.end(), 0);
    return all;
  }

  // Runs f in this generation, having entered it if need be. @return false if the generation ended meanwhile
  template <class Optimizer, class F>
  bool attempt(Optimizer& opt, dealer& samples, F const& f) {
    try {
      return retrying([&] {
        if (ended_) go_on();
        if (!comm_) open();
        if (!recovered_) recover(opt, samples);
        f();
      });
    } catch (fenced const& e) {
      opt.forget();
      come_back(e);
      return false;
    }
  }

  void come_back(fenced const& e) {
    how_.tell(text("the others went on without this worker, in generation ", e.generation(),
                   "; it comes back as a newcomer"));
    now_ = members_.join();
    was_.assign(now_.ids.size(), none);
    before_ = nullptr;
    ended_ = false;
  }

  // Calls f; an engine's failure ends the generation. @return false if it did
  template <class F>
  bool retrying(F const& f) {
    try {
      f();
      return !ended_;
    } catch (error const& e) {
      bool const mends = is_engine_failure(e) && now_.size() > 1 && ++failures_ <= how_.max_failures;
      if (!mends) throw;
      how_.tell(text("generation ", now_.generation, " ends: ", e.what()));
      end(reason());
      return false;
    }
  }

  [[nodiscard]] ending reason() {
    if constexpr (requires { comm_->broken(); })
      return comm_ && !comm_->broken().empty() ? ending::lost_connection : ending::deadline;
    else
      return ending::lost_connection;
  }

  // First the others are told that this worker lives, then connections close: so that whoever still waits
  // for it learns that the generation is over, and does not take it for dead.
  void end(ending why) {
    std::vector<int> suspects;
    if constexpr (requires { comm_->broken(); })
      if (comm_ && why == ending::lost_connection) suspects = comm_->broken();
    std::erase(suspects, now_.rank);
    members_.announce(now_, why, suspects);
    before_ = comm_.get();
    if (comm_) {
      if constexpr (revocable<communicator_type>)
        if (why != ending::planned) {
          try {
            comm_->revoke("the generation has ended");
          } catch (error const&) {  // it has failed before
          }
        }
      old_.push_back(std::move(comm_));
    }
    ended_ = true;
    recovered_ = false;
  }

  // Agrees on the next generation, and connects.
  void go_on() {
    roster next = members_.next(now_);
    std::vector<int> was;
    for (int const r : next.old_ranks) was.push_back(r < 0 ? none : was_[static_cast<std::size_t>(r)]);
    how_.tell(text("generation ", next.generation, ": ", next.size(),
                   next.size() == 1 ? " worker" : " workers", ", this one is rank ", next.rank));
    std::vector<int> lost = ranks_of(now_);
    std::erase_if(lost, [&](int r) { return std::ranges::find(next.old_ranks, r) != next.old_ranks.end(); });
    bool const all_were_in = std::ranges::find(next.old_ranks, -1) == next.old_ranks.end();
    now_ = std::move(next);
    was_ = std::move(was);
    ended_ = false;
    communicator_type* const before = std::exchange(before_, nullptr);
    if constexpr (shrinks)
      if (how_.shrink && before && all_were_in) {
        comm_ = std::make_unique<communicator_type>(before->shrink(lost));
        return;
      }
    open();
  }
  void open() { comm_ = std::make_unique<communicator_type>(connect_(std::as_const(now_))); }

  template <class Optimizer>
  void recover(Optimizer& opt, dealer& samples) {
    // In one with the optimizer's state: what is dealt must fit the model.
    opt.recover(*comm_, [&](recovery const& r) {
      auto const joined = [&](int rank) { return std::ranges::find(r.joined, rank) != r.joined.end(); };
      // Whose model of the generation before is part of the one that all hold now.
      std::vector<char> keeps;
      for (int k = 0; k < now_.size(); ++k)
        if (int const was = was_[static_cast<std::size_t>(k)]; was >= 0 && !joined(k)) {
          keeps.resize(std::max(keeps.size(), static_cast<std::size_t>(was) + 1));
          keeps[static_cast<std::size_t>(was)] = 1;
        }
      bool const takes = joined(now_.rank);
      if (!takes) {
        samples.recovers(opt.now().calls, r.voided, keeps);
        was_ = ranks_of(now_);
      }
      samples.share(*comm_, r.giver);
    });
    was_ = ranks_of(now_);
    looked_ = opt.now().calls;
    recovered_ = true;
    old_.clear();
  }

  // @return false if this generation has ended instead
  template <class Optimizer, class Compute>
  bool step(Optimizer& opt, dealer& samples, Compute& compute) {
    if (look(opt, samples)) return false;
    hand const mine = samples.deal(opt.planned(), now_.rank, opt.now().calls + 1);
    compute(mine);
    opt.step(std::ssize(mine.samples));
    samples.stands();
    if (!opt.open().any()) samples.settles();
    failures_ = 0;
    members_.beat();
    return true;
  }

  // Merges what is open, on all, who have come equally far.
  template <class Optimizer>
  void close(Optimizer& opt, dealer& samples) {
    opt.finish();
    samples.settles();
    comm_->barrier();
  }

  // Now and then: is anybody to come or to go? @return true if this generation has ended so
  template <class Optimizer>
  bool look(Optimizer& opt, dealer& samples) {
    if (opt.now().calls - looked_ < how_.look_every || opt.open().gradients) return false;
    std::array<i64, 1> mine{leaving_ ? 1 : now_.rank == 0 && !members_.joiners().empty() ? 2 : 0};
    std::vector<i64> all(now_.ids.size());
    comm_->all_gather(const_view(mine, "look"), view(all, "look")).wait();
    looked_ = opt.now().calls;
    if (std::ranges::all_of(all, [](i64 x) { return x == 0; })) return false;
    close(opt, samples);
    if (leaving_)
      leave();
    else
      end(ending::planned);
    return true;
  }

  void leave() {
    members_.leave(now_);
    left_ = true;
    old_.push_back(std::move(comm_));  // what others still read from it goes with the session
  }

  static constexpr int none = -1;
  static constexpr bool shrinks = shrinkable<communicator_type>;

  session_options how_;
  membership<Store> members_;
  Connect connect_;
  roster now_;
  std::vector<int> was_;  // per rank: its rank when the dealer's calls were dealt
  std::unique_ptr<communicator_type> comm_;
  std::vector<std::unique_ptr<communicator_type>> old_;  // until the next is entered
  communicator_type* before_ = nullptr;                  // of the generation that has just ended, in old_
  bool ended_ = false;                                   // announced, and the next not agreed on
  bool recovered_ = false;                               // all state was handed over in this generation
  std::atomic<bool> leaving_ = false;
  bool left_ = false;
  i64 looked_ = 0;
  i64 failures_ = 0;  // generations that ended since the last step
};

}  // namespace limber::elastic
