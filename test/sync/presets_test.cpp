// SPDX-License-Identifier: Apache-2.0
// labels: unit property
// forms: header-only
// sanitizers: address
#define BOOST_TEST_MODULE limber.sync.presets
#include <limber/comm/threads.hpp>
#include <limber/limber.hpp>
#include <limber/sync/strategies.hpp>

#include <boost/test/unit_test.hpp>

#include <support/checks.hpp>
#include <support/dealing.hpp>
#include <support/toy_model.hpp>

#include <array>
#include <limits>
#include <tuple>
#include <vector>

using namespace limber;
using namespace limber::literals;
using namespace limber::testing;

using scalars = std::tuple<float, double>;

namespace {

dealing const four{{2, 6, 16, 8}, {10, 0, 3, 4}, {1, 20, 5, 9}};
dealing const even_four{{8, 8, 8, 8}};

// A round of local SGD by hand: models of all ranks after `steps` calls of plain descent at `rate` from
// the same start, and the samples of each.
struct rounds {
  static constexpr int workers = 3;
  std::vector<double> anchor = toy_model<double>{}.all();
  i64 first = 0;
  int call = 0;

  // Σ nᵢ (x̃ − xᵢ) / Σ nᵢ after so many calls, at rate(call).
  template <class Rate>
  std::vector<double> mean_difference(dealing const& deal, int calls, Rate const& rate) {
    std::array<toy_model<double>, workers> m;
    std::array<double, workers> n{};
    for (auto& x : m) put(x, anchor);
    for (int k = 0; k < calls; ++k, ++call) {
      auto const& now = deal[static_cast<std::size_t>(call) % deal.size()];
      for (std::size_t r = 0; r < workers; first += now[r++]) {
        if (now[r] == 0) continue;
        m[r].gw.assign(m[r].gw.size(), 0);
        m[r].gb.assign(1, 0);
        m[r].backward(run_of(first, now[r]));
        for (std::size_t i = 0; i < m[r].w.size(); ++i) m[r].w[i] -= rate(call) * m[r].gw[i];
        m[r].b[0] -= rate(call) * m[r].gb[0];
        n[r] += static_cast<double>(now[r]);
      }
    }
    std::vector<double> d(anchor.size());
    double const total = n[0] + n[1] + n[2];
    for (std::size_t r = 0; r < workers; ++r)
      for (std::size_t i = 0; i < d.size(); ++i) d[i] += n[r] / total * (anchor[i] - m[r].all()[i]);
    return d;
  }
  static void put(toy_model<double>& m, std::vector<double> const& x) {
    std::copy_n(x.begin(), m.w.size(), m.w.begin());
    m.b[0] = x.back();
  }
};

double rate_of(int call) { return 0.02 * std::min(1.0, call / 4.0); }

}  // namespace

BOOST_AUTO_TEST_CASE_TEMPLATE(a_block_for_each_worker_is_local_sgd_and_period_one_is_all_reduce, T, scalars) {
  for (auto const& deal : {four, even_four}) {
    auto const local = train<T>(4, sync::local{.period = 3}, adamw{}, deal);
    auto const blocks =
        train<T>(4, sync::hierarchical{.block_size = 2, .period = 3, .block_periods = 1}, adamw{}, deal);
    BOOST_TEST(distance(blocks[0], local[0]) < bound<T>);
    BOOST_TEST(distance(blocks[3], local[3]) < bound<T>);
  }
  auto const all = train<T>(4, sync::allreduce{}, nesterov, even_four);
  auto const blocks = train<T>(4, sync::hierarchical{2, 1, 1}, nesterov, even_four);
  BOOST_TEST(distance(blocks[1], all[1]) < bound<T>);
}

BOOST_AUTO_TEST_CASE(blocks_agree_among_themselves_between_averages_of_all) {
  auto const open = train<double>(4, sync::hierarchical{2, 2, 3}, nesterov, four, 4, false);
  BOOST_TEST((open[0] == open[1]));
  BOOST_TEST((open[2] == open[3]));
  BOOST_TEST(distance(open[0], open[2]) > 1e-6);
  auto const merged = train<double>(4, sync::hierarchical{2, 2, 3}, nesterov, four, 6, false);
  BOOST_TEST((merged[0] == merged[3]));
  // Averaging in blocks first changes what is averaged later.
  BOOST_TEST(distance(merged[0], train<double>(4, sync::local{6}, nesterov, four, 6, false)[0]) > 1e-9);
}

