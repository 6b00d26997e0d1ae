// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <limber/sync/asynchronous_gossip.hpp>
#include <limber/sync/impl/gossip.ipp>
#include <limber/sync/tensor_message.hpp>

namespace limber::sync {

namespace detail {

/// The stage at work.
class asynchronous_gossip_state final : public carrying_stage {
  static constexpr i64 tag = asynchronous_gossip::tag;

 public:
  asynchronous_gossip_state(asynchronous_gossip const& stage, training_context& at)
      : carrying_stage(at, stage), message_(at.exec, layout_of(carried_)) {
    bytes_ += message_.bytes();
  }

  void attach(training_context& at) override {
    group_ = at.comm;
    peers_.assign(static_cast<std::size_t>(group_.size()), {});
    left_ = 0;
  }
  /// What has arrived is read at every call.
  [[nodiscard]] bool due(training_context const&) const override { return true; }

  i64 run(training_context& at) override {
    read();
    average_received(at);
    reply(at);
    if (!when_(calls_, at.now)) return 0;
    calls_ = 0;
    if (group_.size() == 1) return 0;
    if (how_ == gossip_how::pull)
      request_model();
    else if (snapshot(at))
      group_.post(random_other(group_.rank(), group_.size(), seed_, drawn_++), tag,
                  message_.pack(at.exec, kind::model));
    return 0;
  }

  /// Averages in everything that is in flight. All ranks call it, and may train on afterwards.
  void close(training_context& at) override {
    read();
    reply(at);
    kind const leave = kind::leave;
    for (int r = 0; r < group_.size(); ++r)
      if (r != group_.rank()) group_.post(r, tag, header_bytes(leave));
    while (left_ < group_.size() - 1)
      if (!read()) group_.listen();
    average_received(at);
    attach(at);
    calls_ = 0;
  }

  /// Writes the mean of all models to `values`, that of buffers to the buffers. A collective call.
  void average_into(training_context& at, tensor_list const& values) override {
    read();
    reply(at);
    carrying_stage::average_into(at, values);
  }

  void visit(kept shared, piece_visitor f) override { f("drawn", shared, number_view(drawn_)); }

 private:
  enum class kind : std::int32_t { model, request, refusal, leave };
  struct peer {
    bool requests = false;         // waits for a reply of ours
    bool busy = false;             // has not replied to our request, or has left and never will
    std::optional<message> model;  // that it sent last, not averaged in yet
  };

  // Empties the mailbox. @return true if there was anything in it
  bool read() {
    bool any = false;
    while (auto m = group_.poll(tag)) {
      any = true;
      peer& from = peers_[static_cast<std::size_t>(m->source)];
      switch (tensor_message::header_of<kind>(m->bytes)) {
        case kind::model: from.model = std::move(m); [[fallthrough]];
        case kind::refusal: from.busy = false; break;
        case kind::request: from.requests = true; break;
        case kind::leave:
          from.requests = false;
          from.busy = true;
          ++left_;
          break;
      }
    }
    return any;
  }

  // x ← mean of x and what was received.
  void average_received(training_context& at) {
    i64 parts = -1;
    for (auto& p : peers_) {
      if (!p.model) continue;
      if (parts < 0) parts = at.exec.norm(identity{}, in(carried_)).total.finite ? 1 : 0;
      message_.unpack(at.exec, p.model->bytes);
      take_into_mean(at, message_.parts(), ++parts);
      if (how_ == gossip_how::pull) parts = 1;
      p.model.reset();
    }
    if (parts >= 0) model_merged(at);
  }

  // One snapshot for all requests.
  void reply(training_context& at) {
    std::span<std::byte const> bytes;
    kind const refusal = kind::refusal;
    for (std::size_t r = 0; r < peers_.size(); ++r) {
      if (!std::exchange(peers_[r].requests, false)) continue;
      if (bytes.empty()) bytes = snapshot(at) ? message_.pack(at.exec, kind::model) : header_bytes(refusal);
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
        random_below(static_cast<int>(free.size()), group_.rank(), seed_, drawn_++))];
    peers_[static_cast<std::size_t>(other)].busy = true;
    kind const request = kind::request;
    group_.post(other, tag, header_bytes(request));
  }

  // Copies the model to the message. @return false if it is not finite
  bool snapshot(training_context& at) {
    return at.exec.norm(weighted{1}, out(message_.parts()), in(carried_)).total.finite;
  }

  tensor_message message_;
  std::vector<peer> peers_;
  int left_ = 0;   // ranks that have left
  i64 drawn_ = 0;  // partners
};

}  // namespace detail

LIMBER_FN limber::detail::owner<model_stage> asynchronous_gossip::start(training_context& at) const {
  (void)parts();  // checks the members
  return limber::detail::owner<model_stage>(new detail::asynchronous_gossip_state(*this, at));
}

LIMBER_FN exchange asynchronous_gossip::parts() const {
  expects(how != gossip_how::matching, "asynchronous_gossip: how must be pull or push, got matching");
  return exchange(gradients(every{1}, alone{}), *this);
}

}  // namespace limber::sync
