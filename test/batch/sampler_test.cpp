// SPDX-License-Identifier: Apache-2.0
// labels: unit property memory
#define BOOST_TEST_MODULE limber.batch.sampler
#include <limber/batch/policies.hpp>

#include <boost/test/unit_test.hpp>

#include <core/says.hpp>
#include <support/allocations.hpp>

#include <algorithm>
#include <limits>
#include <numeric>
#include <random>
#include <span>
#include <vector>

using namespace limber;
using limber::test::says;
using indices = std::vector<i64>;

namespace {

i64 sum(std::span<i64 const> v) { return std::accumulate(v.begin(), v.end(), i64{0}); }

indices copy(std::span<i64 const> v) { return {v.begin(), v.end()}; }

// One step on a group: every rank has its own replica. Returns what each rank got.
std::vector<indices> step(sampler& s, std::span<i64 const> share) {
  std::vector<indices> dealt;
  sampler_state after{};
  for (int rank = 0; rank < static_cast<int>(share.size()); ++rank) {
    sampler replica(s.state());
    dealt.push_back(copy(replica.take(share, rank)));
    if (rank > 0) BOOST_TEST_REQUIRE((replica.state() == after));
    after = replica.state();
  }
  s.restore(after);
  return dealt;
}

indices joined(std::vector<indices> const& dealt) {
  indices all;
  for (auto const& d : dealt) all.insert(all.end(), d.begin(), d.end());
  return all;
}

bool covers(indices all, i64 size) {
  std::ranges::sort(all);
  indices expected(static_cast<std::size_t>(size));
  std::iota(expected.begin(), expected.end(), i64{0});
  return all == expected;
}

}  // namespace

BOOST_AUTO_TEST_CASE(any_worlds_and_shares_cover_each_sample_once_an_epoch) {
  std::mt19937_64 random(1);
  for (int trial = 0; trial < 150; ++trial) {
    auto const size = static_cast<i64>(1 + random() % (trial % 3 == 0 ? 8 : 500));
    sampler s(size, random());
    indices epoch;
    while (s.epoch() < 3) {
      std::vector<i64> share(1 + random() % 9);
      for (i64& b : share) b = random() % 4 == 0 ? 0 : static_cast<i64>(random() % 40);
      share[random() % share.size()] += 1;
      i64 const before = s.epoch(), expected = std::min(sum(share), s.remaining());
      auto const dealt = step(s, share);
      auto const all = joined(dealt);
      BOOST_TEST_REQUIRE(static_cast<i64>(all.size()) == expected);
      if (expected == sum(share))
        for (std::size_t r = 0; r < share.size(); ++r)
          BOOST_TEST_REQUIRE(static_cast<i64>(dealt[r].size()) == share[r]);
      epoch.insert(epoch.end(), all.begin(), all.end());
      if (s.epoch() == before) continue;
      BOOST_TEST_REQUIRE(s.epoch() == before + 1);
      BOOST_TEST_REQUIRE(s.remaining() == size);
      BOOST_TEST_REQUIRE(covers(epoch, size));
      epoch.clear();
    }
  }
}

BOOST_AUTO_TEST_CASE(the_samples_of_an_update_do_not_depend_on_who_takes_them) {
  for (i64 const tail : {i64{1}, i64{16}, i64{255}}) {
    i64 const size = 3 * 256 + tail;
    std::vector<indices> reference;
    for (int const world : {1, 2, 3, 7, 64}) {
      auto const plan = fixed{256}({.world = world});
      sampler s(size, 9);
      for (std::size_t u = 0; u < 4; ++u) {
        auto const all = joined(step(s, plan.share));
        if (world == 1) reference.push_back(all);
        BOOST_TEST(all == reference[u], boost::test_tools::per_element());
      }
      BOOST_TEST(reference.back().size() == static_cast<std::size_t>(tail));
      BOOST_TEST(s.epoch() == 1);
    }
  }
}

