// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The tap before the rule, with a server: gradients are applied as they arrive.

#include <limber/core/fingerprint.hpp>
#include <limber/core/kinds.hpp>
#include <limber/core/math.hpp>
#include <limber/fuse/functors.hpp>
#include <limber/fuse/updater.hpp>
#include <limber/sync/parcel.hpp>
#include <limber/sync/server.hpp>
#include <limber/sync/site.hpp>
#include <limber/sync/staleness.hpp>
#include <limber/sync/weighted_mean.hpp>
#include <limber/sync/when.hpp>

#include <algorithm>
#include <utility>
#include <vector>

namespace limber::sync {

/// Gradients go to a server, which updates as they arrive and answers with its model.
///
///     ḡ = Σ f(τᵢ) bᵢ gᵢ / Σ bᵢ      over `softsync` gradients in order of arrival, whoever sent them
///     w ← rule(w, ḡ)                at the server; f is 1 or 1/max(1, τ)
///
/// Staleness  τ: updates that the server has made since it gave that worker the model that g was taken at.
/// Bound      no worker is answered while it has made more than `bound` calls more than the slowest that
///            still trains, calls without samples included.
/// Zero       a call without samples, or with a gradient that is not finite, applies nothing; its answer
///            brings the newest model all the same.
/// Control    samples and Σ b‖g‖² travel in the message's head, the server's progress with the answer.
struct server_gradients {
  int server = 0;
  staleness_rule staleness = staleness_rule::none;
  double compensation = 0;
  bool adaptive_compensation = false;
  i64 bound = -1;
  i64 softsync = 1;
  server_log* log = nullptr;
  every when{1};

  /// @throws std::invalid_argument naming what cannot be
  [[nodiscard]] server_gradients checked() const {
    expects(server >= 0, "parameter_server: server must be a rank, got ", server);
    expects(compensation >= 0 && math::finite(compensation),
            "parameter_server: compensation must be a number of at least 0, got ", compensation);
    expects(!adaptive_compensation || compensation > 0,
            "parameter_server: adaptive_compensation has no effect with compensation ", compensation);
    expects(bound >= -1, "parameter_server: bound must be at least 0, or -1 for none, got ", bound);
    expects(softsync >= 1, "parameter_server: softsync must be at least 1, got ", softsync);
    return *this;
  }

  /// Gradients in one update.
  [[nodiscard]] i64 contributors(i64) const noexcept { return softsync; }

  template <class Site>
  class state;
};

/// The tap at work on a site.
///
/// Memory   every rank: a gradient and a model on the executor's side and on the host's. The server: with
///          softsync > 1 a gradient more; with compensation the compensated gradient and a model for each
///          worker. Adaptive: two gradients more on every rank, for the mean square.
template <class Site>
class server_gradients::state {
  using E = typename Site::executor_type;
  using C = typename Site::comm_type;
  static_assert(mailbox<C>, "limber: a parameter server needs a collective that models limber::mailbox");

  struct question {
    wish what = wish::exchange;
    i64 samples = 0;
    double weighted_square = 0;  // b‖g‖²
    i64 culprit = -1;            // first tensor that is not finite: nothing follows then
  };
  struct answer {
    i64 steps = 0;
    i64 samples = 0;
    i64 culprit = -1;  // refused by the server
  };
  struct waiting {
    int worker;
    i64 culprit;
  };

 public:
  static constexpr bool agreed = true;  ///< there is one model, which all get
  static constexpr bool paced = false;

  state(server_gradients tap, Site& at)
      : tap_(tap.checked()),
        model_(at.inner.model()),
        plan_(plan_buckets(at.gradients, at.buckets, at.use_order)),
        gradient_(at.exec, plan_.where),
        reply_(at.exec, layout_of(model_)),
        buffers_(at.exec, at.buffers, at.buckets) {
    expects(!at.buckets.error_feedback,
            "parameter_server: buckets.error_feedback is for gradients that are summed over all workers; "
            "what this strategy casts is not made up for later");
    if (!tap_.adaptive_compensation) return;
    square_ = at.exec.make(layout_of(at.gradients));
    next_square_ = at.exec.make(layout_of(at.gradients));
  }

  void attach(Site& at) {
    group_ = at.comm;
    workers_.start(group_->size(), tap_.server);
    calls_ = 0;
  }

