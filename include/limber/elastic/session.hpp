// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// A training run whose workers join, leave and fail: the loop around optimizer, membership and communicator.

#include <limber/comm/collective.hpp>
#include <limber/core/error.hpp>
#include <limber/elastic/dealer.hpp>
#include <limber/elastic/membership.hpp>
#include <limber/optimizer/arguments.hpp>
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

/// Options of a session.
struct session_options {
  std::string name = default_worker_name();  ///< of this worker, for logs
  membership_options membership{};
  i64 max_failures = 20;  ///< successive generations without a step after which the last error is thrown
  i64 check_every = 10;   ///< calls of step() between two checks for joiners and leaving workers
  /// Where no worker joins, survivors shrink their communicator (ncclCommShrink, for example) instead of
  /// calling `connect`. If that fails, the generation ends, and the next one connects. Must be equal on all
  /// workers.
  bool shrink = false;
  /// Called with one line per event.
  std::function<void(std::string const&)> log = [](std::string const&) {};
};

/// True for errors that a new communicator can repair: those of engines, not misuse, and not those of
/// training itself.
[[nodiscard]] inline bool is_engine_failure(error const& e) {
  for (std::string_view const own :
       {"optimizer", "sync", "elastic", "membership", "store", "state", "dealer"})
    if (e.where().engine == own) return false;
  return true;
}

/// One worker's part of an elastic run.
///
///     elastic::directory_store store("/shared/run");
///     elastic::session run(store, [&](elastic::membership_view const& v) { return
///     gloo_engine::communicator(…); }); optimizer opt{model, rule, schedule, strategy, run.communicator(),
///     {.batch = …}}; elastic::dealer samples(data.size(), seed); run.train(opt, samples, [&] { return
///     samples.epoch() == 90; },
///               [&](elastic::work_assignment const& w) { backward(model, w.samples); });
///
/// Generations  end when a worker fails, joins or leaves. The remaining workers decide on the next generation
///              (`membership`), connect, and continue: `optimizer::recover` transfers state, and `dealer`
///              deals again the samples that are in no worker's parameters. The result of a call of `compute`
///              may be discarded; its samples are then computed again, by any worker.
/// Fenced       a worker that was too slow joins again as a new worker, and its state is replaced.
/// Consumed     an update that any survivor has applied is kept, any other is void. Without a merge of all
///              models (gossip, elastic averaging, push-sum), the samples of a worker since its last exchange
///              are dealt again when it fails.
/// Strategies   all in which ranks step equally often; others are an error of `train`.
/// Errors       those of `membership` and the optimizer, and engine failures that no new generation can
///              repair: those of a single worker. std::invalid_argument if the batch policy has no plan for
///              the survivors.
/// Threads      one, the caller's.
///
/// @tparam Connect  makes the communicator of a generation, of any engine. Its rendezvous needs a name that
///                  no earlier generation used: membership_view::prefix
template <store Store, std::invocable<membership_view const&> Connect>
class session {
 public:
  using communicator_type = std::invoke_result_t<Connect&, membership_view const&>;

  /// Joins or starts the run, and connects. Blocks as `membership::join` does.
  session(Store& in, Connect connect, session_options how = {})
      : how_(checked(std::move(how))),
        members_(in, how_.name, how_.membership),
        connect_(std::move(connect)) {
    expects(!how_.shrink || shrinks, "session: shrink is set, but the communicator of this engine has none");
    now_ = members_.join();
    previous_ranks_ = ranks_of(now_);
    while (!comm_) attempt([] {}, [] {});
  }

  [[nodiscard]] communicator_type& communicator() noexcept { return *comm_; }
  /// The generation of which this worker is a member.
  [[nodiscard]] membership_view const& now() const noexcept { return now_; }

