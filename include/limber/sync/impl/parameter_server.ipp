// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <limber/sync/impl/stage_base.hpp>
#include <limber/sync/parameter_server.hpp>
#include <limber/sync/tensor_message.hpp>

#include <algorithm>
#include <cstddef>
#include <string>
#include <utility>
#include <vector>

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
    // Weighted as for an all-reduce, so that equal shares are exact: b / planned.
    norm_report const& report = at.exec.norm(pack{weight_of(at, n) / at.planned_share, false},
                                             out(gradient_.parts()), inout(at.gradients));
    request_header q{.samples = n};
    if (n > 0) q.culprit = first_not_finite(at, report);
    bool const sends = n > 0 && q.culprit < 0;
    if (sends) q.weighted_square = weighted_square(at, n, square_of(at.inner, report));
    message const m = workers_.request(sends ? gradient_.pack(at.exec, q) : header_bytes(q));
    auto const a = tensor_message::header_of<reply_header>(m.bytes);
    if (m.bytes.size() > sizeof a) {  // else nothing is new
      reply_.unpack(at.exec, m.bytes);
      at.exec.each(copy{}, out(model_), in(reply_.parts()));
      at.inner.copy_to_parameters(at.exec);
    }
    outcome o{.calls = 1, .due = true};
    // Progress of this rank follows the server's.
    o.steps = a.steps - at.now.steps;
    o.samples = a.samples - at.now.samples;
    o.applied = o.steps > 0;
    o.culprit = std::max(q.culprit, a.culprit);
    o.skipped = o.culprit >= 0;
    o.culprit_rank = o.skipped ? group_.rank() : -1;
    o.own_samples = o.skipped ? 0 : n;
    own_ += o.own_samples;
    ++calls_;
    return o;
  }

  /// Replies to workers until all have left.
  void serve(training_context& at, before_update before, on_update after) override {
    start_serving(at);
    workers_.serve([&](message const& m, bool leaves) {
      if (!leaves) pending_.push_back({m.source, accept(at, m, before, after)});
      // Nobody is left who could complete the update.
      if (!workers_.any() && accumulated_ > 0) (void)update_by_sum(at, before, after);
      // Every worker that is not too far ahead gets its reply, in order of arrival.
      std::erase_if(pending_, [&](pending_reply const& p) {
        if (stage_.bound >= 0 && workers_.lead(p.worker) > stage_.bound) return false;
        reply(at, p);
        return true;
      });
    });
  }

  /// Ends the round for all: model, rule state and progress are the server's on every rank afterwards.
  outcome finish(training_context& at) override {
    workers_.finish();
    // As at a handshake: progress is the server's, except calls.
    i64 const calls = at.now.calls;
    auto const take = [&](tensor_view data) {
      at.exec.synchronize();
      if (data.length > 0) group_.broadcast(data, stage_.server).wait();
    };
    take(bytes_view(at.now, "parameter_server: progress"));
    at.now.calls = calls;
    for (auto const& v : at.inner.values()) take(v);
    at.inner.visit("", [&](std::string const& name, tensor_view v, bool) {
      v.name = name;
      take(v);
    });
    for (auto const& v : square_.parts) take(v);
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

  // The first tensor that is not finite, frozen ones left out; -1: none.
  [[nodiscard]] static i64 first_not_finite(training_context const& at, norm_report const& report) {
    for (std::size_t i = 0; i < report.tensors.size(); ++i)
      if (!report.tensors[i].finite && !at.inner.is_frozen(i)) return static_cast<i64>(i);
    return -1;
  }

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
  i64 accept(training_context& at, message const& m, before_update before, on_update after) {
    auto const q = tensor_message::header_of<request_header>(m.bytes);
    if (q.samples == 0) return -1;
    auto const b = static_cast<double>(q.samples);
    i64 const late = version_ - sent_versions_[static_cast<std::size_t>(m.source)];
    double const factor =
        stage_.staleness == staleness_rule::inverse ? 1 / static_cast<double>(late > 1 ? late : 1) : 1.0;
    server_log::entry const entry{m.source, late, q.samples, at.now.steps};
    // What was sent is g · b / planned; what is compensated is g itself.
    i64 culprit = q.culprit;
    if (culprit < 0) {
      gradient_.unpack(at.exec, m.bytes);
      if (compensates())
        culprit = compensate(at, m.source, at.planned_share / b);
      else if (stage_.softsync > 1)
        culprit = first_not_finite(at, at.exec.norm(identity{}, in(gradient_.parts())));
    }
    if (culprit >= 0) {
      after({.calls = 1, .due = true, .skipped = true, .culprit = culprit, .culprit_rank = m.source});
      return culprit;
    }
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
      if (accumulated_ == stage_.softsync) (void)update_by_sum(at, before, after);
    }
    if (culprit < 0 && stage_.log != nullptr) stage_.log->entries.push_back(entry);
    return culprit;
  }

  // `unit` times what was sent is the mean gradient.
  i64 compensate(training_context& at, int worker, double unit) {
    auto const& sent = sent_models_[static_cast<std::size_t>(worker)].parts;
    auto const run = [&](auto const& f, auto const&... squares) {
      return first_not_finite(at, at.exec.norm(f, out(compensated_.parts), in(gradient_.parts()), in(model_),
                                               in(sent), squares...));
    };
    double const lambda = stage_.compensation;
    if (!stage_.adaptive_compensation) return run(delay_compensation{unit, lambda});
    i64 const culprit =
        run(adaptive_delay_compensation{unit, lambda}, in(square_.parts), out(next_square_.parts));
    if (culprit < 0) std::swap(square_, next_square_);
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
  // The same by what was accumulated.
  i64 update_by_sum(training_context& at, before_update before, on_update after) {
    return update(at, sum_.parts, at.planned_share / count_, -1, before, after);
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

}  // namespace detail

LIMBER_FN limber::detail::owner<gradient_stage> parameter_server::start(training_context& at) const {
  (void)parts();  // checks the members
  return limber::detail::owner<gradient_stage>(new detail::parameter_server_state(*this, at));
}

LIMBER_FN exchange parameter_server::parts() const {
  expects(server >= 0, "parameter_server: server must be a rank, got ", server);
  expects(compensation >= 0 && math::finite(compensation),
          "parameter_server: compensation must be a number of at least 0, got ", compensation);
  expects(!adaptive_compensation || compensation > 0,
          "parameter_server: adaptive_compensation has no effect with compensation ", compensation);
  expects(bound >= -1, "parameter_server: bound must be at least 0, or -1 for none, got ", bound);
  expects(softsync >= 1, "parameter_server: softsync must be at least 1, got ", softsync);
  return exchange(*this);
}

}  // namespace limber::sync
