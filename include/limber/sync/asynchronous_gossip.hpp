// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The tap after the rule, in gossip without rounds: models travel by mailbox, and nobody waits.

#include <limber/core/fingerprint.hpp>
#include <limber/fuse/functors.hpp>
#include <limber/fuse/updater.hpp>
#include <limber/sync/gossip.hpp>
#include <limber/sync/gossip_partners.hpp>
#include <limber/sync/parcel.hpp>
#include <limber/sync/site.hpp>
#include <limber/sync/weighted_mean.hpp>
#include <limber/sync/when.hpp>

#include <cstdint>
#include <optional>
#include <span>
#include <utility>
#include <vector>

namespace limber::sync {

/// Models of random others, averaged in when they arrive.
///
///     push   every `when` a worker posts its model to a random other;
///            at every call x ← (x + Σ xᵣ) / (1 + |R|) over what has arrived since the last
///     pull   every `when` a worker asks a random other, which answers at its next call;
///            at every call x ← (x + xⱼ) / 2 with each answer that has arrived since the last
///
/// Order    a call averages after its own update, which is before the next one, so that gradients are taken
///          at the averaged model. A model is a whole snapshot, never torn.
/// Waiting  nobody waits for anybody while training: messages to a rank that is dead vanish, and one that
///          lags answers late. No rank is asked again that still owes an answer. `close`, which all ranks
///          enter, waits until everybody has said goodbye: then nothing is in flight any more.
/// Memory   of unread messages of one sender only the newest counts. Until its owner's next call, a mailbox
///          holds whatever was posted to it.
/// State    how often a partner was drawn; models stay apart; `evaluate` shows their mean.
/// Choices  a model that is not finite is not posted, and its worker takes what comes. Neither form keeps the
///          mean of the models. The same on a real clock is not repeatable. One such strategy a communicator:
///          messages carry one tag.
/// Errors   std::invalid_argument if `how` is a matching, which nobody could agree on without rounds.
template <timing When>
struct asynchronous_round {
  When when;
  gossip_how how;
  std::uint64_t seed;
  moments at_merge;

  /// Of all messages of this strategy.
  static constexpr i64 tag = i64{0x6753} << 32;

  explicit asynchronous_round(When w, gossip_how h = gossip_how::push, std::uint64_t s = 0,
                              moments m = moments::keep)
      : when(w), how(h), seed(s), at_merge(m) {
    expects(how != gossip_how::matching, "asynchronous_gossip: how must be pull or push, got matching");
  }

  template <class Site>
  class state;
};

/// The tap at work on a site.
template <timing When>
template <class Site>
class asynchronous_round<When>::state {
  using E = typename Site::executor_type;
  using C = typename Site::comm_type;
  static_assert(mailbox<C>, "limber: asynchronous gossip needs a collective that models limber::mailbox");

 public:
  static constexpr bool agreed = false;
  static constexpr bool unifies = false;  ///< models still differ after an exchange
  static constexpr bool paced = false;    ///< ranks call as often as they like

  state(asynchronous_round tap, Site& at)
      : tap_(tap),
        model_(at.inner.model()),
        carried_(carried_by_gossip(at.inner, tap.at_merge)),
        plan_(plan_buckets(carried_, without_wire(at.buckets))),
        parcel_(at.exec, layout_of(carried_)),
        mean_(at.exec, at.inner.values(), at.buckets),
        buffers_(at.exec, at.buffers, at.buckets) {}

  void attach(Site& at) {
    group_ = at.comm;
    auto const n = static_cast<std::size_t>(group_->size());
    unread_.assign(n, {});
    peers_.assign(n, {});
    goodbyes_ = 0;
  }
  void pin(Site&) noexcept { calls_ = 0; }
  void pin_once(Site&) noexcept {}

  void count(i64, double) noexcept { ++calls_; }
  /// What has arrived is read at every call.
  [[nodiscard]] bool due(Site const&) const noexcept { return true; }

  i64 run(Site& at) {
    read();
    take_in(at);
    answer(at);
    if (!tap_.when(calls_, at.now)) return 0;
    calls_ = 0;
    if (group_->size() == 1) return 0;
    if (tap_.how == gossip_how::pull)
      ask();
    else if (snapshot(at))
      group_->post(random_other(group_->rank(), group_->size(), tap_.seed, drawn_++), tag,
                   parcel_.seal(at.exec, head{word::model}));
    return 0;
  }

  /// Takes in everything that is in flight. All ranks call it, and may train on afterwards.
  void close(Site& at) {
    read();
    answer(at);
    tell_all(word::goodbye);
    while (goodbyes_ < group_->size() - 1)
      if (!read()) group_->listen();
    take_in(at);
    for (auto& p : peers_) p = {};
    goodbyes_ = 0;
    calls_ = 0;
  }

