// SPDX-License-Identifier: Apache-2.0
// labels: unit
#define BOOST_TEST_MODULE limber.schedule.errors
#include <limber/schedule/schedules.hpp>

#include <boost/test/unit_test.hpp>

#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

using namespace limber;
using namespace limber::literals;

namespace {

constexpr double not_a_number = std::numeric_limits<double>::quiet_NaN();
constexpr double infinity = std::numeric_limits<double>::infinity();

// Every bad horizon makes `make` throw with who, argument and value in the text.
template <class Make>
void refuses_bad_lengths(std::string const& who, std::string const& argument, Make make) {
  struct bad {
    amount length;
    char const* shown;
  };
  for (bad const& b :
       {bad{0_steps, "got 0 steps"}, bad{0_epochs, "got 0 epochs"}, bad{epochs(-2), "got -2 epochs"},
        bad{samples(not_a_number), "nan samples"}, bad{steps(infinity), "got inf steps"}}) {
    std::string const start = "limber: " + who + ": " + argument + " must be finite and > 0, ";
    BOOST_CHECK_EXCEPTION((void)make(b.length), std::invalid_argument, [&](auto const& e) {
      std::string const message = e.what();
      BOOST_TEST_CONTEXT(message) {
        BOOST_TEST(message.starts_with(start));
        BOOST_TEST(message.ends_with(b.shown));
      }
      return true;
    });
  }
}

template <class Make>
void refuses(std::string const& expected, Make make) {
  BOOST_CHECK_EXCEPTION((void)make(), std::invalid_argument, [&](auto const& e) {
    BOOST_TEST(std::string(e.what()) == "limber: " + expected);
    return true;
  });
}

// A user's schedule that claims whatever length it is given.
struct claims {
  amount length;
  double operator()(progress const&) const { return 1; }
};

}  // namespace

BOOST_AUTO_TEST_CASE(a_horizon_that_is_not_finite_and_above_0_is_refused_by_name) {
  refuses_bad_lengths("warmup", "length", [](amount a) { return warmup(a); });
  refuses_bad_lengths("cosine", "length", [](amount a) { return cosine(a); });
  refuses_bad_lengths("polynomial", "length", [](amount a) { return polynomial{.length = a}; });
  refuses_bad_lengths("one_cycle", "length", [](amount a) { return one_cycle{.length = a}; });
  refuses_bad_lengths("lasting", "length", [](amount a) { return lasting(a, 1); });
  refuses_bad_lengths("step_decay", "every", [](amount a) { return step_decay{.every = a}; });
  refuses_bad_lengths("exponential", "every", [](amount a) { return exponential{.every = a}; });
  refuses_bad_lengths("cosine_restarts", "period", [](amount a) { return cosine_restarts{.period = a}; });
  refuses_bad_lengths("inverse_sqrt", "timescale", [](amount a) { return inverse_sqrt(a); });
  refuses_bad_lengths("multi_step", "milestone", [](amount a) { return multi_step({a}); });
  refuses_bad_lengths("piecewise", "boundary", [](amount a) { return piecewise(0.1, a, 0.2); });
}

BOOST_AUTO_TEST_CASE(a_forgotten_member_is_refused) {
  refuses("step_decay: every must be finite and > 0, got 0 steps", [] { return step_decay{}; });
  refuses("polynomial: length must be finite and > 0, got 0 steps", [] { return polynomial{.power = 2}; });
  refuses("linear_scaling: base_batch must be finite and > 0, got 0",
          [] { return linear_scaling{.base_lr = 1}; });
  refuses("adascale: base_lr must be finite and > 0, got 0", [] { return adascale{.base_batch = 1}; });
}

BOOST_AUTO_TEST_CASE(rates_and_factors_out_of_range_are_refused) {
  refuses("constant: value must be finite and >= 0, got -0.1", [] { return constant(-0.1); });
  refuses("constant: value must be finite and >= 0, got inf", [] { return constant(infinity); });
  refuses("constant: value must be finite and >= 0, got -2", [] { return -2 * cosine(1_steps); });
  refuses("constant: value must be finite and >= 0, got -3", [] { return cosine(1_steps) * -3; });
  refuses("constant: value must be finite and >= 0, got -1", [] { return piecewise(1, 2_steps, -1); });
  refuses("warmup: from must lie in [0, 1], got -0.5", [] { return warmup(1_steps, -0.5); });
  refuses("warmup: from must lie in [0, 1], got nan", [] { return warmup(1_steps, not_a_number); });
  refuses("cosine: to must lie in [0, 1], got 2", [] { return cosine(1_steps, 2); });
  refuses("step_decay: factor must lie in [0, 1], got 3",
          [] { return step_decay{.every = 1_steps, .factor = 3}; });
  refuses("exponential: factor must lie in [0, 1], got -1",
          [] { return exponential{.every = 1_steps, .factor = -1}; });
  refuses("polynomial: power must be finite and > 0, got 0",
          [] { return polynomial{.length = 1_steps, .power = 0}; });
  refuses("polynomial: to must lie in [0, 1], got -1",
          [] { return polynomial{.length = 1_steps, .to = -1}; });
  refuses("cosine_restarts: multiplier must be finite and >= 1, got 0.5",
          [] { return cosine_restarts{.period = 1_steps, .multiplier = 0.5}; });
  refuses("cosine_restarts: to must lie in [0, 1], got 7",
          [] { return cosine_restarts{.period = 1_steps, .to = 7}; });
  refuses("one_cycle: rise must lie in [0, 1], got 1.5",
          [] { return one_cycle{.length = 1_steps, .rise = 1.5}; });
  refuses("one_cycle: from must lie in [0, 1], got 25",
          [] { return one_cycle{.length = 1_steps, .from = 25}; });
  refuses("one_cycle: to must lie in [0, 1], got -1", [] { return one_cycle{.length = 1_steps, .to = -1}; });
}

