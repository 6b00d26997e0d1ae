// SPDX-License-Identifier: Apache-2.0
// labels: unit property sanitize memory
#define BOOST_TEST_MODULE limber.elastic.dealer
#include <limber/batch/logical_shards.hpp>
#include <limber/batch/permutation.hpp>
#include <limber/comm/threads.hpp>
#include <limber/core/random.hpp>
#include <limber/elastic/dealer.hpp>

#include <boost/test/unit_test.hpp>

#include <support/checks.hpp>

#include <algorithm>
#include <limits>
#include <map>
#include <random>
#include <string>
#include <utility>
#include <vector>

using namespace limber;
using namespace limber::elastic;
using namespace limber::testing;

namespace {

using samples_of_epoch = std::vector<std::pair<i64, i64>>;  // (epoch, sample)

/// Workers that do not communicate: the samples that each would train on, and those that are in the
/// parameters of all.
class team {
 public:
  team(i64 size, std::uint64_t seed, int workers)
      : size_(size), dice_(seed), workers_(static_cast<std::size_t>(workers), dealer(size, seed)) {}

  [[nodiscard]] int below(int n) { return static_cast<int>(dice_() % static_cast<unsigned>(n)); }
  [[nodiscard]] int workers() const { return static_cast<int>(workers_.size()); }
  [[nodiscard]] dealer& first() { return workers_.front(); }

  /// Deals to all workers; returns the samples by rank.
  std::vector<samples_of_epoch> deal(batch_plan const& plan) {
    std::vector<samples_of_epoch> parts;
    for (int r = 0; r < workers(); ++r) {
      work_assignment const h = workers_[static_cast<std::size_t>(r)].deal(plan, r, calls + 1);
      parts.emplace_back();
      for (i64 const s : h.samples) parts.back().emplace_back(h.epoch, s);
    }
    return parts;
  }
  void commit(std::vector<samples_of_epoch> const& parts) {
    ++calls;
    for (auto& w : workers_) w.commit();
    unacknowledged_.emplace_back(calls, parts);
  }
  /// The call was not applied.
  void rollback() {
    for (auto& w : workers_) w.rollback(calls);
  }
  void acknowledge() {
    for (auto& w : workers_) w.acknowledge();
    for (auto const& [call, parts] : unacknowledged_)
      for (auto const& h : parts) consume(h);
    unacknowledged_.clear();
  }
  /// Workers with keeps[r] == 0 fail; the last `voided` calls are void for all.
  void recover(i64 voided, std::vector<char> const& keeps, int joiners) {
    for (auto const& [call, parts] : unacknowledged_) {
      if (call > calls - voided) break;
      for (std::size_t r = 0; r < parts.size(); ++r)
        if (r < keeps.size() && keeps[r] != 0) consume(parts[r]);
    }
    unacknowledged_.clear();
    std::vector<dealer> left;
    for (std::size_t r = 0; r < workers_.size(); ++r)
      if (keeps[r] != 0) {
        workers_[r].recover(calls, voided, keeps);
        left.push_back(std::move(workers_[r]));
      }
    for (int k = 0; k < joiners; ++k) {
      left.emplace_back(size_, 12345);
      left.back().restore(left.front().state());
    }
    workers_ = std::move(left);
    for (auto const& w : workers_) BOOST_TEST(w.state() == first().state());
  }
  /// A random plan for as many workers as there are, with at least one sample.
  [[nodiscard]] batch_plan plan() {
    batch_plan p;
    for (int r = 0; r < workers(); ++r) p.share.push_back(below(3) == 0 ? 0 : below(9));
    p.share[static_cast<std::size_t>(below(workers()))] += 1;
    for (i64 const b : p.share) p.total += b;
    return p;
  }
  [[nodiscard]] std::vector<char> deaths(bool any) {
    std::vector<char> keeps(workers_.size(), 1);
    if (any)
      for (auto& k : keeps) k = below(3) > 0;
    keeps[static_cast<std::size_t>(below(workers()))] = 1;
    return keeps;
  }
  [[nodiscard]] bool pending() const { return !unacknowledged_.empty(); }
  [[nodiscard]] std::size_t pending_calls() const { return unacknowledged_.size(); }

