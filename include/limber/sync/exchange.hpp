// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// A strategy: one path with two taps. Gradients may cross before the rule, models after it.

#include <limber/sync/delayed.hpp>
#include <limber/sync/elastic.hpp>
#include <limber/sync/gossip.hpp>
#include <limber/sync/gradients.hpp>
#include <limber/sync/merge.hpp>
#include <limber/sync/site.hpp>

#include <string>
#include <tuple>
#include <utility>

namespace limber::sync {

/// gradients → rule → merges, finest first. When several merges are due, only the coarsest is made: it
/// subsumes the others.
///
///     exchange(gradients(every{1}, everyone{}))                                     all-reduce
///     exchange(gradients(every{1}, alone{}), merge(every{16}, everyone{}))          local SGD
template <class Gradients, class... Merges>
struct exchange {
  Gradients before;
  std::tuple<Merges...> after;

  explicit exchange(Gradients g, Merges... m) : before(g), after(m...) {}

  /// The rank that serves the others instead of training; -1: none.
  [[nodiscard]] int server() const {
    int rank = -1;
    auto look = [&](auto const& tap) {
      if constexpr (requires { tap.server; }) rank = tap.server;
    };
    look(before);
    std::apply([&](auto const&... m) { (look(m), ...); }, after);
    return rank;
  }
  /// How many of `workers` have a part in one update.
  [[nodiscard]] i64 contributors(i64 workers) const {
    if constexpr (requires { before.contributors(workers); })
      return before.contributors(workers);
    else
      return workers;
  }

  template <class Site>
  class state;
};

/// A preset: something with parts() that make an exchange.
template <class S>
concept strategy = requires(S const& s) {
  s.parts();
};

/// A strategy at work on a site.
template <class Gradients, class... Merges>
template <class Site>
class exchange<Gradients, Merges...>::state {
  using tap = typename Gradients::template state<Site>;

 public:
  /// All ranks apply the same update; else each applies its own until models are merged.
  static constexpr bool agreed = tap::agreed;
  static constexpr std::size_t levels = sizeof...(Merges);
  /// Models and buffers are one after each merge.
  static constexpr bool unified = (Merges::template state<Site>::unifies && ...);
  /// All ranks call step() equally often.
  static constexpr bool paced =
      sync::paced<tap> && (sync::paced<typename Merges::template state<Site>> && ...);

  state(exchange parts, Site& at)
      : gradients_(parts.before, at),
        merges_(std::apply(
            [&](auto const&... m) { return holder{typename Merges::template state<Site>(m, at)...}; },
            parts.after)) {}

  /// Enters the groups of `at.comm`; called once control state is agreed on.
  void attach(Site& at) {
    gradients_.attach(at);
    each_merge([&](auto& m) { m.attach(at); });
  }

  /// Starts the first round from the model as it is.
  void pin(Site& at) {
    if (!open()) each_merge([&](auto& m) { m.pin_once(at); });
  }

  /// Tensor i's gradient of the coming call, of n samples, is complete: what can cross already does.
  void mark_ready(Site& at, i64 n, i64 i) {
    if constexpr (requires { gradients_.mark_ready(at, n, i); }) gradients_.mark_ready(at, n, i);
  }

  /// One call: folds in n samples' gradient, updates and merges what is due.
  outcome step(Site& at, i64 n) {
    outcome o = gradients_.step(at, n);
    if (!o.due) return o;
    if constexpr (!agreed) {
      // Progress must not depend on one rank's luck: the planned count, corrected at the merge.
      o.applied = true;
      o.samples = static_cast<i64>(at.planned) * o.calls;
      assumed_ += o.samples;
    }
    count(o, at.rate);
    stands(o, true);
    merge_if(at, o, [&](auto const& m) { return m.due(at); });
    left_.standing.reset();
    landed_ = 0;
    return o;
  }

