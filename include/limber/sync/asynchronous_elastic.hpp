// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The tap after the rule, with a centre at a server: nobody waits for another worker.

#include <limber/core/fingerprint.hpp>
#include <limber/fuse/functors.hpp>
#include <limber/fuse/updater.hpp>
#include <limber/sync/parcel.hpp>
#include <limber/sync/server.hpp>
#include <limber/sync/site.hpp>
#include <limber/sync/weighted_mean.hpp>
#include <limber/sync/when.hpp>

#include <algorithm>
#include <cstddef>
#include <string>
#include <utility>
#include <vector>

namespace limber::sync {

/// Every `when` of its own updates a worker meets the centre, which is the server's model:
///
///     e = α (xᵢ − x̃);   xᵢ ← xᵢ − e;   x̃ ← x̃ + e          α = moving_rate / workers
///
/// State    x̃: the server's parameters while it serves; known to all ranks after finish(), else to each as of
///          its last exchange. Models stay apart, also then.
/// Choices  xᵢ + x̃ is kept. One message asks and one answers, and the server moves x̃ in between: both sides
///          use the same x̃. The paper pulls and pushes in two, so that another worker may come in between.
///          A worker whose model is not finite pulls nobody and restarts from the centre. Gradient history
///          is the worker's own: kept, or reset.
/// Deaths   if the server dies, its successor goes on with the centre as it saw it last. What the successor
///          itself had learnt since is lost, and its samples do not count.
/// Errors   std::invalid_argument unless moving_rate is in [0, 1]; when history is to be averaged: the server
///          has none. limber::error if the centre overflows.
template <timing When>
struct asynchronous_elastic {
  When when;
  double moving_rate;
  int server;
  moments at_merge;

  asynchronous_elastic(When w, double rate, int s = 0, moments m = moments::keep)
      : when(w), moving_rate(rate), server(s), at_merge(m) {
    expects(rate >= 0 && rate <= 1, "asynchronous_elastic: moving_rate must be in [0, 1], got ", rate);
    expects(s >= 0, "asynchronous_elastic: server must be a rank, got ", s);
    expects(m != moments::average,
            "asynchronous_elastic: at_merge must be keep or reset, got average: a worker meets the centre "
            "alone, and that has no gradient history");
  }

  template <class Site>
  class state;
};

/// old ← x̃ and x̃ ← x̃ + α (x − x̃), where x is what `old` held; returns the new x̃.
struct pull_centre {
  scalar alpha;
  template <class T>
  LIMBER_HD T operator()(T& centre, T& old) const noexcept {
    auto const a = alpha.as<T>();
    T const x = old;
    old = centre;
    if (!math::is_zero(a)) centre = math::lerp(centre, x, a);
    return centre;
  }
};

/// The tap at work on a site.
template <timing When>
template <class Site>
class asynchronous_elastic<When>::state {
  using E = typename Site::executor_type;
  using C = typename Site::comm_type;
  static_assert(mailbox<C>,
                "limber: asynchronous elastic averaging needs a collective that models limber::mailbox");

  struct question {
    wish what = wish::exchange;
    i64 updates = 0;  // since the worker's last exchange
    i64 samples = 0;  // in them
  };
  struct answer {
    i64 samples = 0;  // of all workers since the server began to serve
  };

 public:
  static constexpr bool agreed = true;    ///< the server counts the samples of all
  static constexpr bool unifies = false;  ///< models still differ after an exchange
  static constexpr bool paced = false;

  state(asynchronous_elastic tap, Site& at)
      : tap_(tap),
        model_(at.inner.model()),
        plan_(plan_buckets(model_, without_wire(at.buckets), at.use_order)),
        centre_(at.exec.make(plan_.where)),
        letter_(at.exec, layout_of(model_)),
        buffers_(at.exec, at.buffers, at.buckets) {}

  void attach(Site& at) {
    group_ = at.comm;
    begin_ = at.now.samples;
    calls_ = 0;  // nobody's round is open, least of all that of a worker that is the server now
    workers_.start(group_->size(), tap_.server);
  }

