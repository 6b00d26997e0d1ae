// SPDX-License-Identifier: Apache-2.0
// labels: unit memory
#define BOOST_TEST_MODULE limber.batch.any_policy
#include <limber/batch/policies.hpp>

#include <boost/test/unit_test.hpp>

#include <core/says.hpp>

#include <utility>
#include <vector>

using namespace limber;
using namespace limber::literals;
using limber::test::says;

namespace {

progress at(i64 step, i64 sample = 0) { return {.steps = step, .samples = sample, .epoch_size = 100}; }

// A user's own policy, that says all that can be said.
struct doubling {
  static constexpr bool scales_batch_with_schedule = true;
  amount period;
  batch_plan operator()(batch_facts const& facts) const {
    return fixed{facts.now.steps < 10 ? 8 : 16}(facts);
  }
  bool due(progress const& then, progress const& now) const { return is_due(period, then, now); }
  template <class F>
  void each_amount(F f) const {
    f(period);
  }
};

// … and one with no more than it must have, and memory of its own.
struct silent {
  static constexpr bool scales_batch_with_schedule = false;
  std::vector<i64> sizes{8};
  batch_plan operator()(batch_facts const& facts) const { return fixed{sizes[0]}(facts); }
};

}  // namespace

BOOST_AUTO_TEST_CASE(a_policy_answers_as_it_does_itself) {
  batch_facts const facts{.world = 4, .now = at(20, 200)};
  BOOST_TEST((any_policy(per_worker{3})(facts) == per_worker{3}(facts)));
  BOOST_TEST((any_policy(dbs{.batch = 64})(facts) == dbs{.batch = 64}(facts)));
  BOOST_TEST((any_policy(doubling{1_steps})(facts).total == 16));
  BOOST_TEST((any_policy([](batch_facts const& f) { return fixed{9}(f); })(facts).total == 9));
  any_policy const p = dbs{.batch = 64, .replan_every = 10_steps};
  BOOST_TEST(p.due(at(9), at(10)));
  BOOST_TEST(!p.due(at(10), at(19)));
  BOOST_TEST(!any_policy(fixed{64}).due(at(0), at(1000)));
}

BOOST_AUTO_TEST_CASE(what_its_type_says_is_kept) {
  BOOST_TEST(any_policy(dbs{}).asks_again());
  BOOST_TEST(any_policy(doubling{1_steps}).asks_again());
  BOOST_TEST(!any_policy(fixed{1}).asks_again());
  BOOST_TEST(!any_policy(silent{}).asks_again());
  BOOST_TEST(any_policy(doubling{1_steps}).scales_batch());
  BOOST_TEST(any_policy(increase_instead_of_decay(8, {1_steps}, 2)).scales_batch());
  BOOST_TEST(!any_policy(silent{}).scales_batch());
  BOOST_TEST(!any_policy(dbs{}).scales_batch());
}

BOOST_AUTO_TEST_CASE(it_tells_whether_epochs_are_counted) {
  auto const counts = [](any_policy const& p) { return p.counts_epochs(); };
  BOOST_TEST(!counts(fixed{1}));
  BOOST_TEST(!counts(per_worker{1}));
  BOOST_TEST(!counts(logical_shards{}));
  BOOST_TEST(!counts([](batch_facts const& f) { return fixed{9}(f); }));
  BOOST_TEST(counts(dbs{}));  // asked every epoch by default
  BOOST_TEST(counts(noise_scale{}));
  BOOST_TEST(counts(goodput{}));
  BOOST_TEST(!counts(dbs{.replan_every = 3_steps}));
  BOOST_TEST(!counts(goodput{.replan_every = 3_samples}));
  BOOST_TEST(counts(doubling{2_epochs}));
  BOOST_TEST(!counts(doubling{2_steps}));
  BOOST_TEST(counts(increase_instead_of_decay(8, {3_epochs}, 2)));
  BOOST_TEST(!counts(increase_instead_of_decay(8, {3_steps}, 2)));
  BOOST_TEST(counts(increase_instead_of_decay(dbs{.batch = 8}, {3_steps}, 2)));
  BOOST_TEST(!counts(increase_instead_of_decay(dbs{.batch = 8, .replan_every = 1_steps}, {3_steps}, 2)));
  BOOST_TEST(!counts(nullptr));
}

BOOST_AUTO_TEST_CASE(epochs_of_unknown_size_are_an_error_wherever_they_are_counted) {
  progress const now{.steps = 3, .samples = 30, .epoch_size = 0};
  any_policy const period = dbs{.batch = 8}, milestones = increase_instead_of_decay(8, {3_epochs}, 2);
  BOOST_CHECK_EXCEPTION((void)period.due(now, now), std::invalid_argument,
                        says("replan_every counts epochs, but epoch_size was not given"));
  BOOST_CHECK_EXCEPTION((void)milestones.due(now, now), std::invalid_argument,
                        says("increase_instead_of_decay counts epochs", "epoch_size"));
  BOOST_CHECK_EXCEPTION((void)milestones({.now = now}), std::invalid_argument, says("epoch_size"));
  BOOST_TEST(!any_policy(dbs{.batch = 8, .replan_every = 4_steps}).due(now, now));
  BOOST_TEST((any_policy(increase_instead_of_decay(8, {3_steps}, 2))({.now = now}).total == 16));
}

BOOST_AUTO_TEST_CASE(copies_are_independent_and_what_holds_nothing_says_so) {
  any_policy first = silent{{8}};
  any_policy copy = first;
  first = fixed{9};
  BOOST_TEST(first({}).total == 9);
  BOOST_TEST(copy({}).total == 8);
  any_policy const moved = std::move(copy);
  BOOST_TEST(moved({}).total == 8);
  BOOST_TEST(static_cast<bool>(moved));
  for (any_policy const& empty : {any_policy(nullptr), copy}) {
    BOOST_TEST(!static_cast<bool>(empty));
    BOOST_TEST(!empty.asks_again());
    BOOST_TEST(!empty.scales_batch());
    BOOST_TEST(!empty.counts_epochs());
  }
  copy = first;
  BOOST_TEST(copy({}).total == 9);
}