  /// Trains until until() is true, which ends the run for all workers, or until this worker has left.
  /// @param until  called between calls of step(), where it must return the same on all workers:
  ///        samples.epoch(), opt.now()
  /// @param compute  compute(work_assignment) fills the gradient of its samples, which may be none
  /// @param stepped  stepped(step_report) is called after every committed call of step(). May communicate, as
  ///        `save` and `evaluate` do: if an engine fails in it, the generation ends, and the step stays
  ///        committed
  template <class Optimizer, class Until, class Compute, class Stepped = limber::detail::no_op>
  void train(Optimizer& opt, dealer& samples, Until const& until, Compute&& compute, Stepped&& stepped = {}) {
    expects(opt.lockstep(), "session: train needs a strategy in which all ranks step equally often");
    expects(!left_, "session: this worker has left the run");
    auto const forget = [&] { opt.forget(); };
    auto const catch_up = [&] {
      if (!recovered_) recover(opt, samples);
    };
    auto const advance = [&] {
      if (step(opt, samples, compute)) stepped(opt.last());
    };
    while (!left_) {
      // What follows depends on the state after a recovery, so that comes first.
      if (!attempt(catch_up, forget)) continue;
      if (until()) {
        if (attempt([&] { merge_and_acknowledge(opt, samples); }, forget)) leave();
      } else {
        attempt(advance, forget);
      }
    }
  }

  /// This worker leaves at the next check, and `train` returns; the others continue. May be called from a
  /// signal handler.
  void ask_to_leave() noexcept { leaving_ = true; }
  /// True once this worker has left, or the run has ended. The parameters stay valid.
  [[nodiscard]] bool left() const noexcept { return left_; }

  /// Writes the heartbeat during a long computation: without it joiners may take this worker for dead.
  void beat() { members_.beat(); }
  /// True if a newer generation may exist: then this worker must not write what is reserved to members, such
  /// as a checkpoint.
  [[nodiscard]] bool over() { return members_.over(now_); }

 private:
  [[nodiscard]] static session_options checked(session_options how) {
    expects(how.check_every >= 1, "session: look_every must be at least 1, got ", how.check_every);
    expects(how.max_failures >= 1, "session: max_failures must be at least 1, got ", how.max_failures);
    expects(how.log != nullptr, "session: log is empty");
    return how;
  }
  [[nodiscard]] static std::vector<int> ranks_of(membership_view const& r) {
    std::vector<int> all(r.ids.size());
    std::iota(all.begin(), all.end(), 0);
    return all;
  }

  // Calls f in this generation, after entering it if necessary. A failure of an engine ends the generation; a
  // worker that was fenced joins again, after forget(). @return false if the generation ended
  template <class F, class Forget>
  bool attempt(F const& f, Forget const& forget) {
    try {
      if (ended_) enter_next_generation();
      if (!comm_) connect_generation();
      f();
      return !ended_;
    } catch (fenced const& e) {
      forget();
      how_.log(text("generation ", e.generation(), " was decided without this worker; it joins again"));
      now_ = members_.join();
      previous_ranks_.assign(now_.ids.size(), none);
      previous_ = nullptr;
      ended_ = false;
    } catch (error const& e) {
      bool const repairable = is_engine_failure(e) && now_.size() > 1 && ++failures_ <= how_.max_failures;
      if (!repairable) throw;
      how_.log(text("generation ", now_.generation, " ends: ", e.what()));
      end(false);
    }
    return false;
  }

  // Announces that this worker is alive before its connections close, so that workers that wait for it detect
  // the end of the generation and do not take it for dead.
  void end(bool planned) {
    ending why = planned ? ending::planned : ending::lost_connection;
    std::vector<int> suspects;
    if constexpr (requires { comm_->broken(); })
      if (!planned) {
        if (comm_) suspects = comm_->broken();
        if (suspects.empty()) why = ending::deadline;
      }
    std::erase(suspects, now_.rank);
    members_.announce(now_, why, suspects);
    previous_ = comm_.get();
    if (comm_) {
      if constexpr (revocable<communicator_type>)
        if (!planned) {
          try {
            comm_->revoke("the generation has ended");
          } catch (error const&) {  // it has failed already
          }
        }
      old_communicators_.push_back(std::move(comm_));
    }
    ended_ = true;
    recovered_ = false;
  }

  // Waits for the decision on the next generation, and connects.
  void enter_next_generation() {
    membership_view next = members_.next(now_);
    std::vector<int> previous;
    for (int const r : next.old_ranks)
      previous.push_back(r < 0 ? none : previous_ranks_[static_cast<std::size_t>(r)]);
    how_.log(text("generation ", next.generation, ": ", next.size(),
                  next.size() == 1 ? " worker" : " workers", ", this one is rank ", next.rank));
    std::vector<int> lost = ranks_of(now_);
    std::erase_if(lost, [&](int r) { return std::ranges::find(next.old_ranks, r) != next.old_ranks.end(); });
    bool const nobody_joins = std::ranges::find(next.old_ranks, -1) == next.old_ranks.end();
    now_ = std::move(next);
    previous_ranks_ = std::move(previous);
    ended_ = false;
    communicator_type* const before = std::exchange(previous_, nullptr);
    if constexpr (shrinks)
      if (how_.shrink && before && nobody_joins) {
        comm_ = std::make_unique<communicator_type>(before->shrink(lost));
        return;
      }
    connect_generation();
  }
  void connect_generation() { comm_ = std::make_unique<communicator_type>(connect_(std::as_const(now_))); }