  /// The centre is the server's model; if that has died, it goes back to what its successor saw of it last.
  void interrupt(Site& at) {
    if (serving_) at.exec.each(copy{}, out(centre_.parts), in(model_));
    serving_ = trains_ = false;
    known_ = own_ = 0;
  }

  void pin(Site&) noexcept { calls_ = 0; }
  /// The centre starts at the model; a rank that becomes the server takes it over.
  void pin_once(Site& at) {
    if (pinned_ == 0) {
      pinned_ = 1;
      at.exec.each(copy{}, out(centre_.parts), in(model_));
    } else if (serves()) {
      samples_ = 0;
      at.exec.each(copy{}, out(model_), in(centre_.parts));
      at.inner.publish(at.exec);
    }
  }

  void count(i64 own, double) noexcept {
    ++calls_;
    samples_ += own;
    own_ += own;
    trains_ = true;
  }
  [[nodiscard]] bool due(Site const& at) const { return tap_.when(calls_, at.now); }

  /// Meets the centre. @return the samples that all workers brought it since this worker's last time
  i64 run(Site& at) {
    bool const sound = at.exec.norm(weighted{1}, out(letter_.parts()), in(model_)).total.finite;
    question const q{wish::exchange, calls_, samples_};
    group_->post(tap_.server, question_tag, sound ? letter_.seal(at.exec, q) : only(q));
    auto const a = letter_.template open<answer>(at.exec, next_message(*group_, answer_tag).bytes);
    if (sound)
      at.exec.each(blend{alpha()}, inout(model_), in(letter_.parts()));
    else
      at.exec.each(copy{}, out(model_), in(letter_.parts()));
    // If the server dies, this is the centre to go on with.
    at.exec.each(copy{}, out(centre_.parts), in(letter_.parts()));
    at.inner.publish(at.exec);
    if (tap_.at_merge == moments::reset) at.inner.reset_moments(at.exec);
    calls_ = 0;
    samples_ = 0;
    return a.samples - std::exchange(known_, a.samples);
  }

  /// Keeps the centre until all workers have said goodbye.
  template <class Before, class After>
  void serve(Site& at, Before const& before, After const& after) {
    updates_.assign(static_cast<std::size_t>(group_->size()), 0);
    i64 const begin = at.now.steps;
    serving_ = true;
    while (workers_.anybody()) {
      message const m = next_message(*group_, question_tag);
      auto const q = parcel<E>::template head_of<question>(m.bytes);
      if (q.what == wish::leave) {
        workers_.leave(m.source);
        continue;
      }
      if (q.what == wish::look || m.bytes.size() == sizeof q)
        at.exec.each(copy{}, out(letter_.parts()), in(model_));
      else
        pull(at, m);
      known_ += q.samples;
      group_->post(m.source, answer_tag, letter_.seal(at.exec, answer{known_}));
      if (q.what == wish::look) continue;
      before();
      i64& updates = updates_[static_cast<std::size_t>(m.source)];
      updates += q.updates;
      // It counts as the worker that is furthest.
      outcome o{.calls = 1, .due = true};
      o.steps = std::max<i64>(0, begin + updates - at.now.steps);
      o.applied = o.steps > 0;
      o.samples = q.samples;
      after(o);
    }
  }

  /// Ends the round for all: the centre and progress are known to every rank afterwards.
  void close(Site& at) {
    if (serves()) {
      workers_.dismiss(*group_,
                       [](message const& m) { return parcel<E>::template head_of<question>(m.bytes).what; });
      at.exec.each(copy{}, out(centre_.parts), in(model_));
      serving_ = false;
    } else {
      group_->post(tap_.server, question_tag, only(question{wish::leave}));
    }
    progress now = at.now;
    at.exec.wait(at.exec.record());
    flights_.broadcast(*group_, plan_, centre_,
                       {reinterpret_cast<std::byte*>(&now), static_cast<i64>(sizeof now), dtype::uint8,
                        "asynchronous_elastic: progress"},
                       tap_.server);
    // As at a handshake: progress is the server's, calls apart. (A last exchange has not moved samples yet:
    // what it brought is what this rank knows.)
    i64 const unknown = now.samples - begin_ - known_;
    begin_ = now.samples;
    now.calls = at.now.calls;
    now.samples = at.now.samples + unknown;
    at.now = now;
    buffers_.run(at.exec, *group_, static_cast<double>(own_));
    workers_.start(group_->size(), tap_.server);
    known_ = 0;
    own_ = 0;
    trains_ = false;
  }

