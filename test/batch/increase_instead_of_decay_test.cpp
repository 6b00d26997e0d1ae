// SPDX-License-Identifier: Apache-2.0
// labels: unit property
#define BOOST_TEST_MODULE limber.batch.increase_instead_of_decay
#include <limber/batch/dbs.hpp>
#include <limber/batch/increase_instead_of_decay.hpp>
#include <limber/batch/per_worker.hpp>
#include <limber/schedule/step_decay.hpp>

#include <boost/test/unit_test.hpp>

#include <core/says.hpp>

#include <limits>
#include <vector>

using namespace limber;
using namespace limber::literals;
using limber::test::says;

namespace {

progress at_sample(i64 s) { return {.samples = s, .epoch_size = 50'000}; }

using grown = increase_instead_of_decay<fixed>;
static_assert(scales_batch_with_schedule<grown> && scales_batch_with_schedule<grown const>);
static_assert(scales_batch_with_schedule<increase_instead_of_decay<dbs>>);
static_assert(!scales_batch_with_schedule<fixed> && !scales_batch_with_schedule<dbs const>);
static_assert(std::is_same_v<decltype(increase_instead_of_decay(8, {1_steps}, 2)), grown>);
static_assert(sized_policy<per_worker> && !sized_policy<grown>);

}  // namespace

BOOST_AUTO_TEST_CASE(the_papers_first_recipe_multiplies_by_five_at_its_milestones) {
  // Wide ResNet: 128 samples, and where the rate would fall to a fifth, five times as many.
  increase_instead_of_decay const policy(128, {60_epochs, 120_epochs, 160_epochs}, 5);
  auto const total = [&](double epoch) {
    return policy({.world = 8, .now = at_sample(static_cast<i64>(epoch * 50'000))}).total;
  };
  BOOST_TEST(total(0) == 128);
  BOOST_TEST(total(59.999) == 128);
  BOOST_TEST(total(60) == 640);
  BOOST_TEST(total(119.99) == 640);
  BOOST_TEST(total(120) == 3200);
  BOOST_TEST(total(160) == 16000);
  BOOST_TEST(total(1000) == 16000);
}

BOOST_AUTO_TEST_CASE(batch_times_the_decayed_rate_is_constant_at_every_sample) {
  std::initializer_list<amount> const milestones{0.3_epochs, 1.1_epochs, 2.7_epochs};
  increase_instead_of_decay const policy(32, milestones, 4), capped(32, milestones, 4, 500);
  multi_step const decay(milestones, 0.25);
  for (i64 s = 0; s < 200'000; s += 37) {
    progress const now = at_sample(s);
    BOOST_TEST_REQUIRE(static_cast<double>(policy.batch_at(now)) * decay(now) == 32);
    BOOST_TEST_REQUIRE(policy.rate_factor(now) == 1);
    // Where the cap holds, the rate takes what the batch does not.
    BOOST_TEST_REQUIRE(capped.rate_factor(now) / static_cast<double>(capped.batch_at(now)) == decay(now) / 32,
                       boost::test_tools::tolerance(1e-15));
  }
  BOOST_TEST(capped.batch_at(at_sample(100'000)) == 500);
  BOOST_TEST(capped.rate_factor(at_sample(100'000)) == 500.0 / 512);
}

BOOST_AUTO_TEST_CASE(any_policy_with_a_batch_can_grow) {
  batch_facts const facts{.world = 4, .now = at_sample(50'000)};
  BOOST_TEST((increase_instead_of_decay(per_worker{8}, {1_epochs}, 2)(facts) == per_worker{16}(facts)));
  BOOST_TEST((increase_instead_of_decay(fixed{10}, {1_epochs}, 1.25)(facts) == fixed{13}(facts)));
  // Speeds outlive the growth: shares are dealt anew, still in proportion.
  batch_plan const plan{.total = 80, .share = {10, 10, 20, 40}, .speed = {1, 1, 2, 4}};
  increase_instead_of_decay const policy(dbs{.batch = 80}, {1_epochs}, 2);
  auto const after = policy({.world = 4, .now = facts.now, .seconds = {10, 10, 10, 10}, .current = &plan});
  BOOST_TEST(after.share == (std::vector<i64>{20, 20, 40, 80}), boost::test_tools::per_element());
}

BOOST_AUTO_TEST_CASE(it_is_due_exactly_where_the_batch_changes) {
  increase_instead_of_decay const policy(32, {100_samples, 250_samples}, 2);
  for (i64 s = 0; s < 400; s += 7)
    BOOST_TEST_REQUIRE(policy.due(at_sample(s), at_sample(s + 7)) ==
                       (policy.batch_at(at_sample(s)) != policy.batch_at(at_sample(s + 7))));
}

BOOST_AUTO_TEST_CASE(bad_input_is_named_with_its_value) {
  using milestones = std::vector<amount>;
  auto const bad = [](i64 batch, milestones at, double factor, i64 most, auto... parts) {
    BOOST_CHECK_EXCEPTION((void)increase_instead_of_decay(batch, at, factor, most), std::invalid_argument,
                          says("increase_instead_of_decay", parts...));
  };
  bad(0, {1_steps}, 2, 9, "batch", "got 0");
  bad(8, {}, 2, 9, "no milestones");
  bad(8, {1_steps}, 1, 9, "factor", "got 1");
  bad(8, {1_steps}, std::numeric_limits<double>::quiet_NaN(), 9, "factor", "got nan");
  bad(8, {1_steps}, 2, 7, "max_batch 7 is smaller than batch 8");
  bad(8, {0_steps}, 2, 9, "milestones", "got 0 after 0");
  bad(8, {5_steps, 5_steps}, 2, 9, "milestones", "got 5 after 5");
  bad(8, {5_steps, 6_epochs}, 2, 9, "one unit", "steps and epochs");
  increase_instead_of_decay const huge(8, {1_samples, 2_samples}, 1e15);
  BOOST_CHECK_EXCEPTION((void)huge({.now = at_sample(2)}), std::invalid_argument,
                        says("batch 8 x 1e+15^2 exceeds 2^53", "max_batch"));
  increase_instead_of_decay const capped(8, {1_samples, 2_samples}, 1e300, 100);
  BOOST_TEST(capped({.now = at_sample(2)}).total == 100);
  BOOST_TEST(capped.rate_factor(at_sample(1)) == 100 / 8e300);
  // What the base policy refuses, it refuses of the grown batch.
  increase_instead_of_decay const tight(dbs{.batch = 64, .caps = {40, 40}}, {1_epochs}, 2);
  BOOST_TEST(tight({.world = 2}).total == 64);
  BOOST_CHECK_EXCEPTION((void)tight({.world = 2, .now = at_sample(50'000)}), std::invalid_argument,
                        says("dbs: batch 128 does not fit", "hold 80"));
}