  /// Closes what is open: exchanges accumulated gradients, merges models. Rounds that other ranks still
  /// need come first, each as in `serve`.
  template <class Before, class After>
  outcome finish(Site& at, Before const& rate_of, After const& told) {
    if constexpr (requires { gradients_.drain(at, rate_of, told); }) gradients_.drain(at, rate_of, told);
    outcome o = gradients_.finish(at);
    if constexpr (!agreed)
      if (o.due) {
        o.applied = true;
        o.samples = static_cast<i64>(at.planned) * o.calls;
        assumed_ += o.samples;
      }
    if (o.due) {
      count(o, at.rate);
      stands(o, false);
    }
    merge_if(at, o, [&](auto& m) { return m.calls_open() > 0; });
    each_merge([&](auto& m) {
      if constexpr (requires { m.close(at); }) m.close(at);
    });
    left_.standing.reset();
    return o;
  }

  /// Gives up what cannot be finished because the group has failed, without a word to anybody. Gradients that
  /// were folded in and not applied are void; models stay as they are, to be merged in the next group.
  [[nodiscard]] interruption interrupt(Site& at) {
    interruption left = std::exchange(left_, {});
    if constexpr (requires { gradients_.standing(); })
      if (auto const o = gradients_.standing()) left = {0, o, true};
    i64 const voided = gradients_.interrupt(at);
    each_merge([&](auto& m) {
      if constexpr (requires { m.interrupt(at); }) m.interrupt(at);
      using M = std::remove_reference_t<decltype(m)>;
      if constexpr (!agreed && M::agreed && !sync::paced<M>) {
        // A server counts what it was brought, and a worker that becomes one gives the rest up.
        at.now.samples -= std::exchange(assumed_, 0) - (left.standing ? left.standing->samples : 0);
        left.standing.reset();
      }
    });
    return {voided, left.standing, left.in_step};
  }

  /// What was agreed with others since the last whole call: who has more of it is further.
  [[nodiscard]] i64 landed() {
    i64 sum = landed_;
    each_merge([&](auto& m) {
      if constexpr (requires { m.landed(); }) sum += m.landed();
    });
    return sum;
  }

  void landed(i64 sum) { landed_ += sum - landed(); }

  /// This rank has taken another's state, with what was agreed on in it.
  void join(i64 agreed_on) {
    landed(agreed_on);
    each_merge([&](auto& m) {
      if constexpr (requires { m.join(); }) m.join();
    });
  }

  /// Serves the other ranks until all of them have finished. Calls rate_of() ahead of every update, for
  /// `at.rate`, and told(outcome) when it is made.
  template <class Before, class After>
  void serve(Site& at, Before const& rate_of, After const& told) {
    auto one = [&](auto& part) {
      if constexpr (requires { part.serve(at, rate_of, told); }) part.serve(at, rate_of, told);
    };
    one(gradients_);
    each_merge(one);
  }

  /// Calls f() with the mean of the ranks' models in the parameters, then puts each rank's own back.
  template <class F>
  decltype(auto) evaluate(Site& at, F&& f) {
    if constexpr (levels == 0) {
      return std::forward<F>(f)();
    } else {
      auto const& values = at.inner.values();
      struct guard {
        Site& at;
        slab parameters, buffers;
        ~guard() {
          try {
            at.exec.each(copy{}, out(at.inner.values()), in(parameters.parts));
            if (!at.buffers.empty()) at.exec.each(copy{}, out(at.buffers), in(buffers.parts));
          } catch (...) {  // a device in trouble: f has told, or the next call does
          }
        }
      } own{at, at.exec.make(layout_of(values)), at.exec.make(layout_of(at.buffers))};
      at.exec.each(copy{}, out(own.parameters.parts), in(values));
      if (!at.buffers.empty()) at.exec.each(copy{}, out(own.buffers.parts), in(at.buffers));
      std::get<levels - 1>(merges_).average_into(at, values);
      at.exec.wait(at.exec.record());  // f may look from anywhere
      return std::forward<F>(f)();
    }
  }