  /// Writes the centre to the parameters. A worker that trains asks the server, one that does not yet
  /// shows it as all knew it last; nobody else need call it. Buffers stay the rank's own.
  void average_into(Site& at, tensor_list const& values) {
    if (serves()) return;  // its parameters are the centre
    if (!trains_) return at.exec.each(copy{}, out(values), in(centre_.parts));
    group_->post(tap_.server, question_tag, only(question{wish::look}));
    (void)letter_.template open<answer>(at.exec, next_message(*group_, answer_tag).bytes);
    at.exec.each(copy{}, out(values), in(letter_.parts()));
  }

  template <class F, class Own>
  void visit(F const& f, Own const& own) {
    f("pinned", tensor_view{reinterpret_cast<std::byte*>(&pinned_), 1, dtype::int64, {}});
    own("samples", tensor_view{reinterpret_cast<std::byte*>(&samples_), 1, dtype::int64, {}});
    for (auto const& t : centre_.parts) f(text("centre/", t.name), t);
  }

  [[nodiscard]] i64& calls_open() noexcept { return calls_; }
  [[nodiscard]] i64 bytes() const noexcept { return centre_.bytes + letter_.bytes() + buffers_.bytes(); }
  [[nodiscard]] bucket_plan const& plan() const noexcept { return plan_; }
  [[nodiscard]] i64 period() const { return period_of(tap_.when); }
  void mix(fingerprint& h) const {
    h.mix(static_cast<i64>(plan_.hash));
    h.mix(static_cast<i64>(buffers_.hash()));
    h.mix(period());
    h.mix(tap_.moving_rate);
    h.mix(static_cast<i64>(tap_.server));
    h.mix(static_cast<i64>(tap_.at_merge));
  }

 private:
  [[nodiscard]] bool serves() const { return group_->rank() == tap_.server; }
  [[nodiscard]] double alpha() const { return tap_.moving_rate / (group_->size() - 1); }

  // The centre goes towards the worker's model; letter_ holds the centre as it was.
  void pull(Site& at, message const& m) {
    (void)letter_.template open<question>(at.exec, m.bytes);
    norm_report const& centre = at.exec.norm(pull_centre{alpha()}, inout(model_), inout(letter_.parts()));
    if (!centre.total.finite)
      throw error({"sync", "asynchronous_elastic", 0, m.source,
                   std::string(at.inner.values()[static_cast<std::size_t>(centre.culprit)].name),
                   text("the centre overflows on its way to the model of rank ", m.source)});
    at.inner.publish(at.exec);
  }

  asynchronous_elastic tap_;
  tensor_list model_;  // masters where there are any, the parameters elsewhere; the server's is the centre
  bucket_plan plan_;
  slab centre_;  // as this rank saw it last; alike on all after a finish
  parcel<E> letter_;
  weighted_mean<E, C> buffers_;
  flights<C> flights_;
  C* group_ = nullptr;
  i64 pinned_ = 0;       // the centre was set
  i64 calls_ = 0;        // updates since the last exchange
  i64 samples_ = 0;      // that this rank applied in them
  i64 own_ = 0;          // and since the last finish
  i64 begin_ = 0;        // samples in progress then
  i64 known_ = 0;        // samples of all workers since then, as far as this rank knows
  bool trains_ = false;  // has made updates since then
  bool serving_ = false;

  roster workers_;
  std::vector<i64> updates_;  // of each worker
};

}  // namespace limber::sync