BOOST_AUTO_TEST_CASE_TEMPLATE(without_outer_momentum_slowmo_and_diloco_are_local_sgd, T, scalars) {
  for (auto const at : {sync::moments::keep, sync::moments::average, sync::moments::reset}) {
    auto const local = train<T>(3, sync::local{4, at}, nesterov, changing);
    auto const slow =
        train<T>(3, sync::slowmo{.period = 4, .beta = 0, .alpha = 1, .at_merge = at}, nesterov, changing);
    BOOST_TEST(distance(slow[0], local[0]) < bound<T>);
  }
  auto const local = train<T>(3, sync::local{4}, adamw{}, changing);
  auto const outer =
      train<T>(3, sync::diloco{.period = 4, .outer_lr = 1, .outer_momentum = 0}, adamw{}, changing);
  BOOST_TEST(distance(outer[0], local[0]) < bound<T>);
}

BOOST_AUTO_TEST_CASE_TEMPLATE(one_worker_is_the_plain_rule, T, scalars) {
  dealing const one{{8}};
  auto const plain = train<T>(1, sync::allreduce{}, nesterov, one)[0];
  auto const keep = sync::moments::keep;
  BOOST_TEST(distance(train<T>(1, sync::hierarchical{1, 3, 2}, nesterov, one)[0], plain) < bound<T>);
  BOOST_TEST(distance(train<T>(1, sync::slowmo{3, 0, 1, keep}, nesterov, one)[0], plain) < bound<T>);
  BOOST_TEST(distance(train<T>(1, sync::diloco{3, 1, 0}, nesterov, one)[0], plain) < bound<T>);
  BOOST_TEST(distance(train<T>(1, sync::lookahead{3, 1}, nesterov, one)[0], plain) < bound<T>);
}

BOOST_AUTO_TEST_CASE(diloco_follows_the_paper) {
  rounds by_hand;
  std::vector<double> m(by_hand.anchor.size());
  for (int round = 0; round < 5; ++round) {
    auto const d = by_hand.mean_difference(changing, 4, rate_of);
    for (std::size_t i = 0; i < d.size(); ++i) {
      m[i] = 0.9 * m[i] + d[i];
      by_hand.anchor[i] -= 0.7 * (d[i] + 0.9 * m[i]);
    }
  }
  auto const got = train<double>(3, sync::diloco{.period = 4}, descent{}, changing, 20);
  BOOST_TEST(distance(got[0], by_hand.anchor) < 1e-12);
  BOOST_TEST((got[0] == got[2]));
}

BOOST_AUTO_TEST_CASE(slowmo_follows_the_paper_while_the_rate_changes) {
  rounds by_hand;
  std::vector<double> u(by_hand.anchor.size());
  for (int round = 0; round < 7; ++round) {
    auto const d = by_hand.mean_difference(changing, 3, rate_of);
    double const gamma = rate_of(by_hand.call - 1);
    for (std::size_t i = 0; i < d.size(); ++i) {
      u[i] = 0.6 * u[i] + d[i] / gamma;
      by_hand.anchor[i] -= 0.8 * gamma * u[i];
    }
  }
  auto const got =
      train<double>(3, sync::slowmo{.period = 3, .beta = 0.6, .alpha = 0.8}, descent{}, changing, 21);
  BOOST_TEST(distance(got[0], by_hand.anchor) < 1e-12);
}

BOOST_AUTO_TEST_CASE(lookahead_goes_back_part_of_its_way) {
  auto const all = train<double>(3, sync::allreduce{}, nesterov, even);
  BOOST_TEST(distance(train<double>(3, sync::lookahead{5, 1}, nesterov, even)[0], all[0]) < 1e-12);
  auto const start = toy_model<double>{}.all();
  auto const end = train<double>(3, sync::allreduce{}, nesterov, changing, 4);
  auto const back = train<double>(3, sync::lookahead{4, 0.25}, nesterov, changing, 4);
  for (std::size_t i = 0; i < start.size(); ++i)
    BOOST_TEST(back[1][i] == start[i] + 0.25 * (end[1][i] - start[i]), boost::test_tools::tolerance(1e-12));
}

BOOST_AUTO_TEST_CASE(post_local_averages_every_call_until_it_starts) {
  // 24 samples a call planned; local from the tenth update on.
  sync::local const late{.period = 6, .from = 10_steps};
  auto const before = train<double>(3, late, adamw{}, changing, 9, false);
  auto const synchronous = train<double>(3, sync::local{1}, adamw{}, changing, 9, false);
  BOOST_TEST((before[0] == synchronous[0]));
  BOOST_TEST((before[0] == before[2]));
  auto const after = train<double>(3, late, adamw{}, changing, 13, false);
  BOOST_TEST(distance(after[0], after[2]) > 1e-9);
}

