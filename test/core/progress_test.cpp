// SPDX-License-Identifier: Apache-2.0
// labels: unit property memory
#define BOOST_TEST_MODULE limber.core.progress
#include <limber/core/progress.hpp>

#include <boost/test/unit_test.hpp>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>

using namespace limber;

namespace {

// From `from` towards `to`, never back.
bool monotone(ramp const& r, i64 first, i64 last) {
  for (i64 s = first; s < last; ++s)
    if ((r.to - r.from) * (r.at(s + 1) - r.at(s)) < 0) return false;
  return true;
}

}  // namespace

BOOST_AUTO_TEST_CASE(progress_is_the_same_bytes_everywhere) {
  progress p{.calls = 12, .steps = 10, .samples = 2560, .epoch_size = 1000};
  p.batch = ramp{.from = 64, .to = 256}.rearmed(10, 512, {});
  p.noise.update(4, 256, 100, 0.2);
  unsigned char bytes[sizeof(progress)];
  std::memcpy(bytes, &p, sizeof p);
  progress q;
  std::memcpy(&q, bytes, sizeof q);
  BOOST_TEST(q.calls == 12);
  BOOST_TEST(q.steps == 10);
  BOOST_TEST(q.samples == 2560);
  BOOST_TEST(q.effective_batch() == p.effective_batch());
  BOOST_TEST(q.noise.gain(512, 64) == p.noise.gain(512, 64));
  // Nothing but 8-byte members: no padding that could differ between ranks.
  BOOST_TEST(sizeof(progress) == 6 * 8 + sizeof(ramp) + sizeof(noise_statistics));
  BOOST_TEST(sizeof(ramp) == 32u);
  BOOST_TEST(sizeof(noise_statistics) == 24u);
}

BOOST_AUTO_TEST_CASE(progress_is_told_in_every_unit) {
  progress const p{.calls = 12, .steps = 10, .samples = 2500, .epoch_size = 1000};
  BOOST_TEST(p.in(unit::steps) == 10);
  BOOST_TEST(p.in(unit::samples) == 2500);
  BOOST_TEST(p.in(unit::epochs) == 2.5);
  BOOST_TEST(progress{}.in(unit::epochs) == 0);
}

BOOST_AUTO_TEST_CASE(epochs_of_unknown_size_are_not_a_number) {
  for (i64 const n : {i64{-5}, i64{0}, i64{1}, i64{1} << 62}) {
    progress const p{.steps = n, .samples = n, .epoch_size = 0};
    BOOST_TEST(std::isnan(p.in(unit::epochs)));
    BOOST_TEST(p.in(unit::steps) == static_cast<double>(n));
    BOOST_TEST(p.in(unit::samples) == static_cast<double>(n));
  }
}

BOOST_AUTO_TEST_CASE(a_ramp_is_linear_from_j_1_to_its_length) {
  ramp const r{.from = 100, .to = 400, .begin = 50, .length = 6};
  BOOST_TEST(r.at(0) == 100);
  BOOST_TEST(r.at(49) == 100);
  BOOST_TEST(r.at(50) == 150);  // the first update at the new batch already moves
  BOOST_TEST(r.at(52) == 250);
  BOOST_TEST(r.at(54) == 350);
  BOOST_TEST(r.at(55) == 400);
  BOOST_TEST(r.at(1'000'000'000'000) == 400);
  BOOST_TEST(r.running(50));
  BOOST_TEST(r.running(54));
  BOOST_TEST(!r.running(55));
}

BOOST_AUTO_TEST_CASE(a_ramp_of_length_0_or_1_is_at_once) {
  for (i64 const length : {0, 1}) {
    ramp const r{.from = 100, .to = 400, .begin = 50, .length = length};
    BOOST_TEST(r.at(50) == 400);
    BOOST_TEST(r.at(51) == 400);
    BOOST_TEST(!r.running(50));
  }
}

BOOST_AUTO_TEST_CASE(before_it_begins_every_ramp_is_at_its_old_batch) {
  for (i64 const length : {0, 1, 5}) {
    ramp const r{.from = 100, .to = 400, .begin = 50, .length = length};
    BOOST_TEST(r.at(49) == 100, "length " << length);
  }
}