  /// Calls f(name, how, view) for every piece of the strategy's state; control comes first.
  template <class F>
  void visit(F const& f) {
    auto control = [&](std::string name, i64& x) {
      f(name, kept::alike, tensor_view{reinterpret_cast<std::byte*>(&x), 1, dtype::int64, {}});
    };
    control("sync/calls", gradients_.calls_open());
    control("sync/assumed", assumed_);
    int k = 0;
    each_merge([&](auto& m) { control(text("sync/merge", k++, "/calls"), m.calls_open()); });
    gradients_.visit(
        [&](std::string const& name, tensor_view v, kept how = kept::round) { f("sync/" + name, how, v); });
    k = 0;
    each_merge([&](auto& m) {
      std::string const prefix = text("sync/merge", k++, "/");
      // Groups that merge among themselves hold different models, unless gradients cross everyone.
      constexpr bool same = agreed || std::remove_reference_t<decltype(m)>::agreed;
      m.visit([&](std::string const& name,
                  tensor_view v) { f(prefix + name, same ? kept::alike : kept::apart, v); },
              [&](std::string const& name, tensor_view v) { f(prefix + name, kept::round, v); });
    });
  }

  /// How parameters and other copies of the model relate between ranks right now.
  [[nodiscard]] kept model_kept() { return agreed || (unified && !open()) ? kept::alike : kept::apart; }

  /// The same for buffers, which every rank changes while it computes.
  [[nodiscard]] kept buffers_kept() {
    return unified && !gradients_.open() && !open() ? kept::alike : kept::apart;
  }

  /// True between merges, when ranks may hold different models.
  [[nodiscard]] bool open() {
    bool any = false;
    each_merge([&](auto& m) { any = any || m.calls_open() > 0; });
    return any;
  }

  /// True while gradients were folded in that no update was made of.
  [[nodiscard]] bool gathering() { return gradients_.calls_open() > 0; }

  /// Calls f(what, period, plan) for everything that crosses the wire.
  template <class F>
  void crossings(F const& f) {
    if constexpr (agreed) f("gradients", gradients_.period(), gradients_.plan());
    each_merge([&](auto const& m) { f("models", m.period(), m.plan()); });
  }

 private:
  template <class F>
  void each_merge(F const& f) {
    std::apply([&](auto&... m) { (f(m), ...); }, merges_);
  }

 public:
  [[nodiscard]] i64 bytes() {
    i64 sum = gradients_.bytes();
    each_merge([&](auto& m) { sum += m.bytes(); });
    return sum;
  }
  /// Mixes in what must be equal on all ranks.
  void mix(fingerprint& h) {
    gradients_.mix(h);
    h.mix(static_cast<i64>(levels));
    each_merge([&](auto const& m) { m.mix(h); });
  }

 private:
  using holder = std::tuple<typename Merges::template state<Site>...>;

  void stands(outcome const& o, bool in_step) {
    if constexpr (agreed) ++landed_;
    left_ = {0, o, in_step};
  }

  // Where all apply the same update, all weigh the same.
  void count(outcome const& o, double rate) {
    each_merge([&](auto& m) { m.count(agreed ? o.samples : o.own_samples, rate); });
  }

  template <class Due>
  void merge_if(Site& at, outcome& o, Due const& is_due) {
    bool done = false;
    auto one = [&](auto& m) {
      if (done) return m.pin(at);
      if (!is_due(m)) return;
      i64 const applied = m.run(at);
      ++landed_;
      done = true;
      if constexpr (!agreed && std::remove_reference_t<decltype(m)>::agreed) {
        // Counted now, by all: what the calls since the last merge really applied.
        o.samples += applied - assumed_;
        assumed_ = 0;
      }
    };
    [&]<std::size_t... K>(std::index_sequence<K...>) { (one(std::get<levels - 1 - K>(merges_)), ...); }
    (std::index_sequence_for<Merges...>{});
  }

  tap gradients_;
  holder merges_;
  i64 assumed_ = 0;  // samples that progress was moved by since the last merge
  i64 landed_ = 0;
  interruption left_;
};

}  // namespace limber::sync