BOOST_AUTO_TEST_CASE(a_short_last_step_is_dealt_in_proportion) {
  std::vector<i64> const share{10, 30, 0, 20};
  auto const sizes = [&](i64 tail) {
    sampler s(60 + tail, 4);
    step(s, share);
    std::vector<i64> n;
    for (auto const& d : step(s, share)) n.push_back(static_cast<i64>(d.size()));
    return n;
  };
  BOOST_TEST(sizes(1) == (std::vector<i64>{0, 1, 0, 0}), boost::test_tools::per_element());
  BOOST_TEST(sizes(16) == (std::vector<i64>{3, 8, 0, 5}), boost::test_tools::per_element());
  BOOST_TEST(sizes(59) == (std::vector<i64>{10, 29, 0, 20}), boost::test_tools::per_element());
  BOOST_TEST(sizes(60) == share, boost::test_tools::per_element());
}

BOOST_AUTO_TEST_CASE(epochs_and_seeds_are_shuffled_differently) {
  std::vector<i64> const all{100};
  sampler a(100, 1), b(100, 2);
  auto const first = copy(a.take(all, 0)), second = copy(a.take(all, 0)), other = copy(b.take(all, 0));
  BOOST_TEST((first != second));
  BOOST_TEST((first != other));
  BOOST_TEST(a.epoch() == 2);
}

BOOST_AUTO_TEST_CASE(a_restored_sampler_continues_identically) {
  std::mt19937_64 random(5);
  sampler s(333, 8);
  for (int i = 0; i < 50; ++i) {
    std::vector<i64> const share{static_cast<i64>(random() % 30), static_cast<i64>(1 + random() % 30)};
    sampler_state const saved = s.state();
    auto const dealt = step(s, share);
    sampler fresh(saved);
    BOOST_TEST_REQUIRE((step(fresh, share) == dealt));
    BOOST_TEST_REQUIRE((fresh.state() == s.state()));
    // The worker died before the step was applied: back, and the survivor alone takes the same samples.
    s.restore(saved);
    BOOST_TEST_REQUIRE(s.take(std::vector<i64>{sum(share)}, 0) == joined(dealt),
                       boost::test_tools::per_element());
  }
}

BOOST_AUTO_TEST_CASE(dealing_without_advancing_deals_the_same_samples_again) {
  sampler s(100, 3);
  auto const two = std::vector<i64>{8, 8};
  auto const lost = copy(s.deal(two, 1));
  BOOST_TEST(copy(s.deal(std::vector<i64>{8, 8}, 1)) == lost, boost::test_tools::per_element());
  BOOST_TEST(s.remaining() == 100);
  auto const alone = copy(s.deal(std::vector<i64>{16}, 0));
  BOOST_TEST(indices(alone.begin() + 8, alone.end()) == lost, boost::test_tools::per_element());
  s.advance(16);
  BOOST_TEST(s.remaining() == 84);
  s.advance(0);
  BOOST_TEST(s.remaining() == 84);
  s.advance(1000);
  BOOST_TEST(s.remaining() == 100);
  BOOST_TEST(s.epoch() == 1);
}

BOOST_AUTO_TEST_CASE(the_samples_of_a_logical_shard_do_not_depend_on_the_world) {
  for (i64 const tail : {i64{0}, i64{1}, i64{16}, i64{23}}) {
    std::vector<std::vector<indices>> reference;  // [update][shard]
    for (int const world : {1, 2, 3, 5, 8, 11}) {
      logical_shards const policy{.shards = 8, .per_shard = 3};
      auto const plan = policy({.world = world});
      i64 const size = 2 * 24 + tail;
      std::vector<sampler> replica(static_cast<std::size_t>(world), sampler(size, 6));
      indices epoch;
      for (std::size_t u = 0; replica[0].epoch() == 0; ++u) {
        std::vector<indices> shards(8);
        for (int rank = 0; rank < world; ++rank) {
          auto& s = replica[static_cast<std::size_t>(rank)];
          for (i64 call = 0; call < plan.calls_per_update; ++call) {
            i64 const shard = shard_of(plan, world, rank, call);
            auto const mine = copy(s.deal_shard(plan, shard));
            if (shard < 0) BOOST_TEST_REQUIRE(mine.empty());
            if (shard >= 0) shards[static_cast<std::size_t>(shard)] = mine;
          }
          s.advance(plan.total);
          BOOST_TEST_REQUIRE((s.state() == replica[0].state() || rank == 0));
        }
        if (world == 1) reference.push_back(shards);
        BOOST_TEST_REQUIRE((shards == reference[u]));
        auto const all = joined(shards);
        epoch.insert(epoch.end(), all.begin(), all.end());
        auto const [low, high] = std::ranges::minmax_element(shards, {}, &indices::size);
        BOOST_TEST_REQUIRE(high->size() - low->size() <= 1);
        if (u < 2) BOOST_TEST_REQUIRE(low->size() == 3u);
      }
      BOOST_TEST_REQUIRE(covers(epoch, size));
    }
  }
}

