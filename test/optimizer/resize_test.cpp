// SPDX-License-Identifier: Apache-2.0
// labels: unit property sanitize
#define BOOST_TEST_MODULE limber.optimizer.resize
#include <limber/comm/threads.hpp>
#include <limber/limber.hpp>

#include <boost/test/unit_test.hpp>

#include <support/checks.hpp>
#include <support/toy_model.hpp>

#include <map>
#include <memory>
#include <thread>

using namespace limber;
using namespace limber::testing;

namespace {

/// A run through several worlds. Worker w takes part in a generation whose size is above w; who joins
/// runs the starter's code with made-up weights, who leaves calls finish().
struct generation {
  int workers;
  int calls;
};

struct trace {
  std::vector<float> weights;
  progress now;
  std::vector<double> rates;
};

template <class S, class R>
std::vector<trace> run(std::vector<generation> const& plan, S strategy, R const& rule, options base = {}) {
  int most = 0;
  for (auto const& g : plan) most = std::max(most, g.workers);
  std::vector<std::vector<threads::communicator>> seats(plan.size());
  for (std::size_t k = 0; k < plan.size(); ++k) {
    threads::world w(plan[k].workers, {.deadline = 30});
    for (int r = 0; r < plan[k].workers; ++r) seats[k].push_back(w.communicator(r));
  }
  std::vector<trace> out(static_cast<std::size_t>(most));
  std::vector<std::string> failures(out.size());
  auto worker = [&](int w) {
    std::vector<std::unique_ptr<threads::communicator>> mine(plan.size());
    for (std::size_t k = 0; k < plan.size(); ++k)
      if (w < plan[k].workers)
        mine[k] = std::make_unique<threads::communicator>(std::move(seats[k][static_cast<std::size_t>(w)]));
    toy_model<float> m;
    std::size_t k = 0;
    while (!mine[k]) ++k;
    if (k > 0) std::ranges::fill(m.w, 77.f);  // a joiner knows nothing
    options o = base;
    o.batch = per_worker{8};
    o.epoch_size = 512;
    auto rate = linear_scaling{.base_lr = 0.004, .base_batch = 16} * warmup(10_steps);
    optimizer opt{m.parameters(), rule, rate, strategy, *mine[k], o};
    for (; k < plan.size() && mine[k]; ++k) {
      if (opt.now().calls > 0) opt.resize(*mine[k]);
      for (int t = 0; t < plan[k].calls; ++t) {
        opt.handshake();
        m.backward(run_of(opt.now().samples + w * 8, 8));
        opt.step(8);
        out[static_cast<std::size_t>(w)].rates.push_back(opt.last().rate);
      }
    }
    opt.finish();
    out[static_cast<std::size_t>(w)].weights = m.all();
    out[static_cast<std::size_t>(w)].now = opt.now();
  };
  std::vector<std::thread> team;
  for (int w = 0; w < most; ++w)
    team.emplace_back([&, w] { failures[static_cast<std::size_t>(w)] = message_of([&] { worker(w); }); });
  for (auto& t : team) t.join();
  for (auto const& f : failures) BOOST_REQUIRE_EQUAL(f, "");
  return out;
}

}  // namespace

BOOST_AUTO_TEST_CASE(joiners_end_with_the_bits_of_those_who_were_there) {
  auto check = [](auto strategy, auto const& rule) {
    auto const end = run({{2, 31}, {5, 20}, {3, 10}}, strategy, rule);
    for (int w = 1; w < 3; ++w) {
      BOOST_TEST(same_bits(end[static_cast<std::size_t>(w)].weights, end[0].weights));
      BOOST_TEST(std::memcmp(&end[static_cast<std::size_t>(w)].now, &end[0].now, sizeof(progress)) == 0);
    }
    BOOST_TEST(same_bits(end[3].weights, end[4].weights));
    BOOST_TEST(end[0].now.calls == 61);
    BOOST_TEST(end[0].now.samples == 31 * 16 + 20 * 40 + 10 * 24);
  };
  check(sync::allreduce{}, sgd{.momentum = 0.9});
  check(sync::allreduce{.period = 1}, clipped{adamw{}, 1.0});
  check(sync::local{.period = 4}, sgd{.momentum = 0.9});
  check(sync::local{.period = 7, .at_merge = sync::moments::average}, ema{adamw{}, 0.9});
}

// A joiner receives weights, momentum and counters: the run goes on as if it had always been there.
BOOST_AUTO_TEST_CASE(a_world_that_changes_hands_trains_as_one_that_does_not) {
  auto const moved = run({{2, 15}, {3, 0}, {2, 15}}, sync::allreduce{}, sgd{.momentum = 0.9});
  auto const stayed = run({{2, 30}}, sync::allreduce{}, sgd{.momentum = 0.9});
  BOOST_TEST(same_bits(moved[0].weights, stayed[0].weights));
}

BOOST_AUTO_TEST_CASE(a_resize_re_arms_the_ramp_and_only_the_plan_does) {
  auto const up = run({{2, 40}, {8, 80}, {2, 20}}, sync::allreduce{}, sgd{.momentum = 0.9});
  auto const& rates = up[0].rates;
  double const before = 0.004, after = 0.016;
  BOOST_TEST(rates[39] == before);
  // k = 4, T = 8k = 32, j from 1.
  for (int j = 1; j <= 32; ++j)
    BOOST_TEST(rates[static_cast<std::size_t>(39 + j)] == before + (after - before) * j / 32.0,
               boost::test_tools::tolerance(1e-12));
  BOOST_TEST(rates[39 + 33] == after);
  BOOST_TEST(rates[120] == before);  // a decrease is applied at once
  // Joiners see the ramp too.
  for (std::size_t k = 0; k < 80; ++k) BOOST_TEST(up[7].rates[k] == rates[40 + k]);
  options at_once;
  at_once.ramp = immediate;
  auto const sudden = run({{2, 40}, {8, 5}}, sync::allreduce{}, sgd{.momentum = 0.9}, at_once);
  BOOST_TEST(sudden[0].rates[40] == after);
}

