// SPDX-License-Identifier: Apache-2.0
// labels: unit property memory
// forms: header-only
#define BOOST_TEST_MODULE limber.schedule.any_schedule
#include <boost/test/unit_test.hpp>

#include <schedule/every_schedule.hpp>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <iterator>
#include <string_view>
#include <utility>
#include <vector>

using namespace limber;
using namespace limber::literals;

namespace {

bool same_bits(double a, double b) { return std::memcmp(&a, &b, sizeof a) == 0; }

std::vector<amount> amounts_of(any_schedule const& s) {
  std::vector<amount> all;
  s.each_amount([&all](amount a) { all.push_back(a); });
  return all;
}

// A schedule with memory of its own, a gain, and amounts that nobody could guess.
struct table {
  std::vector<double> rates;
  amount each;
  double operator()(progress const& p) const {
    return rates[static_cast<std::size_t>(p.in(each.in) / each.value) % rates.size()];
  }
  [[nodiscard]] double gain(progress const& p) const { return static_cast<double>(1 + p.steps); }
  template <class F>
  void each_amount(F f) const {
    f(each);
  }
};

}  // namespace

BOOST_AUTO_TEST_CASE(every_schedule_gives_the_same_rate_and_gain_when_it_is_erased) {
  std::mt19937_64 random(6);
  for (unit const u : {unit::steps, unit::samples, unit::epochs}) {
    test::for_every_schedule({37, u}, [&](char const* name, auto const& s) {
      any_schedule const erased = s;
      for (int i = 0; i < 100; ++i) {
        auto const p = test::random_progress(random);
        BOOST_TEST_CONTEXT(name) {
          BOOST_TEST(same_bits(erased(p), s(p)));
          BOOST_TEST(same_bits(gain_of(erased, p), gain_of(s, p)));
        }
      }
    });
  }
}

BOOST_AUTO_TEST_CASE(every_schedule_reports_the_unit_it_was_made_with_and_no_other) {
  // Those that measure no progress at all.
  std::string_view const none[] = {"constant", "linear_scaling", "sqrt_scaling",
                                   "legw",     "dynamic_sgd",    "adascale"};
  for (unit const u : {unit::steps, unit::samples, unit::epochs}) {
    test::for_every_schedule({37, u}, [&](std::string_view name, auto const& s) {
      any_schedule const erased = s;
      auto const all = amounts_of(erased);
      bool const measures = std::ranges::find(none, name) == std::end(none);
      unit const expected = name == "legw warm" && u == unit::steps ? unit::samples : u;
      BOOST_TEST_CONTEXT(name << " in " << name_of(u)) {
        BOOST_TEST(all.empty() != measures);
        for (amount const a : all) BOOST_TEST(name_of(a.in) == name_of(expected));
        BOOST_TEST(erased.counts_epochs() == (measures && u == unit::epochs));
      }
    });
  }
}

BOOST_AUTO_TEST_CASE(amounts_are_found_however_deep_they_lie) {
  auto const counts = [](any_schedule const& s) { return s.counts_epochs(); };
  BOOST_TEST(counts(0.1 * (warmup(1_epochs) | cosine(9_epochs))));
  BOOST_TEST(counts(2 * clamp(lasting(5_steps, cosine(3_epochs)), 0, 1)));
  BOOST_TEST(counts(piecewise(0.1, 3_steps, 0.2, 5_steps, 0.5 * exponential{.every = 1_epochs})));
  BOOST_TEST(counts(piecewise(0.1, 3_epochs, 0.2)));
  BOOST_TEST(counts(adascale{.base_lr = 1, .base_batch = 1}.over(cosine(9_epochs) * 0.5)));
  BOOST_TEST(counts(warmup(3_steps) * adascale{.base_lr = 1, .base_batch = 1}.over(cosine(9_epochs))));
  BOOST_TEST(counts(any_schedule(any_schedule(cosine(9_epochs)) * 3)));
  BOOST_TEST(counts(table{{1}, 2_epochs}));
  BOOST_TEST(!counts(table{{1}, 2_samples}));
  BOOST_TEST(!counts(0.1 * (warmup(1_steps) | cosine(9_steps)) * inverse_sqrt(7_samples)));
  BOOST_TEST(!counts(0.1));
  // What a lambda asks cannot be seen; where nobody knows the size of an epoch, its rate is NaN.
  any_schedule const lambda = [](progress const& p) { return 1 / (1 + p.in(unit::epochs)); };
  BOOST_TEST(!lambda.counts_epochs());
  BOOST_TEST(std::isnan(lambda(progress{.epoch_size = 0})));
  any_schedule const hidden = [](progress const& p) { return 0.1 * warmup(3_epochs)(p); };
  BOOST_TEST(std::isnan(hidden(progress{.epoch_size = 0})));
}

BOOST_AUTO_TEST_CASE(a_number_is_one) {
  any_schedule const a = 0.25, b = 3;
  BOOST_TEST(a(progress{}) == 0.25);
  BOOST_TEST(b(progress{.steps = 9}) == 3);
  BOOST_TEST(a.gain(progress{}) == 1);
  BOOST_CHECK_EXCEPTION(any_schedule(-0.5), std::invalid_argument, [](auto const& e) {
    return std::string_view(e.what()) == "limber: constant: value must be finite and >= 0, got -0.5";
  });
}

BOOST_AUTO_TEST_CASE(copies_are_independent_and_a_value_can_be_assigned_moved_and_combined) {
  any_schedule first = table{{1, 2, 3}, 1_steps};
  any_schedule copy = first;
  progress const p{.steps = 1};
  BOOST_TEST(gain_of(copy, p) == 2);
  first = 0.5;
  BOOST_TEST(first(p) == 0.5);
  BOOST_TEST(copy(p) == 2);
  first = std::move(copy);
  BOOST_TEST(first(p) == 2);
  copy = first;
  first = copy * cosine(2_steps);  // a schedule of itself
  BOOST_TEST(first(p) == 1);
  BOOST_TEST(gain_of(first, p) == 2);
  copy = lasting(1_steps, first) | any_schedule(0.125);
  BOOST_TEST(copy(progress{}) == 1);
  BOOST_TEST(copy(p) == 0.125);
  std::vector<any_schedule> const list{0.1, cosine(3_steps), first};
  BOOST_TEST(list[2](p) == 1);
}
