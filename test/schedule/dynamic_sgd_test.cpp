// SPDX-License-Identifier: Apache-2.0
// labels: unit property
#define BOOST_TEST_MODULE limber.schedule.dynamic_sgd
#include <limber/schedule/schedules.hpp>

#include <boost/test/unit_test.hpp>

#include <cmath>
#include <cstring>
#include <random>
#include <vector>

using namespace limber;
using namespace limber::literals;

// The traps of Dynamic SGD, one case each: the schedule and the ramp in the progress together.

namespace {

constexpr double base_lr = 0.1, base_batch = 32;

bool same_bits(double a, double b) { return std::memcmp(&a, &b, sizeof a) == 0; }
bool near(double a, double b, double relative = 1e-13) { return std::abs(a - b) <= relative * std::abs(b); }

// A run as the schedule sees it: a planned batch that changes, and steps that count samples.
struct run {
  progress at{.epoch_size = 10'000, .batch = {.from = base_batch, .to = base_batch}};
  ramp_rule rule{};

  void plan(double batch) { at.batch = at.batch.rearmed(at.steps, batch, rule); }
  void step(i64 counted) {
    ++at.calls;
    ++at.steps;
    at.samples += counted;
  }
  void step() { step(static_cast<i64>(at.planned_batch())); }
  void steps(int n) {
    for (int i = 0; i < n; ++i) step();
  }
};

}  // namespace

BOOST_AUTO_TEST_CASE(an_increase_by_k_is_a_linear_ramp_of_8k_updates_whose_first_already_moves) {
  auto const lr = dynamic_sgd(base_lr, base_batch);
  for (double const k : {2.0, 4.0, 8.0, 16.0}) {
    run r;
    r.steps(10);
    r.plan(k * base_batch);
    auto const length = static_cast<int>(8 * k);
    for (int j = 1; j <= length + 20; ++j) {
      double const f = j < length ? 1 + (k - 1) * j / length : k;
      BOOST_TEST(near(lr(r.at), base_lr * f));
      r.step();
    }
    BOOST_TEST(lr(r.at) == base_lr * k);
  }
}

BOOST_AUTO_TEST_CASE(a_decrease_is_applied_at_once) {
  auto const lr = dynamic_sgd(base_lr, base_batch);
  for (double const q : {2.0, 4.0, 8.0, 16.0}) {
    run r;
    r.plan(16 * base_batch);
    r.steps(1000);
    r.plan(16 * base_batch / q);
    BOOST_TEST(lr(r.at) == base_lr * 16 / q);
    r.step();
    BOOST_TEST(lr(r.at) == base_lr * 16 / q);
  }
}

BOOST_AUTO_TEST_CASE(the_immediate_rule_and_a_fixed_ramp_are_choices) {
  auto const lr = dynamic_sgd(base_lr, base_batch);
  run at_once{.rule = immediate};
  at_once.plan(8 * base_batch);
  BOOST_TEST(lr(at_once.at) == base_lr * 8);
  run fixed{.rule = {.steps_per_growth = 8, .proportional = false, .on_decrease = true}};
  fixed.plan(8 * base_batch);
  BOOST_TEST(near(lr(fixed.at), base_lr * (1 + 7.0 / 8)));
  fixed.steps(7);
  BOOST_TEST(lr(fixed.at) == base_lr * 8);
  fixed.step();
  fixed.plan(base_batch);
  BOOST_TEST(near(lr(fixed.at), base_lr * (8 - 7.0 / 8)));
}

BOOST_AUTO_TEST_CASE(a_change_during_a_ramp_starts_from_the_effective_rate_without_a_jump) {
  auto const lr = dynamic_sgd(base_lr, base_batch);
  run r;
  r.steps(5);
  r.plan(8 * base_batch);  // 64 updates
  r.steps(20);             // the last of them at j = 20
  double const effective = base_lr * (1 + 7 * 20.0 / 64);
  double const k = 24 * base_batch / (base_batch * (1 + 7 * 20.0 / 64));
  r.plan(24 * base_batch);
  double const length = std::round(8 * k);
  for (int j = 1; j <= 80; ++j) {
    double const f = j < length ? 1 + (k - 1) * j / length : k;
    BOOST_TEST(near(lr(r.at), effective * f));
    r.step();
  }
  BOOST_TEST(near(lr(r.at), base_lr * 24));
}

BOOST_AUTO_TEST_CASE(whatever_the_changes_of_plan_no_update_grows_by_more_than_an_eighth) {
  auto const lr = dynamic_sgd(base_lr, base_batch);
  std::mt19937_64 random(7);
  for (int round = 0; round < 50; ++round) {
    run r;
    double last = lr(r.at), armed = last;
    for (int i = 0; i < 500; ++i) {
      r.step();
      if (random() % 9 == 0) {
        r.plan(base_batch * static_cast<double>(1 + random() % 64));
        armed = last;
      }
      double const now = lr(r.at);
      // (k - 1)/(8k) of the rate at which the ramp was armed, T being rounded to whole updates.
      BOOST_TEST(now - last <= armed / 8 * (1 + 1e-12));
      if (now < last) BOOST_TEST(same_bits(now, base_lr * (r.at.planned_batch() / base_batch)));
      last = now;
    }
  }
}

BOOST_AUTO_TEST_CASE(planning_the_same_batch_again_changes_nothing) {
  auto const lr = dynamic_sgd(base_lr, base_batch);
  run r;
  r.plan(4 * base_batch);
  r.steps(100);
  double const before = lr(r.at);
  r.plan(4 * base_batch);
  for (int i = 0; i < 50; ++i, r.step()) BOOST_TEST(same_bits(lr(r.at), before));
}

BOOST_AUTO_TEST_CASE(a_schedule_goes_on_during_a_ramp_and_the_ramp_multiplies_the_scaling_only) {
  auto const decay = cosine(10_epochs, 0.01);
  auto const lr = dynamic_sgd(base_lr, base_batch) * decay;
  run r;
  r.steps(50);
  r.plan(16 * base_batch);
  double last = 2;
  for (int j = 1; j <= 128; ++j) {
    double const f = 1 + 15 * j / 128.0;
    BOOST_TEST(near(lr(r.at), base_lr * f * decay(r.at)));
    BOOST_TEST(decay(r.at) < last);
    last = decay(r.at);
    r.step();
  }
}

BOOST_AUTO_TEST_CASE(a_resize_during_warmup_ramps_the_warmups_target) {
  auto const lr = dynamic_sgd(base_lr, base_batch, 5_epochs);
  run r;
  r.plan(2 * base_batch);
  r.steps(200);
  r.plan(8 * base_batch);  // k = 4, 32 updates, all inside the warm-up
  for (int j = 1; j <= 40; ++j) {
    double const done = static_cast<double>(r.at.samples) / 50'000;
    double const k = 2 * (1 + 3 * std::fmin(j, 32) / 32.0);
    BOOST_TEST(done < 1);
    BOOST_TEST(near(lr(r.at), base_lr * (1 + (k - 1) * done)));
    r.step();
  }
  r.steps(300);
  BOOST_TEST(lr(r.at) == base_lr * 8);
}

BOOST_AUTO_TEST_CASE(the_ramp_is_saved_with_the_progress_and_resumes_to_the_bit) {
  auto const lr = (warmup(2_epochs) | cosine(20_epochs)) * dynamic_sgd(base_lr, base_batch);
  auto const events = [](run& r, int i) {
    if (i == 30) r.plan(8 * base_batch);
    if (i == 60) r.plan(20 * base_batch);
    if (i == 200) r.plan(5 * base_batch);
  };
  std::vector<double> whole;
  run r;
  for (int i = 0; i < 300; ++i) {
    events(r, i);
    whole.push_back(lr(r.at));
    r.step();
  }
  for (int stop = 1; stop < 300; stop += 7) {
    run first;
    for (int i = 0; i < stop; ++i) {
      events(first, i);
      first.step();
    }
    unsigned char saved[sizeof(progress)];
    std::memcpy(saved, &first.at, sizeof saved);
    run second;
    std::memcpy(&second.at, saved, sizeof saved);
    for (int i = stop; i < 300; ++i) {
      events(second, i);
      BOOST_TEST(same_bits(lr(second.at), whole[static_cast<std::size_t>(i)]));
      second.step();
    }
  }
}

BOOST_AUTO_TEST_CASE(short_last_steps_and_missing_samples_leave_the_rate_untouched) {
  auto const lr = dynamic_sgd(base_lr, base_batch);
  i64 const batch = 128;
  for (i64 const tail : {i64{1}, i64{16}, batch - 1}) {
    run r;
    r.plan(static_cast<double>(batch));
    r.steps(32);
    for (int epoch = 0; epoch < 10; ++epoch) {
      for (int i = 0; i < 39; ++i) {
        BOOST_TEST(same_bits(lr(r.at), base_lr * 4));
        r.step();
      }
      BOOST_TEST(same_bits(lr(r.at), base_lr * 4));
      r.step(tail);
      BOOST_TEST(same_bits(lr(r.at), base_lr * 4));
    }
    // Neither does it disturb a ramp.
    run full, uneven;
    for (run* each : {&full, &uneven}) each->plan(8 * base_batch);
    for (int i = 0; i < 80; ++i) {
      BOOST_TEST(same_bits(lr(full.at), lr(uneven.at)));
      full.step();
      uneven.step(i % 3 == 0 ? tail : 0);
    }
  }
}

// Outside form with the ramp equals inside form with ramp and momentum correction: the ramp takes the place
// of nothing and needs no second correction. Correcting the outside form as well counts the change twice.
BOOST_AUTO_TEST_CASE(the_ramp_is_the_only_correction_of_the_outside_form) {
  auto const lr = dynamic_sgd(base_lr, base_batch);
  run r;
  double const mu = 0.9;
  double w = 1, v = 0, inside = 1, u = 0, twice = 1, x = 0, before = lr(r.at);
  std::mt19937_64 random(9);
  std::normal_distribution<double> noise;
  double worst = 0;
  for (int i = 0; i < 200; ++i) {
    if (i == 50) r.plan(8 * base_batch);
    double const now = lr(r.at), g = noise(random);
    v = mu * v + g;
    w -= now * v;
    u = mu * (now / before) * u + now * g;
    inside -= u;
    x = mu * (now / before) * x + g;
    twice -= now * x;
    worst = std::fmax(worst, std::abs(twice - w));
    BOOST_TEST(std::abs(w - inside) <= 1e-12 * (1 + std::abs(w)));
    before = now;
    r.step();
  }
  BOOST_TEST(worst > 1e-3);
}
