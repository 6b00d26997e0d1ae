// SPDX-License-Identifier: Apache-2.0
#include "clusters.hpp"
#include "rows.hpp"
#include "training.hpp"

#include <limber/comm/self.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <string>
#include <utility>
#include <vector>

namespace limber::papers {
namespace {

constexpr char const* paper = "Zhou et al. 2308.15164";
constexpr i64 micro_batch = 8;

/// 3a: a run, and the same by hand from what each worker computed and the log of rounds.
void replayed_by_hand(session& s) {
  constexpr double eta = .05, mu = .5;
  auto const form = s.data.of(8);
  sim::cluster const c = with_speeds({1, 2, 3}, {.latency = 1e-3, .bandwidth = 1e6}, .2);
  values first(form.parameters());
  network::initialize(form, first, 3);
  network net(form);
  sampler order(s.data.train_size(), 3);
  std::vector<sync::round_log> logs(3);
  std::vector<std::vector<std::vector<i64>>> micro(3);  // of each worker, in order
  values found;
  (void)sim::run(c, [&](sim::worker& w) {
    auto const rank = static_cast<std::size_t>(w.rank());
    values model = first, gradient(first.size());
    std::vector<tensor> const parameters{{"model", model, gradient}};
    optimizer opt{parameters,
                  sgd{.momentum = mu},
                  eta,
                  sync::abs_sgd{.log = &logs[rank]},
                  w.comm(),
                  {.batch = per_worker{micro_batch}, .epoch_size = s.data.train_size(), .clock = w.clock()}};
    opt.handshake();
    while (w.now() < .5) {
      // Of unequal sizes: the mean of the workers' means would be another one.
      std::array const share{micro_batch - w.rank()};
      auto const mine = order.take(share, 0);
      micro[rank].emplace_back(mine.begin(), mine.end());
      (void)s.data.run(net, model, mine, gradient.data());
      w.compute(static_cast<double>(mine.size()));
      opt.step(std::ssize(mine));
    }
    opt.finish();
    if (rank == 0) found = model;
  });

  i64 rounds = 0, uneven = 0;
  for (auto const& e : logs[0]) rounds = std::max(rounds, e.round + 1);
  auto const by_hand = [&](int delay, bool weighted) {
    values x = first;
    std::vector<std::vector<double>> gradients;
    std::vector<double> v(x.size(), 0);
    std::vector<std::size_t> next(3, 0);
    values g(x.size());
    auto const apply = [&](std::vector<double> const& of) {
      for (std::size_t i = 0; i < x.size(); ++i) {
        v[i] = mu * v[i] + of[i];
        x[i] = static_cast<float>(static_cast<double>(x[i]) - eta * v[i]);
      }
    };
    for (i64 t = 0; t < rounds; ++t) {
      std::vector<double> sum(x.size(), 0);
      double count = 0, ranks = 0;
      for (std::size_t r = 0; r < 3; ++r) {
        double own = 0;
        std::vector<double> mine(x.size(), 0);
        for (auto const& e : logs[r])
          if (e.round == t)
            for (i64 k = 0; k < e.calls; ++k) {
              auto const& samples = micro[r][next[r]++];
              std::ranges::fill(g, 0.f);
              (void)s.data.run(net, x, samples, g.data());
              own += static_cast<double>(samples.size());
              for (std::size_t i = 0; i < x.size(); ++i)
                mine[i] += static_cast<double>(samples.size()) * static_cast<double>(g[i]);
            }
        double const weight = own == 0 ? 0 : weighted ? 1 : 1 / own;
        for (std::size_t i = 0; i < x.size(); ++i) sum[i] += weight * mine[i];
        count += own;
        ranks += own > 0 ? 1 : 0;
      }
      if (count == 0) continue;
      for (auto& y : sum) y /= weighted ? count : ranks;
      gradients.push_back(std::move(sum));
      if (std::ssize(gradients) > delay)
        apply(gradients[gradients.size() - 1 - static_cast<std::size_t>(delay)]);
    }
    for (auto k = gradients.size() - std::min(gradients.size(), static_cast<std::size_t>(delay));
         k < gradients.size(); ++k)
      apply(gradients[k]);  // what finish() flushes
    return distance(x, found);
  };
  for (i64 t = 0; t < rounds; ++t) {
    std::vector<i64> calls;
    for (auto const& log : logs)
      for (auto const& e : log)
        if (e.round == t) calls.push_back(e.calls);
    uneven += std::ranges::max(calls) != std::ranges::min(calls) ? 1 : 0;
  }
  double const one = by_hand(1, true), none = by_hand(0, true), two = by_hand(2, true),
               means = by_hand(1, false);
  s.add({"3a", paper, "the gradient of x(t-1), weighed by counts, moves x(t): the delay is exactly 1",
         text("distance of the model to one worked out from the log by hand, ", rounds, " rounds, ", uneven,
              " of them uneven: delay 1 ", short_number(one), "; delay 0 ", short_number(none), ", delay 2 ",
              short_number(two), ", means of means ", short_number(means)),
         "delay 1 <= 1e-5, all others > 1e-3",
         one <= 1e-5 && std::min({none, two, means}) > 1e-3 && uneven > 0});
}

[[nodiscard]] outcome throughput(session& s, sim::cluster const& c, strategy how, any_policy batch,
                                 double seconds) {
  training run{.cluster = c};
  run.how = how;
  run.batch = std::move(batch);
  run.rate = [](progress const&) { return 0.; };
  run.seconds = seconds;
  run.epochs = never;
  run.probe_every = 0;
  return train(run, s.data);
}

/// 3b and the homogeneous half of 3d: samples a second beside synchronous SGD.
void no_idling(session& s) {
  bool holds = true;
  std::string measured;
  double const slowest = micro_batch * 1e-3;  // seconds that the slowest takes for a micro-batch
  int const k = 4;
  struct example {
    std::vector<double> speeds;
    double dbs, od, abs;
  };
  for (auto const& [speeds, dbs_gain, od_gain, abs_gain] :
       {example{{1, 1, 2, 2}, 1.36, 1.25, 1.88}, example{{1, 2, 3, 4}, 1.92, 1.25, 3.12}}) {
    sim::cluster const c =
        with_speeds(speeds, {.bandwidth = bandwidth_for(.25 * slowest, k, model_bytes(s.data, 0))}, 0);
    auto const rate = [](outcome const& o) { return o.samples / o.seconds; };
    double const length = s.of(8., 20.);
    auto const bsp = throughput(s, c, sync::allreduce{}, per_worker{micro_batch}, length);
    auto const balanced =
        throughput(s, c, sync::allreduce{}, dbs{.batch = k * micro_batch, .replan_every = steps(20)}, length);
    auto const od = throughput(s, c, sync::abs_sgd{.max_micro_batches = 1}, per_worker{micro_batch}, length);
    auto const abs = throughput(s, c, sync::abs_sgd{}, per_worker{micro_batch}, length);
    double sum = 0, most = 0;
    for (double const v : speeds) sum += v;
    for (std::size_t i = 0; i < speeds.size(); ++i)
      most = std::max(most, std::abs(abs.report.workers[i].samples / abs.samples / (speeds[i] / sum) - 1));
    double const gains[] = {rate(balanced) / rate(bsp), rate(od) / rate(bsp), rate(abs) / rate(bsp)};
    // With shares in whole samples DBS cannot be quicker than its largest rounding lets it.
    holds = holds && std::abs(gains[2] / abs_gain - 1) <= .03 && std::abs(gains[1] / od_gain - 1) <= .03 &&
            abs.utilisation >= .95 && most <= .05;
    measured +=
        text(measured.empty() ? "" : "; ", "speeds ",
             listed(speeds, [](double v) { return short_number(v); }), ": ABS ", fixed_point(gains[2], 3),
             ", OD-SGD ", fixed_point(gains[1], 3), ", DBS ", fixed_point(gains[0], 3), " (formula ",
             fixed_point(dbs_gain, 2), ") x BSP, utilisation ", fixed_point(abs.utilisation, 3), " (BSP ",
             fixed_point(bsp.utilisation, 3), "), shares off by ", fixed_point(100 * most, 1), " %");
  }
  s.add(
      {"3b", paper,
       "nobody idles: utilisation near 1, samples in proportion to speed, throughput the sum of speeds",
       measured,
       "ABS 1.88 and 3.12, OD-SGD 1.25 and 1.25 times BSP within 3 %; utilisation >= 0.95; shares within 5 %",
       holds});

  sim::cluster const equal = with_speeds({1, 1, 1, 1}, {}, 0);
  double const bsp = throughput(s, equal, sync::allreduce{}, per_worker{micro_batch}, 4).samples,
               abs = throughput(s, equal, sync::abs_sgd{}, per_worker{micro_batch}, 4).samples;
  s.add({"3d", paper, "equal workers and a free network: no gain in throughput",
         text("ABS over BSP ", fixed_point(abs / bsp, 3)), "1 within 3 %", std::abs(abs / bsp - 1) <= .03});
}

/// The largest eta h at which w stays bounded on the quadratic h w²/2, found by halves.
template <class Strategy>
[[nodiscard]] double stable_up_to(Strategy how, double mu, double high) {
  auto const grows = [&](double eta) {
    std::vector<double> w{1}, g{0};
    std::vector<tensor> const parameters{{"w", w, g}};
    self alone;
    optimizer opt{parameters, sgd{.momentum = mu}, eta, how, alone};
    double late = 0, early = 0;
    for (int i = 0; i < 4000; ++i) {
      g[0] = w[0];
      opt.step(1);
      if (i >= 1000 && i < 1500) early = std::max(early, std::abs(w[0]));
      if (i >= 3500) late = std::max(late, std::abs(w[0]));
      if (!(std::abs(w[0]) < 1e100)) return true;
    }
    return late > early && late > 1e-200;
  };
  double low = 0;
  for (int i = 0; i < 12; ++i) (grows((low + high) / 2) ? high : low) = (low + high) / 2;
  return (low + high) / 2;
}

/// 3d: where delay and momentum become unstable.
void stability(session& s) {
  std::string measured;
  bool holds = true;
  for (double const mu : {0., .5, .9}) {
    double const delayed = stable_up_to(sync::abs_sgd{}, mu, 4),
                 prompt = stable_up_to(sync::allreduce{}, mu, 8);
    holds = holds && std::abs(delayed / (1 - mu) - 1) <= .02 && std::abs(prompt / (2 * (1 + mu)) - 1) <= .02;
    measured += text(measured.empty() ? "" : "; ", "mu = ", mu, ": ", fixed_point(delayed, 3),
                     " (without delay ", fixed_point(prompt, 2), ')');
  }
  s.add({"3d-edge", paper,
         "a delay of one update with momentum is stable for eta h < 1 - mu only (without: 2 (1 + mu))",
         measured, "1, 0.5, 0.1 and 2, 3, 3.8 within 2 %", holds});
}

}  // namespace

void abs_sgd_rows(session& s) {
  if (s.wants("3a", evidence::exact)) replayed_by_hand(s);
  if (s.wants("3b", evidence::exact) || s.wants("3d", evidence::exact)) no_idling(s);
  if (s.wants("3d-edge", evidence::exact)) stability(s);
}

}  // namespace limber::papers
