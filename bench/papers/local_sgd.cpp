// SPDX-License-Identifier: Apache-2.0
#include "curvature.hpp"
#include "rows.hpp"
#include "sweep.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <string>
#include <vector>

namespace limber::papers {
namespace {

constexpr char const* paper = "Lin et al. 1808.07217";

/// 2a: strategies that must be one algorithm.
void identities(session& s) {
  auto const model = [&](strategy how, bool nesterov, i64 calls = 24) {
    training run{.cluster = cluster_of(8, 1e-3)};
    run.how = how;
    run.rule = {.momentum = .9, .weight_decay = 1e-3, .nesterov = nesterov};
    run.rate = [](progress const&) { return .02; };
    run.hidden = 16;
    run.calls = calls;
    run.probe_every = 0;
    return train(run, s.data).model;
  };
  double worst = 0, others = never;
  for (bool const nesterov : {false, true}) {
    auto const sync = model(sync::allreduce{}, nesterov);
    worst = std::max(worst, distance(model(sync::local{.period = 1}, nesterov), sync));
    worst = std::max(
        worst, distance(model(sync::hierarchical{.block_size = 4, .period = 1, .block_periods = 1}, nesterov),
                        sync));
    auto const local = model(sync::local{.period = 6}, nesterov);
    worst = std::max(
        worst, distance(model(sync::hierarchical{.block_size = 4, .period = 6, .block_periods = 1}, nesterov),
                        local));
    others = std::min(others, distance(local, sync));
  }
  s.add({"2a", paper,
         "local(1) = hierarchical(1, 1) = mini-batch SGD, hierarchical(H, 1) = local(H); with momentum, "
         "Nesterov's, weight decay",
         text("largest relative difference ", short_number(worst), "; local(6) to mini-batch SGD ",
              short_number(others)),
         "<= 1e-6 after 24 updates in fp32; local(6) differs by more than 1e-4",
         worst <= 1e-6 && others > 1e-4});
}

/// 2b: what crosses, counted.
void bytes(session& s) {
  auto const sent = [&](i64 period, i64 calls) {
    training run{.cluster = cluster_of(8, 1e-3)};
    run.how = sync::local{.period = period};
    run.rate = [](progress const&) { return .02; };
    run.calls = calls;
    run.probe_every = 0;
    return train(run, s.data).bytes;
  };
  // The difference leaves the handshake out.
  auto const of = [&](i64 period) { return sent(period, 128) - sent(period, 64); };
  i64 const one = of(1);
  bool holds = one > 0;
  std::string measured = text(one, " bytes in 64 calls at H = 1; over H = ");
  for (i64 const period : {2, 4, 8, 16, 32}) {
    i64 const now = of(period);
    holds = holds && now * period == one;
    measured += text(period == 2 ? "" : ", ", period, ": 1/",
                     short_number(static_cast<double>(one) / static_cast<double>(now), 6));
  }
  s.add({"2b", paper, "local SGD sends 1/H of the bytes", measured, "exactly 1/H", holds});
}

/// 2b: time to a loss against H.
void time_against_period(session& s) {
  std::vector<contender> all;
  double const target = reference_loss(s, 16, 8);
  std::vector<i64> const periods =
      s.of(std::vector<i64>{1, 4, 16, 64}, std::vector<i64>{1, 2, 4, 8, 16, 32, 64});
  for (i64 const period : periods) {
    contender c{text("H = ", period),
                {.cluster = cluster_of(8, 1e-3, {.latency = 1e-3, .bandwidth = 1e6}, .1)},
                s.of(std::vector{.2, .8, 3.2}, std::vector{.1, .2, .4, .8, 1.6, 3.2, 6.4}),
                s.of(std::vector{.9}, std::vector{0., .9})};
    c.run.how = sync::local{.period = period};
    c.run.hidden = 16;
    c.run.epochs = 30;
    c.run.target = target;
    all.push_back(std::move(c));
  }
  auto const found = compete(s, "2b time to target", all, 2, s.seeds, time_to_target);
  auto const time = [&](std::size_t i) { return mean(found[i].each(time_to_target)); };
  std::size_t best = 0;
  std::string measured = text("seconds to loss ", short_number(target), ": ");
  figure f{
      "period",       text("Virtual time to loss ", short_number(target), " against the period of local SGD"),
      "H, calls",     "seconds",
      {{"mean", {}}}, "set logscale x 2\n"};
  for (std::size_t i = 0; i < periods.size(); ++i) {
    if (time(i) < time(best)) best = i;
    measured += text(i == 0 ? "" : ", ", "H = ", periods[i], ": ",
                     time(i) < 1e12 ? short_number(time(i)) : "not reached");
    f.curves[0].points.emplace_back(periods[i], time(i) < 1e12 ? time(i) : never);
  }
  s.figures.push_back(std::move(f));
  auto const gain = ratio(found[0].each(time_to_target), found[best].each(time_to_target));
  std::size_t const last = periods.size() - 1;
  bool const flattens = time(last) > time(last - 1) * .9;
  s.add({"2b-time", paper, "time to a loss falls as H grows, until the drift of the models takes over",
         measured + text("; H = 1 over the best (H = ", periods[best], ") ", short_number(gain.value), ' ',
                         interval_text(gain)),
         "the best H is above 1 (interval of the ratio above 1), and the last doubling gains less than 10 %",
         best > 0 && gain.low > 1 && flattens && reached(found[0]) && reached(found[best]), evidence::sampled,
         gain.interval()});
}

/// 2c: blocks of fast links, joined by slow ones.
void blocks(session& s) {
  bool holds = true;
  double const target = reference_loss(s, 16, 8);
  std::string measured;
  std::optional<std::pair<double, double>> lowest;
  for (double const slower : s.of(std::vector{100.}, std::vector{10., 100., 1000.})) {
    sim::cluster c = cluster_of(16, 1e-3, {.latency = 1e-5 * slower, .bandwidth = 1e8 / slower}, .1);
    c.block_size = 4;
    c.inside = {.latency = 1e-5, .bandwidth = 1e8};
    std::vector<contender> all;
    auto const add = [&](std::string name, strategy how) {
      contender one{std::move(name),
                    {.cluster = c},
                    s.of(std::vector{.4, .8, 1.6}, std::vector{.2, .4, .8, 1.6, 3.2}),
                    {.9}};
      one.run.how = how;
      one.run.hidden = 16;
      one.run.batch = per_worker{4};
      one.run.epochs = 30;
      one.run.target = target;
      all.push_back(std::move(one));
    };
    auto const flat = s.of(std::vector<i64>{4, 16, 64}, std::vector<i64>{1, 2, 4, 8, 16, 32, 64});
    for (i64 const h : flat) add(text("local ", h), sync::local{.period = h});
    for (i64 const h : s.of(std::vector<i64>{1, 2}, std::vector<i64>{1, 2, 4, 8}))
      for (i64 const b : s.of(std::vector<i64>{8, 32}, std::vector<i64>{4, 8, 16, 32}))
        add(text("hierarchical ", h, " x ", b),
            sync::hierarchical{.block_size = 4, .period = h, .block_periods = b});
    auto const found =
        compete(s, text("2c links ", slower, " times slower"), all, s.of(1, 2), s.seeds, time_to_target);
    auto const time = [&](std::size_t i) { return mean(found[i].each(time_to_target)); };
    std::size_t best_flat = 0, best_blocks = flat.size();
    for (std::size_t i = 0; i < found.size(); ++i) {
      auto& best = i < flat.size() ? best_flat : best_blocks;
      if (time(i) < time(best)) best = i;
    }
    auto const gain = ratio(found[best_flat].each(time_to_target), found[best_blocks].each(time_to_target));
    // A flat step between blocks costs 30 messages of 1/16 of the model beside 4 ms of computing.
    double const bytes = 4 * static_cast<double>(s.data.of(16).parameters());
    double const between = 30 * (1e-5 * slower + bytes / 16 / (1e8 / slower));
    bool const slow = between >= .5 * (between + 4e-3);
    if (slow) {
      holds = holds && gain.low > 1 && reached(found[best_flat]) && reached(found[best_blocks]);
      if (!lowest || gain.low < lowest->first) lowest = gain.interval();
    }
    measured +=
        text(measured.empty() ? "" : "; ", slower, "x (", fixed_point(100 * between / (between + 4e-3), 0),
             " % of a flat step): ", found[best_flat].name, " over ", found[best_blocks].name, ' ',
             short_number(gain.value), ' ', interval_text(gain));
  }
  s.add({"2c", paper, "hierarchical local SGD beats flat local SGD where links between blocks are slow",
         measured,
         "best flat over best hierarchical time > 1 wherever links between blocks take at least half of a "
         "flat step",
         holds, evidence::sampled, lowest});
}

/// 2d: the switch to local steps at the first decay of the rate.
void post_local(session& s) {
  double const length = s.of(24., 60.);
  auto const shape = [length](progress const& p) {
    double const e = p.in(unit::epochs);
    double const warm = std::min(1.0, (e + .1) / (.05 * length));
    return warm * (e < .5 * length ? 1 : e < .75 * length ? .1 : .01);
  };
  int const seeds = std::max(10, s.seeds);
  contender base{"large batch",
                 {.cluster = cluster_of(16, 1e-3)},
                 s.of(std::vector{.8, 1.6, 3.2, 6.4}, std::vector{.4, .8, 1.6, 3.2, 6.4, 12.8}),
                 {.9},
                 shape};
  base.run.hidden = 24;
  base.run.batch = per_worker{16};
  base.run.rule = {.weight_decay = 1e-4, .nesterov = true};
  base.run.epochs = length;
  base.run.probe_every = length / 4;
  auto const with = [&](std::string name, strategy how) {
    contender c = base;
    c.name = std::move(name);
    c.run.how = how;
    return c;
  };
  auto const found =
      compete(s, "2d",
              {base, with("post-local 16", sync::local{.period = 16, .from = epochs(.5 * length)}),
               with("post-local 32", sync::local{.period = 32, .from = epochs(.5 * length)}),
               with("local 16 from the warm-up on", sync::local{.period = 16, .from = epochs(.02 * length)})},
              2, seeds, [](outcome const& o) { return o.diverged ? 1e9 : 1 - o.test.accuracy; });
  auto const accuracy = [&](std::size_t i) {
    return found[i].each([](outcome const& o) { return 100 * o.test.accuracy; });
  };
  auto const gain16 = difference(accuracy(1), accuracy(0)), gain32 = difference(accuracy(2), accuracy(0)),
             early = difference(accuracy(3), accuracy(1));
  s.add({"2d", paper, "post-local SGD generalises better than a large batch (16 workers)",
         text("test accuracy minus that of the large batch (", fixed_point(mean(accuracy(0)), 2),
              " %): H = 16 ", fixed_point(gain16.value, 2), ' ', interval_text(gain16), ", H = 32 ",
              fixed_point(gain32.value, 2), ' ', interval_text(gain32), " points, ", seeds, " paired seeds"),
         "the interval of H = 16 lies above 0", gain16.low > 0, evidence::sampled, gain16.interval(),
         gain16.low > 0 ? ""
                        : "Differences are of the order of the noise between seeds on so small a task; each "
                          "method at its own best rate."});
  s.add({"2d-early", paper, "switching in the warm-up is worse than at the first decay",
         text("test accuracy of H = 16, switch in the warm-up minus at the decay: ",
              fixed_point(early.value, 2), ' ', interval_text(early), " points"),
         "the interval lies below 0", early.high < 0, evidence::sampled, early.interval()});
  // How sharp a minimum is depends on the rate first of all, so both are compared at one rate as well.
  std::size_t const n = found[0].runs.size();
  std::vector<double> sharp(n), own(n), same(n);
  s.runs("2d curvature", n, [&](std::size_t i) {
    auto const curved = [&](outcome const& o) { return top_eigenvalue(s.data, base.run.hidden, o.model); };
    sharp[i] = curved(found[0].runs[i]);
    own[i] = curved(found[1].runs[i]);
    auto const at_its_rate = with("post-local 16", sync::local{.period = 16, .from = epochs(.5 * length)});
    same[i] = curved(train(at(at_its_rate, found[0].eta, found[0].momentum, 100 + i), s.data));
  });
  auto const flatter = ratio(same, sharp), of_own = ratio(own, sharp);
  s.add({"2d-flat", paper, "post-local SGD ends in flatter minima",
         text("largest eigenvalue of the Hessian, post-local 16 over large batch: at the rate of the large "
              "batch ",
              short_number(flatter.value), ' ', interval_text(flatter), ", at its own ",
              short_number(of_own.value), ' ', interval_text(of_own), " (", short_number(mean(same)), ", ",
              short_number(mean(own)), " and ", short_number(mean(sharp)), ')'),
         "each at its own best rate the interval lies below 1", of_own.high < 1, evidence::sampled,
         of_own.interval()});
}

}  // namespace

void local_sgd_rows(session& s) {
  if (s.wants("2a", evidence::exact)) identities(s);
  if (s.wants("2b", evidence::exact)) bytes(s);
  if (s.wants("2b-time", evidence::sampled)) time_against_period(s);
  if (s.wants("2c", evidence::sampled)) blocks(s);
  if (s.wants("2d", evidence::sampled)) post_local(s);
}

}  // namespace limber::papers
