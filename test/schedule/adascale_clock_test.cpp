// SPDX-License-Identifier: Apache-2.0
// labels: unit property
// sanitizers: address
#define BOOST_TEST_MODULE limber.schedule.adascale_clock
#include <limber/comm/threads.hpp>
#include <limber/cuda/executor.hpp>
#include <limber/cuda/fused_step.hpp>
#include <limber/limber.hpp>

#include <cuda/late_host.hpp>

#include <boost/test/unit_test.hpp>

#include <support/checks.hpp>
#include <support/toy_model.hpp>

#include <array>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

using namespace limber;
using namespace limber::literals;
using namespace limber::testing;

namespace {

adascale const base{.base_lr = 0.1, .base_batch = 32};

progress with_noise(double batch, double variance, double square) {
  progress p;
  p.batch = {batch, batch, 0, 0};
  p.epoch_size = 64;
  p.noise = {.variance = variance, .square = square, .count = 5};
  return p;
}

// Moves progress as a run would: the gain is known, then the update is counted.
template <class S>
void update(S const& schedule, progress& p, i64 samples = 0) {
  p.gain = gain_of(schedule, p);
  p.count_steps(1);
  p.samples += samples;
}

// Samples of four workers in every call.
constexpr std::array<i64, 4> shares{3, 5, 9, 15};

}  // namespace

BOOST_AUTO_TEST_CASE(the_rate_follows_the_papers_clock_by_hand) {
  // r = (32/32 + 1) / (32/128 + 1) = 1.6: the clock shows 0, 1.6, 3.2, 4.8, 6.4, 8.
  auto const schedule = base.over(step_decay{.every = 3_steps, .factor = 0.5});
  auto p = with_noise(128, 32, 1);
  std::array<double, 6> const clock{0, 1.6, 3.2, 4.8, 6.4, 8}, decay{1, 1, 0.5, 0.5, 0.25, 0.25};
  for (std::size_t t = 0; t < clock.size(); ++t) {
    BOOST_TEST(p.base_steps == clock[t], boost::test_tools::tolerance(1e-14));
    BOOST_TEST(schedule(p) == 0.1 * 1.6 * decay[t], boost::test_tools::tolerance(1e-14));
    update(schedule, p, 128);
  }
  BOOST_TEST(p.steps == 6);
}

BOOST_AUTO_TEST_CASE(only_whole_steps_of_the_clock_count_as_in_the_paper) {
  auto const schedule = base.over(warmup(10_steps));
  auto p = with_noise(32, 1, 1);
  p.base_steps = 4.999;
  BOOST_TEST(schedule(p) == 0.1 * warmup(10_steps)(progress{.steps = 4}));
  p.base_steps = 5;
  BOOST_TEST(schedule(p) == 0.1 * warmup(10_steps)(progress{.steps = 5}));
}

BOOST_AUTO_TEST_CASE(the_part_sees_samples_epochs_and_the_batch_of_the_base) {
  auto p = with_noise(128, 32, 1);
  p.steps = 1000;
  p.samples = 128'000;
  p.base_steps = 5.5;
  auto const seen = [&](progress const& q) {
    BOOST_TEST(q.steps == 5);
    BOOST_TEST(q.samples == 5 * 32);
    BOOST_TEST(q.in(unit::epochs) == 2.5);
    BOOST_TEST(q.effective_batch() == 32);
    BOOST_TEST(q.planned_batch() == 32);
    return 0.5;
  };
  BOOST_TEST(base.over(seen)(p) == 0.1 * 1.6 * 0.5, boost::test_tools::tolerance(1e-15));
  BOOST_TEST(base.over(step_decay{.every = 1_epochs, .factor = 0.1})(p) == 0.1 * 1.6 * 0.01,
             boost::test_tools::tolerance(1e-14));
}

BOOST_AUTO_TEST_CASE(whatever_progress_holds_the_rate_is_finite) {
  auto const schedule = base.over(cosine(90_epochs));
  for (double const t : {-1.0, 1e300, std::numeric_limits<double>::infinity(), std::nan("")}) {
    auto p = with_noise(128, 32, 1);
    p.base_steps = t;
    BOOST_TEST(std::isfinite(schedule(p)));
    BOOST_TEST(schedule(p) >= 0);
  }
}