BOOST_AUTO_TEST_CASE(a_resize_before_the_first_update_starts_no_ramp) {
  threads::run(2, [](threads::communicator& comm) {
    auto alone = comm.split(comm.rank());
    toy_model<float> m;
    optimizer opt{m.parameters(),    sgd{}, dynamic_sgd(0.01, 8),
                  sync::allreduce{}, alone, {.batch = per_worker{8}}};
    opt.resize(comm);
    m.backward(run_of(0, 8));
    LIMBER_CHECK(opt.step(8).rate == 0.02);
  });
}

BOOST_AUTO_TEST_CASE(a_resize_in_a_round_closes_it_first) {
  // 31 calls in rounds of 4: three calls are open when the workers change.
  auto const end = run({{2, 31}, {4, 9}}, sync::local{.period = 4}, sgd{.momentum = 0.9});
  BOOST_TEST(end[0].now.samples == 31 * 16 + 9 * 32);
  for (auto const& t : end) BOOST_TEST(same_bits(t.weights, end[0].weights));
  auto const accumulated = run({{2, 7}, {4, 5}}, sync::allreduce{.period = 3}, sgd{.momentum = 0.9});
  // 2 full updates and one of a single call; then 1 full and one of two calls.
  BOOST_TEST(accumulated[0].now.steps == 5);
  BOOST_TEST(accumulated[0].now.samples == 7 * 16 + 5 * 32);
}

BOOST_AUTO_TEST_CASE(all_replicas_start_from_rank_0) {
  threads::run(3, [](threads::communicator& comm) {
    toy_model<float> m;
    std::ranges::fill(m.w, 1.f + static_cast<float>(comm.rank()));
    optimizer opt{m.parameters(), master{sgd{}}, 0.1, sync::local{.period = 50}, comm};
    opt.handshake();
    for (float w : m.w) LIMBER_CHECK(w == 1.f);
    opt.visit([](state_piece const& p) {
      if (p.name == "rule0/slot0/w")
        for (float w : p.data.as<float>()) LIMBER_CHECK(w == 1.f);
    });
  });
}

// Short steps at the end of an epoch weigh less and leave the rate alone (PAPERS: tails of 1, 16, B - 1).
BOOST_AUTO_TEST_CASE(a_short_step_at_the_end_of_an_epoch_leaves_the_rate_untouched) {
  for (i64 tail : {1, 16, 63})
    threads::run(4, [&](threads::communicator& comm) {
      toy_model<float> m;
      i64 const size = 64 * 3 + tail;
      optimizer opt{m.parameters(),
                    sgd{.momentum = 0.9},
                    dynamic_sgd(0.01, 64),
                    sync::allreduce{},
                    comm,
                    {.batch = fixed{64}, .epoch_size = size}};
      sampler deal(size, 3);
      while (deal.epoch() < 3) {
        auto const mine = deal.take(opt.planned().share, comm.rank());
        m.backward(mine);
        opt.step(static_cast<i64>(mine.size()));
        LIMBER_CHECK(opt.last().rate == 0.01);
        LIMBER_CHECK(opt.rate() == 0.01);
      }
      LIMBER_CHECK(opt.now().samples == 3 * size);
      LIMBER_CHECK(opt.now().in(unit::epochs) == 3);
    });
}

// Seeking a schedule, saving and loading: the state that visit shows is all there is.
BOOST_AUTO_TEST_CASE(state_copied_piece_by_piece_continues_bit_for_bit) {
  auto check = [](auto strategy, auto const& rule) {
    threads::run(3, [&](threads::communicator& comm) {
      using map = std::map<std::string, std::vector<std::byte>>;
      auto train = [&](map const* load, map* save, int from, int to) {
        toy_model<float> m;
        optimizer opt{m.parameters(), rule, dynamic_sgd(0.01, 24) * warmup(5_steps),
                      strategy,       comm, {.batch = per_worker{8}}};
        if (load != nullptr)
          // Control comes first and says which pieces there are.
          opt.visit([&](state_piece const& p) {
            auto const& bytes = load->at(p.name);
            LIMBER_CHECK(static_cast<i64>(bytes.size()) == p.data.bytes());
            std::ranges::copy(bytes, p.data.data);
          });
        for (int t = from; t < to; ++t) {
          m.backward(run_of(t * 24 + comm.rank() * 8, 8));
          opt.step(8);
        }
        if (save != nullptr)
          opt.visit([&](state_piece const& p) {
            (*save)[p.name] = {p.data.data, p.data.data + p.data.bytes()};
          });
        return m.all();
      };
      map saved;
      train(nullptr, &saved, 0, 9);  // inside a round of four
      auto const resumed = train(&saved, nullptr, 9, 20);
      auto const straight = train(nullptr, nullptr, 0, 20);
      LIMBER_CHECK(same_bits(resumed, straight));
    });
  };
  check(sync::allreduce{}, clipped{adamw{}, 1.0});
  check(sync::allreduce{.period = 4}, sgd{.momentum = 0.9, .dampening = 0.5});
  check(sync::local{.period = 4}, ema{master{sgd{.momentum = 0.9}}, 0.9});
}
