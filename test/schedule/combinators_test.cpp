// SPDX-License-Identifier: Apache-2.0
// labels: unit property
#define BOOST_TEST_MODULE limber.schedule.combinators
#include <boost/test/unit_test.hpp>

#include <schedule/every_schedule.hpp>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <type_traits>
#include <vector>

using namespace limber;
using namespace limber::literals;
using test::at_sample;
using test::at_step;

namespace {

bool same_bits(double a, double b) { return std::memcmp(&a, &b, sizeof a) == 0; }

// A user's type-erased piece, and a user's wrapper: neither knows how limber counts.
struct erased {
  amount length;
  std::function<double(progress const&)> rate;
  std::function<i64(i64)> ticks;
  double operator()(progress const& p) const { return rate(p); }
  [[nodiscard]] i64 length_in_ticks(i64 epoch_size) const { return ticks(epoch_size); }
};

template <class S>
erased erase(S s) {
  return {s.length, s, [s](i64 epoch_size) { return detail::length_in_ticks(s, epoch_size); }};
}

// pieces[from, to) put together in a random order of brackets.
erased random_nesting(std::vector<erased> const& pieces, std::size_t from, std::size_t to,
                      std::mt19937_64& random) {
  if (to - from == 1) return pieces[from];
  std::size_t const cut = from + 1 + random() % (to - from - 1);
  auto const left = random_nesting(pieces, from, cut, random),
             right = random_nesting(pieces, cut, to, random);
  switch (random() % 3) {
    case 0: return erase(left | right);
    case 1: return erase(1.0 * (left | right));
    default: return erase(clamp(left | right, 0, 1e9));
  }
}

}  // namespace

BOOST_AUTO_TEST_CASE(each_piece_of_a_sequence_sees_progress_since_its_own_start) {
  auto const s = warmup(5_steps) | cosine(10_steps) | lasting(3_steps, 0.25) | inverse_sqrt(4_steps);
  for (i64 t = 0; t < 100; ++t) {
    double const expected = t < 5    ? warmup(5_steps)(at_step(t))
                            : t < 15 ? cosine(10_steps)(at_step(t - 5))
                            : t < 18 ? 0.25
                                     : inverse_sqrt(4_steps)(at_step(t - 18));
    BOOST_TEST(same_bits(s(at_step(t)), expected));
  }
}

BOOST_AUTO_TEST_CASE(a_sequence_with_an_end_has_the_summed_length_and_holds_its_last_rate) {
  auto const s = warmup(5_epochs) | cosine(85_epochs, 0.01);
  static_assert(finite_schedule<decltype(s)>);
  static_assert(!finite_schedule<decltype(warmup(5_epochs) | constant(1))>);
  BOOST_TEST((s.length == 90_epochs));
  BOOST_TEST((((s | lasting(2_epochs, 1)) | s).length == 182_epochs));
  BOOST_TEST(s(at_sample(90 * 100, 100)) == 0.01);
  BOOST_TEST(s(at_sample(i64{1} << 62, 100)) == 0.01);
}

BOOST_AUTO_TEST_CASE(a_transformer_schedule_is_a_warmup_and_an_inverse_square_root) {
  auto const s = warmup(4000_steps) | inverse_sqrt(4000_steps);
  for (i64 t = 1; t < 50'000; t += 7) {
    auto const x = static_cast<double>(t);
    BOOST_TEST(std::abs(s(at_step(t)) - std::min(x / 4000, std::sqrt(4000 / x))) <= 1e-13);
  }
}

