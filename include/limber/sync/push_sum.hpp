// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The tap after the rule, by push-sum: half of every model goes round a directed graph, with its weight.

#include <limber/core/fingerprint.hpp>
#include <limber/fuse/functors.hpp>
#include <limber/fuse/updater.hpp>
#include <limber/sync/gossip.hpp>
#include <limber/sync/gossip_partners.hpp>
#include <limber/sync/parcel.hpp>
#include <limber/sync/site.hpp>
#include <limber/sync/weighted_mean.hpp>

#include <bit>
#include <cstddef>
#include <optional>
#include <utility>
#include <vector>

namespace limber::sync {

/// How far the messages of round k go on the directed exponential graph of `size` ranks: from rank i to
/// i + 2^(k mod (⌊log₂(size − 1)⌋ + 1)). Everybody sends one and gets one. 0 for one rank alone.
[[nodiscard]] inline int exponential_step(int size, i64 round) {
  if (size < 2) return 0;
  auto const exponents = static_cast<i64>(std::bit_width(static_cast<unsigned>(size - 1)));
  return 1 << (round % exponents);
}

/// Every rank i keeps a pair (xᵢ, wᵢ); the parameters are zᵢ = xᵢ / wᵢ. In round k, after each update:
///
///     xᵢ ← xᵢ + (zᵢ − zᵢ before the update)                   the gradient at z, applied to x
///     (xᵢ, wᵢ) ← (xᵢ, wᵢ) / 2 + (xⱼ, wⱼ) / 2                  j: who sends to i in round k − overlap
///     zᵢ ← xᵢ / wᵢ
///
/// Sums     Σ xᵢ and Σ wᵢ over ranks and what is in flight change by updates alone.
/// State    x, w (starting at 1) and the round; between calls, with overlap, less than the sums: `close`
///          takes in what is in flight. `evaluate` shows Σ xᵢ / Σ wᵢ of what ranks hold. Gradient history
///          and moving averages stay each worker's own. A joiner gets the mean x and the mean w.
/// Choices  w crosses in the message of its x. At w = 1, which without overlap it stays, x is z without a
///          rounding, and one worker is the plain rule bit for bit. With overlap a message is taken in
///          exactly so many rounds later, not sooner, also if it is there: the same bits whatever the timing.
///          An update that leaves z not finite is undone. 16-bit parameters without a master round x as well.
/// Deaths   attached to a group of survivors, each goes on with its own (x, w): what the dead held and what
///          was in flight is written off, in both alike, so z stays where it was.
/// Collectives  none but one message to and one from a neighbour a call: blocking sends in an order that
///          cannot deadlock, or with overlap posts, of which the one `overlap` rounds old is waited for.
///          Needs a `point_to_point` collective or a `mailbox`. Attaching agrees on the round.
/// Errors   std::invalid_argument if overlap is negative, or positive without a `mailbox`.
struct push_sum_round {
  i64 overlap;

  /// Of a message of round k: tag + k.
  static constexpr i64 tag = i64{0x7073} << 48;

  explicit push_sum_round(i64 rounds = 0) : overlap(rounds) {
    expects(overlap >= 0, "push_sum: overlap must not be negative, got ", overlap);
  }

  template <class Site>
  class state;
};

/// to ← share · (x + (z − x / w)), returned as well: what an update made of x.
struct follow {
  scalar share, weight;

  template <class T>
  LIMBER_HD T operator()(T& to, T const& x, T const& z) const noexcept {
    to = math::mul(share.as<T>(), math::add(x, math::sub(z, math::div(x, weight.as<T>()))));
    return to;
  }
};

/// x ← kept + came; z ← x / w.
struct join_halves {
  scalar weight;

  template <class T>
  LIMBER_HD void operator()(T& x, T& z, T const& kept, T const& came) const noexcept {
    x = math::add(kept, came);
    z = math::div(x, weight.as<T>());
  }
};

/// z ← x / w.
struct ratio {
  scalar weight;

  template <class T>
  LIMBER_HD void operator()(T& z, T const& x) const noexcept {
    z = math::div(x, weight.as<T>());
  }
};

/// The tap at work on a site.
template <class Site>
class push_sum_round::state {
  using E = typename Site::executor_type;
  using C = typename Site::comm_type;
  static constexpr bool posts = mailbox<C>;
  static constexpr bool sends = point_to_point<C>;
  static_assert(posts || sends,
                "limber: push_sum needs a collective that models limber::point_to_point or limber::mailbox");