BOOST_AUTO_TEST_CASE(milestones_are_checked) {
  std::vector<amount> const none, many(17, 1_steps);
  refuses("multi_step: milestones must number 1 to 16, got 0", [&] { return multi_step(none); });
  refuses("multi_step: milestones must number 1 to 16, got 17", [&] { return multi_step(many); });
  refuses("multi_step: milestones must increase, got 30 after 60", [] {
    return multi_step({60_epochs, 30_epochs});
  });
  refuses("multi_step: milestones must increase, got 60 after 60", [] {
    return multi_step({60_epochs, 60_epochs});
  });
  refuses("multi_step: milestones must share one unit, got epochs and steps", [] {
    return multi_step({30_epochs, 60_steps});
  });
  refuses("multi_step: factor must lie in [0, 1], got 10", [] { return multi_step({30_epochs}, 10); });
}

BOOST_AUTO_TEST_CASE(boundaries_are_checked) {
  refuses("piecewise: boundaries must increase, got 3 after 5",
          [] { return piecewise(1, 5_steps, 1, 3_steps, 1); });
  refuses("piecewise: boundaries must share one unit, got steps and epochs",
          [] { return piecewise(1, 5_steps, 1, 7_epochs, 1); });
}

BOOST_AUTO_TEST_CASE(clamp_limits_are_checked) {
  refuses("clamp: low must be finite and >= 0, got -1", [] { return clamp(constant(1), -1, 1); });
  refuses("clamp: high must be finite and >= 0, got inf", [] { return clamp(constant(1), 0, infinity); });
  refuses("clamp: low must be <= high, got 2 and 1", [] { return clamp(constant(1), 2, 1); });
}

BOOST_AUTO_TEST_CASE(scalings_are_checked) {
  refuses("linear_scaling: base_lr must be finite and > 0, got -0.1",
          [] { return linear_scaling{.base_lr = -0.1, .base_batch = 1}; });
  refuses("linear_scaling: base_batch must be finite and > 0, got -256",
          [] { return dynamic_sgd(0.1, -256); });
  refuses("linear_scaling: warmup must be finite and >= 0, got -5",
          [] { return linear_scaling{.base_lr = 0.1, .base_batch = 256, .warmup = epochs(-5)}; });
  refuses("sqrt_scaling: base_batch must be finite and > 0, got nan",
          [] { return sqrt_scaling{.base_lr = 0.1, .base_batch = not_a_number}; });
  refuses("legw: base_lr must be finite and > 0, got 0", [] { return legw{.base_batch = 1}; });
  refuses("legw: warmup must be in epochs or samples, got 5 steps",
          [] { return legw{.base_lr = 1, .base_batch = 1, .warmup = 5_steps}; });
  refuses("adascale: base_batch must be finite and > 0, got 0", [] { return adascale{.base_lr = 1}; });
}

BOOST_AUTO_TEST_CASE(the_pieces_of_a_sequence_share_one_unit_however_deep_they_lie) {
  std::string const text = "sequence: pieces must share one unit, got ";
  refuses(text + "steps and 85 epochs", [] { return warmup(1000_steps) | cosine(85_epochs); });
  refuses(text + "epochs and 9 samples",
          [] { return (warmup(5_epochs) | cosine(5_epochs)) | cosine(9_samples); });
  refuses(text + "epochs and 9 samples", [] { return warmup(5_epochs) | 0.5 * (1.0 * cosine(9_samples)); });
  refuses(text + "epochs and 3 steps", [] { return warmup(5_epochs) | step_decay{.every = 3_steps}; });
  refuses(text + "epochs and 3 steps", [] { return warmup(5_epochs) | multi_step({3_steps}); });
  refuses(text + "epochs and 3 steps", [] { return warmup(5_epochs) | exponential{.every = 3_steps}; });
  refuses(text + "epochs and 3 steps", [] { return warmup(5_epochs) | cosine_restarts{.period = 3_steps}; });
  refuses(text + "epochs and 3 steps", [] { return warmup(5_epochs) | inverse_sqrt(3_steps); });
  refuses(text + "epochs and 3 steps", [] { return warmup(5_epochs) | piecewise(1, 3_steps, 1); });
  refuses(text + "epochs and 3 steps", [] { return warmup(5_epochs) | clamp(warmup(3_steps), 0, 1); });
  refuses(text + "epochs and 3 steps", [] { return lasting(5_epochs, warmup(3_steps)) | constant(1); });
  refuses(text + "epochs and 3 steps",
          [] { return warmup(5_epochs) | linear_scaling{.base_lr = 1, .base_batch = 1, .warmup = 3_steps}; });
  // No amount, no unit; and factors of a product may differ.
  (void)(warmup(5_epochs) | linear_scaling{.base_lr = 1, .base_batch = 1});
  (void)(warmup(5_epochs) | constant(1));
  (void)(step_decay{.every = 3_steps} * (warmup(5_epochs) | cosine(85_epochs)));
}

BOOST_AUTO_TEST_CASE(a_piece_with_a_senseless_length_is_refused) {
  refuses("sequence: length of a piece must be finite and >= 0, got -1",
          [] { return claims{steps(-1)} | constant(1); });
  refuses("sequence: length of a piece must be finite and >= 0, got inf",
          [] { return claims{steps(infinity)} | constant(1); });
}