BOOST_AUTO_TEST_CASE(where_nothing_measures_a_gain_the_clock_shows_steps) {
  auto const cos = cosine(20_steps);
  auto const plain = 0.1 * cos;
  auto const clocked = base.over(cos);
  auto p = with_noise(32, 1000, 1e-3);  // not above the base batch: nothing is gained
  for (i64 t = 0; t < 25; ++t) {
    BOOST_TEST(p.base_steps == static_cast<double>(t));
    BOOST_TEST(clocked(p) == plain(p));
    update(clocked, p, 32);
  }
  auto q = with_noise(4096, 1000, 1e-3);
  for (i64 t = 0; t < 25; ++t) update(plain, q, 4096);
  BOOST_TEST(q.base_steps == 25);
}

BOOST_AUTO_TEST_CASE(combined_schedules_pass_the_gain_on) {
  auto const p = with_noise(128, 32, 1);
  auto const near = [](double a) { return std::abs(a - 1.6) < 1e-15; };
  BOOST_TEST(near(gain_of(base, p)));
  BOOST_TEST(near(gain_of(base.over(constant(1)), p)));
  BOOST_TEST(near(gain_of(2.0 * base.over(cosine(5_epochs)), p)));
  BOOST_TEST(near(gain_of(base * (warmup(5_steps) | cosine(85_steps)) * 0.5, p)));
  BOOST_TEST(near(gain_of(clamp(base, 0, 1), p)));
  BOOST_TEST(near(gain_of(lasting(5_steps, base), p)));
  auto later = p;
  later.steps = 7;
  auto const then = lasting(5_steps, base) | constant(0.1);
  BOOST_TEST(near(gain_of(then, p)));
  BOOST_TEST(gain_of(then, later) == 1);
  auto const first = warmup(5_steps) | base;
  BOOST_TEST(gain_of(first, p) == 1);
  BOOST_TEST(near(gain_of(first, later)));
  auto const switched = piecewise(constant(1), 5_steps, base);
  BOOST_TEST(gain_of(switched, p) == 1);
  BOOST_TEST(near(gain_of(switched, later)));
  BOOST_TEST(gain_of([](progress const& q) { return base(q); }, p) == 1);
  BOOST_TEST(gain_of(cosine(5_steps), p) == 1);
  static_assert(device_schedule<base_clock<cosine>> && !finite_schedule<base_clock<cosine>>);
}

