// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <limber/core/error.hpp>
#include <limber/fuse/functors.hpp>
#include <limber/sync/asynchronous_gossip.hpp>
#include <limber/sync/gossip.hpp>
#include <limber/sync/tensor_message.hpp>
#include <limber/sync/weighted_mean.hpp>

#include <cstddef>
#include <optional>
#include <span>
#include <utility>
#include <vector>

namespace limber::sync {

namespace detail {

/// The stage at work.
class asynchronous_round_state final : public model_stage {
  static constexpr i64 tag = asynchronous_round::tag;

 public:
  asynchronous_round_state(asynchronous_round stage, training_context& at)
      : stage_(std::move(stage)),
        model_(at.inner.model()),
        carried_(carried_by_gossip(at.inner, stage_.at_merge)),
        plan_(plan_buckets(carried_, without_wire(at.buckets))),
        message_(at.exec, layout_of(carried_)),
        mean_(at.exec, at.inner.values(), at.buckets),
        buffers_(at.exec, at.buffers, at.buckets) {
    unifies = false;  // models still differ after an exchange
  }

  void attach(training_context& at) override {
    group_ = at.comm;
    auto const n = static_cast<std::size_t>(group_.size());
    unread_.assign(n, {});
    peers_.assign(n, {});
    left_ = 0;
  }
  void start_round(training_context&) override { calls_ = 0; }
  void start_first_round(training_context&) override {}

  void count(i64, double) override { ++calls_; }
  /// What has arrived is read at every call.
  [[nodiscard]] bool due(training_context const&) const override { return true; }

  i64 run(training_context& at) override {
    read();
    average_received(at);
    reply(at);
    if (!stage_.when(calls_, at.now)) return 0;
    calls_ = 0;
    if (group_.size() == 1) return 0;
    if (stage_.how == gossip_how::pull)
      request_model();
    else if (snapshot(at))
      group_.post(random_other(group_.rank(), group_.size(), stage_.seed, drawn_++), tag,
                  message_.pack(at.exec, header{kind::model}));
    return 0;
  }

  /// Averages in everything that is in flight. All ranks call it, and may train on afterwards.
  void close(training_context& at) override {
    read();
    reply(at);
    header const leave{kind::leave};
    for (int r = 0; r < group_.size(); ++r)
      if (r != group_.rank()) group_.post(r, tag, header_bytes(leave));
    while (left_ < group_.size() - 1)
      if (!read()) group_.listen();
    average_received(at);
    for (auto& p : peers_) p = {};
    left_ = 0;
    calls_ = 0;
  }

  /// Writes the mean of all models to `values`, that of buffers to the buffers. A collective call.
  void average_into(training_context& at, tensor_list const& values) override {
    read();
    reply(at);
    at.exec.each(copy{}, out(values), in(model_));
    mean_.run(at.exec, group_, 1);
    buffers_.run(at.exec, group_, 1);
  }

  void visit(view_visitor shared, view_visitor) override {
    shared("drawn", tensor_view{reinterpret_cast<std::byte*>(&drawn_), 1, dtype::int64, {}});
  }

  [[nodiscard]] i64& calls_open() override { return calls_; }
  [[nodiscard]] i64 bytes() const override { return message_.bytes() + mean_.bytes() + buffers_.bytes(); }
  [[nodiscard]] bucket_plan const& plan() const override { return plan_; }
  [[nodiscard]] i64 period() const override { return stage_.when.period(); }
  void mix(fingerprint& h) const override {
    h.mix(static_cast<i64>(plan_.hash));
    h.mix(period());
    h.mix(static_cast<i64>(stage_.how));
    h.mix(static_cast<i64>(stage_.seed));
    h.mix(static_cast<i64>(stage_.at_merge));
  }

 private:
  enum class kind : std::int32_t { model, request, refusal, leave };
  struct header {
    kind what;
  };
  struct peer {
    bool requests = false;  // waits for a reply of ours
    bool busy = false;      // has not replied to our request, or has left and never will
  };