BOOST_AUTO_TEST_CASE(all_static_nestings_of_a_sequence_have_the_same_bits) {
  std::mt19937_64 random(3);
  for (int round = 0; round < 60; ++round) {
    auto const length = [&random](unit u) {
      double const n = static_cast<double>(1 + random() % 400);
      return amount{u == unit::epochs ? n / 37 : n, u};
    };
    for (unit const u : {unit::steps, unit::samples, unit::epochs}) {
      warmup const a(length(u));
      polynomial const b{.length = length(u), .power = 1.5, .to = 0.1};
      cosine const c(length(u));
      one_cycle const d{.length = length(u)};
      auto const s1 = ((a | b) | c) | d;
      auto const s2 = (a | (b | c)) | d;
      auto const s3 = (a | b) | (c | d);
      auto const s4 = a | ((b | c) | d);
      auto const s5 = a | (b | (c | d));
      auto const wrapped = 1.0 * (1.0 * (a | b) | c * 1.0) | clamp(d, 0, 9);
      auto const lasting_one = lasting(s1.length, 1) * s3;
      for (int i = 0; i < 300; ++i) {
        progress p{.epoch_size = static_cast<i64>(1 + random() % 103)};
        p.steps = static_cast<i64>(random() % 2000);
        p.samples = static_cast<i64>(random() % 4000);
        double const expected = s1(p);
        BOOST_TEST_CONTEXT(name_of(u) << " steps=" << p.steps << " samples=" << p.samples) {
          BOOST_TEST(same_bits(s2(p), expected));
          BOOST_TEST(same_bits(s3(p), expected));
          BOOST_TEST(same_bits(s4(p), expected));
          BOOST_TEST(same_bits(s5(p), expected));
          BOOST_TEST(same_bits(wrapped(p), expected));
          BOOST_TEST(same_bits(lasting_one(p), expected));
        }
      }
    }
  }
}

BOOST_AUTO_TEST_CASE(random_nestings_of_many_pieces_in_fractional_epochs_have_the_bits_of_a_flat_list) {
  std::mt19937_64 random(4);
  for (int round = 0; round < 200; ++round) {
    std::size_t const n = 2 + random() % 7;
    std::vector<erased> pieces;
    for (std::size_t i = 0; i < n; ++i) {
      amount const length = epochs(static_cast<double>(1 + random() % 500) / 97);
      if (random() % 2 == 0)
        pieces.push_back(erase(cosine(length, 0.1)));
      else
        pieces.push_back(erase(warmup(length, 0.2)));
    }
    auto const nested = random_nesting(pieces, 0, n, random);
    i64 const epoch_size = static_cast<i64>(1 + random() % 500);
    for (int i = 0; i < 100; ++i) {
      auto const p = at_sample(static_cast<i64>(random() % 8000), epoch_size);
      // The flat list, written independently: whole-sample lengths, then the piece that holds p.
      auto rest = p;
      std::size_t k = 0;
      for (; k + 1 < n; ++k) {
        auto const whole = std::llround(pieces[k].length.value * static_cast<double>(epoch_size));
        if (rest.samples < whole) break;
        rest.samples -= whole;
      }
      BOOST_TEST(same_bits(nested(p), pieces[k](rest)));
    }
  }
}

