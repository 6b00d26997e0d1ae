// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <limber/sync/impl/stage_base.hpp>
#include <limber/sync/parameter_server.hpp>
#include <limber/sync/tensor_message.hpp>

namespace limber::sync {

LIMBER_FN std::vector<i64> server_log::histogram() const {
  std::vector<i64> out;
  for (auto const& e : entries) {
    auto const k = static_cast<std::size_t>(e.staleness);
    if (k >= out.size()) out.resize(k + 1);
    ++out[k];
  }
  return out;
}

namespace detail {

/// The stage at work.
class parameter_server_state final : public gradient_stage_base {
  struct request_header {
    server_request what = server_request::exchange;
    i64 samples = 0;
    double weighted_square = 0;  // b‖g‖²
    i64 culprit = -1;            // first tensor that is not finite: nothing follows then
  };
  struct reply_header {
    i64 steps = 0;
    i64 samples = 0;
    i64 culprit = -1;  // refused by the server
  };
  struct pending_reply {
    int worker;
    i64 culprit;
  };

 public:
  parameter_server_state(parameter_server const& stage, training_context& at)
      : gradient_stage_base(at, at.buckets),
        stage_(stage),
        model_(at.inner.model()),
        gradient_(at.exec, plan_.where),
        reply_(at.exec, layout_of(model_)) {
    bytes_ += gradient_.bytes() + reply_.bytes();
    expects(!at.buckets.error_feedback,
            "parameter_server: buckets.error_feedback is for gradients that are summed over all workers; "
            "what this strategy casts is not made up for later");
    if (!stage_.adaptive_compensation) return;
    square_ = make(at, layout_of(at.gradients));
    next_square_ = make(at, layout_of(at.gradients));
  }

  void attach(training_context& at) override {
    group_ = at.comm;
    workers_.start(group_, stage_.server);
    calls_ = 0;
  }

  /// Requests without a reply are void, and gradients that the server has made no update of.
  i64 interrupt(training_context& at) override {
    at.exec.each(zero{}, out(at.gradients));
    calls_ = own_ = 0;
    return 0;
  }

  /// Sends the gradient of n samples, and takes the newest model.
  outcome step(training_context& at, i64 n) override {
    request_header const q = pack_gradient(at, n);
    bool const sends = q.samples > 0 && q.culprit < 0;
    reply_header const a =
        receive_model(at, workers_.request(sends ? gradient_.pack(at.exec, q) : header_bytes(q)));
    i64 const culprit = q.culprit > a.culprit ? q.culprit : a.culprit;
    outcome o = moved_to(at, a.steps, a.samples);
    o.calls = 1;
    o.due = true;
    o.skipped = culprit >= 0;
    o.culprit = culprit;
    o.culprit_rank = o.skipped ? group_.rank() : -1;
    o.own_samples = o.skipped ? 0 : n;
    own_ += o.own_samples;
    ++calls_;
    return o;
  }

  /// Replies to workers until all have left.
  void serve(training_context& at, before_update before, on_update after) override {
    start_serving(at);
    while (workers_.any()) {
      message const m = next_message(group_, request_tag);
      auto const q = tensor_message::header_of<request_header>(m.bytes);
      if (q.what == server_request::leave)
        workers_.leave(m.source);
      else
        pending_.push_back({m.source, accept(at, m, q, before, after)});
      // Nobody is left who could complete the update.
      if (!workers_.any() && accumulated_ > 0)
        (void)update(at, sum_.parts, at.planned_share / count_, -1, before, after);
      reply_within_bound(at);
    }
  }

  /// Ends the round for all: model, rule state and progress are the server's on every rank afterwards.
  outcome finish(training_context& at) override {
    workers_.finish(header_bytes(request_header{server_request::leave}));
    // As at a handshake: progress is the server's, except calls.
    i64 const calls = at.now.calls;
    broadcast_from_server(at, bytes_view(at.now, "parameter_server: progress"));
    at.now.calls = calls;
    for (auto const& v : at.inner.values()) broadcast_from_server(at, v);
    at.inner.visit("", [&](std::string const& name, tensor_view v, bool) {
      v.name = name;
      broadcast_from_server(at, v);
    });
    for (auto const& v : square_.parts) broadcast_from_server(at, v);
    buffers_.run(at.exec, group_, static_cast<double>(own_) / at.planned_share);
    calls_ = own_ = 0;
    return {};
  }

  /// Calls f(name, how, view) for the mean square: the server's while it serves, replicated after `finish`.
  void visit(piece_visitor f) override { visit_list(f, kept::replicated, "mean_square/", square_.parts); }

