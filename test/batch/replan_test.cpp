// SPDX-License-Identifier: Apache-2.0
// labels: unit
#define BOOST_TEST_MODULE limber.batch.replan
#include <limber/batch/policies.hpp>

#include <boost/test/unit_test.hpp>

#include <core/says.hpp>

#include <vector>

using namespace limber;
using namespace limber::literals;
using limber::test::says;

namespace {

progress at(i64 step, i64 sample = 0) { return {.steps = step, .samples = sample, .epoch_size = 100}; }

auto const lambda = [](batch_facts const& facts) { return fixed{64}(facts); };

static_assert(!replans<fixed> && !replans<per_worker> && !replans<logical_shards> &&
              !replans<decltype(lambda)>);
static_assert(replans_periodically<dbs> && replans_periodically<noise_scale> &&
              replans_periodically<goodput>);
static_assert(replans_at_will<increase_instead_of_decay<fixed>> &&
              !replans_periodically<increase_instead_of_decay<fixed>>);
static_assert(!replans<amount>);

}  // namespace

BOOST_AUTO_TEST_CASE(a_period_is_over_once_each_multiple) {
  auto const due = [](amount every, i64 stride) {
    std::vector<i64> when;
    for (i64 s = stride; s <= 30 * stride; s += stride)
      if (is_due(every, at(s / stride - 1, s - stride), at(s / stride, s))) when.push_back(s / stride);
    return when;
  };
  BOOST_TEST(due(10_steps, 7) == (std::vector<i64>{10, 20, 30}), boost::test_tools::per_element());
  BOOST_TEST(due(70_samples, 20) == (std::vector<i64>{4, 7, 11, 14, 18, 21, 25, 28}),
             boost::test_tools::per_element());
  BOOST_TEST(due(1_epochs, 30) == (std::vector<i64>{4, 7, 10, 14, 17, 20, 24, 27, 30}),
             boost::test_tools::per_element());
  BOOST_TEST(due(0.5_epochs, 25).size() == 15u);
}

BOOST_AUTO_TEST_CASE(nothing_is_due_where_nothing_moved) {
  BOOST_TEST(!is_due(10_steps, at(10), at(10)));
  BOOST_TEST(!is_due(10_steps, at(10), at(19)));
  BOOST_TEST(is_due(10_steps, at(9), at(35)));
}

BOOST_AUTO_TEST_CASE(each_policy_says_when) {
  progress const then = at(9, 90), now = at(10, 100);
  BOOST_TEST(!is_due(fixed{64}, then, now));
  BOOST_TEST(!is_due(lambda, then, now));
  BOOST_TEST(is_due(dbs{.batch = 64}, then, now));
  BOOST_TEST(!is_due(dbs{.batch = 64, .replan_every = 2_epochs}, then, now));
  BOOST_TEST(is_due(dbs{.batch = 64, .replan_every = 10_steps}, then, now));
  BOOST_TEST(is_due(increase_instead_of_decay(64, {1_epochs}, 2), then, now));
  BOOST_TEST(!is_due(increase_instead_of_decay(64, {2_epochs}, 2), then, now));
  BOOST_TEST(is_due(increase_instead_of_decay(dbs{.batch = 64}, {2_epochs}, 2), then, now));
}

BOOST_AUTO_TEST_CASE(a_period_that_is_none_is_named_with_its_value) {
  BOOST_CHECK_EXCEPTION((void)is_due(0_epochs, at(0), at(1)), std::invalid_argument,
                        says("replan_every", "got 0 epochs"));
  BOOST_CHECK_EXCEPTION((void)is_due(dbs{.replan_every = steps(-2)}, at(0), at(1)), std::invalid_argument,
                        says("replan_every", "got -2 steps"));
  progress const unknown{.steps = 3, .samples = 30, .epoch_size = 0};
  BOOST_CHECK_EXCEPTION((void)is_due(1_epochs, unknown, unknown), std::invalid_argument,
                        says("replan_every counts epochs, but epoch_size was not given"));
  BOOST_TEST(is_due(2_steps, progress{.epoch_size = 0}, unknown));
}
