// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <limber/fuse/strategy_functors.hpp>
#include <limber/sync/impl/gossip.ipp>
#include <limber/sync/push_sum.hpp>
#include <limber/sync/tensor_message.hpp>

#include <bit>

namespace limber::sync {

LIMBER_FN int exponential_step(int size, i64 round) {
  if (size < 2) return 0;
  auto const exponents = static_cast<i64>(std::bit_width(static_cast<unsigned>(size - 1)));
  return 1 << (round % exponents);
}

namespace detail {

/// The stage at work. The model is z.
class push_sum_state final : public gossiping_stage {
 public:
  push_sum_state(push_sum stage, training_context& at)
      : gossiping_stage(at, every{1}, moments::keep),
        stage_(stage),
        // Without overlap blocking messages do, and need no copy on the host.
        posts_((at.comm.can() & can_send_receive) == 0 || stage.overlap > 0),
        x_(make(at, layout_of(model_))),
        weight_(at.exec.share<double>(1)) {
    expects((at.comm.can() & can_post) != 0 || stage_.overlap == 0, "push_sum: overlap ", stage_.overlap,
            " needs a collective that models limber::mailbox");
    if (posts_) {
      for (auto* m : {&kept_message_, &received_message_})
        bytes_ += m->emplace(at.exec, layout_of(model_)).bytes();
      kept_ = kept_message_->parts();
      received_ = received_message_->parts();
    } else {
      kept_slab_ = make(at, plan_.where);
      received_slab_ = make(at, plan_.where);
      kept_ = kept_slab_.parts;
      received_ = received_slab_.parts;
      sent_weights_ = at.exec.share<double>(2);
    }
  }

  /// Starts where the model is, with weight 1.
  void start_round(training_context& at) override {
    started_ = 1;
    first_valid_ = round_;
    at.exec.each(copy{}, out(x_.parts), in(model_));
    set_weight(at, 1);
  }

  /// x, w and z have become means of the others'.
  void join() override { consistent_ = false; }

  /// The first start of all; later x and w are state, and what was in flight is here or lost.
  void start_first_round(training_context& at) override {
    bool const first = started_ == 0;
    if (first) start_round(at);
    at.exec.collect(weight_);
    // A joiner has the mean of all x, w and z; the last is not the ratio of the others.
    if (!std::exchange(consistent_, true) && !first) update_model(at);
    awaited_ = round_;
  }

  /// No round is ever left open.
  void count(i64, double) override {}
  [[nodiscard]] bool due(training_context const&) const override { return true; }

  /// One round.
  i64 run(training_context& at) override {
    int const size = group_.size();
    if (size == 1) {
      start_round(at);  // nobody else has a part of the sums
      return 0;
    }
    halve(at);
    int const step = exponential_step(size, round_);
    if (posts_)
      exchange_by_post(at, (group_.rank() + step) % size);
    else
      exchange_by_send(at, step);
    at.inner.copy_to_parameters(at.exec);
    return 0;
  }

  /// Receives what is in flight. All ranks have made equally many calls.
  void close(training_context& at) override {
    while (group_ && awaited_ < round_) {
      double const w = receive_message(at);
      at.exec.each(accumulate{}, inout(x_.parts), in(received_));
      set_weight(at, weight_[0] + w);
      update_model(at);  // the next message may never arrive
    }
  }

  void visit(kept shared, piece_visitor f) override {
    f("pinned", shared, number_view(started_));
    f("round", shared, number_view(round_));
    f("w", shared, weight_view(weight_, 0));
    visit_list(f, shared, "x/", x_.parts);
  }
  void mix(fingerprint& h) const override { mix_all(h, plan_.hash, stage_.overlap); }

 private:
  /// `evaluate` shows Σ x / Σ w.
  [[nodiscard]] double weight_in_mean() const override { return weight_[0]; }

  [[nodiscard]] static tensor_view weight_view(shared_array<double> const& w, i64 k) noexcept {
    return {reinterpret_cast<std::byte*>(w.device + k), 1, dtype::f64, "push_sum: weight"};
  }
  void set_weight(training_context& at, double w) {
    weight_[0] = w;
    at.exec.publish(weight_);
  }