  /// Every sample of a complete epoch was consumed once; of other epochs, all that are neither requeued nor
  /// still to be dealt.
  void audit() {
    BOOST_REQUIRE(unacknowledged_.empty());
    std::map<std::pair<i64, i64>, int> expected;
    auto const at = first().position();
    for (i64 e = 0; e <= at.epoch; ++e) {
      permutation const order(size_, at.seed, static_cast<std::uint64_t>(e));
      std::vector<char> in(static_cast<std::size_t>(size_), 1);
      auto const take_out = [&](i64 from, i64 to) {
        for (i64 k = from; k < to; ++k) {
          // Not requeued twice, nor requeued and still to be dealt.
          BOOST_REQUIRE(in[static_cast<std::size_t>(k)] == 1);
          in[static_cast<std::size_t>(k)] = 0;
        }
      };
      if (e == at.epoch) take_out(at.cursor, size_);
      for (sample_range const& s : first().requeued())
        if (s.epoch == e) take_out(s.first, s.first + s.count);
      for (i64 k = 0; k < size_; ++k)
        if (in[static_cast<std::size_t>(k)] != 0) ++expected[{e, order(k)}];
    }
    BOOST_TEST((expected == consumed_));
    i64 whole = 0;
    auto const complete = [&](i64 epoch) {
      for (i64 s = 0; s < size_; ++s)
        if (!consumed_.contains({epoch, s})) return false;
      return true;
    };
    while (complete(whole)) ++whole;
    BOOST_TEST(first().epoch() == whole);
  }

  i64 calls = 0;

 private:
  void consume(samples_of_epoch const& h) {
    for (auto const& s : h) ++consumed_[s];
  }

  i64 size_;
  std::mt19937 dice_;
  std::vector<dealer> workers_;
  std::vector<std::pair<i64, std::vector<samples_of_epoch>>> unacknowledged_;
  std::map<std::pair<i64, i64>, int> consumed_;
};

template <class E, class F>
std::string message_of(F const& f) {
  try {
    f();
  } catch (E const& e) { return e.what(); }
  return "";
}

batch_plan shares(std::vector<i64> share) {
  batch_plan p{.share = std::move(share)};
  for (i64 const b : p.share) p.total += b;
  return p;
}

}  // namespace

BOOST_AUTO_TEST_CASE(without_deaths_the_assignments_are_those_of_the_sampler) {
  std::mt19937 dice(3);
  for (int trial = 0; trial < 40; ++trial) {
    i64 const size = 1 + static_cast<i64>(dice() % 60);
    dealer mine(size, 7);
    sampler plain(size, 7);
    for (i64 call = 1; call < 30; ++call) {
      auto const p = shares(
          {static_cast<i64>(dice() % 7), 1 + static_cast<i64>(dice() % 5), static_cast<i64>(dice() % 3)});
      int const rank = static_cast<int>(dice() % 3);
      i64 const epoch = plain.epoch();
      auto const expected = plain.take(p.share, rank);
      work_assignment const h = mine.deal(p, rank, call);
      BOOST_TEST(h.epoch == epoch);
      BOOST_TEST(std::ranges::equal(h.samples, expected));
      mine.commit();
      if (dice() % 3 == 0) mine.acknowledge();
      BOOST_TEST((mine.position() == plain.state()));
    }
  }
}

BOOST_AUTO_TEST_CASE(without_deaths_shards_are_those_of_the_sampler) {
  for (int const world : {1, 2, 3, 7}) {
    dealer mine(53, 9);
    sampler plain(53, 9);
    auto const p = logical_shards{4, 5}({world, {}});
    i64 call = 0;
    for (int update = 0; update < 9; ++update) {
      for (i64 c = 0; c < p.calls_per_update; ++c)
        for (int rank = 0; rank < 1; ++rank) {
          auto const expected = plain.deal_shard(p, shard_of(p, world, rank, c));
          BOOST_TEST(std::ranges::equal(mine.deal(p, rank, ++call).samples, expected));
          mine.commit();
        }
      plain.advance(p.total);
      BOOST_TEST((mine.position() == plain.state()));
    }
  }
}