  /// What was sent and not answered is void, and what the server had made no update of.
  i64 interrupt(Site& at) {
    at.exec.each(zero{}, out(at.gradients));
    calls_ = own_ = 0;
    return 0;
  }

  /// Sends the gradient of n samples, and takes the newest model.
  outcome step(Site& at, i64 n) {
    question const q = fold(at, n);
    bool const sends = q.samples > 0 && q.culprit < 0;
    group_->post(tap_.server, question_tag, sends ? gradient_.seal(at.exec, q) : only(q));
    answer const a = take(at, next_message(*group_, answer_tag));
    i64 const culprit = std::max(q.culprit, a.culprit);
    outcome o = moved_to(at, a.steps, a.samples);
    o.calls = 1;
    o.due = true;
    o.skipped = culprit >= 0;
    o.culprit = culprit;
    o.culprit_rank = o.skipped ? group_->rank() : -1;
    o.own_samples = o.skipped ? 0 : n;
    own_ += o.own_samples;
    ++calls_;
    return o;
  }

  /// Answers workers until all have said goodbye.
  template <class Before, class After>
  void serve(Site& at, Before const& before, After const& after) {
    open(at);
    while (workers_.anybody()) {
      message const m = next_message(*group_, question_tag);
      auto const q = parcel<E>::template head_of<question>(m.bytes);
      if (q.what == wish::leave)
        workers_.leave(m.source);
      else
        waiting_.push_back({m.source, consider(at, m, q, before, after)});
      // Nobody is left who could fill the group.
      if (!workers_.anybody() && folded_ > 0)
        (void)update(at, sum_.parts, at.planned_share / count_, -1, before, after);
      release(at);
    }
  }

  /// Ends the round for all: model, rule state and progress are the server's on every rank afterwards.
  outcome finish(Site& at) {
    if (serves())
      workers_.dismiss(*group_,
                       [](message const& m) { return parcel<E>::template head_of<question>(m.bytes).what; });
    else
      group_->post(tap_.server, question_tag, only(question{wish::leave}));
    // As at a handshake: progress is the server's, calls apart.
    i64 const calls = at.now.calls;
    hand(at, {reinterpret_cast<std::byte*>(&at.now), static_cast<i64>(sizeof at.now), dtype::uint8,
              "parameter_server: progress"});
    at.now.calls = calls;
    for (auto const& v : at.inner.values()) hand(at, v);
    at.inner.visit("", [&](std::string const& name, tensor_view v, bool) {
      v.name = name;
      hand(at, v);
    });
    for (auto const& v : square_.parts) hand(at, v);
    buffers_.run(at.exec, *group_, static_cast<double>(own_) / at.planned_share);
    workers_.start(group_->size(), tap_.server);
    calls_ = 0;
    own_ = 0;
    return {};
  }

  /// Calls f(name, view, how) for the mean square: the server's while it serves, alike after `finish`.
  template <class F>
  void visit(F const& f) {
    for (auto const& t : square_.parts) f(text("mean_square/", t.name), t, kept::alike);
  }

  [[nodiscard]] i64& calls_open() noexcept { return calls_; }
  [[nodiscard]] bool open() const noexcept { return calls_ > 0; }
  [[nodiscard]] bucket_plan const& plan() const noexcept { return plan_; }
  [[nodiscard]] i64 period() const { return 1; }
  [[nodiscard]] i64 bytes() const noexcept {
    i64 sum = gradient_.bytes() + reply_.bytes() + buffers_.bytes() + sum_.bytes + compensated_.bytes +
              square_.bytes + next_square_.bytes;
    for (auto const& s : given_) sum += s.bytes;
    return sum;
  }
  void mix(fingerprint& h) const {
    h.mix(static_cast<i64>(plan_.hash));
    for (auto const& t : model_) h.mix(static_cast<i64>(t.type));
    h.mix(static_cast<i64>(buffers_.hash()));
    h.mix(static_cast<i64>(tap_.server));
    h.mix(static_cast<i64>(tap_.staleness));
    h.mix(tap_.compensation);
    h.mix(static_cast<i64>(tap_.adaptive_compensation));
    h.mix(tap_.bound);
    h.mix(tap_.softsync);
  }