// Three workers and a centre by hand: plain descent, and the force towards the centre as it was.
BOOST_AUTO_TEST_CASE(elastic_averaging_follows_the_paper) {
  constexpr std::size_t workers = 3;
  std::array<toy_model<double>, workers> m;
  auto centre = m[0].all();
  i64 first = 0;
  for (int call = 0; call < 21; ++call) {
    auto const& now = changing[static_cast<std::size_t>(call) % changing.size()];
    for (std::size_t r = 0; r < workers; first += now[r++]) {
      if (now[r] == 0) continue;
      m[r].gw.assign(m[r].gw.size(), 0);
      m[r].gb.assign(1, 0);
      m[r].backward(run_of(first, now[r]));
      for (std::size_t i = 0; i < m[r].w.size(); ++i) m[r].w[i] -= rate_of(call) * m[r].gw[i];
      m[r].b[0] -= rate_of(call) * m[r].gb[0];
    }
    if (call % 3 != 2) continue;
    auto const old = centre;
    for (auto& x : m) {
      auto all = x.all();
      for (std::size_t i = 0; i < all.size(); ++i) {
        double const e = 0.9 / workers * (all[i] - old[i]);
        all[i] -= e;
        centre[i] += e;
      }
      rounds::put(x, all);
    }
  }
  threads::run(3, [&](threads::communicator& comm) {
    auto const r = static_cast<std::size_t>(comm.rank());
    toy_model<double> own;
    optimizer opt{own.parameters(),
                  descent{},
                  linear_scaling{.base_lr = 0.02, .base_batch = 24} * warmup(4_steps),
                  sync::elastic_averaging{.period = 3},
                  comm,
                  {.batch = per_worker{8}, .epoch_size = 1000}};
    i64 at = 0;
    for (int call = 0; call < 21; ++call) {
      auto const& now = changing[static_cast<std::size_t>(call) % changing.size()];
      for (std::size_t k = 0; k < workers; at += now[k++])
        if (k == r) own.backward(run_of(at, now[k]));
      opt.step(now[r]);
    }
    LIMBER_CHECK(distance(own.all(), m[r].all()) < 1e-12);
    opt.evaluate([&] { LIMBER_CHECK(distance(own.all(), centre) < 1e-12); });
    LIMBER_CHECK(distance(own.all(), m[r].all()) < 1e-12);
    LIMBER_CHECK(opt.now().samples == [&] {
      i64 sum = 0;
      for (int call = 0; call < 21; ++call)
        for (i64 n : changing[static_cast<std::size_t>(call) % changing.size()]) sum += n;
      return sum;
    }());
  });
}

BOOST_AUTO_TEST_CASE_TEMPLATE(without_force_elastic_averaging_is_the_plain_rule, T, scalars) {
  dealing const one{{8}};
  auto const plain = train<T>(1, sync::allreduce{}, nesterov, one)[0];
  BOOST_TEST((train<T>(1, sync::elastic_averaging{3, 0}, nesterov, one)[0] == plain));
}

BOOST_AUTO_TEST_CASE(a_matching_pairs_everybody_once_and_changes_from_round_to_round) {
  for (int const size : {1, 2, 3, 8, 9, 64}) {
    int alone = 0, changed = 0;
    for (i64 round = 0; round < 40; ++round) {
      auto const partners = sync::partners_of(size, 7, round), next = sync::partners_of(size, 7, round + 1);
      for (std::size_t r = 0; r < partners.size(); ++r) {
        int const other = partners[r];
        BOOST_TEST_REQUIRE(partners[static_cast<std::size_t>(other)] == static_cast<int>(r));
        alone += other == static_cast<int>(r);
        changed += other != next[r];
      }
    }
    BOOST_TEST(alone == 40 * (size % 2));
    BOOST_TEST((changed > 0) == (size > 2));
  }
}