BOOST_AUTO_TEST_CASE(every_sample_is_consumed_once_whatever_happens) {
  i64 requeued = 0, kept_parts = 0, over_epochs = 0;
  for (std::uint64_t seed = 1; seed <= 300; ++seed) {
    i64 const size = 1 + static_cast<i64>(seed % 37);
    team all(size, seed, 1 + static_cast<int>(seed % 5));
    for (int step = 0; step < 60; ++step) {
      auto const parts = all.deal(all.plan());
      switch (all.below(8)) {
        case 0: all.rollback(); break;  // dealt again at once
        case 1:                         // a failure, before the call or after it
        case 2: {
          bool const applied = all.below(2) == 0;
          if (applied) all.commit(parts);
          auto const keeps = all.deaths(true);
          i64 const voided = all.below(3) == 0 ? all.below(1 + static_cast<int>(all.pending_calls())) : 0;
          auto const before = all.first().position();
          kept_parts += all.pending() ? 1 : 0;
          all.recover(voided, keeps, all.workers() < 4 ? all.below(3) : 0);
          over_epochs += all.first().position().epoch < before.epoch ? 1 : 0;
          requeued += all.first().requeued().empty() ? 0 : 1;
          all.audit();
          break;
        }
        case 3:
          all.commit(parts);
          all.acknowledge();
          all.audit();
          break;
        default: all.commit(parts);
      }
    }
    // At the end nothing is requeued, and the epoch continues.
    for (i64 const epoch = all.first().position().epoch + 1; all.first().epoch() < epoch;) {
      all.commit(all.deal(all.plan()));
      all.acknowledge();
    }
    BOOST_TEST(all.first().requeued().empty());
    all.audit();
  }
  // All cases occurred.
  BOOST_TEST(requeued > 100);
  BOOST_TEST(kept_parts > 100);
  BOOST_TEST(over_epochs > 20);
}

BOOST_AUTO_TEST_CASE(shards_are_committed_as_whole_updates) {
  for (std::uint64_t seed = 1; seed <= 60; ++seed) {
    i64 const size = 20 + static_cast<i64>(seed % 37);
    team all(size, seed, 1 + static_cast<int>(seed % 4));
    dealer calm(size, seed);
    i64 updates = 0;
    while (updates < 12) {
      auto const p = logical_shards{4, 3}({all.workers(), {}});
      i64 const before = all.first().position().epoch * size + all.first().position().cursor;
      bool fails = all.below(3) == 0;
      i64 const last = fails ? all.below(static_cast<int>(p.calls_per_update)) : p.calls_per_update;
      samples_of_epoch got;
      for (i64 call = 0; call < last; ++call) {
        auto const parts = all.deal(p);
        for (auto const& h : parts) got.insert(got.end(), h.begin(), h.end());
        all.commit(parts);
      }
      if (fails) {
        if (all.below(2) == 0) (void)all.deal(p);  // and one that is interrupted
        all.recover(last, all.deaths(true), all.below(2));
        BOOST_TEST(all.first().position().epoch * size + all.first().position().cursor == before);
        BOOST_TEST(all.first().requeued().empty());
        continue;
      }
      all.acknowledge();
      ++updates;
      // The samples that a single worker would take.
      auto const alone = logical_shards{4, 3}({1, {}});
      samples_of_epoch expected;
      for (i64 call = 0; call < 4; ++call) {
        work_assignment const h = calm.deal(alone, 0, 4 * updates + call);
        for (i64 const s : h.samples) expected.emplace_back(h.epoch, s);
        calm.commit();
      }
      BOOST_TEST((got == expected));
    }
    all.audit();
  }
}