// The first estimate of four workers with unequal shares, and every rate and clock after it, typed out.
BOOST_AUTO_TEST_CASE(the_optimizer_moves_the_clock_by_the_gain_it_stepped_with) {
  threads::run(4, [](threads::communicator& comm) {
    auto const r = static_cast<std::size_t>(comm.rank());
    auto const decay = step_decay{.every = 4_steps, .factor = 0.5};
    adascale const scale{.base_lr = 0.001, .base_batch = 4};
    toy_model<double> m;
    optimizer opt{m.parameters(),    sgd{}, scale.over(decay),
                  sync::allreduce{}, comm,  {.batch = per_worker{8}, .epoch_size = 100}};
    double clock = 0, steps = 0, least = 1, most = 1;
    i64 first = 0;
    for (int t = 0; t < 30; ++t) {
      progress const before = opt.now();
      double gain = 1;
      if (before.noise.count > 0) {
        double const v = std::max(before.noise.variance, 1e-12), g = std::max(before.noise.square, 0.0);
        gain = (v / 4 + g) / (v / 32 + g);
      }
      i64 mine = 0;
      for (std::size_t k = 0; k < 4; first += shares[k++])
        if (k == r) mine = first;
      m.backward(run_of(mine, shares[r]));
      auto const gradient = [&] {
        auto g = m.gw;
        g.push_back(m.gb[0]);
        return g;
      }();
      bool const bad = t == 7;
      if (bad && r == 2) m.gw[0] = std::nan("");
      auto const& did = opt.step(shares[r]);
      double const expected = 0.001 * gain * std::pow(0.5, std::floor(std::floor(clock) / 4));
      LIMBER_CHECK(std::abs(did.rate - expected) <= 1e-14 * expected);
      if (!bad) {
        clock += gain;
        ++steps;
      }
      least = std::min(least, gain);
      most = std::max(most, gain);
      LIMBER_CHECK(std::abs(opt.now().base_steps - clock) <= 1e-12 * clock);
      std::array<double, 1> const own{opt.now().base_steps};
      std::array<double, 4> all{};
      comm.all_gather(const_view(own), view(all)).wait();
      for (double x : all) LIMBER_CHECK(x == own[0]);
      if (t > 0) continue;
      // Σ bᵢ‖gᵢ‖², and the mean gradient, of all four.
      std::vector<double> every(4 * gradient.size());
      comm.all_gather(const_view(gradient), view(every)).wait();
      double weighted = 0, square = 0;
      for (std::size_t k = 0; k < gradient.size(); ++k) {
        double mean = 0;
        for (std::size_t w = 0; w < 4; ++w) {
          double const g = every[w * gradient.size() + k], b = static_cast<double>(shares[w]);
          weighted += b * g * g;
          mean += b / 32 * g;
        }
        square += mean * mean;
      }
      double const v = (weighted - 32 * square) / 3;
      LIMBER_CHECK(std::abs(opt.now().noise.variance / v - 1) < 1e-12);
      LIMBER_CHECK(std::abs(opt.now().noise.square / (square - v / 32) - 1) < 1e-12);
    }
    LIMBER_CHECK(static_cast<double>(opt.now().steps) == steps);
    LIMBER_CHECK(clock > steps + 1);
    LIMBER_CHECK(least == 1 && most <= 8);
    LIMBER_CHECK(most > 1.05);
  });
}

BOOST_AUTO_TEST_CASE(a_joiner_takes_the_clock_over) {
  threads::run(3, [](threads::communicator& comm) {
    toy_model<double> m;
    auto pair = comm.split(comm.rank() < 2 ? 0 : 1);
    optimizer opt{
        m.parameters(),    sgd{}, adascale{.base_lr = 0.001, .base_batch = 2}.over(cosine(200_steps)),
        sync::allreduce{}, pair,  {.batch = per_worker{8}}};
    for (int t = 0; t < 6 && comm.rank() < 2; ++t) {
      m.backward(run_of(16 * t + 8 * comm.rank(), 8));
      opt.step(8);
    }
    opt.resize(comm);
    for (int t = 6; t < 9; ++t) {
      m.backward(run_of(24 * t + 8 * comm.rank(), 8));
      opt.step(8);
      std::array<double, 1> const own{opt.now().base_steps};
      std::array<double, 3> all{};
      comm.all_gather(const_view(own), view(all)).wait();
      LIMBER_CHECK(all[0] == all[2] && all[1] == all[2]);
      LIMBER_CHECK(own[0] > static_cast<double>(opt.now().steps));
    }
  });
}

namespace {

// Descent on ½‖x‖² by S workers of one base batch each, in many dimensions, until the clock shows each mark.
// A sample's gradient is x and noise: as large as three times x (`relative`), or always the same.
struct curve {
  std::array<double, 3> loss{}, gain{};
  i64 steps = 0;