  // z ← x / w
  void update_model(training_context& at) {
    if (weight_[0] > 0) at.exec.each(ratio{weight_[0]}, out(model_), in(x_.parts));
    at.inner.copy_to_parameters(at.exec);
  }

  // kept ← half of x after the update, w ← half of it. What is kept is also what is sent.
  void halve(training_context& at) {
    double const w = weight_[0];
    bool const finite =
        w == 1 ? at.exec.norm(weighted{0.5}, out(kept_), in(model_)).total.finite
               : w > 0 && at.exec.norm(follow{0.5, w}, out(kept_), in(x_.parts), in(model_)).total.finite;
    half_ = w / 2;
    if (finite || at.exec.norm(weighted{0.5}, out(kept_), in(x_.parts)).total.finite) return;
    at.exec.each(zero{}, out(kept_));  // x is lost too: this rank restarts from what it receives
    half_ = 0;
  }

  // x, w ← what is kept and what was received with weight w
  void combine(training_context& at, double w) {
    set_weight(at, half_ + w);
    if (weight_[0] > 0)
      at.exec.each(join_halves{weight_[0]}, out(x_.parts), out(model_), in(kept_), in(received_));
  }

  void exchange_by_send(training_context& at, int step) {
    int const own = group_.rank(), size = group_.size();
    std::vector<crossing> all;
    for (int r = 0; r < size; ++r) all.push_back({r, (r + step) % size});
    sent_weights_[0] = half_;
    at.exec.publish(sent_weights_);
    at.exec.synchronize();
    for (auto const& m : itinerary(own, size, all)) {
      if (m.from == own) {
        for (auto const& b : plan_.buckets) group_.send(bucket_view(kept_slab_, b), m.to);
        group_.send(weight_view(sent_weights_, 0), m.to);
      } else {
        for (auto const& b : plan_.buckets) group_.recv(bucket_view(received_slab_, b), m.from);
        group_.recv(weight_view(sent_weights_, 1), m.from);
      }
    }
    at.exec.collect(sent_weights_);
    awaited_ = ++round_;
    combine(at, sent_weights_[1]);
  }

  void exchange_by_post(training_context& at, int target) {
    group_.post(target, push_sum::tag + round_, kept_message_->pack(at.exec, half_));
    if (awaited_ <= round_++ - stage_.overlap) return combine(at, receive_message(at));
    at.exec.each(copy{}, out(x_.parts), in(kept_));
    set_weight(at, half_);
    update_model(at);
  }

  // Waits for the oldest message that is missing. @return its weight
  double receive_message(training_context& at) {
    message const m = next_message(group_, push_sum::tag + awaited_);
    received_message_->unpack(at.exec, m.bytes);
    if (awaited_++ >= first_valid_) return tensor_message::header_of<double>(m.bytes);
    at.exec.each(zero{}, out(received_));
    return 0;
  }

  push_sum stage_;
  bool posts_;  // by mailbox, not by send and recv
  slab x_, kept_slab_, received_slab_;
  std::optional<tensor_message> kept_message_, received_message_;
  tensor_list kept_, received_;                 // in the slabs or messages
  shared_array<double> weight_, sent_weights_;  // w; and those of the message sent and the one received
  double half_ = 0;                             // of w, in this round
  bool consistent_ = false;                     // z is x / w
  i64 started_ = 0;                             // x and w were set
  i64 awaited_ = 0;                             // the oldest round of which no message was received
  i64 first_valid_ = 0;  // messages of earlier rounds are of sums that a merge has replaced
};

}  // namespace detail

LIMBER_FN limber::detail::owner<model_stage> push_sum::start(training_context& at) const {
  (void)parts();  // checks the members
  return limber::detail::owner<model_stage>(new detail::push_sum_state(*this, at));
}

LIMBER_FN exchange push_sum::parts() const {
  expects(overlap >= 0, "push_sum: overlap must not be negative, got ", overlap);
  return exchange(gradients(every{1}, alone{}), *this);
}

}  // namespace limber::sync
