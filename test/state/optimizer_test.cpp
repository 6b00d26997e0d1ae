// SPDX-License-Identifier: Apache-2.0
// labels: unit property state
// needs: state
// timeout: 300
// sanitizers: address
#define BOOST_TEST_MODULE limber.state.optimizer
#include <limber/batch/fixed.hpp>
#include <limber/batch/logical_shards.hpp>
#include <limber/batch/sampler.hpp>
#include <limber/comm/threads.hpp>
#include <limber/optimizer.hpp>
#include <limber/rule/adamw.hpp>
#include <limber/rule/sgd.hpp>
#include <limber/schedule/product.hpp>
#include <limber/schedule/scaling.hpp>
#include <limber/schedule/warmup.hpp>
#include <limber/state/state.hpp>
#include <limber/sync/presets.hpp>

#include <boost/test/unit_test.hpp>

#include <state/fake_worker.hpp>
#include <support/checks.hpp>
#include <support/toy_model.hpp>

#include <vector>

using namespace limber;
using namespace limber::testing;
using state::latest;

namespace {

struct run_plan {
  int world;
  int updates;
  fs::path from{}, to{};  // folders; empty: none
};

// AdamW on one tensor, momentum SGD on the other, at a rate that follows the batch; samples from one sampler.
// @return every rank's weights
template <class S>
std::vector<std::vector<float>> train(run_plan const& p, S const& strategy, options o) {
  std::vector<std::vector<float>> out(static_cast<std::size_t>(p.world));
  threads::run(p.world, [&](threads::communicator& comm) {
    int const rank = comm.rank();
    toy_model<float> m;
    auto g = groups(parameter_group{std::vector<tensor>{{"w", m.w, m.gw}}, adamw{}},
                    parameter_group{std::vector<tensor>{{"b", m.b, m.gb}}, sgd{.momentum = 0.9}});
    o.epoch_size = 100;
    optimizer opt{g, dynamic_sgd(0.004, 12) * warmup(8_steps), strategy, comm, o};
    sampler data(100, 3);
    auto sampler_state = data.state();
    state::composite_state all{opt, state::block{"sampler", sampler_state}};
    if (!p.from.empty()) {
      std::ranges::fill(m.w, 99.f);
      load(all, latest(p.from), {.rank = rank, .world = p.world});
      data = sampler(sampler_state);
    }
    for (int u = 0; u < p.updates; ++u) {
      if (opt.planned().shards == 0) {
        auto const own = data.take(opt.planned().share, rank);
        m.backward(own);
        opt.step(static_cast<i64>(own.size()));
        continue;
      }
      opt.handshake();
      auto const plan = opt.planned();
      for (i64 j = 0; j < plan.calls_per_update; ++j) {
        i64 const shard = j * p.world + rank;
        auto const own = data.deal_shard(plan, shard < plan.shards ? shard : -1);
        m.backward(own);
        opt.step(static_cast<i64>(own.size()));
      }
      data.advance(plan.total);
    }
    if (!p.to.empty()) {
      sampler_state = data.state();
      save(all, p.to, {0, opt.now().calls, rank, p.world}, {.barrier = [&] { comm.barrier(); }});
    }
    out[static_cast<std::size_t>(rank)] = m.all();
  });
  return out;
}

options with(any_policy policy) {
  options o;
  o.batch = std::move(policy);
  return o;
}

}  // namespace

BOOST_AUTO_TEST_CASE(the_same_number_of_workers_continues_bit_for_bit) {
  options wire = with(fixed{24});
  wire.buckets = {.wire = dtype::bf16, .error_feedback = true};
  for (options const& o : {with(fixed{24}), wire})
    for (int const n : {1, 2}) {
      scratch dir;
      auto const whole = train({n, 10}, sync::allreduce{}, o);
      (void)train({n, 5, {}, dir.path}, sync::allreduce{}, o);
      BOOST_TEST((train({n, 5, dir.path}, sync::allreduce{}, o) == whole));
    }
}

BOOST_AUTO_TEST_CASE(another_number_of_workers_continues_within_rounding) {
  options wire = with(fixed{24});
  wire.buckets = {.wire = dtype::bf16, .error_feedback = true};
  for (bool const sixteen_bit : {false, true}) {
    options const o = sixteen_bit ? wire : with(fixed{24});
    scratch dir;
    auto const whole = train({2, 10}, sync::allreduce{}, o);
    (void)train({2, 5, {}, dir.path}, sync::allreduce{}, o);
    for (int const n : {1, 3}) {
      auto const continued = train({n, 5, dir.path}, sync::allreduce{}, o);
      for (auto const& w : continued) {
        BOOST_TEST(distance(w, whole[0]) < (sixteen_bit ? 1e-3 : 1e-6), distance(w, whole[0]));
        BOOST_TEST((w == continued[0]));
      }
    }
  }
}

// Shards are added in their order, whichever worker computes them, so the number of workers does not matter.
BOOST_AUTO_TEST_CASE(with_logical_shards_any_number_of_workers_continues_bit_for_bit) {
  auto const o = with(logical_shards{6, 4});
  scratch dir;
  auto const whole = train({2, 10}, sync::allreduce{}, o);
  (void)train({2, 5, {}, dir.path}, sync::allreduce{}, o);
  for (int const n : {1, 2, 3}) BOOST_TEST((train({n, 5, dir.path}, sync::allreduce{}, o)[0] == whole[0]), n);
}

// Saved inside a round, when every worker has its own model and momentum.
BOOST_AUTO_TEST_CASE(an_unfinished_round_is_continued) {
  auto const strategy = sync::local{.period = 4};
  auto const o = with(fixed{24});
  scratch dir;
  auto const whole = train({2, 10}, strategy, o);
  BOOST_TEST((whole[0] != whole[1]));
  (void)train({2, 6, {}, dir.path}, strategy, o);
  BOOST_TEST((train({2, 4, dir.path}, strategy, o) == whole));
  // With three workers: from the mean of both models, in the unfinished round.
  auto const continued = train({3, 2, dir.path}, strategy, o);
  BOOST_TEST((continued[0] == continued[1]));
  BOOST_TEST((continued[0] == continued[2]));
  BOOST_TEST(distance(continued[0], train({2, 8}, strategy, o)[0]) < 0.05);
}
