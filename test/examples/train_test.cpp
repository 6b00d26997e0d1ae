// SPDX-License-Identifier: Apache-2.0
// labels: unit property
// optimize: 1
// sanitizers: no
// needs: Eigen3 ZLIB
#define BOOST_TEST_MODULE limber.examples.train
#include "../../examples/language_model/train.hpp"

#include "core/says.hpp"
#include "files.hpp"

#include <boost/test/unit_test.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <utility>
#include <vector>

using example::corpus;
using example::generation;
using example::language_model;
using example::training;
using limber::i64;

namespace {

corpus const text{limber::test::pattern(3000), "pattern"};

training plan(std::vector<generation> generations) {
  return {.generations = std::move(generations),
          .epoch_size = text.train_size(),
          .per_worker = 4,
          .base_batch = 8,
          .base_lr = 0.05,
          .momentum = 0.9,
          .anneal = true,
          .seed = 5};
}

auto const nobody = [](auto const&, auto const&, double) {};

std::vector<float> values(language_model model) {
  std::vector<float> all;
  for (auto const& t : model.parameters()) {
    auto const v = t.value.as<float>();
    all.insert(all.end(), v.begin(), v.end());
  }
  return all;
}

// What the library is to compute, written without it but for the order of samples: one worker that
// takes the whole batch, momentum in the outside form, the rate η B_eff / B₀ times half a cosine wave.
std::vector<float> by_hand(training const& run) {
  language_model model(text, 16, 7);
  auto const parameters = model.parameters();
  std::vector<std::vector<float>> momentum;
  for (auto const& t : parameters) momentum.emplace_back(static_cast<std::size_t>(t.value.length), 0.f);
  limber::sampler sampler(run.epoch_size, run.seed);
  i64 samples = 0, steps = 0, begin = 0;
  double from = 0, to = 0, length = 0;
  for (auto const& g : run.generations) {
    i64 const batch = g.workers * run.per_worker;
    double const effective = steps == 0 ? static_cast<double>(batch)
                             : static_cast<double>(steps - begin) >= length
                                 ? to
                                 : from + (to - from) * static_cast<double>(steps - begin) / length;
    double const k = static_cast<double>(batch) / effective;
    from = effective;
    to = static_cast<double>(batch);
    begin = steps;
    length = k > 1 ? std::round(run.ramp.steps_per_growth * k) : 0;
    while (samples < g.end) {
      auto const mine = sampler.take(std::vector<i64>{batch}, 0);
      model.gradient(mine);
      double const j = static_cast<double>(steps - begin + 1);
      double const scale = j < length ? from + (to - from) * j / length : to;
      double const done = static_cast<double>(samples) / static_cast<double>(run.samples());
      double const rate = run.base_lr * scale / static_cast<double>(run.base_batch) * 0.5 *
                          (1 + std::cos(3.14159265358979323846 * done));
      for (std::size_t p = 0; p < parameters.size(); ++p) {
        auto const v = parameters[p].value.as<float>(), g2 = parameters[p].gradient.as<float>();
        for (std::size_t i = 0; i < v.size(); ++i) {
          momentum[p][i] = static_cast<float>(run.momentum) * momentum[p][i] + std::exchange(g2[i], 0.f);
          v[i] -= static_cast<float>(rate) * momentum[p][i];
        }
      }
      samples += static_cast<i64>(mine.size());
      ++steps;
    }
  }
  return values(model);
}

double distance(std::vector<float> const& a, std::vector<float> const& b) {
  double sum = 0, size = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    sum += std::pow(static_cast<double>(a[i]) - static_cast<double>(b[i]), 2);
    size += std::pow(static_cast<double>(b[i]), 2);
  }
  return std::sqrt(sum / size);
}

}  // namespace

// Grows by joiners, shrinks by leavers, ends epochs in short steps, is resized in the middle of a ramp.
BOOST_AUTO_TEST_CASE(workers_that_come_and_go_compute_what_one_worker_would) {
  language_model const start(text, 16, 7);
  for (auto const& generations : {std::vector<generation>{{2, 400}},
                                  {{2, 400}, {8, 2000}, {3, 3000}},
                                  {{2, 400}, {4, 600}, {8, 1500}, {1, 1600}, {8, 6000}}}) {
    for (auto const ramp : {limber::ramp_rule{}, limber::immediate}) {
      auto run = plan(generations);
      run.ramp = ramp;
      auto const expected = by_hand(run);
      BOOST_TEST(distance(values(start), expected) > 0.01);
      BOOST_TEST(distance(values(example::train(start, run, nobody)), expected) < 1e-4);
    }
  }
}

BOOST_AUTO_TEST_CASE(the_same_run_gives_the_same_bits) {
  language_model const start(text, 16, 7);
  auto const run = plan({{2, 200}, {6, 800}, {3, 1000}});
  BOOST_TEST(values(example::train(start, run, nobody)) == values(example::train(start, run, nobody)));
}

BOOST_AUTO_TEST_CASE(one_worker_reports_every_update_with_batch_and_rate) {
  language_model const start(text, 16, 7);
  auto run = plan({{2, 80}, {4, 400}});
  run.anneal = false;
  std::vector<i64> samples;
  std::vector<double> rates;
  (void)example::train(start, run, [&](language_model const&, auto const& optimizer, double bits) {
    samples.push_back(optimizer.now().samples);
    rates.push_back(optimizer.last().rate);
    BOOST_TEST(bits > 0);
  });
  BOOST_TEST_REQUIRE(samples.size() == 30u);
  for (std::size_t i = 0; i < 30; ++i) {
    auto const step = static_cast<i64>(i) + 1;
    BOOST_TEST(samples[i] == (step <= 10 ? step * 8 : 80 + (step - 10) * 16));
    // k = 2, so T = 16: the rate grows from 0.05 to 0.1 over updates 11 to 26.
    double const j = std::clamp(static_cast<double>(step - 10), 0.0, 16.0);
    BOOST_TEST(rates[i] == 0.05 * (1 + j / 16), boost::test_tools::tolerance(1e-12));
  }
}

BOOST_AUTO_TEST_CASE(gradients_that_stay_infinite_end_the_run_with_the_tensor_named) {
  language_model start(text, 16, 7);
  std::ranges::fill(start.parameters()[0].value.as<float>(), std::nanf(""));
  BOOST_CHECK_EXCEPTION((void)example::train(start, plan({{2, 400}, {4, 800}}), nobody), limber::error,
                        limber::test::says("not finite", "embedding"));
}
