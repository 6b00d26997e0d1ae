// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The tap before the rule, one round late: workers go on computing while gradients cross.

#include <limber/core/fingerprint.hpp>
#include <limber/fuse/functors.hpp>
#include <limber/fuse/updater.hpp>
#include <limber/sync/bucket_sum.hpp>
#include <limber/sync/round_log.hpp>
#include <limber/sync/site.hpp>
#include <limber/sync/weighted_mean.hpp>
#include <limber/sync/when.hpp>
#include <limber/sync/who.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <optional>
#include <span>
#include <utility>
#include <vector>

namespace limber::sync {

/// How the rate of a round follows the samples N that it happened to hold; N_ref: planned of one call.
enum class round_rate {
  constant,  ///< η
  linear,    ///< η N / N_ref
  sqrt,      ///< η √(N / N_ref)
};

/// A round is ready to close when every worker has folded in `at_least` calls and the round before has
/// arrived. A worker closes it by itself at `at_most` calls; 0: however many fit.
struct ready {
  i64 at_least = 1, at_most = 0;

  [[nodiscard]] bool operator()(i64 calls_open, progress const&) const noexcept {
    return calls_open >= at_least;
  }
};
static_assert(timing<ready>);

/// Gradients are accumulated at a fixed model while those of the round before cross.
///
///     Gᵢ ← Σ bᵢ gᵢ(xₜ),  nᵢ ← Σ bᵢ        over the calls of round t
///     xₜ₊₁ ← rule(xₜ, Σᵢ Gᵢ / Σᵢ nᵢ of round t − 1)        when round t closes
///
/// Delay    exactly one round: the gradient at xₜ₋₁ moves xₜ. The first round moves nothing.
/// Memory   `open_` accumulates while `sent_` crosses to `reduced_`: three times the gradient, in the wire's
///          type where one is set.
/// Control  Σ nᵢ, norms and non-finite ranks travel in fp64 after the last bucket.
struct delayed {
  ready when{};
  everyone who{};
  round_rate rate = round_rate::constant;
  double rate_limit = 0;              ///< the rate's factor at most; 0: no limit
  round_log* log = nullptr;           ///< every round that this rank closed is appended
  round_log const* replay = nullptr;  ///< rounds close as logged, not when ready

  template <class Site>
  class state;
};

/// The tap at work on a site.
template <class Site>
class delayed::state {
  using E = typename Site::executor_type;
  using C = typename Site::comm_type;
  static_assert(mailbox<C>, "limber: abs_sgd needs a collective that models limber::mailbox");
  using handle = decltype(std::declval<C&>().all_reduce(const_tensor_view{}, tensor_view{}));

  // What travels beside the gradients, all of it summed.
  enum field { count, weighted_squares, contributions, bad_ranks, bad_rank_sum, finishing, fields };
  using control = std::array<double, fields>;

  static constexpr i64 ready_tag = 0x6162'7300;

 public:
  static constexpr bool agreed = true;
  static constexpr bool paced = false;

  state(delayed tap, Site& at)
      : tap_(tap),
        plan_(plan_buckets(at.gradients, at.buckets, at.use_order)),
        open_(at.exec.make(plan_.where)),
        sent_(at.exec.make(plan_.where)),
        reduced_(at.exec.make(plan_.where)),
        buffers_(at.exec, at.buffers, at.buckets) {
    expects(tap.when.at_least >= 1, "abs_sgd: at least 1 micro-batch must close a round, got ",
            tap.when.at_least);
    expects(tap.when.at_most == 0 || tap.when.at_most >= tap.when.at_least,
            "abs_sgd: max_micro_batches must be 0 or at least ", tap.when.at_least, ", got ",
            tap.when.at_most);
    expects(tap.rate_limit >= 0 && math::finite(tap.rate_limit),
            "abs_sgd: rate_limit must be a number of at least 0, got ", tap.rate_limit);
    expects(!plan_.feedback,
            "abs_sgd: error_feedback is not there for delayed gradients; use a wire without it, or none");
    if (at.buckets.wire) open_ = at.exec.make(layout_of(at.gradients));
    flights_.reserve(plan_.buckets.size() + 1);
  }