  void mix(fingerprint& h) const override {
    h.mix(static_cast<i64>(plan_.hash));
    for (auto const& t : model_) h.mix(static_cast<i64>(t.type));
    mix_all(h, buffers_.hash(), stage_.server, stage_.staleness, stage_.compensation,
            stage_.adaptive_compensation, stage_.bound, stage_.softsync);
  }

 private:
  [[nodiscard]] bool compensates() const noexcept { return stage_.compensation > 0; }
  // Progress of this rank follows the server's.
  [[nodiscard]] static outcome moved_to(training_context const& at, i64 steps, i64 samples) noexcept {
    outcome o;
    o.steps = steps - at.now.steps;
    o.samples = samples - at.now.samples;
    o.applied = o.steps > 0;
    return o;
  }

  // Collectives in `finish`: all ranks get the server's data.
  void broadcast_from_server(training_context& at, tensor_view data) {
    if (data.length == 0) return;
    at.exec.synchronize();
    group_.broadcast(data, stage_.server).wait();
  }

  // The first tensor that is not finite, frozen ones left out; -1: none.
  [[nodiscard]] static i64 first_not_finite(training_context const& at, norm_report const& report) {
    for (std::size_t i = 0; i < report.tensors.size(); ++i)
      if (!report.tensors[i].finite && !at.inner.is_frozen(i)) return static_cast<i64>(i);
    return -1;
  }

  // ---- a worker
  // Weighted as for an all-reduce, so that equal shares are exact: b / planned.
  [[nodiscard]] request_header pack_gradient(training_context& at, i64 n) {
    norm_report const& report = at.exec.norm(pack{weight_of(at, n) / at.planned_share, false},
                                             out(gradient_.parts()), inout(at.gradients));
    request_header q;
    q.samples = n;
    if (n == 0) return q;
    q.culprit = first_not_finite(at, report);
    if (q.culprit < 0) q.weighted_square = weighted_square(at, n, square_of(at.inner, report));
    return q;
  }

  reply_header receive_model(training_context& at, message const& m) {
    if (m.bytes.size() == sizeof(reply_header))
      return tensor_message::header_of<reply_header>(m.bytes);  // nothing new
    auto const a = reply_.unpack<reply_header>(at.exec, m.bytes);
    at.exec.each(copy{}, out(model_), in(reply_.parts()));
    at.inner.copy_to_parameters(at.exec);
    return a;
  }

  // ---- the server

  void start_serving(training_context& at) {
    auto const n = static_cast<std::size_t>(group_.size());
    version_ = accumulated_ = 0;
    count_ = weighted_squares_ = 0;
    sent_versions_.assign(n, 0);
    pending_.clear();
    pending_.reserve(n);
    if (stage_.softsync > 1 && sum_.parts.empty()) sum_ = make(at, layout_of(at.gradients));
    if (!compensates()) return;
    if (compensated_.parts.empty()) compensated_ = make(at, layout_of(at.gradients));
    while (sent_models_.size() < n) sent_models_.push_back(make(at, layout_of(model_)));
    for (auto const& s : sent_models_) at.exec.each(copy{}, out(s.parts), in(model_));
  }

  // Accumulates or applies what a worker sent. Returns the tensor for which it was refused, or -1.
  i64 accept(training_context& at, message const& m, request_header const& q, before_update before,
             on_update after) {
    workers_.count_request(m.source);
    if (q.samples == 0) return -1;
    if (q.culprit >= 0) return refuse(m.source, q.culprit, after);
    gradient_.unpack<request_header>(at.exec, m.bytes);
    auto const b = static_cast<double>(q.samples);
    i64 const late = version_ - sent_versions_[static_cast<std::size_t>(m.source)];
    double const factor =
        stage_.staleness == staleness_rule::inverse ? 1 / static_cast<double>(late > 1 ? late : 1) : 1.0;
    server_log::entry const entry{m.source, late, q.samples, at.now.steps};
    // What was sent is g · b / planned; what is compensated is g itself.
    i64 culprit = -1;
    if (compensates())
      culprit = compensate(at, m.source, at.planned_share / b);
    else if (stage_.softsync > 1)
      culprit = first_not_finite(at, at.exec.norm(identity{}, in(gradient_.parts())));
    if (culprit >= 0) return refuse(m.source, culprit, after);
    tensor_list const& g = compensates() ? compensated_.parts : gradient_.parts();
    count_ += b;
    weighted_squares_ += q.weighted_square;
    ++accumulated_;
    if (stage_.softsync == 1) {
      double const unit = compensates() ? 1.0 : at.planned_share / b;
      culprit = update(at, g, factor * unit, m.source, before, after);
    } else {
      scalar const weight = factor * (compensates() ? b / at.planned_share : 1.0);
      if (accumulated_ == 1)
        at.exec.each(scaled_copy{weight}, out(sum_.parts), in(g));
      else
        at.exec.each(add_weighted{weight}, inout(sum_.parts), in(g));
      if (accumulated_ == stage_.softsync)
        (void)update(at, sum_.parts, at.planned_share / count_, -1, before, after);
    }
    if (culprit < 0 && stage_.log != nullptr) stage_.log->entries.push_back(entry);
    return culprit;
  }