  /// Writes the mean of all models to the parameters, that of buffers to the buffers. A collective call.
  void average_into(Site& at, tensor_list const& values) {
    read();
    answer(at);
    at.exec.each(copy{}, out(values), in(model_));
    mean_.run(at.exec, *group_, 1);
    buffers_.run(at.exec, *group_, 1);
  }

  template <class F, class Own>
  void visit(F const& f, Own const&) {
    f("drawn", tensor_view{reinterpret_cast<std::byte*>(&drawn_), 1, dtype::int64, {}});
  }

  [[nodiscard]] i64& calls_open() noexcept { return calls_; }
  [[nodiscard]] i64 bytes() const noexcept { return parcel_.bytes() + mean_.bytes() + buffers_.bytes(); }
  [[nodiscard]] bucket_plan const& plan() const noexcept { return plan_; }
  [[nodiscard]] i64 period() const { return period_of(tap_.when); }
  void mix(fingerprint& h) const {
    h.mix(static_cast<i64>(plan_.hash));
    h.mix(period());
    h.mix(static_cast<i64>(tap_.how));
    h.mix(static_cast<i64>(tap_.seed));
    h.mix(static_cast<i64>(tap_.at_merge));
  }

 private:
  enum class word : std::int32_t { model, request, refusal, goodbye };
  struct head {
    word what;
  };
  struct peer {
    bool asks = false;  // waits for an answer of ours
    bool owes = false;  // was asked, or will not answer any more
  };

  [[nodiscard]] static std::span<std::byte const> bytes_of(head const& h) noexcept {
    return std::as_bytes(std::span(&h, 1));
  }

  // Empties the mailbox. @return true if there was anything in it
  bool read() {
    bool any = false;
    while (auto m = group_->poll(tag)) {
      any = true;
      auto const source = static_cast<std::size_t>(m->source);
      switch (parcel<E>::template head_of<head>(m->bytes).what) {
        case word::model: unread_[source] = std::move(m); [[fallthrough]];
        case word::refusal: peers_[source].owes = false; break;
        case word::request: peers_[source].asks = true; break;
        case word::goodbye:
          peers_[source] = {false, true};
          ++goodbyes_;
          break;
      }
    }
    return any;
  }

  // x ← mean of x and what arrived.
  void take_in(Site& at) {
    i64 parts = -1;
    for (auto& m : unread_) {
      if (!m) continue;
      if (parts < 0) parts = at.exec.norm(identity{}, in(carried_)).total.finite ? 1 : 0;
      parcel_.template open<head>(at.exec, m->bytes);
      take_into_mean(at.exec, carried_, parcel_.parts(), ++parts);
      if (tap_.how == gossip_how::pull) parts = 1;
      m.reset();
    }
    if (parts < 0) return;
    at.inner.publish(at.exec);
    if (tap_.at_merge == moments::reset) at.inner.reset_moments(at.exec);
  }

  // One snapshot for all who asked.
  void answer(Site& at) {
    std::span<std::byte const> bytes;
    head const refusal{word::refusal};
    for (std::size_t r = 0; r < peers_.size(); ++r) {
      if (!std::exchange(peers_[r].asks, false)) continue;
      if (bytes.empty()) bytes = snapshot(at) ? parcel_.seal(at.exec, head{word::model}) : bytes_of(refusal);
      group_->post(static_cast<int>(r), tag, bytes);
    }
  }

  // Asks a random one of those who owe nothing.
  void ask() {
    std::vector<int> free;
    for (int r = 0; r < group_->size(); ++r)
      if (r != group_->rank() && !peers_[static_cast<std::size_t>(r)].owes) free.push_back(r);
    if (free.empty()) return;
    int const other = free[static_cast<std::size_t>(
        random_below(static_cast<int>(free.size()), group_->rank(), tap_.seed, drawn_++))];
    peers_[static_cast<std::size_t>(other)].owes = true;
    head const request{word::request};
    group_->post(other, tag, bytes_of(request));
  }

  void tell_all(word what) {
    head const h{what};
    for (int r = 0; r < group_->size(); ++r)
      if (r != group_->rank()) group_->post(r, tag, bytes_of(h));
  }

  // Puts the model into the parcel. @return false if it is not finite
  bool snapshot(Site& at) {
    return at.exec.norm(weighted{1}, out(parcel_.parts()), in(carried_)).total.finite;
  }

  asynchronous_round tap_;
  tensor_list model_;    // masters where there are any, the parameters elsewhere
  tensor_list carried_;  // the model, and what goes with it
  bucket_plan plan_;
  parcel<E> parcel_;
  weighted_mean<E, C> mean_, buffers_;
  C* group_ = nullptr;
  std::vector<std::optional<message>> unread_;  // by sender
  std::vector<peer> peers_;
  int goodbyes_ = 0;
  i64 drawn_ = 0;
  i64 calls_ = 0;  // updates since the last post or request
};

}  // namespace limber::sync