 private:
  [[nodiscard]] bool serves() const { return group_->rank() == tap_.server; }
  [[nodiscard]] bool compensates() const noexcept { return tap_.compensation > 0; }
  // Progress of this rank follows the server's.
  [[nodiscard]] static outcome moved_to(Site const& at, i64 steps, i64 samples) noexcept {
    outcome o;
    o.steps = steps - at.now.steps;
    o.samples = samples - at.now.samples;
    o.applied = o.steps > 0;
    return o;
  }

  // Collectives in `finish`: everybody gets the server's.
  void hand(Site& at, tensor_view data) {
    if (data.length == 0) return;
    at.exec.wait(at.exec.record());
    group_->broadcast(data, tap_.server).wait();
  }

  // The first tensor that is not finite, frozen ones left out; -1: none.
  [[nodiscard]] static i64 first_bad(Site const& at, norm_report const& report) {
    for (std::size_t i = 0; i < report.tensors.size(); ++i)
      if (!report.tensors[i].finite && !at.inner.is_frozen(i)) return static_cast<i64>(i);
    return -1;
  }

  // ---- a worker
  // Weighed as an all-reduce weighs, so that equal shares are exact: b / planned.
  [[nodiscard]] question fold(Site& at, i64 n) {
    auto const b = static_cast<double>(n);
    bool const mean = at.gradient == gradient_is::mean;
    double const weight = (mean ? b : n > 0 ? 1.0 : 0.0) / at.planned_share;
    norm_report const& report =
        at.exec.norm(pack{weight, false}, out(gradient_.parts()), inout(at.gradients));
    question q;
    q.samples = n;
    if (n == 0) return q;
    q.culprit = first_bad(at, report);
    double square = 0;
    for (std::size_t i = 0; i < report.tensors.size(); ++i)
      if (!at.inner.is_frozen(i)) square += report.tensors[i].square;
    q.weighted_square = q.culprit < 0 ? (mean ? b : 1 / b) * square : 0;
    return q;
  }

  answer take(Site& at, message const& m) {
    if (m.bytes.size() == sizeof(answer)) return parcel<E>::template head_of<answer>(m.bytes);  // nothing new
    auto const a = reply_.template open<answer>(at.exec, m.bytes);
    at.exec.each(copy{}, out(model_), in(reply_.parts()));
    at.inner.publish(at.exec);
    return a;
  }

  // ---- the server

  void open(Site& at) {
    auto const n = static_cast<std::size_t>(group_->size());
    version_ = folded_ = 0;
    count_ = weighted_squares_ = 0;
    known_.assign(n, 0);
    waiting_.clear();
    waiting_.reserve(n);
    if (tap_.softsync > 1 && sum_.parts.empty()) sum_ = at.exec.make(layout_of(at.gradients));
    if (!compensates()) return;
    if (compensated_.parts.empty()) compensated_ = at.exec.make(layout_of(at.gradients));
    while (given_.size() < n) given_.push_back(at.exec.make(layout_of(model_)));
    for (auto const& s : given_) at.exec.each(copy{}, out(s.parts), in(model_));
  }

  // Folds in what a worker sent. Returns the tensor for which it was refused, or -1.
  template <class Before, class After>
  i64 consider(Site& at, message const& m, question const& q, Before const& before, After const& after) {
    workers_.ask(m.source);
    if (q.samples == 0) return -1;
    if (q.culprit >= 0) return refuse(m.source, q.culprit, after);
    gradient_.template open<question>(at.exec, m.bytes);
    auto const b = static_cast<double>(q.samples);
    i64 const late = version_ - known_[static_cast<std::size_t>(m.source)];
    double const factor =
        tap_.staleness == staleness_rule::inverse ? 1 / static_cast<double>(std::max<i64>(1, late)) : 1.0;
    server_log::entry const entry{m.source, late, q.samples, at.now.steps};
    // What crossed is g · b / planned; what is compensated is g itself.
    i64 bad = -1;
    if (compensates())
      bad = compensate(at, m.source, at.planned_share / b);
    else if (tap_.softsync > 1)
      bad = first_bad(at, at.exec.norm(identity{}, in(gradient_.parts())));
    if (bad >= 0) return refuse(m.source, bad, after);
    tensor_list const& g = compensates() ? compensated_.parts : gradient_.parts();
    count_ += b;
    weighted_squares_ += q.weighted_square;
    ++folded_;
    if (tap_.softsync == 1) {
      double const unit = compensates() ? 1.0 : at.planned_share / b;
      bad = update(at, g, factor * unit, m.source, before, after);
    } else {
      scalar const weight = factor * (compensates() ? b / at.planned_share : 1.0);
      if (folded_ == 1)
        at.exec.each(scaled_copy{weight}, out(sum_.parts), in(g));
      else
        at.exec.each(add_weighted{weight}, inout(sum_.parts), in(g));
      if (folded_ == tap_.softsync)
        (void)update(at, sum_.parts, at.planned_share / count_, -1, before, after);
    }
    if (bad < 0 && tap_.log != nullptr) tap_.log->entries.push_back(entry);
    return bad;
  }