BOOST_AUTO_TEST_CASE(tiny_and_huge_data_sets_work) {
  for (i64 size = 1; size <= 3; ++size) {
    sampler s(size, 1);
    std::vector<i64> const share{2, 2};
    for (int e = 0; e < 20; ++e) BOOST_TEST_REQUIRE(covers(joined(step(s, share)), size));
    BOOST_TEST(s.epoch() == 20);
  }
  sampler s(i64{1} << 62, 1);
  s.advance((i64{1} << 62) - 5);
  auto const last = joined(step(s, std::vector<i64>{4, 4}));
  BOOST_TEST(last.size() == 5u);
  BOOST_TEST(*std::ranges::max_element(last) > (i64{1} << 55));
  BOOST_TEST(s.epoch() == 1);
}

BOOST_AUTO_TEST_CASE(steps_after_the_first_allocate_nothing) {
  sampler s(1000, 1);
  std::vector<i64> const share{30, 0, 34};
  (void)s.take(share, 0);
  long const before = testing::allocations;
  for (int i = 0; i < 40; ++i) (void)s.take(share, 0);  // ends of epochs included
  BOOST_TEST(testing::allocations == before);
  BOOST_TEST(s.epoch() == 2);
}

BOOST_AUTO_TEST_CASE(bad_input_is_named_with_its_value) {
  sampler s(10, 1);
  std::vector<i64> const good{1, 2}, negative{1, -2}, none{0, 0}, empty,
      huge{std::numeric_limits<i64>::max(), 1};
  BOOST_CHECK_EXCEPTION(sampler(0), std::invalid_argument, says("sampler: size", "got 0"));
  BOOST_CHECK_EXCEPTION(sampler((i64{1} << 62) + 1), std::invalid_argument,
                        says("size", "4611686018427387905"));
  BOOST_CHECK_EXCEPTION((void)s.take(negative, 0), std::invalid_argument, says("share of rank 1", "got -2"));
  BOOST_CHECK_EXCEPTION((void)s.take(none, 0), std::invalid_argument, says("2 ranks sum to 0"));
  BOOST_CHECK_EXCEPTION((void)s.take(empty, 0), std::invalid_argument, says("0 ranks sum to 0"));
  BOOST_CHECK_EXCEPTION((void)s.take(huge, 0), std::invalid_argument, says("up to rank 1 overflow"));
  BOOST_CHECK_EXCEPTION((void)s.take(good, 2), std::invalid_argument, says("rank", "[0, 2), got 2"));
  BOOST_CHECK_EXCEPTION((void)s.take(good, -1), std::invalid_argument, says("rank", "got -1"));
  BOOST_CHECK_EXCEPTION(s.advance(-1), std::invalid_argument, says("advance by -1"));
  BOOST_CHECK_EXCEPTION((void)s.deal_shard(fixed{4}({}), 0), std::invalid_argument, says("no shards"));
  auto const plan = logical_shards{.shards = 3, .per_shard = 1}({});
  BOOST_CHECK_EXCEPTION((void)s.deal_shard(plan, 3), std::invalid_argument, says("shard", "[-1, 3), got 3"));
  BOOST_CHECK_EXCEPTION((void)s.deal_shard({.shards = 3}, 0), std::invalid_argument, says("total", "got 0"));
  BOOST_CHECK_EXCEPTION(s.restore({.size = 11}), std::invalid_argument, says("11 samples", "has 10"));
  BOOST_CHECK_EXCEPTION(s.restore({.size = 10, .cursor = 10}), std::invalid_argument,
                        says("cursor", "got 10"));
  BOOST_CHECK_EXCEPTION(s.restore({.size = 10, .cursor = -1}), std::invalid_argument,
                        says("cursor", "got -1"));
  BOOST_CHECK_EXCEPTION(s.restore({.size = 10, .epoch = -1}), std::invalid_argument, says("epoch", "got -1"));
  BOOST_TEST((s.state() == sampler_state{.size = 10, .seed = 1}));  // nothing above changed it
}