BOOST_AUTO_TEST_CASE(an_increase_takes_eight_steps_for_each_fold) {
  ramp const old{.from = 64, .to = 64};
  for (double const k : {2.0, 4.0, 16.0}) {
    auto const r = old.rearmed(1000, 64 * k, {});
    BOOST_TEST(r.from == 64);
    BOOST_TEST(r.to == 64 * k);
    BOOST_TEST(r.begin == 1000);
    BOOST_TEST(static_cast<double>(r.length) == 8 * k);
    BOOST_TEST(r.at(999 + r.length) == 64 * k);
    BOOST_TEST(r.at(998 + r.length) < 64 * k);
    BOOST_TEST(r.at(1000) == 64 + 64 * (k - 1) / (8 * k));
  }
}

BOOST_AUTO_TEST_CASE(a_decrease_and_an_equal_batch_are_applied_at_once) {
  ramp const old{.from = 256, .to = 256};
  for (double const target : {256.0, 64.0, 1.0}) {
    auto const r = old.rearmed(10, target, {});
    BOOST_TEST(r.length == 0);
    BOOST_TEST(r.at(10) == target);
  }
  BOOST_TEST(old.rearmed(10, 1024, immediate).at(10) == 1024);
}

BOOST_AUTO_TEST_CASE(a_decrease_is_ramped_only_on_request) {
  ramp const old{.from = 256, .to = 256};
  auto const slow = old.rearmed(10, 64, {.on_decrease = true});
  BOOST_TEST(slow.length == 2);  // 8 k with k = 1/4
  BOOST_TEST(slow.at(10) == 160);
  BOOST_TEST(slow.at(11) == 64);
  BOOST_TEST(old.rearmed(10, 64, {.proportional = false, .on_decrease = true}).length == 8);
}

BOOST_AUTO_TEST_CASE(a_fixed_length_does_not_depend_on_the_growth) {
  ramp const old{.from = 64, .to = 64};
  for (double const target : {65.0, 128.0, 6400.0})
    BOOST_TEST(old.rearmed(10, target, {.steps_per_growth = 20, .proportional = false}).length == 20);
}

BOOST_AUTO_TEST_CASE(a_change_during_a_ramp_starts_from_the_batch_in_effect) {
  auto const first = ramp{.from = 64, .to = 64}.rearmed(100, 256, {});  // 32 steps
  auto const up = first.rearmed(116, 512, {}), down = first.rearmed(116, 128, {});
  double const now = first.at(115);
  BOOST_TEST(now == 160);
  BOOST_TEST(up.from == now);
  BOOST_TEST(static_cast<double>(up.length) == std::round(8 * 512 / now));
  BOOST_TEST(up.at(115) == now);
  // 128 is below the 160 in effect, though above the 64 at which the first ramp began: a decrease.
  BOOST_TEST(down.length == 0);
  BOOST_TEST(down.at(116) == 128);
}

BOOST_AUTO_TEST_CASE(a_change_before_the_first_update_starts_from_the_batch_given) {
  auto const r = ramp{.from = 64, .to = 64}.rearmed(0, 128, {});
  BOOST_TEST(r.from == 64);
  BOOST_TEST(r.at(0) == 64 + 64.0 / 16);
  BOOST_TEST(r.rearmed(0, 64, {}).from == 64);  // and again, before any update
  BOOST_TEST(r.rearmed(0, 64, {}).length == 0);
}

BOOST_AUTO_TEST_CASE(two_changes_before_one_update_are_the_last_of_them) {
  // What ran before is 256; 64 was planned and never used. Then back to 256 changes nothing.
  ramp const ran{.from = 256, .to = 256};
  auto const twice = ran.rearmed(100, 64, {}).rearmed(100, 512, {});
  auto const once = ran.rearmed(100, 512, {});
  BOOST_TEST(twice.from == once.from);
  BOOST_TEST(twice.length == once.length);
  auto const back = ran.rearmed(100, 64, {}).rearmed(100, 256, {});
  BOOST_TEST(back.at(100) == 256);
}

BOOST_AUTO_TEST_CASE(random_changes_never_make_the_batch_jump_up) {
  std::mt19937_64 random(1);
  for (int trial = 0; trial < 300; ++trial) {
    ramp r{.from = 64, .to = 64};
    i64 step = 0;
    for (int change = 0; change < 10; ++change) {
      step += static_cast<i64>(1 + random() % 100);
      double const before = r.at(step - 1), target = static_cast<double>(16 << random() % 8);
      r = r.rearmed(step, target, {});
      BOOST_TEST_REQUIRE(r.at(step + 100'000) == target);
      BOOST_TEST_REQUIRE(monotone(r, step, step + 300));
      // One step of an 8k ramp grows the batch by less than an eighth.
      BOOST_TEST_REQUIRE(r.at(step) <= std::max(before * 1.13, target < before ? target : 0));
    }
  }
}