BOOST_AUTO_TEST_CASE(a_rolled_back_call_is_committed_if_progress_counts_it) {
  dealer d(20, 1);
  auto const p = shares({3, 4});
  (void)d.deal(p, 0, 5);
  d.rollback(4);  // not counted
  BOOST_TEST(d.position().cursor == 0);
  (void)d.deal(p, 0, 5);
  d.rollback(5);  // another rank completed it, or this one did before it failed
  BOOST_TEST(d.position().cursor == 7);
  d.rollback(9);  // nothing was dealt
  BOOST_TEST(d.position().cursor == 7);
  d.recover(5, 0, std::vector<char>{0, 1});
  BOOST_TEST((d.requeued() == std::vector<sample_range>{{0, 0, 3}}));
}

BOOST_AUTO_TEST_CASE(void_calls_at_the_end_of_an_epoch_bring_it_back) {
  dealer d(10, 1);
  auto const p = shares({4, 3});
  for (i64 call = 1; call <= 3; ++call) {  // 7, the last 3, and 7 of the next epoch
    (void)d.deal(p, 0, call);
    d.commit();
  }
  BOOST_TEST((d.position() == sampler_state{10, 1, 1, 7}));
  d.recover(3, 2, std::vector<char>{1, 1});
  BOOST_TEST((d.position() == sampler_state{10, 1, 0, 7}));
  BOOST_TEST(d.requeued().empty());
  BOOST_TEST(d.epoch() == 0);
}

BOOST_AUTO_TEST_CASE(requeued_samples_keep_an_epoch_open_and_are_dealt_first) {
  dealer d(10, 1);
  auto const p = shares({4, 3});
  for (i64 call = 1; call <= 3; ++call) {
    (void)d.deal(p, 0, call);
    d.commit();
  }
  d.recover(3, 0, std::vector<char>{1, 0});  // rank 1 had 4..6, the last of epoch 0, and 4..6 of epoch 1
  BOOST_TEST(d.epoch() == 0);
  auto const requeued = d.requeued();
  BOOST_TEST((requeued == std::vector<sample_range>{{0, 4, 3}, {0, 9, 1}, {1, 4, 3}}));
  permutation const order(10, 1, 0);
  work_assignment const h = d.deal(shares({7}), 0, 4);
  BOOST_TEST(h.epoch == 0);
  BOOST_TEST(std::ranges::equal(h.samples, std::vector<i64>{order(4), order(5), order(6)}));
}

BOOST_AUTO_TEST_CASE(state_comes_back_from_numbers) {
  dealer d(10, 77);
  auto const p = shares({4, 3});
  for (i64 call = 1; call <= 3; ++call) {
    (void)d.deal(p, 0, call);
    d.commit();
  }
  LIMBER_CHECK(message_of<std::invalid_argument>([&] { (void)d.state(); }).find("call finish() first") !=
               std::string::npos);
  d.recover(3, 0, std::vector<char>{1, 0});
  auto const state = d.state();
  dealer other(10, 5);
  (void)other.deal(p, 0, 1);
  other.restore(state);
  BOOST_TEST(other.state() == state);
  for (i64 call = 4; call < 12; ++call) {
    auto const mine = d.deal(p, 1, call);
    auto const theirs = other.deal(p, 1, call);
    BOOST_TEST(mine.epoch == theirs.epoch);
    BOOST_TEST(std::ranges::equal(mine.samples, theirs.samples));
    d.commit();
    other.commit();
  }
}