  /// Rounds are numbered on from the calls that progress counts, the same on all ranks.
  void attach(Site& at) {
    comm_ = at.comm;
    round_ = at.now.calls;
    heard_.assign(static_cast<std::size_t>(comm_->size()), round_ - 1);
  }

  /// Gives up both rounds, the one that crosses and the open one: no update was made of them.
  i64 interrupt(Site& at) {
    flights_.clear();
    in_flight_ = false;
    at.exec.each(zero{}, out(at.gradients));
    calls_ = 0;
    return 0;
  }

  /// Folds in the gradient of n samples. Closes the round if it is ready: applies the one before and sends
  /// this one.
  outcome step(Site& at, i64 n) {
    fold(at, n);
    if (calls_ == tap_.when.at_least) announce();
    if (!closes()) return {};
    outcome const o = land(at);
    if (o.applied) standing_ = o;
    send(at, false);
    standing_.reset();
    return o;
  }
  /// Of the round that landed, if the group failed when the next one was sent.
  [[nodiscard]] std::optional<outcome> standing() noexcept { return std::exchange(standing_, {}); }

  /// Closes rounds until all ranks have come here, and applies them all.
  template <class Before, class After>
  void drain(Site& at, Before const& before, After const& after) {
    for (bool last = false; !last;) {
      if (calls_ < tap_.when.at_least) announce();
      before();
      after(land(at));
      send(at, true);
      arrive();
      last = all_[finishing] == comm_->size();
    }
    before();
    after(land(at));
    buffers_.run(at.exec, *comm_, 1);
    while (comm_->poll(ready_tag)) {}
  }
  [[nodiscard]] outcome finish(Site&) const noexcept { return {}; }

  /// Nothing is open when state is taken; else an error says what to do.
  template <class F>
  void visit(F const&) const {
    expects(calls_ == 0 && !in_flight_,
            "abs_sgd: a round is open and another one crosses; call finish() before state is taken");
  }

  [[nodiscard]] i64& calls_open() noexcept { return calls_; }
  [[nodiscard]] bool open() const noexcept { return calls_ > 0 || in_flight_; }
  [[nodiscard]] bucket_plan const& plan() const noexcept { return plan_; }
  [[nodiscard]] i64 period() const noexcept { return 1; }
  [[nodiscard]] i64 bytes() const noexcept {
    return open_.bytes + sent_.bytes + reduced_.bytes + buffers_.bytes();
  }
  void mix(fingerprint& h) const {
    h.mix(static_cast<i64>(plan_.hash));
    h.mix(static_cast<i64>(buffers_.hash()));
    h.mix(tap_.when.at_least);
    h.mix(tap_.when.at_most);
    h.mix(static_cast<i64>(tap_.rate));
    h.mix(tap_.rate_limit);
  }

 private:
  void fold(Site& at, i64 n) {
    auto const b = static_cast<double>(n);
    bool const mean = at.gradient == gradient_is::mean;
    pack const f{(mean ? b : n > 0 ? 1.0 : 0.0) / at.planned, calls_ > 0};
    norm_report const& report = f.carry ? at.exec.norm(f, inout(open_.parts), inout(at.gradients))
                                        : at.exec.norm(f, out(open_.parts), inout(at.gradients));
    double square = 0;
    for (std::size_t i = 0; i < report.tensors.size(); ++i)
      if (!at.inner.is_frozen(i)) square += report.tensors[i].square;
    if (calls_++ == 0) mine_ = {};
    mine_[count] += b;
    if (n == 0) return;
    bool const finite = math::finite(square);
    mine_[contributions] += 1;
    mine_[weighted_squares] += finite ? (mean ? b : 1 / b) * square : 0;
    mine_[bad_ranks] = std::max(mine_[bad_ranks], finite ? 0.0 : 1.0);
    mine_[bad_rank_sum] = mine_[bad_ranks] * comm_->rank();
  }

  // Tells everybody that this rank has enough for the open round.
  void announce() {
    for (int r = 0; r < comm_->size(); ++r)
      if (r != comm_->rank()) comm_->post(r, ready_tag, std::as_bytes(std::span(&round_, 1)));
  }

