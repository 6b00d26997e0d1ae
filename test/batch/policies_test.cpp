// SPDX-License-Identifier: Apache-2.0
// labels: unit property
#define BOOST_TEST_MODULE limber.batch.policies
#include <limber/batch/policies.hpp>

#include <boost/test/unit_test.hpp>

#include <core/says.hpp>

#include <algorithm>
#include <limits>
#include <numeric>
#include <vector>

using namespace limber;
using limber::test::says;

namespace {

i64 sum(std::vector<i64> const& v) { return std::accumulate(v.begin(), v.end(), i64{0}); }

i64 constexpr big = std::numeric_limits<i64>::max();

// A user's own policy: a lambda is enough.
auto const doubling = [](batch_facts const& facts) {
  batch_plan plan = fixed{64}(facts);
  if (facts.now.steps >= 100) plan = fixed{128}(facts);
  return plan;
};
static_assert(batch_policy<decltype(doubling)>);
static_assert(!batch_policy<int>);

}  // namespace

BOOST_AUTO_TEST_CASE(fixed_keeps_the_global_batch_and_splits_it_evenly) {
  for (int world = 1; world <= 97; ++world)
    for (i64 const batch : {i64{97}, i64{100}, i64{256}, i64{1000}}) {
      auto const plan = fixed{batch}({.world = world});
      BOOST_TEST_REQUIRE(plan.total == batch);
      BOOST_TEST_REQUIRE(plan.share.size() == static_cast<std::size_t>(world));
      BOOST_TEST_REQUIRE(sum(plan.share) == batch);
      BOOST_TEST_REQUIRE(plan.share.front() - plan.share.back() <= 1);
      BOOST_TEST_REQUIRE(std::is_sorted(plan.share.rbegin(), plan.share.rend()));
      BOOST_TEST_REQUIRE(plan.shards == 0);
      BOOST_TEST_REQUIRE(plan.calls_per_update == 1);
    }
}

BOOST_AUTO_TEST_CASE(per_worker_grows_with_the_world) {
  for (int const world : {1, 4, 64, 16}) {
    auto const plan = per_worker{32}({.world = world});
    BOOST_TEST(plan.total == 32 * world);
    BOOST_TEST(sum(plan.share) == plan.total);
    BOOST_TEST(std::ranges::all_of(plan.share, [](i64 b) { return b == 32; }));
    BOOST_TEST(plan.share.size() == static_cast<std::size_t>(world));
    BOOST_TEST(plan.calls_per_update == 1);
  }
}

BOOST_AUTO_TEST_CASE(every_logical_shard_is_worked_on_by_exactly_one_rank_in_one_call) {
  for (i64 shards = 1; shards <= 17; ++shards)
    for (int world = 1; world <= 20; ++world) {
      auto const plan = logical_shards{.shards = shards, .per_shard = 3}({.world = world});
      BOOST_TEST_REQUIRE(plan.total == 3 * shards);
      BOOST_TEST_REQUIRE(plan.calls_per_update == (shards + world - 1) / world);
      std::vector<int> seen(static_cast<std::size_t>(shards));
      for (int rank = 0; rank < world; ++rank) {
        i64 mine = 0;
        for (i64 call = 0; call < plan.calls_per_update; ++call) {
          i64 const shard = shard_of(plan, world, rank, call);
          if (shard == -1) continue;
          BOOST_TEST_REQUIRE(shard == call * world + rank);
          ++seen[static_cast<std::size_t>(shard)];
          ++mine;
        }
        BOOST_TEST_REQUIRE(plan.share[static_cast<std::size_t>(rank)] == 3 * mine);
      }
      BOOST_TEST_REQUIRE(std::ranges::all_of(seen, [](int n) { return n == 1; }));
    }
}

BOOST_AUTO_TEST_CASE(a_policy_is_a_pure_function_of_facts) {
  batch_facts facts{.world = 7};
  BOOST_TEST((fixed{64}(facts) == fixed{64}(facts)));
  BOOST_TEST(doubling(facts).total == 64);
  facts.now.steps = 100;
  BOOST_TEST(doubling(facts).total == 128);
}

BOOST_AUTO_TEST_CASE(bad_sizes_are_named_with_their_value) {
  auto const bad = [](auto policy, int world, auto... parts) {
    BOOST_CHECK_EXCEPTION((void)policy({.world = world}), std::invalid_argument, says(parts...));
  };
  bad(fixed{3}, 4, "fixed: batch 3 is smaller than 4 workers");
  bad(fixed{3}, 0, "fixed: world", "got 0");
  bad(fixed{}, 1, "fixed: batch", "got 0");
  bad(fixed{-5}, 1, "fixed: batch", "got -5");
  bad(per_worker{}, 1, "per_worker: batch", "got 0");
  bad(per_worker{2}, -1, "per_worker: world", "got -1");
  bad(per_worker{big / 2}, 3, "per_worker", "x 3 samples do not fit");
  bad(logical_shards{.shards = 0, .per_shard = 1}, 1, "logical_shards: shards", "got 0");
  bad(logical_shards{.shards = 2, .per_shard = -4}, 1, "logical_shards: per_shard", "got -4");
  bad(logical_shards{.shards = 2, .per_shard = 4}, 0, "logical_shards: world", "got 0");
  bad(logical_shards{.shards = big, .per_shard = 2}, 1, "logical_shards", "x 2 samples do not fit");
}

BOOST_AUTO_TEST_CASE(bad_questions_about_shards_are_named_with_their_value) {
  auto const plan = logical_shards{.shards = 5, .per_shard = 2}({.world = 2});
  BOOST_CHECK_EXCEPTION((void)shard_of(fixed{4}({}), 1, 0, 0), std::invalid_argument, says("no shards"));
  BOOST_CHECK_EXCEPTION((void)shard_of(plan, 0, 0, 0), std::invalid_argument, says("world", "got 0"));
  BOOST_CHECK_EXCEPTION((void)shard_of(plan, 2, 2, 0), std::invalid_argument, says("rank", "[0, 2), got 2"));
  BOOST_CHECK_EXCEPTION((void)shard_of(plan, 2, -1, 0), std::invalid_argument, says("rank", "got -1"));
  BOOST_CHECK_EXCEPTION((void)shard_of(plan, 2, 0, 3), std::invalid_argument, says("call", "[0, 3), got 3"));
  BOOST_CHECK_EXCEPTION((void)shard_of(plan, 2, 0, -1), std::invalid_argument, says("call", "got -1"));
}
