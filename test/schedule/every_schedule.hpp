// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// One list of all schedules, and random progress, for properties that hold for every one of them.

#include <limber/schedule/schedules.hpp>

#include <cmath>
#include <cstdint>
#include <random>

namespace test {

/// Calls `f(name, schedule)` for every schedule, combinator and scaling, with `T` as their horizon.
template <class F>
void for_every_schedule(limber::amount T, F f) {
  using namespace limber;
  amount const in_samples{T.value, T.in == unit::steps ? unit::samples : T.in};
  f("constant", constant(0.3));
  f("warmup", warmup(T));
  f("warmup from 0.1", warmup(T, 0.1));
  f("step_decay", step_decay{.every = T, .factor = 0.5});
  f("multi_step", multi_step({T, {2 * T.value, T.in}, {5 * T.value, T.in}}));
  f("exponential", exponential{.every = T, .factor = 0.97});
  f("polynomial", polynomial{.length = T});
  f("polynomial 2", polynomial{.length = T, .power = 2, .to = 0.01});
  f("polynomial 0.5", polynomial{.length = T, .power = 0.5});
  f("cosine", cosine(T));
  f("cosine to 0.1", cosine(T, 0.1));
  f("cosine_restarts", cosine_restarts{.period = T});
  f("cosine_restarts 2", cosine_restarts{.period = T, .multiplier = 2, .to = 0.05});
  f("cosine_restarts 1.0001", cosine_restarts{.period = T, .multiplier = 1.0001});
  f("one_cycle", one_cycle{.length = T});
  f("one_cycle rising only", one_cycle{.length = T, .rise = 1});
  f("one_cycle falling only", one_cycle{.length = T, .rise = 0});
  f("inverse_sqrt", inverse_sqrt(T));
  f("warmup_stable_decay", warmup_stable_decay(T, T, T));
  f("lasting", lasting(T, 0.2));
  f("sequence", warmup(T) | cosine(T) | lasting(T, 0.1) | inverse_sqrt(T));
  f("product", warmup(T) * cosine(T) * 0.1);
  f("piecewise", piecewise(0.1, T, cosine(T), amount{2 * T.value, T.in}, 0.001));
  f("clamp", clamp(cosine(T), 0.1, 0.9));
  f("linear_scaling", linear_scaling{.base_lr = 0.1, .base_batch = 256});
  f("linear_scaling warm", linear_scaling{.base_lr = 0.1, .base_batch = 256, .warmup = T});
  f("sqrt_scaling", sqrt_scaling{.base_lr = 0.1, .base_batch = 256});
  f("sqrt_scaling warm", sqrt_scaling{.base_lr = 0.1, .base_batch = 256, .warmup = T});
  f("legw", legw{.base_lr = 0.1, .base_batch = 256});
  f("legw warm", legw{.base_lr = 0.1, .base_batch = 256, .warmup = in_samples});
  f("dynamic_sgd", dynamic_sgd(0.1, 256));
  f("adascale", adascale{.base_lr = 0.1, .base_batch = 256});
  f("adascale over", adascale{.base_lr = 0.1, .base_batch = 256}.over(cosine(T)));
  f("all of it",
    linear_scaling{.base_lr = 0.1, .base_batch = 256} * (warmup(T) | cosine(T) | 0.5 * cosine(T)));
}

/// A progress that a run could have: any counters up to the far end, any ramp, any noise.
inline limber::progress random_progress(std::mt19937_64& random) {
  auto const below = [&random](limber::i64 n) {
    return static_cast<limber::i64>(random() % static_cast<std::uint64_t>(n));
  };
  // Any order of magnitude is as likely as any other.
  auto const count = [&](int bits) { return below(limber::i64{1} << below(bits + 1)); };
  limber::progress p;
  p.steps = count(53);
  p.calls = p.steps;
  p.samples = count(62);
  p.epoch_size = 1 + count(40);
  p.batch = {.from = static_cast<double>(1 + count(20)),
             .to = static_cast<double>(1 + count(20)),
             .begin = p.steps - below(40),
             .length = below(60)};
  p.noise = {.variance = std::ldexp(static_cast<double>(below(1000)), -5),
             .square = std::ldexp(static_cast<double>(below(1000)), -5),
             .count = below(3)};
  return p;
}

/// Progress after `steps` updates.
inline limber::progress at_step(limber::i64 steps) { return {.calls = steps, .steps = steps}; }

/// Progress after `samples` samples of epochs of `epoch_size`.
inline limber::progress at_sample(limber::i64 samples, limber::i64 epoch_size) {
  return {.samples = samples, .epoch_size = epoch_size};
}

}  // namespace test
