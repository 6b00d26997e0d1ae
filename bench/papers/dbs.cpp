// SPDX-License-Identifier: Apache-2.0
#include "rows.hpp"
#include "statistics.hpp"
#include "training.hpp"

#include <limber/core/random.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <string>
#include <vector>

namespace limber::papers {
namespace {

constexpr char const* paper = "Ye et al. 2007.11831";
constexpr i64 batch = 512;
constexpr std::array speeds{1., 1., 2., 4.};  // samples a millisecond

[[nodiscard]] double uniform(std::uint64_t seed, std::uint64_t stream, std::uint64_t i) {
  return static_cast<double>(random_bits(seed, stream, i) >> 11) * 0x1p-53;
}

[[nodiscard]] training on_unequal_workers(any_policy policy) {
  training run{.batch = std::move(policy)};
  for (double const s : speeds) run.cluster.workers.push_back({.seconds_per_sample = 1e-3 / s});
  run.rate = [](progress const&) { return .1; };
  run.rule = {.momentum = .9};
  run.probe_every = 0;
  return run;
}

[[nodiscard]] double epoch_time(outcome const& o, std::size_t e) {
  return o.ends.at(e).seconds - (e == 0 ? 0 : o.ends.at(e - 1).seconds);
}

[[nodiscard]] std::string shares_text(std::vector<i64> const& share) {
  return '[' + listed(share, [](i64 b) { return std::to_string(b); }) + ']';
}

/// 4a: the golden vector, the sum, and where shares go.
void shares(session& s) {
  std::array const wanted{13.7, 16.5, 19.6, 14.2};
  std::vector<double> seconds;
  for (double const q : wanted) seconds.push_back(16 / q);
  batch_plan const equal{.total = 64, .share = {16, 16, 16, 16}};
  auto const golden = dbs{.batch = 64}({.world = 4, .seconds = seconds, .current = &equal}).share;

  i64 wrong = 0;
  i64 const cases = s.of(i64{100'000}, i64{1'000'000});
  for (i64 c = 0; c < cases; ++c) {
    std::array<double, 4> weight;
    for (std::size_t i = 0; i < 4; ++i) weight[i] = .05 + uniform(5, i, static_cast<std::uint64_t>(c));
    auto const b = static_cast<i64>(4 + random_bits(6, 0, static_cast<std::uint64_t>(c)) % 1000);
    auto const share = apportion(b, std::span<double const>(weight));
    wrong += std::accumulate(share.begin(), share.end(), i64{0}) == b ? 0 : 1;
  }

  auto run = on_unequal_workers(dbs{.batch = batch});
  run.epochs = 3;
  auto const o = train(run, s.data);
  auto const ideal = apportion(batch, std::span<double const>(speeds));
  bool const one_epoch = o.ends.size() > 1 && o.ends[1].share == ideal;

  // Affine cost t = a + c b: how much of the spread of the times is left after each plan, in the end.
  double const a = 1, c_fast = 1e-6, c_slow = 3e-6;
  i64 const large = i64{1} << 40;  // so that rounding to samples is not seen
  double const scale = 1e6 / static_cast<double>(large) * 2;
  batch_plan now{.total = large, .share = {large / 2, large / 2}};
  std::vector<double> spread;
  double expected = 0;
  for (int k = 0; k < 30; ++k) {
    double const b0 = static_cast<double>(now.share[0]) * scale,
                 b1 = static_cast<double>(now.share[1]) * scale;
    std::vector<double> const t{a + c_fast * b0, a + c_slow * b1};
    spread.push_back(std::abs(t[1] - t[0]));
    expected = a / (a + c_fast * b0);
    now = dbs{.batch = large}({.world = 2, .seconds = t, .current = &now});
  }
  double const rate = std::pow(spread[20] / spread[10], .1);
  bool const geometric = std::abs(rate / expected - 1) <= .02;
  s.add({"4a", paper,
         "shares: the paper's example, nothing lost in rounding, proportional to speed after one epoch "
         "(linear cost), geometric (affine)",
         text(shares_text(golden), "; ", wrong, " wrong sums in ", cases, " cases; after one epoch ",
              o.ends.size() > 1 ? shares_text(o.ends[1].share) : "-", "; affine: the spread shrinks ",
              fixed_point(rate, 4), "-fold a plan"),
         text("[14, 16, 20, 14]; 0; ", shares_text(ideal), "; a / (a + c b) = ", fixed_point(expected, 4),
              " within 2 %"),
         golden == std::vector<i64>{14, 16, 20, 14} && wrong == 0 && one_epoch && geometric});
}

/// 4b: time of an epoch, and weights.
void epoch_times(session& s) {
  auto equal = on_unequal_workers(fixed{batch}), balanced = on_unequal_workers(dbs{.batch = batch});
  equal.calls = balanced.calls = 4 * s.data.train_size() / batch;
  auto const e = train(equal, s.data), d = train(balanced, s.data);
  double const sum = std::accumulate(speeds.begin(), speeds.end(), 0.0);
  double const expected = sum / (4 * speeds[0]);
  double const measured = epoch_time(e, 2) / epoch_time(d, 2);
  auto one = balanced, wrong = balanced;
  one.cluster.workers.resize(1);
  one.batch = fixed{batch};
  wrong.unweighted = true;
  auto const whole = train(one, s.data).model;
  double const weighted = distance(d.model, whole), unweighted = distance(train(wrong, s.data).model, whole);
  auto const& workers = d.report.workers;
  // The first epoch is the equal one: what was waited since is what the report holds beyond it.
  double const waiting = [&] {
    auto first = balanced;
    first.calls /= 4;
    auto const f = train(first, s.data);
    double most = 0;
    for (std::size_t i = 0; i < workers.size(); ++i)
      most = std::max(most, (workers[i].waiting - f.report.workers[i].waiting) / (d.seconds - f.seconds));
    return most;
  }();
  s.add({"4b", paper,
         "an epoch takes N / sum of speeds, nobody waits, and weighing by samples keeps the algorithm",
         text("equal over balanced epoch ", fixed_point(measured, 3), "; longest wait ",
              fixed_point(100 * waiting, 2), " % of the time; to one worker with the whole batch: weighted ",
              short_number(weighted), ", unweighted ", short_number(unweighted)),
         text("sum s / (K s_min) = ", fixed_point(expected, 3),
              " within 2 %; wait < 2 %; weighted <= 1e-5, unweighted > 1e-3"),
         std::abs(measured / expected - 1) <= .02 && waiting < .02 && weighted <= 1e-5 && unweighted > 1e-3});
}

void same_accuracy(session& s) {
  auto const n = static_cast<std::size_t>(s.seeds);
  std::vector<double> equal(n), balanced(n);
  s.runs("4b accuracy", 2 * n, [&](std::size_t i) {
    auto run = on_unequal_workers(i % 2 == 0 ? any_policy(fixed{batch}) : any_policy(dbs{.batch = batch}));
    run.hidden = 24;
    run.epochs = s.of(10., 30.);
    run.seed = 100 + i / 2;
    (i % 2 == 0 ? equal : balanced)[i / 2] = 100 * train(run, s.data).test.accuracy;
  });
  auto const d = difference(balanced, equal);
  s.add({"4b-acc", paper, "balanced shares leave the accuracy as it is",
         text("balanced minus equal ", fixed_point(d.value, 3), ' ', interval_text(d), " points of ",
              fixed_point(mean(equal), 2), " %"),
         "the interval lies within 0.3 points of 0", d.low > -.3 && d.high < .3, evidence::sampled,
         d.interval()});
}

/// When each worker is slow, and how much: a healthy one becomes slow with probability 0.1 in each epoch,
/// for 4 to 20 epochs.
[[nodiscard]] std::vector<std::vector<double>> disturbances(int epochs, std::uint64_t seed) {
  std::vector<std::vector<double>> factor(4, std::vector<double>(static_cast<std::size_t>(epochs), 1));
  for (std::uint64_t w = 0; w < 4; ++w)
    for (std::uint64_t e = 2; e < static_cast<std::uint64_t>(epochs);) {
      if (uniform(seed, w, e) >= .1) {
        ++e;
        continue;
      }
      auto const length = 4 + random_bits(seed, 10 + w, e) % 17;
      double const slow = 1.5 + 2.5 * uniform(seed, 20 + w, e);
      for (std::uint64_t k = 0; k < length && e < static_cast<std::uint64_t>(epochs); ++k, ++e)
        factor[w][e] = slow;
    }
  return factor;
}

/// 4c: disturbances.
void disturbed(session& s) {
  int const epochs = s.of(30, 60);
  auto const n = static_cast<std::size_t>(s.seeds);
  std::vector<outcome> found(2 * n);
  auto const script = [&](std::size_t seed) { return disturbances(epochs, 40 + seed); };
  s.runs("4c", 2 * n, [&](std::size_t i) {
    auto run = on_unequal_workers(i % 2 == 0 ? any_policy(fixed{batch}) : any_policy(dbs{.batch = batch}));
    run.cluster.workers.assign(4, {.seconds_per_sample = 1e-3});
    auto const factor = script(i / 2);
    run.slowness = [factor, epochs](int r, i64 e) {
      return factor[static_cast<std::size_t>(r)][static_cast<std::size_t>(std::min<i64>(e, epochs - 1))];
    };
    run.epochs = epochs;
    found[i] = train(run, s.data);
  });
  // An epoch after one with the same speeds has been planned with them.
  double worst = 0;
  int changes = 0;
  std::vector<double> equal, balanced;
  figure f{"shares",
           "Batch shares while workers are disturbed (DBS, first seed)",
           "epoch",
           "share of the batch",
           {}};
  figure t{"epoch_times",
           "Time of an epoch under disturbances (first seed)",
           "epoch",
           "virtual seconds",
           {{"equal shares", {}}, {"DBS", {}}, {"all speeds used", {}}}};
  for (std::size_t seed = 0; seed < n; ++seed) {
    auto const factor = script(seed);
    auto const& d = found[2 * seed + 1];
    equal.push_back(found[2 * seed].seconds);
    balanced.push_back(d.seconds);
    for (std::size_t e = 1; e < d.ends.size(); ++e) {
      double speed = 0;
      bool same = true, changed = e < 2;
      for (auto const& w : factor) {
        speed += 1 / w[e];
        same = same && w[e] == w[e - 1];
        changed = changed || w[e - 1] != w[e - 2];
      }
      double const ideal = static_cast<double>(s.data.train_size()) * 1e-3 / speed;
      if (seed == 0) {
        t.curves[0].points.emplace_back(e, epoch_time(found[0], e));
        t.curves[1].points.emplace_back(e, epoch_time(d, e));
        t.curves[2].points.emplace_back(e, ideal);
      }
      if (!same) continue;
      changes += changed ? 1 : 0;
      worst = std::max(worst, epoch_time(d, e) / ideal);
    }
  }
  for (std::size_t w = 0; w < 4; ++w) {
    f.curves.push_back({text("worker ", w), {}});
    for (std::size_t e = 0; e < found[1].ends.size(); ++e)
      f.curves.back().points.emplace_back(
          e, static_cast<double>(found[1].ends[e].share[w]) / static_cast<double>(batch));
  }
  s.figures.push_back(std::move(f));
  s.figures.push_back(std::move(t));
  auto const gain = ratio(equal, balanced);
  s.add(
      {"4c", paper,
       "a disturbance (probability 0.1, 4 to 20 epochs, 1.5 to 4 times slower) is absorbed within one epoch, "
       "and time is saved",
       text("worst epoch after the one of a change ", fixed_point(worst, 3), " of the ideal time, ", changes,
            " changes; equal over DBS total time ", fixed_point(gain.value, 2), ' ', interval_text(gain)),
       "<= 1.03; ratio above 1", worst <= 1.03 && changes > 0 && gain.low > 1, evidence::sampled,
       gain.interval()});
}

}  // namespace

void dbs_rows(session& s) {
  if (s.wants("4a", evidence::exact)) shares(s);
  if (s.wants("4b", evidence::exact)) epoch_times(s);
  if (s.wants("4b-acc", evidence::sampled)) same_accuracy(s);
  if (s.wants("4c", evidence::sampled)) disturbed(s);
}

}  // namespace limber::papers