 public:
  static constexpr bool agreed = false;
  static constexpr bool unifies = false;  ///< models still differ after an exchange

  state(push_sum_round tap, Site& at)
      : tap_(tap),
        model_(at.inner.model()),
        plan_(plan_buckets(model_, without_wire(at.buckets), at.use_order)),
        x_(at.exec.make(layout_of(model_))),
        weight_(at.exec.template share<double>(1)),
        mean_(at.exec, at.inner.values(), at.buckets),
        buffers_(at.exec, at.buffers, at.buckets) {
    expects(posts || tap_.overlap == 0, "push_sum: overlap ", tap_.overlap,
            " needs a collective that models limber::mailbox");
    if (by_mail()) {
      kept_parcel_.emplace(at.exec, layout_of(model_));
      came_parcel_.emplace(at.exec, layout_of(model_));
    } else {
      kept_slab_ = at.exec.make(plan_.where);
      came_slab_ = at.exec.make(plan_.where);
      weights_ = at.exec.template share<double>(2);
    }
  }

  void attach(Site& at) {
    group_ = at.comm;
    agree_on_round(*group_, round_);
  }

  /// Starts where the model is, with weight 1.
  void pin(Site& at) {
    pinned_ = 1;
    fresh_ = round_;
    at.exec.each(copy{}, out(x_.parts), in(model_));
    put_weight(at, 1);
  }

  /// x, w and z have become means of the others'.
  void join() noexcept { started_ = false; }

  /// The first start of all; later x and w are state, and what was in flight is here or lost.
  void pin_once(Site& at) {
    bool const first = pinned_ == 0;
    if (first) pin(at);
    at.exec.collect(weight_);
    // Who came has the mean of all x, w and z; the last is not the ratio of the others.
    if (!std::exchange(started_, true) && !first) show(at);
    awaited_ = round_;
  }

  void count(i64, double) noexcept {}
  [[nodiscard]] bool due(Site const&) const noexcept { return true; }

  /// One round.
  i64 run(Site& at) {
    int const size = group_->size();
    if (size == 1) {
      pin(at);  // nobody else has a part of the sums
      return 0;
    }
    halve(at);
    int const step = exponential_step(size, round_);
    if (by_mail())
      exchange_by_mail(at, (group_->rank() + step) % size);
    else
      exchange_by_message(at, step);
    at.inner.publish(at.exec);
    return 0;
  }

  /// Takes in what is in flight. All ranks have made equally many calls.
  void close(Site& at) {
    if (group_ == nullptr || awaited_ == round_) return;
    while (awaited_ < round_) {
      double const w = take_message(at);
      at.exec.each(accumulate{}, inout(x_.parts), in(came()));
      put_weight(at, weight_[0] + w);
      show(at);  // the next one may never come
    }
  }

  /// Writes Σ x / Σ w to the parameters, the mean of buffers to the buffers. A collective call.
  void average_into(Site& at, tensor_list const& values) {
    at.exec.each(copy{}, out(values), in(model_));
    mean_.run(at.exec, *group_, weight_[0]);
    buffers_.run(at.exec, *group_, 1);
  }

  template <class F, class Own>
  void visit(F const& f, Own const&) {
    f("pinned", tensor_view{reinterpret_cast<std::byte*>(&pinned_), 1, dtype::int64, {}});
    f("round", tensor_view{reinterpret_cast<std::byte*>(&round_), 1, dtype::int64, {}});
    f("w", tensor_view{reinterpret_cast<std::byte*>(weight_.device), 1, dtype::f64, {}});
    for (auto const& t : x_.parts) f(text("x/", t.name), t);
  }

  /// No round is ever left open.
  [[nodiscard]] i64& calls_open() noexcept { return calls_; }
  [[nodiscard]] i64 bytes() const noexcept {
    i64 const messages =
        by_mail() ? kept_parcel_->bytes() + came_parcel_->bytes() : kept_slab_.bytes + came_slab_.bytes;
    return x_.bytes + messages + mean_.bytes() + buffers_.bytes();
  }
  [[nodiscard]] bucket_plan const& plan() const noexcept { return plan_; }
  [[nodiscard]] i64 period() const noexcept { return 1; }
  void mix(fingerprint& h) const {
    h.mix(static_cast<i64>(plan_.hash));
    h.mix(tap_.overlap);
  }

 private:
  struct head {
    double weight;
  };