  template <class Optimizer>
  void recover(Optimizer& opt, dealer& samples) {
    // In one transaction with the optimizer's state: the dealt samples must match the model.
    opt.recover(*comm_, [&](recovery const& r) {
      auto const joined = [&](int rank) { return std::ranges::find(r.joined, rank) != r.joined.end(); };
      // The ranks of the previous generation whose model is part of the current one.
      std::vector<char> keeps;
      for (int k = 0; k < now_.size(); ++k)
        if (int const previous = previous_ranks_[static_cast<std::size_t>(k)]; previous >= 0 && !joined(k)) {
          keeps.resize(std::max(keeps.size(), static_cast<std::size_t>(previous) + 1));
          keeps[static_cast<std::size_t>(previous)] = 1;
        }
      bool const is_joiner = joined(now_.rank);
      if (!is_joiner) {
        samples.recover(opt.now().calls, r.voided, keeps);
        previous_ranks_ = ranks_of(now_);
      }
      samples.broadcast(*comm_, r.giver);
    });
    previous_ranks_ = ranks_of(now_);
    last_check_ = opt.now().calls;
    recovered_ = true;
    old_communicators_.clear();
  }

  // @return false if this generation has ended instead
  template <class Optimizer, class Compute>
  bool step(Optimizer& opt, dealer& samples, Compute& compute) {
    if (check_membership(opt, samples)) return false;
    work_assignment const mine = samples.deal(opt.planned(), now_.rank, opt.now().calls + 1);
    compute(mine);
    opt.step(std::ssize(mine.samples));
    samples.commit();
    if (!opt.open().any()) samples.acknowledge();
    failures_ = 0;
    members_.beat();
    return true;
  }

  // Merges unmerged work. @pre all ranks have made the same number of calls
  template <class Optimizer>
  void merge_and_acknowledge(Optimizer& opt, dealer& samples) {
    opt.finish();
    samples.acknowledge();
    comm_->barrier();
  }

  // Every `check_every` calls: agrees on whether a worker joins or leaves. @return true if that ends the
  // generation
  template <class Optimizer>
  bool check_membership(Optimizer& opt, dealer& samples) {
    if (opt.now().calls - last_check_ < how_.check_every || opt.open().gradients) return false;
    std::array<i64, 1> mine{leaving_ ? 1 : now_.rank == 0 && !members_.joiners().empty() ? 2 : 0};
    std::vector<i64> all(now_.ids.size());
    comm_->all_gather(const_view(mine, "membership check"), view(all, "membership check")).wait();
    last_check_ = opt.now().calls;
    if (std::ranges::all_of(all, [](i64 x) { return x == 0; })) return false;
    merge_and_acknowledge(opt, samples);
    leaving_ ? leave() : end(true);
    return true;
  }

  void leave() {
    members_.leave(now_);
    left_ = true;
    old_communicators_.push_back(std::move(comm_));  // other ranks may still read from it
  }

  static constexpr int none = -1;
  static constexpr bool shrinks = shrinkable<communicator_type>;

  session_options how_;
  membership<Store> members_;
  Connect connect_;
  membership_view now_;
  std::vector<int> previous_ranks_;  // per rank: its rank in the generation whose calls the dealer tracks
  std::unique_ptr<communicator_type> comm_;
  std::vector<std::unique_ptr<communicator_type>>
      old_communicators_;                  // kept until the next generation is entered
  communicator_type* previous_ = nullptr;  // of the generation that ended last, in old_communicators_
  bool ended_ = false;                     // announced, and the next generation is not decided
  bool recovered_ = false;                 // state was transferred in this generation
  std::atomic<bool> leaving_ = false;
  bool left_ = false;
  i64 last_check_ = 0;
  i64 failures_ = 0;  // generations that ended since the last step
};

}  // namespace limber::elastic