BOOST_AUTO_TEST_CASE(a_sequence_moves_one_counter_and_leaves_the_batch_of_now) {
  progress p{.calls = 70, .steps = 60, .samples = 6000, .epoch_size = 1000};
  p.batch = {.from = 32, .to = 128, .begin = 50, .length = 32};
  p.noise = {.variance = 3, .square = 2, .count = 5};
  auto const sees = [&p](unit moved, progress const& q) {
    BOOST_TEST(q.calls == p.calls);
    BOOST_TEST(q.steps == p.steps - (moved == unit::steps ? 10 : 0));
    BOOST_TEST(q.samples == p.samples - (moved == unit::steps ? 0 : moved == unit::samples ? 10 : 10'000));
    BOOST_TEST(q.epoch_size == p.epoch_size);
    BOOST_TEST(same_bits(q.effective_batch(), p.effective_batch()));
    BOOST_TEST(q.batch.running(q.steps) == p.batch.running(p.steps));
    BOOST_TEST(q.noise.variance == 3);
    return 0.5;
  };
  p.samples = 16'000;
  for (unit const u : {unit::steps, unit::samples, unit::epochs}) {
    auto const s = lasting(amount{10, u}, 1) | [&sees, u](progress const& q) { return sees(u, q); };
    BOOST_TEST(s(p) == 0.5);
    linear_scaling const lr{.base_lr = 0.1, .base_batch = 32};
    BOOST_TEST(same_bits((lasting(amount{10, u}, 1) | lr)(p), lr(p)));
  }
}

BOOST_AUTO_TEST_CASE(a_piece_that_rounds_to_no_sample_is_skipped) {
  auto const s =
      lasting(0.001_epochs, 0.9) | lasting(0.5_epochs, 0.5) | lasting(1e-9_epochs, 0.8) | constant(0.1);
  BOOST_TEST(s(at_sample(0, 100)) == 0.5);
  BOOST_TEST(s(at_sample(49, 100)) == 0.5);
  BOOST_TEST(s(at_sample(50, 100)) == 0.1);
}

BOOST_AUTO_TEST_CASE(lengths_beyond_every_counter_do_not_overflow) {
  auto const s = (lasting(epochs(1e300), 0.5) | lasting(epochs(1e300), 0.25)) | constant(0.1);
  BOOST_TEST(s(at_sample((i64{1} << 62) - 1, 1000)) == 0.5);
  BOOST_TEST(s(at_sample(i64{1} << 62, 1000)) == 0.1);
}

BOOST_AUTO_TEST_CASE(products_multiply_and_their_nestings_have_the_same_bits) {
  std::mt19937_64 random(5);
  auto const a = exponential{.every = 7_samples, .factor = 0.9};
  auto const b = cosine(999_steps, 0.1);
  auto const c = linear_scaling{.base_lr = 0.3, .base_batch = 100};
  auto const d = inverse_sqrt(3_epochs);
  auto const s1 = ((a * b) * c) * d;
  auto const s2 = a * (b * (c * d));
  auto const s3 = (a * b) * (c * d);
  auto const s4 = a * ((b * c) * d);
  static_assert(std::is_same_v<decltype(s1), decltype(s2)> && std::is_same_v<decltype(s1), decltype(s3)>);
  for (int i = 0; i < 2000; ++i) {
    auto const p = test::random_progress(random);
    double const expected = a(p) * b(p) * c(p) * d(p);
    BOOST_TEST(std::abs(s1(p) - expected) <= 1e-14 * expected);
    BOOST_TEST(same_bits(s1(p), s2(p)));
    BOOST_TEST(same_bits(s1(p), s3(p)));
    BOOST_TEST(same_bits(s1(p), s4(p)));
    BOOST_TEST(same_bits((1.0 * b)(p), b(p)));
    BOOST_TEST(same_bits((b * 1.0)(p), b(p)));
    BOOST_TEST(same_bits((0.1 * b)(p), 0.1 * b(p)));
  }
}

BOOST_AUTO_TEST_CASE(a_product_ends_with_its_only_factor_that_ends) {
  auto const s = 0.1 * (warmup(5_epochs) | cosine(5_epochs));
  BOOST_TEST((s.length == 10_epochs));
  BOOST_TEST(((linear_scaling{.base_lr = 1, .base_batch = 1} * cosine(5_epochs)).length == 5_epochs));
  static_assert(!finite_schedule<decltype(cosine(5_epochs) * warmup(9_steps))>);
  static_assert(!finite_schedule<decltype(constant(5) * constant(9))>);
  auto const longer = s | constant(0.001);
  BOOST_TEST(longer(at_sample(10 * 50, 50)) == 0.001);
}

BOOST_AUTO_TEST_CASE(piecewise_switches_at_its_boundaries_and_pieces_see_the_whole_progress) {
  auto const s = piecewise(0.1, 30_epochs, 0.01, 60_epochs, cosine(90_epochs), 80_epochs, 0);
  for (i64 t = 0; t < 1000; ++t) {
    auto const p = at_sample(t, 10);
    double const expected = t < 300 ? 0.1 : t < 600 ? 0.01 : t < 800 ? cosine(90_epochs)(p) : 0;
    BOOST_TEST(same_bits(s(p), expected));
  }
  // A boundary in fractional epochs falls on its sample.
  auto const f = piecewise(1, 0.3_epochs, 0.5, 1.1_epochs, 0.25);
  BOOST_TEST(f(at_sample(2, 10)) == 1);
  BOOST_TEST(f(at_sample(3, 10)) == 0.5);
  BOOST_TEST(f(at_sample(10, 10)) == 0.5);
  BOOST_TEST(f(at_sample(11, 10)) == 0.25);
}

BOOST_AUTO_TEST_CASE(clamp_limits_a_schedule_and_keeps_its_end) {
  auto const s = clamp(cosine(10_steps), 0.1, 0.8);
  for (i64 t = 0; t < 20; ++t) {
    double const x = cosine(10_steps)(at_step(t));
    BOOST_TEST(s(at_step(t)) == (x < 0.1 ? 0.1 : x > 0.8 ? 0.8 : x));
  }
  BOOST_TEST((s.length == 10_steps));
  static_assert(!finite_schedule<decltype(clamp(constant(1), 0, 1))>);
}

// With `using namespace limber`, as here, the operators are candidates for everybody's types.
BOOST_AUTO_TEST_CASE(the_operators_leave_other_types_alone) {
  struct metres {
    double value;
    metres operator*(double k) const { return {value * k}; }
    int operator|(double) const { return 7; }
  };
  BOOST_TEST((metres{2} * 3.0).value == 6.0);
  BOOST_TEST((metres{2} | 3.0) == 7);
  double const f = 3;
  BOOST_TEST(f * f < 10);
}

BOOST_AUTO_TEST_CASE(a_lambda_is_a_schedule) {
  auto const mine = [](progress const& p) { return 1.0 / static_cast<double>(1 + p.steps); };
  static_assert(schedule<decltype(mine)> && !finite_schedule<decltype(mine)>);
  BOOST_TEST((0.5 * mine)(at_step(3)) == 0.125);
  BOOST_TEST((warmup(2_steps) | mine)(at_step(5)) == 0.25);
  BOOST_TEST((lasting(4_steps, mine) | constant(0.3))(at_step(3)) == 0.25);
  BOOST_TEST((lasting(4_steps, mine) | constant(0.3))(at_step(4)) == 0.3);
  BOOST_TEST(piecewise(mine, 2_steps, 0.1)(at_step(1)) == 0.5);
  BOOST_TEST(clamp(mine, 0.2, 1)(at_step(99)) == 0.2);
}

// Peers' bugs, each as it was reported.

BOOST_AUTO_TEST_CASE(a_sequence_inside_a_sequence_keeps_its_schedule) {  // pytorch #196243
  auto const inner = warmup(3_steps) | cosine(4_steps);
  auto const nested = lasting(5_steps, 0.5) | inner | constant(0.2);
  for (i64 t = 0; t < 20; ++t) {
    double const expected = t < 5 ? 0.5 : t < 12 ? inner(at_step(t - 5)) : 0.2;
    BOOST_TEST(same_bits(nested(at_step(t)), expected));
  }
}

BOOST_AUTO_TEST_CASE(short_horizons_are_no_nan) {  // optax #1403: one_cycle and cosine of 1 or 2 steps
  for (double const T : {1.0, 2.0}) {
    for (double const rise : {0.0, 0.3, 0.5, 1.0}) {
      one_cycle const s{.length = steps(T), .rise = rise};
      for (i64 t = 0; t < 5; ++t) BOOST_TEST((s(at_step(t)) >= 0 && s(at_step(t)) <= 1));
    }
    BOOST_TEST((warmup(steps(T)) | cosine(steps(T)))(at_step(static_cast<i64>(T))) == 1.0);
  }
}

BOOST_AUTO_TEST_CASE(the_first_update_is_update_0) {  // optax #415 began at 1, PR #1744 was off by one
  auto const s = lasting(1_steps, 0.7) | cosine(10_steps);
  BOOST_TEST(s(at_step(0)) == 0.7);
  BOOST_TEST(s(at_step(1)) == 1.0);
  BOOST_TEST(s(at_step(11)) == 0.0);
  BOOST_TEST(s(at_step(10)) > 0.0);
}

BOOST_AUTO_TEST_CASE(
    a_warmup_in_epochs_ends_after_the_same_data_for_any_number_of_workers) {  // accelerate #662
  warmup const s(2_epochs);
  for (i64 const workers : {1, 4, 64}) {
    progress p{.epoch_size = 6400};
    while (s(p) < 1) {
      ++p.calls;
      ++p.steps;
      p.samples += workers * 25;
    }
    BOOST_TEST(p.samples == 2 * 6400);
  }
}

BOOST_AUTO_TEST_CASE(skipped_calls_do_not_advance_a_schedule) {  // optax PR #1746
  auto const s = warmup(10_steps) | cosine(10_steps);
  progress p = at_step(7);
  double const before = s(p);
  p.calls += 1000;
  BOOST_TEST(same_bits(s(p), before));
}