BOOST_AUTO_TEST_CASE(states_that_nobody_wrote_are_refused) {
  using numbers = std::vector<i64>;
  i64 const huge = std::numeric_limits<i64>::max(), least = std::numeric_limits<i64>::min();
  numbers const good{10, 3, 2, 7, 0, 4, 3, 0, 9, 1, 2, 0, 7};
  dealer d(10, 1);
  d.restore(good);
  for (numbers const& bad : {
           numbers{},
           numbers{10, 3, 2},
           numbers{10, 3, 2, 7, 0},
           numbers{10, 3, 2, 7, 0, 4},
           numbers{11, 3, 2, 7},                    // another data set
           numbers{0, 3, 2, 7},                     // none
           numbers{10, 3, -1, 7},                   // epochs
           numbers{10, 3, 2, 10},                   // cursors
           numbers{10, 3, 2, -1},                   //
           numbers{10, 3, 2, 7, 3, 0, 1},           // requeued of a future epoch
           numbers{10, 3, 2, 7, -1, 0, 1},          //
           numbers{10, 3, 2, 7, 0, 0, 0},           // nothing
           numbers{10, 3, 2, 7, 0, 3, -1},          //
           numbers{10, 3, 2, 7, 0, -1, 2},          // out of the epoch
           numbers{10, 3, 2, 7, 0, 9, 2},           //
           numbers{10, 3, 2, 7, 0, huge, 1},        //
           numbers{10, 3, 2, 7, 0, 1, huge},        //
           numbers{10, 3, 2, 7, 0, 1, least},       //
           numbers{10, 3, 2, 7, 2, 6, 2},           // not dealt yet
           numbers{10, 3, 2, 7, 0, 1, 3, 0, 3, 1},  // twice
           numbers{10, 3, 2, 7, 0, 1, 3, 0, 1, 3},  //
           numbers{10, 3, 2, 7, 1, 1, 3, 0, 1, 3},  // out of order
       })
    BOOST_CHECK_THROW(d.restore(bad), std::invalid_argument);
  BOOST_TEST(d.state() == good);  // untouched
}

BOOST_AUTO_TEST_CASE(all_ranks_get_the_roots_state) {
  threads::run(3, [](threads::communicator& comm) {
    auto const p = shares({4, 3});
    dealer d(10, comm.rank() == 2 ? 99 : 1);
    if (comm.rank() < 2)
      for (i64 call = 1; call <= 3; ++call) {
        (void)d.deal(p, comm.rank(), call);
        d.commit();
      }
    if (comm.rank() == 1) d.recover(3, 0, std::vector<char>{1, 0});
    d.broadcast(comm, 1);
    auto const requeued = d.requeued();
    LIMBER_CHECK((requeued == std::vector<sample_range>{{0, 4, 3}, {0, 9, 1}, {1, 4, 3}}));
    LIMBER_CHECK((d.position() == sampler_state{10, 1, 1, 7}));
    LIMBER_CHECK(std::ranges::equal(d.deal(p, 0, 4).samples, [&] {
      permutation const order(10, 1, 0);
      return std::vector<i64>{order(4), order(5)};
    }()));
  });
}

BOOST_AUTO_TEST_CASE(a_rank_on_which_broadcast_fails_keeps_its_state) {
  threads::world both(2, {.deadline = 5});
  auto left = both.communicator(0);
  dealer d(10, 4);
  (void)d.deal(shares({3}), 0, 1);
  d.commit();
  { auto gone = both.communicator(1); }
  BOOST_CHECK_THROW(d.broadcast(left, 1), error);
  d.acknowledge();
  BOOST_TEST((d.state() == std::vector<i64>{10, 4, 0, 3}));
}

BOOST_AUTO_TEST_CASE(data_sets_of_different_size_are_refused) {
  threads::run(2, [](threads::communicator& comm) {
    dealer d(10 + comm.rank(), 4);
    std::string const text = message_of<std::invalid_argument>([&] { d.broadcast(comm, 0); });
    LIMBER_CHECK((comm.rank() == 0) == text.empty());
    LIMBER_CHECK(comm.rank() == 0 || text.find("11 samples here but 10 on rank 0") != std::string::npos);
  });
}

BOOST_AUTO_TEST_CASE(adjacent_ranges_are_merged) {
  std::vector<sample_range> list;
  for (sample_range const s :
       {sample_range{1, 5, 2}, {0, 3, 1}, {0, 7, 2}, {0, 4, 3}, {1, 0, 5}, {2, 7, 1}, {2, 0, 0}})
    insert_range(list, s);
  BOOST_TEST((list == std::vector<sample_range>{{0, 3, 6}, {1, 0, 7}, {2, 7, 1}}));
  remove_front(list, 2);
  BOOST_TEST((list.front() == sample_range{0, 5, 4}));
  remove_front(list, 4);
  BOOST_TEST((list.front() == sample_range{1, 0, 7}));
}