  // A rank may be ready for the next round before this one has closed the open round.
  [[nodiscard]] bool all_ready() {
    while (auto const m = comm_->poll(ready_tag)) {
      i64 round = 0;
      expects(m->bytes.size() == sizeof round, "abs_sgd: a ready flag of ", m->bytes.size(), " bytes");
      std::memcpy(&round, m->bytes.data(), sizeof round);
      i64& last = heard_[static_cast<std::size_t>(m->source)];
      last = std::max(last, round);
    }
    heard_[static_cast<std::size_t>(comm_->rank())] = round_;
    return std::ranges::all_of(heard_, [&](i64 r) { return r >= round_; });
  }

  [[nodiscard]] bool arrived() {
    return std::ranges::all_of(flights_, [](handle& h) { return h.done(); });
  }

  [[nodiscard]] bool closes() {
    if (tap_.replay) {
      replayed_ = find_round(*tap_.replay, round_, comm_->rank(), replayed_);
      round_entry const& then = (*tap_.replay)[replayed_];
      return !then.last && calls_ >= then.calls;
    }
    if (tap_.when.at_most > 0 && calls_ >= tap_.when.at_most) return true;
    return calls_ >= tap_.when.at_least && all_ready() && arrived();
  }

  // Sends the open round and opens the next.
  void send(Site& at, bool last) {
    if (calls_ == 0) {
      mine_ = {};
      at.exec.each(zero{}, out(open_.parts));
    }
    if (tap_.log) tap_.log->push_back({round_, comm_->rank(), calls_, static_cast<i64>(mine_[count]), last});
    mine_[finishing] = last ? 1 : 0;
    crossing_ = mine_;
    if (at.buckets.wire)
      at.exec.each(copy{}, out(sent_.parts), in(open_.parts));
    else
      std::swap(open_, sent_);
    at.exec.wait(at.exec.record());
    for (auto const& b : plan_.buckets) flights_.push_back(sum_bucket(*comm_, b, sent_, reduced_));
    flights_.push_back(comm_->all_reduce(const_view(crossing_, "control"), view(all_, "control")));
    in_flight_ = true;
    calls_ = 0;
    ++round_;
  }

  void arrive() {
    for (auto& h : flights_) h.wait();
    flights_.clear();
  }

  // Applies the round that crossed, if one did.
  outcome land(Site& at) {
    outcome o{.calls = calls_, .due = true};
    if (!std::exchange(in_flight_, false)) return o;
    arrive();
    o.contributions = all_[contributions];
    o.weighted_squares = all_[weighted_squares];
    if (!(all_[count] > 0)) return o;
    verdict const v = at.inner.template step<false>(at.exec, reduced_.parts, at.rate * factor(at),
                                                    at.planned / all_[count]);
    o.mean_square = v.mean_square;
    o.applied = v.applied;
    if (v.applied) {
      o.samples = static_cast<i64>(all_[count]);
      o.own_samples = static_cast<i64>(crossing_[count]);
    } else {
      o.skipped = true;
      o.culprit = v.culprit;
      o.culprit_rank = all_[bad_ranks] == 1 ? static_cast<int>(all_[bad_rank_sum]) : -1;
    }
    return o;
  }

  [[nodiscard]] double factor(Site const& at) const {
    double const k = all_[count] / at.planned;
    double const f = tap_.rate == round_rate::linear ? k : tap_.rate == round_rate::sqrt ? std::sqrt(k) : 1;
    return tap_.rate_limit > 0 ? std::min(f, tap_.rate_limit) : f;
  }

  delayed tap_;
  bucket_plan plan_;
  slab open_, sent_, reduced_;
  weighted_mean<E, C> buffers_;
  std::vector<handle> flights_;
  std::vector<i64> heard_;  // the last round that each rank was ready for
  C* comm_ = nullptr;
  control mine_{}, crossing_{}, all_{};
  i64 round_ = 0;
  i64 calls_ = 0;  // folded into the open round
  std::size_t replayed_ = 0;
  bool in_flight_ = false;
  std::optional<outcome> standing_;
};

}  // namespace limber::sync