BOOST_AUTO_TEST_CASE(gossip_keeps_the_mean_and_brings_models_together) {
  for (int const workers : {4, 5}) {
    auto const n = static_cast<std::size_t>(workers);
    std::vector<std::vector<double>> before(n), after(n), evaluated(n);
    threads::run(workers, [&](threads::communicator& comm) {
      auto const r = static_cast<std::size_t>(comm.rank());
      toy_model<double> m;
      optimizer opt{m.parameters(),          descent{}, 0.0, sync::gossip{.period = 1, .seed = 3}, comm,
                    {.batch = per_worker{4}}};
      opt.handshake();
      for (double& x : m.w) x = static_cast<double>(1 + r);  // models that differ, at rate 0
      before[r] = m.all();
      for (int call = 0; call < 30; ++call) {
        m.backward(run_of(0, 4));
        opt.step(4);
      }
      after[r] = m.all();
      opt.evaluate([&] { evaluated[r] = m.all(); });
      LIMBER_CHECK(m.all() == after[r]);
    });
    double mean = 0, spread = 0;
    for (std::size_t r = 0; r < n; ++r) mean += before[r][0] / static_cast<double>(n);
    double kept = 0;
    for (std::size_t r = 0; r < n; ++r) {
      kept += after[r][0] / static_cast<double>(n);
      spread = std::max(spread, std::abs(after[r][0] - mean));
      BOOST_TEST(evaluated[r][0] == mean, boost::test_tools::tolerance(1e-12));
    }
    BOOST_TEST(kept == mean, boost::test_tools::tolerance(1e-12));
    BOOST_TEST(spread < 0.05);
  }
}

BOOST_AUTO_TEST_CASE_TEMPLATE(gossip_of_one_is_the_plain_rule_and_of_two_is_local_sgd_of_equal_shares, T,
                              scalars) {
  dealing const one{{8}}, two{{8, 8}};
  BOOST_TEST(
      (train<T>(1, sync::gossip{}, nesterov, one)[0] == train<T>(1, sync::allreduce{}, nesterov, one)[0]));
  auto const pair = train<T>(2, sync::gossip{.period = 3}, nesterov, two);
  BOOST_TEST((pair[0] == pair[1]));
  BOOST_TEST(distance(pair[0], train<T>(2, sync::local{3}, nesterov, two)[0]) < bound<T>);
}

BOOST_AUTO_TEST_CASE(a_model_that_is_not_finite_pulls_nobody_and_is_replaced) {
  auto const check = [](auto const& strategy) {
    threads::run(2, [&](threads::communicator& comm) {
      toy_model<double> m;
      auto const start = m.all();
      optimizer opt{m.parameters(), descent{}, 0.0, strategy, comm, {.batch = per_worker{4}}};
      opt.handshake();
      if (comm.rank() == 0) m.w[3] = std::numeric_limits<double>::infinity();
      opt.step(4);
      LIMBER_CHECK(m.all() == start);
    });
  };
  check(sync::gossip{.period = 1});
  check(sync::elastic_averaging{.period = 1});
}

BOOST_AUTO_TEST_CASE(bad_choices_are_refused_by_name) {
  BOOST_TEST(has(message_of([] { (void)sync::hierarchical{0, 1, 1}.parts(); }), "block", "0"));
  BOOST_TEST(has(message_of([] { (void)sync::local{.period = 0}.parts(); }), "period", "0"));
  BOOST_TEST(has(message_of([] { (void)sync::local{.from = {-1, unit::steps}}.parts(); }), "from", "-1"));
  BOOST_TEST(has(message_of([] { (void)sync::slowmo{.beta = 1.5}.parts(); }), "momentum", "1.5"));
  BOOST_TEST(has(message_of([] { (void)sync::lookahead{.alpha = -1}.parts(); }), "rate", "-1"));
  BOOST_TEST(
      has(message_of([] { (void)sync::elastic_averaging{.moving_rate = 2}.parts(); }), "moving_rate", "2"));
}

BOOST_AUTO_TEST_CASE(whatever_the_strategy_all_start_from_the_model_of_rank_0) {
  auto const starts_alike = [](auto const& strategy) {
    std::vector<std::vector<double>> seen(3);
    threads::run(3, [&](threads::communicator& comm) {
      toy_model<double> m;
      for (double& x : m.w) x += comm.rank();
      optimizer opt{m.parameters(), nesterov, 0.01, strategy, comm};
      opt.handshake();
      seen[static_cast<std::size_t>(comm.rank())] = m.all();
    });
    return seen[1] == seen[0] && seen[2] == seen[0] && seen[0] == toy_model<double>{}.all();
  };
  BOOST_TEST(starts_alike(sync::allreduce{}));
  BOOST_TEST(starts_alike(sync::local{.period = 4}));
  BOOST_TEST(starts_alike(sync::elastic_averaging{}));
  BOOST_TEST(starts_alike(sync::gossip{}));
  BOOST_TEST(starts_alike(sync::push_sum{}));
  BOOST_TEST(starts_alike(sync::asynchronous_gossip{}));
  BOOST_TEST(starts_alike(sync::abs_sgd{}));
}
