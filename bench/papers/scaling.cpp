// SPDX-License-Identifier: Apache-2.0
#include "rows.hpp"
#include "sweep.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <string>
#include <utility>
#include <vector>

namespace limber::papers {
namespace {

constexpr char const* paper = "Jin et al. 1611.04581";
constexpr i64 per_node = 4;
using sync::gossip_how;

/// What a round of gossip does to models that are random and to nothing else.
struct contraction {
  double variance = 0;  ///< after a round over before
  double drift = 0;     ///< p · E[(mean after − mean before)²] / variance before
};

/// Rounds of the real strategy, without gradients; models are drawn anew before each.
[[nodiscard]] contraction rounds_of(gossip_how how, int p, int rounds) {
  constexpr std::size_t width = 256;
  auto const ranks = static_cast<std::size_t>(p), times = static_cast<std::size_t>(rounds);
  values before(ranks * times * width), after(before.size());
  (void)sim::run(cluster_of(p, 1), [&](sim::worker& w) {
    values model(width, 0.f), gradient(width, 0.f);
    std::vector<tensor> const parameters{{"model", model, gradient}};
    optimizer opt{parameters, sgd{}, 0.1, sync::gossip{.how = how, .seed = 5}, w.comm()};
    opt.handshake();
    for (std::size_t t = 0; t < times; ++t) {
      std::size_t const at = (t * ranks + static_cast<std::size_t>(w.rank())) * width;
      for (std::size_t i = 0; i < width; ++i)
        before[at + i] = model[i] =
            static_cast<float>(static_cast<double>(random_bits(8, 0, at + i) >> 11) * 0x1p-53 - .5);
      w.compute(1);
      opt.step(1);
      std::ranges::copy(model, after.begin() + static_cast<std::ptrdiff_t>(at));
    }
    opt.finish();
  });
  double was = 0, is = 0, moved = 0;
  for (std::size_t t = 0; t < times; ++t)
    for (std::size_t i = 0; i < width; ++i) {
      double m0 = 0, m1 = 0, v0 = 0, v1 = 0;
      auto const value = [&](values const& x, std::size_t r) {
        return static_cast<double>(x[(t * ranks + r) * width + i]);
      };
      for (std::size_t r = 0; r < ranks; ++r) m0 += value(before, r) / p, m1 += value(after, r) / p;
      for (std::size_t r = 0; r < ranks; ++r)
        v0 += std::pow(value(before, r) - m0, 2) / p, v1 += std::pow(value(after, r) - m1, 2) / p;
      was += v0, is += v1, moved += p * std::pow(m1 - m0, 2);
    }
  return {is / was, moved / was};
}

/// 5c
void consensus_rows(session& s) {
  struct expected {
    gossip_how how;
    char const* name;
    std::array<double, 3> variance;
    double drift;
  };
  std::array const table{expected{gossip_how::pull, "pull", {.401, .475, .495}, .25},
                         expected{gossip_how::push, "push", {.558, .615, .627}, .0972},
                         expected{gossip_how::matching, "matching", {.435, .483, .495}, 0}};
  constexpr std::array sizes{8, 32, 128};
  std::array<contraction, 9> found;
  s.runs("5c", 9, [&](std::size_t i) {
    found[i] = rounds_of(table[i / 3].how, sizes[i % 3], s.of(12800, 25600) / sizes[i % 3]);
  });
  bool holds = true;
  std::string measured;
  for (std::size_t i = 0; i < table.size(); ++i) {
    auto const& t = table[i];
    double drift = 0;
    for (std::size_t k = 0; k < 3; ++k) {
      auto const& f = found[3 * i + k];
      holds = holds && std::abs(f.variance / t.variance[k] - 1) <= .05;
      drift = std::max(drift, f.drift);
    }
    auto const& large = found[3 * i + 2];
    holds = holds && (t.drift == 0 ? drift < 1e-9 : std::abs(large.drift / t.drift - 1) <= .05);
    measured += text(measured.empty() ? "" : "; ", t.name, ' ', fixed_point(found[3 * i].variance, 3), ", ",
                     fixed_point(found[3 * i + 1].variance, 3), ", ", fixed_point(large.variance, 3),
                     ", drift ", short_number(large.drift, 2));
  }
  s.add({"5c", paper,
         "what a round leaves of the models' variance (p = 8, 32, 128), and how it moves their mean",
         measured,
         "pull .401, .475, .495, drift .25; push .558, .615, .627, drift .10 (.0972, worked out for large "
         "p); matching .435, .483, .495, no "
         "drift; within 5 %",
         holds});
}

[[nodiscard]] sim::cluster cluster_for(session const& s, int p) {
  double const bytes = 4 * static_cast<double>(s.data.of(0).parameters());
  // A model crosses a link in an eighth of the time that a worker computes for.
  return cluster_of(p, 1e-3, {.latency = 3e-5, .bandwidth = bytes / (per_node * 1e-3 / 8)}, .3);
}

struct method {
  char const* name;
  strategy how;
};
[[nodiscard]] std::vector<method> methods(session const& s) {
  std::vector<method> out{{"all-reduce", sync::allreduce{}},
                          {"gossip", sync::gossip{}},
                          {"asynchronous EASGD", sync::asynchronous_elastic_averaging{.period = 4}}};
  if (s.quick()) return out;
  out.push_back({"EASGD", sync::elastic_averaging{.period = 4}});
  out.push_back({"asynchronous gossip", sync::asynchronous_gossip{.how = gossip_how::pull}});
  out.push_back({"push-sum", sync::push_sum{}});
  return out;
}

/// 5a and 5b: by number of workers.
void by_workers(session& s) {
  auto const sizes = s.of(std::vector{4, 32, 128}, std::vector{4, 8, 16, 32, 64, 128});
  auto const who = methods(s);
  // Losses of one worker after 1 and 6 epochs.
  double const mid = reference_loss(s, 0, 1), low = reference_loss(s, 0, 6);
  double const length = s.of(16., 30.);
  figure times{"crossover",
               text("Virtual seconds to loss ", short_number(mid), " by number of workers (4 samples each)"),
               "workers",
               "seconds",
               {},
               "set logscale xy\n"};
  figure finals{"crossover_accuracy", "Test accuracy after equal samples, rate annealed", "workers", "%", {},
                "set logscale x 2\n"};
  for (auto const& m : who) times.curves.push_back({m.name, {}}), finals.curves.push_back({m.name, {}});
  std::string sooner, levels, better;
  std::vector<double> gains(static_cast<std::size_t>(s.seeds), 0), losses = gains;
  int small = 0;
  bool all_reached = true;
  int crossover_time = 0, crossover_accuracy = 0;
  for (int const p : sizes) {
    auto const contenders = [&](bool annealed) {
      std::vector<contender> all;
      for (auto const& m : who) {
        contender c{
            m.name,
            {.cluster = cluster_for(s, p)},
            s.of(std::vector{.8, 3.2, 12.8}, std::vector{.2, .4, .8, 1.6, 3.2, 6.4, 12.8, 25.6, 51.2}),
            s.of(std::vector{.9}, std::vector{0., .9})};
        c.run.how = m.how;
        c.run.batch = per_worker{per_node};
        c.run.epochs = annealed ? length : 2 * length;
        c.run.target = annealed ? 0 : mid;
        c.run.probe_every = annealed ? length / 16 : .05 + .005 * p;
        if (annealed)
          c.shape = [length](progress const& at) {
            double const e = at.in(unit::epochs);
            return e < .6 * length ? 1. : e < .85 * length ? .1 : .01;
          };
        all.push_back(std::move(c));
      }
      return all;
    };
    auto const fast = compete(s, text("5a p = ", p), contenders(false), s.of(1, 2), s.seeds, time_to_target);
    auto const time = [&](std::size_t i) { return mean(fast[i].each(time_to_target)); };
    std::size_t quickest = 1;
    for (std::size_t i = 0; i < who.size(); ++i) {
      if (i > 0 && time(i) < time(quickest)) quickest = i;
      times.curves[i].points.emplace_back(p, time(i) < 1e12 ? time(i) : never);
    }
    auto const gain = ratio(fast[0].each(time_to_target), fast[quickest].each(time_to_target));
    sooner += text(sooner.empty() ? "" : "; ", "p = ", p, ": ", short_number(gain.value), ' ',
                   interval_text(gain), ' ', who[quickest].name);
    if (gain.value < 1 && crossover_time == 0) crossover_time = p;
    if (p <= 32) {
      ++small;
      all_reached = all_reached && reached(fast[0]) && reached(fast[quickest]);
      auto const a = fast[0].each(time_to_target), b = fast[quickest].each(time_to_target);
      for (std::size_t i = 0; i < a.size(); ++i) gains[i] += std::log(a[i] / b[i]);
    }
    auto const last = compete(s, text("5b p = ", p), contenders(true), s.of(1, 2), s.seeds,
                              [](outcome const& o) { return o.diverged ? 1e9 : 1 - o.test.accuracy; });
    auto const accuracy = [&](std::size_t i) {
      return last[i].each([](outcome const& o) { return 100 * o.test.accuracy; });
    };
    std::size_t best = 1;
    for (std::size_t i = 0; i < who.size(); ++i) {
      if (i > 0 && mean(accuracy(i)) > mean(accuracy(best))) best = i;
      finals.curves[i].points.emplace_back(p, mean(accuracy(i)));
    }
    auto const d = difference(accuracy(0), accuracy(best));
    better += text(better.empty() ? "" : "; ", "p = ", p, ": ", fixed_point(d.value, 2), ' ',
                   interval_text(d), ' ', who[best].name);
    if (d.value > 0 && crossover_accuracy == 0) crossover_accuracy = p;
    if (p == sizes.back())
      losses = accuracy(0), std::ranges::transform(losses, accuracy(best), losses.begin(), std::minus<>());
    // The first moments at which each of the levels was reached, for the largest.
    if (p == sizes.back())
      for (double const level : {mid, low})
        levels +=
            text(levels.empty() ? "" : "; ", short_number(level), ": ", listed(last, [&](tuned const& t) {
                   double sum = 0;
                   for (auto const& r : t.runs) sum += r.seconds_to(level);
                   sum /= static_cast<double>(t.runs.size());
                   return std::isfinite(sum) ? fixed_point(sum, 2) : std::string("-");
                 }));
  }
  s.figures.push_back(std::move(times));
  s.figures.push_back(std::move(finals));
  for (auto& g : gains) g /= small;
  auto const e = estimated(gains);
  std::pair const interval{std::exp(e.low), std::exp(e.high)};
  s.sweeps["5b seconds to losses at the largest p, annealed"] = levels;
  s.add({"5a", paper,
         "up to 32 workers, with jitter and latency, gossip or EASGD reaches a middle loss sooner than "
         "all-reduce",
         text("all-reduce over the best of the others, time to loss ", short_number(mid), ": ", sooner, "; ",
              crossover_time == 0 ? std::string("all-reduce is never first")
                                  : text("all-reduce is first from p = ", crossover_time)),
         "mean over p <= 32 above 1", all_reached && interval.first > 1, evidence::sampled, interval});
  auto const l = estimated(losses);
  s.add({"5b", paper,
         "with many workers all-reduce ends at the higher accuracy after equal samples, rate annealed",
         text("all-reduce minus the best of the others, points: ", better, "; ",
              crossover_accuracy == 0 ? std::string("all-reduce is never ahead")
                                      : text("ahead from p = ", crossover_accuracy)),
         text("above 0 at p = ", sizes.back()), l.low > 0, evidence::sampled, l.interval(),
         l.low > 0 ? ""
                   : "Convex control (softmax regression): models that are averaged in pairs end where "
                     "all-reduce does; differences are of the order of seed noise."});
}

/// Samples a second, by all workers, before and after `when`. A worker stops for good at an error.
struct around {
  double before = 0, after = 0;
};
template <class Strategy>
[[nodiscard]] around with_a_death(session const& s, Strategy how, int p, double when, double end) {
  sim::cluster c = cluster_for(s, p);
  c.deaths.push_back({.worker = p - 1, .at = when});
  around out;
  (void)sim::run(c, [&](sim::worker& w) {
    values model(s.data.of(0).parameters(), 0.f), gradient(model.size(), 0.f);
    std::vector<tensor> const parameters{{"model", model, gradient}};
    try {
      optimizer opt{parameters, sgd{},    0.1,
                    how,        w.comm(), {.batch = per_worker{per_node}, .clock = w.clock()}};
      opt.handshake();
      while (w.now() < end) {
        w.compute(per_node);
        opt.step(per_node);
        (w.now() < when ? out.before : out.after) += per_node;
      }
      opt.finish();
    } catch (error const&) {}
  });
  out.before /= when;
  out.after /= end - when;
  return out;
}

/// 5d: a death, a worker that lags, and the queue at a server.
void failures(session& s) {
  constexpr int p = 16;
  auto const all = with_a_death(s, sync::allreduce{}, p, 1, 4);
  auto const pairs = with_a_death(s, sync::asynchronous_gossip{}, p, 1, 4);
  double const left = pairs.after / pairs.before, stalled = all.after / all.before;

  auto const lagging = [&](strategy how, double factor) {
    training run{.cluster = cluster_for(s, p)};
    run.cluster.slowdowns.push_back({.worker = 1, .from = 0, .factor = factor});
    run.how = how;
    run.rate = [](progress const&) { return .1; };
    run.batch = per_worker{per_node};
    run.seconds = 2;
    run.epochs = never;
    run.probe_every = 0;
    auto const o = train(run, s.data);
    return o.samples / o.seconds;
  };
  double const all_lag = lagging(sync::allreduce{}, 10) / lagging(sync::allreduce{}, 1),
               pairs_lag = lagging(sync::asynchronous_gossip{}, 10) / lagging(sync::asynchronous_gossip{}, 1);
  bool holds = stalled < .02 && std::abs(left / (15. / 16) - 1) <= .05 && all_lag < .25 &&
               std::abs(pairs_lag / (15.1 / 16) - 1) <= .05;

  std::string queue;
  figure f{"server",
           "Workers' utilisation at a parameter server",
           "workers",
           "busy / lifetime",
           {{"measured", {}}, {"limit of the server's link", {}}},
           "set logscale x 2\nset yrange [0:1.05]\n"};
  double before = 1.01;
  for (int const workers : {2, 4, 8, 16, 32, 64}) {
    training run{.cluster = cluster_for(s, workers)};
    run.how = sync::parameter_server{};
    run.rate = [](progress const&) { return .01; };
    run.batch = per_worker{per_node};
    run.seconds = 1;
    run.epochs = never;
    run.probe_every = 0;
    double const used = train(run, s.data).utilisation, limit = std::min(1., 8. / workers);
    queue += text(queue.empty() ? "" : ", ", workers, ": ", fixed_point(used, 2));
    holds = holds && used < before && used <= 1.05 * limit;
    before = used;
    f.curves[0].points.emplace_back(workers, used);
    f.curves[1].points.emplace_back(workers, limit);
  }
  holds = holds && before < .2;
  s.figures.push_back(std::move(f));
  s.add({"5d", paper,
         "a death stalls all-reduce and not gossip, so does a worker 10 times slower; the queue at a "
         "parameter server grows with p",
         text("throughput left after 1 of 16 died: all-reduce ", fixed_point(stalled, 3),
              ", asynchronous gossip ", fixed_point(left, 3), "; with 1 of 16 ten times slower ",
              fixed_point(all_lag, 2), " and ", fixed_point(pairs_lag, 2),
              "; workers' utilisation at a server by p ", queue),
         "all-reduce < 0.02 (death), < 0.25 (lag); gossip 15/16 and 15.1/16 within 5 %; utilisation falls "
         "with p and stays below the limit of the server's link, 8 / p",
         holds});
}

}  // namespace

void scaling_rows(session& s) {
  if (s.wants("5a", evidence::sampled) || s.wants("5b", evidence::sampled)) by_workers(s);
  if (s.wants("5c", evidence::exact)) consensus_rows(s);
  if (s.wants("5d", evidence::exact)) failures(s);
}

}  // namespace limber::papers