  curve(int workers, bool relative, std::array<double, 3> const& marks) {
    constexpr std::size_t dimensions = 30;
    constexpr int seeds = 30;
    auto const rate =
        adascale{.base_lr = 0.01, .base_batch = 1}.over(step_decay{.every = 150_steps, .factor = 0.1});
    for (unsigned seed = 0; seed < seeds; ++seed) {
      std::mt19937 random(seed);
      std::normal_distribution<double> normal;
      std::array<double, dimensions> x;
      x.fill(1);
      progress p;
      p.batch = {static_cast<double>(workers), static_cast<double>(workers), 0, 0};
      for (std::size_t next = 0; next < marks.size();) {
        double size = 0;
        for (double one : x) size += one * one / dimensions;
        if (p.base_steps >= marks[next]) {
          loss[next] += size / seeds;
          gain[next++] += p.gain / seeds;
          continue;
        }
        double const spread = relative ? 3 * std::sqrt(size) : 3;
        double squares = 0, square = 0;
        std::array<double, dimensions> mean{};
        for (int w = 0; w < workers; ++w)
          for (std::size_t k = 0; k < dimensions; ++k) {
            double const g = x[k] + spread * normal(random);
            squares += g * g;
            mean[k] += g / workers;
          }
        for (double g : mean) square += g * g;
        p.gain = gain_of(rate, p);
        BOOST_TEST_REQUIRE((p.gain >= 1 && p.gain <= workers));
        for (std::size_t k = 0; k < dimensions; ++k) x[k] -= rate(p) * mean[k];
        p.count_steps(1);
        p.noise.update(workers, workers, squares, square, std::max(1 - workers / 1000.0, 0.0));
      }
      steps += p.steps;
    }
    steps /= seeds;
  }
};

}  // namespace

// Before the rate falls and after: what S workers reach at clock τ is what one reaches in τ steps.
BOOST_AUTO_TEST_CASE(curves_of_different_batches_align_on_the_clock) {
  std::array<double, 3> const marks{70, 140, 220};
  curve const one(1, true, marks);
  BOOST_TEST(one.steps == 220);
  for (int const workers : {4, 16}) {
    curve const many(workers, true, marks);
    for (std::size_t k = 0; k < marks.size(); ++k) {
      BOOST_TEST_MESSAGE(workers << " workers, clock " << marks[k] << ": ln loss " << std::log(many.loss[k])
                                 << ", of one " << std::log(one.loss[k]) << ", gain " << many.gain[k]);
      BOOST_TEST(std::abs(std::log(many.loss[k]) / std::log(one.loss[k]) - 1) < 0.12);
    }
    // (9 + 1) / (9 / S + 1)
    double const expected = 10 / (9.0 / workers + 1);
    BOOST_TEST(std::abs(static_cast<double>(many.steps) / (220 / expected) - 1) < 0.15);
  }
}

BOOST_AUTO_TEST_CASE(the_gain_rises_while_the_gradient_shrinks_under_the_same_noise) {
  curve const many(16, false, {50, 100, 150});
  BOOST_TEST(many.gain[1] > many.gain[0]);
  BOOST_TEST(many.gain[2] > many.gain[1]);
}

BOOST_AUTO_TEST_CASE(a_device_moves_the_same_clock) {
  threads::run(3, [](threads::communicator& comm) {
    toy_model<float> expected, m;
    auto const rate =
        adascale{.base_lr = 0.001, .base_batch = 4}.over(step_decay{.every = 5_steps, .factor = 0.5});
    optimizer opt{expected.parameters(), sgd{}, rate,
                  sync::allreduce{},     comm,  {.batch = per_worker{8}, .epoch_size = 100}};
    late_host exec;
    gpu::fused_step step{exec, m.parameters(), sgd{}, rate, {.epoch_size = 100, .ranks = 3}};
    auto const reduce = [&](auto& s) {
      for (auto const& b : s.buckets().buckets)
        comm.all_reduce(bucket_view(s.packed(), b), bucket_view(s.reduced(), b)).wait();
      comm.all_reduce(s.control(), s.total()).wait();
    };
    for (int t = 0; t < 15; ++t) {
      auto const samples = run_of(24 * t + 8 * comm.rank(), 8);
      expected.backward(samples);
      m.backward(samples);
      if (t == 6 && comm.rank() == 1) expected.gb[0] = m.gb[0] = std::numeric_limits<float>::infinity();
      opt.step(8);
      step.advance(8, 24);
      step.update(reduce);
      LIMBER_CHECK(distance(m.all(), expected.all()) < 1e-5);
    }
    auto const& now = step.settle().now;
    LIMBER_CHECK(now.steps == 14);
    LIMBER_CHECK(now.base_steps > 15);
    LIMBER_CHECK(std::abs(now.base_steps / opt.now().base_steps - 1) < 1e-5);
  });
}