  // `unit` times what was sent is the mean gradient.
  i64 compensate(training_context& at, int worker, double unit) {
    auto const& sent = sent_models_[static_cast<std::size_t>(worker)].parts;
    if (!stage_.adaptive_compensation)
      return first_not_finite(
          at, at.exec.norm(delay_compensation{unit, stage_.compensation}, out(compensated_.parts),
                           in(gradient_.parts()), in(model_), in(sent)));
    i64 const culprit =
        first_not_finite(at, at.exec.norm(adaptive_delay_compensation{unit, stage_.compensation},
                                          out(compensated_.parts), in(gradient_.parts()), in(model_),
                                          in(sent), in(square_.parts), out(next_square_.parts)));
    if (culprit < 0) std::swap(square_, next_square_);
    return culprit;
  }

  static i64 refuse(int worker, i64 culprit, on_update after) {
    after(outcome{.calls = 1, .due = true, .skipped = true, .culprit = culprit, .culprit_rank = worker});
    return culprit;
  }

  // Returns the tensor for which the update was refused, or -1.
  i64 update(training_context& at, tensor_list const& g, double scale, int source, before_update before,
             on_update after) {
    before();
    outcome o{.calls = std::exchange(accumulated_, 0), .due = true};
    o.contributions = static_cast<double>(o.calls);
    o.weighted_squares = std::exchange(weighted_squares_, 0);
    enter_result(o, at.inner.step(at.exec, g, at.rate, scale, false), source);
    double const samples = std::exchange(count_, 0);
    o.samples = o.applied ? static_cast<i64>(samples) : 0;
    version_ += o.applied ? 1 : 0;
    after(o);
    return o.culprit;
  }

  // Replies to every worker that is not too far ahead, in order of arrival.
  void reply_within_bound(training_context& at) {
    std::erase_if(pending_, [&](pending_reply const& p) {
      if (stage_.bound >= 0 && workers_.lead(p.worker) > stage_.bound) return false;
      reply(at, p);
      return true;
    });
  }

  void reply(training_context& at, pending_reply const& p) {
    auto const k = static_cast<std::size_t>(p.worker);
    reply_header const a{at.now.steps, at.now.samples, p.culprit};
    if (sent_versions_[k] == version_) return workers_.reply(p.worker, header_bytes(a));
    sent_versions_[k] = version_;
    if (compensates()) at.exec.each(copy{}, out(sent_models_[k].parts), in(model_));
    at.exec.each(copy{}, out(reply_.parts()), in(model_));
    workers_.reply(p.worker, reply_.pack(at.exec, a));
  }

  parameter_server stage_;
  tensor_list model_;  // masters where there are any, the parameters elsewhere
  tensor_message gradient_, reply_;
  i64 own_ = 0;  // its samples in them

  active_workers workers_;
  std::vector<pending_reply> pending_;
  std::vector<i64> sent_versions_;  // version of the model that each worker was sent last
  std::vector<slab> sent_models_;   // and that model, for compensation
  slab sum_, compensated_, square_, next_square_;
  i64 version_ = 0;      // updates since it began to serve
  i64 accumulated_ = 0;  // gradients since the last update
  double count_ = 0;     // samples in them
  double weighted_squares_ = 0;
};

// The members are what they can be.
inline void check(parameter_server const& s) {
  expects(s.server >= 0, "parameter_server: server must be a rank, got ", s.server);
  expects(s.compensation >= 0 && math::finite(s.compensation),
          "parameter_server: compensation must be a number of at least 0, got ", s.compensation);
  expects(!s.adaptive_compensation || s.compensation > 0,
          "parameter_server: adaptive_compensation has no effect with compensation ", s.compensation);
  expects(s.bound >= -1, "parameter_server: bound must be at least 0, or -1 for none, got ", s.bound);
  expects(s.softsync >= 1, "parameter_server: softsync must be at least 1, got ", s.softsync);
}

}  // namespace detail

LIMBER_FN limber::detail::owner<gradient_stage> parameter_server::start(training_context& at) const {
  detail::check(*this);
  return limber::detail::owner<gradient_stage>(new detail::parameter_server_state(*this, at));
}

LIMBER_FN exchange parameter_server::parts() const {
  detail::check(*this);
  return exchange(*this);
}

}  // namespace limber::sync