  // `unit` times what crossed is the mean gradient.
  i64 compensate(Site& at, int worker, double unit) {
    auto const& given = given_[static_cast<std::size_t>(worker)].parts;
    if (!tap_.adaptive_compensation)
      return first_bad(at, at.exec.norm(delay_compensation{unit, tap_.compensation}, out(compensated_.parts),
                                        in(gradient_.parts()), in(model_), in(given)));
    i64 const bad = first_bad(at, at.exec.norm(adaptive_delay_compensation{unit, tap_.compensation},
                                               out(compensated_.parts), in(gradient_.parts()), in(model_),
                                               in(given), in(square_.parts), out(next_square_.parts)));
    if (bad < 0) std::swap(square_, next_square_);
    return bad;
  }

  template <class After>
  static i64 refuse(int worker, i64 culprit, After const& after) {
    after(outcome{.calls = 1, .due = true, .skipped = true, .culprit = culprit, .culprit_rank = worker});
    return culprit;
  }

  // Returns the tensor for which the update was refused, or -1.
  template <class Before, class After>
  i64 update(Site& at, tensor_list const& g, double scale, int source, Before const& before,
             After const& after) {
    before();
    verdict const v = at.inner.template step<false>(at.exec, g, at.rate, scale);
    outcome o{.calls = std::exchange(folded_, 0), .due = true};
    o.contributions = static_cast<double>(o.calls);
    o.weighted_squares = std::exchange(weighted_squares_, 0);
    o.mean_square = v.mean_square;
    o.applied = v.applied;
    o.skipped = !v.applied;
    o.culprit = v.applied ? -1 : v.culprit;
    o.culprit_rank = v.applied ? -1 : source;
    double const count = std::exchange(count_, 0);
    o.samples = v.applied ? static_cast<i64>(count) : 0;
    version_ += v.applied ? 1 : 0;
    after(o);
    return o.culprit;
  }

  // Answers everybody who is not too far ahead, in order of arrival.
  void release(Site& at) {
    std::erase_if(waiting_, [&](waiting const& w) {
      if (tap_.bound >= 0 && workers_.lead(w.worker) > tap_.bound) return false;
      give(at, w);
      return true;
    });
  }

  void give(Site& at, waiting const& w) {
    auto const k = static_cast<std::size_t>(w.worker);
    answer const a{at.now.steps, at.now.samples, w.culprit};
    if (known_[k] == version_) return group_->post(w.worker, answer_tag, only(a));
    known_[k] = version_;
    if (compensates()) at.exec.each(copy{}, out(given_[k].parts), in(model_));
    at.exec.each(copy{}, out(reply_.parts()), in(model_));
    group_->post(w.worker, answer_tag, reply_.seal(at.exec, a));
  }

  server_gradients tap_;
  tensor_list model_;  // masters where there are any, the parameters elsewhere
  bucket_plan plan_;
  parcel<E> gradient_, reply_;
  weighted_mean<E, C> buffers_;
  C* group_ = nullptr;
  i64 calls_ = 0;  // of this worker since the last finish
  i64 own_ = 0;    // its samples in them

  roster workers_;
  std::vector<waiting> waiting_;  // for an answer
  std::vector<i64> known_;        // version that each worker was given last
  std::vector<slab> given_;       // and that model, for compensation
  slab sum_, compensated_, square_, next_square_;
  i64 version_ = 0;  // updates since it began to serve
  i64 folded_ = 0;   // gradients in the open group
  double count_ = 0, weighted_squares_ = 0;
};

}  // namespace limber::sync