  // Without overlap blocking messages do, and need no copy on the host.
  [[nodiscard]] bool by_mail() const noexcept { return !sends || tap_.overlap > 0; }
  [[nodiscard]] tensor_list const& kept() const noexcept {
    return by_mail() ? kept_parcel_->parts() : kept_slab_.parts;
  }
  [[nodiscard]] tensor_list const& came() const noexcept {
    return by_mail() ? came_parcel_->parts() : came_slab_.parts;
  }

  void put_weight(Site& at, double w) {
    weight_[0] = w;
    at.exec.publish(weight_);
  }

  // z ← x / w
  void show(Site& at) {
    if (weight_[0] > 0) at.exec.each(ratio{weight_[0]}, out(model_), in(x_.parts));
    at.inner.publish(at.exec);
  }

  // kept ← half of x after the update, w ← half of it. What is kept is also what is sent.
  void halve(Site& at) {
    double const w = weight_[0];
    bool const sound =
        w == 1 ? at.exec.norm(weighted{0.5}, out(kept()), in(model_)).total.finite
               : w > 0 && at.exec.norm(follow{0.5, w}, out(kept()), in(x_.parts), in(model_)).total.finite;
    half_ = w / 2;
    if (sound || at.exec.norm(weighted{0.5}, out(kept()), in(x_.parts)).total.finite) return;
    at.exec.each(zero{}, out(kept()));  // nothing to be saved: this rank starts again from what it gets
    half_ = 0;
  }

  // x, w ← what is kept and what came with weight w
  void join(Site& at, double w) {
    put_weight(at, half_ + w);
    if (weight_[0] > 0)
      at.exec.each(join_halves{weight_[0]}, out(x_.parts), out(model_), in(kept()), in(came()));
  }

  void exchange_by_message([[maybe_unused]] Site& at, [[maybe_unused]] int step) {
    if constexpr (sends) {
      int const own = group_->rank(), size = group_->size();
      std::vector<crossing> all;
      for (int r = 0; r < size; ++r) all.push_back({r, (r + step) % size});
      weights_[0] = half_;
      at.exec.publish(weights_);
      at.exec.wait(at.exec.record());
      auto const weight = [&](std::size_t k) {
        return tensor_view{reinterpret_cast<std::byte*>(weights_.device + k), 1, dtype::f64,
                           "push_sum: weight"};
      };
      for (auto const& m : itinerary(own, size, all)) {
        if (m.from == own) {
          for (auto const& b : plan_.buckets) group_->send(bucket_view(kept_slab_, b), m.to);
          group_->send(weight(0), m.to);
        } else {
          for (auto const& b : plan_.buckets) group_->recv(bucket_view(came_slab_, b), m.from);
          group_->recv(weight(1), m.from);
        }
      }
      at.exec.collect(weights_);
      awaited_ = ++round_;
      join(at, weights_[1]);
    }
  }

  void exchange_by_mail([[maybe_unused]] Site& at, [[maybe_unused]] int target) {
    if constexpr (posts) {
      group_->post(target, tag + round_, kept_parcel_->seal(at.exec, head{half_}));
      if (awaited_ <= round_++ - tap_.overlap) return join(at, take_message(at));
      at.exec.each(copy{}, out(x_.parts), in(kept()));
      put_weight(at, half_);
      show(at);
    }
  }

  // Waits for the oldest message that is missing. @return its weight
  double take_message([[maybe_unused]] Site& at) {
    if constexpr (posts) {
      for (;; group_->listen())
        if (auto const m = group_->poll(tag + awaited_)) {
          double const w = came_parcel_->template open<head>(at.exec, m->bytes).weight;
          if (awaited_++ >= fresh_) return w;
          at.exec.each(zero{}, out(came()));
          return 0;
        }
    }
    return 0;
  }

  push_sum_round tap_;
  tensor_list model_;  // z: masters where there are any, the parameters elsewhere
  bucket_plan plan_;
  slab x_, kept_slab_, came_slab_;
  std::optional<parcel<E>> kept_parcel_, came_parcel_;
  shared_array<double> weight_, weights_;  // w; and those of a message that goes and one that comes
  double half_ = 0;                        // of w, in this round
  weighted_mean<E, C> mean_, buffers_;
  C* group_ = nullptr;
  bool started_ = false;
  i64 pinned_ = 0;   // x and w were set
  i64 round_ = 0;    // the next
  i64 awaited_ = 0;  // the oldest of which no message was taken in
  i64 fresh_ = 0;    // messages of earlier ones are of sums that a merge has replaced
  i64 calls_ = 0;
};

}  // namespace limber::sync