  // Empties the mailbox. @return true if there was anything in it
  bool read() {
    bool any = false;
    while (auto m = group_.poll(tag)) {
      any = true;
      auto const source = static_cast<std::size_t>(m->source);
      switch (tensor_message::header_of<header>(m->bytes).what) {
        case kind::model: unread_[source] = std::move(m); [[fallthrough]];
        case kind::refusal: peers_[source].busy = false; break;
        case kind::request: peers_[source].requests = true; break;
        case kind::leave:
          peers_[source] = {false, true};
          ++left_;
          break;
      }
    }
    return any;
  }

  // x ← mean of x and what was received.
  void average_received(training_context& at) {
    i64 parts = -1;
    for (auto& m : unread_) {
      if (!m) continue;
      if (parts < 0) parts = at.exec.norm(identity{}, in(carried_)).total.finite ? 1 : 0;
      message_.unpack<header>(at.exec, m->bytes);
      take_into_mean(at.exec, carried_, message_.parts(), ++parts);
      if (stage_.how == gossip_how::pull) parts = 1;
      m.reset();
    }
    if (parts < 0) return;
    at.inner.copy_to_parameters(at.exec);
    if (stage_.at_merge == moments::reset) at.inner.reset_moments(at.exec);
  }

  // One snapshot for all requests.
  void reply(training_context& at) {
    std::span<std::byte const> bytes;
    header const refusal{kind::refusal};
    for (std::size_t r = 0; r < peers_.size(); ++r) {
      if (!std::exchange(peers_[r].requests, false)) continue;
      if (bytes.empty())
        bytes = snapshot(at) ? message_.pack(at.exec, header{kind::model}) : header_bytes(refusal);
      group_.post(static_cast<int>(r), tag, bytes);
    }
  }

  // Sends a request to a random one of those that have replied to the last.
  void request_model() {
    std::vector<int> free;
    for (int r = 0; r < group_.size(); ++r)
      if (r != group_.rank() && !peers_[static_cast<std::size_t>(r)].busy) free.push_back(r);
    if (free.empty()) return;
    int const other = free[static_cast<std::size_t>(
        random_below(static_cast<int>(free.size()), group_.rank(), stage_.seed, drawn_++))];
    peers_[static_cast<std::size_t>(other)].busy = true;
    header const request{kind::request};
    group_.post(other, tag, header_bytes(request));
  }

  // Copies the model to the message. @return false if it is not finite
  bool snapshot(training_context& at) {
    return at.exec.norm(weighted{1}, out(message_.parts()), in(carried_)).total.finite;
  }

  asynchronous_round stage_;
  tensor_list model_;    // masters where there are any, the parameters elsewhere
  tensor_list carried_;  // the model, and what is averaged with it
  bucket_plan plan_;
  tensor_message message_;
  weighted_mean mean_, buffers_;
  communicator group_;
  std::vector<std::optional<message>> unread_;  // by sender
  std::vector<peer> peers_;
  int left_ = 0;  // ranks that have left
  i64 drawn_ = 0;
  i64 calls_ = 0;  // updates since the last post or request
};

}  // namespace detail

LIMBER_FN asynchronous_round::asynchronous_round(any_timing w, gossip_how h, std::uint64_t s, moments m)
    : when(std::move(w)), how(h), seed(s), at_merge(m) {
  expects(how != gossip_how::matching, "asynchronous_gossip: how must be pull or push, got matching");
}

LIMBER_FN limber::detail::owner<model_stage> asynchronous_round::start(training_context& at) const {
  return limber::detail::owner<model_stage>(new detail::asynchronous_round_state(*this, at));
}

LIMBER_FN exchange asynchronous_gossip::parts() const {
  return exchange(gradients(every{1}, alone{}), asynchronous_round(every{period}, how, seed, at_merge));
}

}  // namespace limber::sync
