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
void refuses_bad_amounts(std::string const& who, std::string const& argument, bool may_be_0, Make make) {
  struct bad {
    amount length;
    char const* shown;
  };
  std::vector<bad> all{{epochs(-2), "got -2 epochs"},
                       {steps(-1e-300), "got -1e-300 steps"},
                       {samples(not_a_number), "nan samples"},
                       {steps(infinity), "got inf steps"}};
  if (!may_be_0) all.insert(all.end(), {{0_steps, "got 0 steps"}, {0_epochs, "got 0 epochs"}});
  for (bad const& b : all) {
    std::string const start = "limber: " + who + ": " + argument +
                              (may_be_0 ? " must be finite and >= 0, " : " must be finite and > 0, ");
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

BOOST_AUTO_TEST_CASE(a_length_that_is_negative_or_not_finite_is_refused_by_name) {
  auto const refuses_lengths = [](auto who, auto argument, auto make) {
    refuses_bad_amounts(who, argument, true, make);
  };
  refuses_lengths("warmup", "length", [](amount a) { return warmup(a); });
  refuses_lengths("cosine", "length", [](amount a) { return cosine(a); });
  refuses_lengths("polynomial", "length", [](amount a) { return polynomial{.length = a}; });
  refuses_lengths("one_cycle", "length", [](amount a) { return one_cycle{.length = a}; });
  refuses_lengths("lasting", "length", [](amount a) { return lasting(a, 1); });
  refuses_lengths("multi_step", "milestone", [](amount a) { return multi_step({a}); });
  refuses_lengths("piecewise", "boundary", [](amount a) { return piecewise(0.1, a, 0.2); });
}

BOOST_AUTO_TEST_CASE(a_period_that_progress_is_divided_by_is_refused_at_0_too) {
  auto const refuses_periods = [](auto who, auto argument, auto make) {
    refuses_bad_amounts(who, argument, false, make);
  };
  refuses_periods("step_decay", "every", [](amount a) { return step_decay{.every = a}; });
  refuses_periods("exponential", "every", [](amount a) { return exponential{.every = a}; });
  refuses_periods("cosine_restarts", "period", [](amount a) { return cosine_restarts{.period = a}; });
  refuses_periods("inverse_sqrt", "timescale", [](amount a) { return inverse_sqrt(a); });
}

BOOST_AUTO_TEST_CASE(a_forgotten_member_is_refused) {
  refuses("step_decay: every was not given", [] { return step_decay{}; });
  refuses("exponential: every was not given", [] { return exponential{.factor = 0.5}; });
  refuses("cosine_restarts: period was not given", [] { return cosine_restarts{.multiplier = 2}; });
  refuses("polynomial: length was not given", [] { return polynomial{.power = 2}; });
  refuses("one_cycle: length was not given", [] { return one_cycle{}; });
  refuses("linear_scaling: base_batch must be finite and > 0, got 0",
          [] { return linear_scaling{.base_lr = 1}; });
  for (std::string const who : {"linear_scaling", "sqrt_scaling", "legw", "adascale"})
    refuses(who + ": base_lr was not given, or is not a number", [&]() -> any_schedule {
      if (who == "sqrt_scaling") return sqrt_scaling{.base_batch = 1};
      if (who == "legw") return legw{.base_batch = 1};
      if (who == "adascale") return adascale{.base_batch = 1};
      return linear_scaling{.base_batch = 1};
    });
}

// What torch.optim.lr_scheduler and optax take: a command line that says 0 must run.
BOOST_AUTO_TEST_CASE(a_length_of_0_is_the_end_at_once) {
  for (i64 const t : {0, 1, 5}) {
    progress const p{.steps = t, .samples = 10 * t, .epoch_size = 100};
    for (amount const none : {0_steps, 0_samples, 0_epochs}) {
      BOOST_TEST(warmup(none)(p) == 1);
      BOOST_TEST(warmup(none, 0.5)(p) == 1);
      BOOST_TEST(cosine(none)(p) == 0);
      BOOST_TEST(cosine(none, 0.1)(p) == 0.1);
      BOOST_TEST((polynomial{.length = none, .power = 2, .to = 0.2}(p) == 0.2));
      for (double const rise : {0.0, 0.3, 1.0})
        BOOST_TEST((one_cycle{.length = none, .rise = rise, .to = 0.3}(p) == 0.3));
      cosine const fall({10, none.in}, 0.1);
      BOOST_TEST((warmup(none) | fall)(p) == fall(p));
      BOOST_TEST((lasting(none, 0.7) | lasting(none, 0.8) | constant(0.9))(p) == 0.9);
      polynomial const decay{.length = {9, none.in}};
      BOOST_TEST(warmup_stable_decay(none, none, decay.length)(p) == decay(p));
      multi_step const halved({none, {1000, none.in}}, 0.5);
      BOOST_TEST(halved(p) == 0.5);
      BOOST_TEST(piecewise(0.1, none, 0.2, none, 0.3)(p) == 0.3);
    }
    BOOST_TEST((linear_scaling{.base_lr = 0, .base_batch = 1, .warmup = 0_epochs}(p) == 0));
    BOOST_TEST((legw{.base_lr = 1, .base_batch = 1, .warmup = 0_steps}(p) == 1));
    BOOST_TEST(multi_step(std::vector<amount>{})(p) == 1);
  }
}

BOOST_AUTO_TEST_CASE(a_factor_above_1_lets_the_rate_grow) {
  progress const p{.steps = 6};
  BOOST_TEST((step_decay{.every = 3_steps, .factor = 2}(p) == 4));
  BOOST_TEST((exponential{.every = 3_steps, .factor = 2}(p) == 4));
  multi_step const grown({1_steps, 6_steps, 7_steps}, 3);
  BOOST_TEST(grown(p) == 9);
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
  refuses("step_decay: factor must be finite and >= 0, got inf",
          [] { return step_decay{.every = 1_steps, .factor = infinity}; });
  refuses("exponential: factor must be finite and >= 0, got -1",
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
  std::vector<amount> const many(17, 1_steps);
  refuses("multi_step: milestones must number at most 16, got 17", [&] { return multi_step(many); });
  refuses("multi_step: milestones must increase, got 30 after 60", [] {
    return multi_step({60_epochs, 30_epochs});
  });
  refuses("multi_step: milestones must increase, got 60 after 60", [] {
    return multi_step({60_epochs, 60_epochs});
  });
  refuses("multi_step: milestones must share one unit, got epochs and steps", [] {
    return multi_step({30_epochs, 60_steps});
  });
  refuses("multi_step: factor must be finite and >= 0, got nan",
          [] { return multi_step({30_epochs}, not_a_number); });
}

BOOST_AUTO_TEST_CASE(boundaries_are_checked) {
  refuses("piecewise: boundaries must not decrease, got 3 after 5",
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
  refuses("linear_scaling: base_lr must be finite and >= 0, got -0.1",
          [] { return linear_scaling{.base_lr = -0.1, .base_batch = 1}; });
  refuses("linear_scaling: base_batch must be finite and > 0, got -256",
          [] { return dynamic_sgd(0.1, -256); });
  refuses("linear_scaling: warmup must be finite and >= 0, got -5",
          [] { return linear_scaling{.base_lr = 0.1, .base_batch = 256, .warmup = epochs(-5)}; });
  refuses("sqrt_scaling: base_batch must be finite and > 0, got nan",
          [] { return sqrt_scaling{.base_lr = 0.1, .base_batch = not_a_number}; });
  refuses("legw: base_lr must be finite and >= 0, got inf",
          [] { return legw{.base_lr = infinity, .base_batch = 1}; });
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
  refuses(text + "steps and 9 epochs", [] { return warmup(5_steps) | any_schedule(cosine(9_epochs)); });
  // No amount, no unit; factors of a product may differ, and so may what runs on a clock of its own.
  (void)(warmup(5_steps) | adascale{.base_lr = 1, .base_batch = 1}.over(0.5 * step_decay{.every = 3_epochs}));
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
