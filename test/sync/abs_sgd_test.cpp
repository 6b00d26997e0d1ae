// SPDX-License-Identifier: Apache-2.0
// labels: property sanitize
// timeout: 240
#define BOOST_TEST_MODULE limber.sync.abs_sgd
#include <limber/batch/policies.hpp>
#include <limber/comm/threads.hpp>
#include <limber/limber.hpp>
#include <limber/sync/strategies.hpp>

#include <boost/test/unit_test.hpp>

#include <support/checks.hpp>
#include <support/dealing.hpp>
#include <support/toy_model.hpp>

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <limits>
#include <thread>
#include <vector>

using namespace limber;
using namespace limber::testing;

using scalars = std::tuple<float, double>;

namespace {

constexpr int workers = 3;
constexpr sgd heavy{.momentum = 0.5};
auto const rate = linear_scaling{.base_lr = 0.01, .base_batch = 24};

// Micro-batch k of a rank: its first sample and how many it has, some none.
i64 first_of(int rank, int k) { return 10000 * rank + 100 * k; }
i64 size_of_micro(int rank, int k) { return (k + rank) % 7 == 0 ? 0 : 1 + (k * 5 + rank) % 11; }

// What each rank ends with, and what it logged.
template <class T>
struct ended {
  std::vector<T> model;
  sync::round_log log;
  i64 steps = 0, samples = 0, calls = 0, rounds_seen = 0;
};

template <class T, class R>
std::vector<ended<T>> train_rounds(R const& rule, std::array<int, workers> const& calls, sync::abs_sgd how,
                                   std::vector<ended<T>> const* replay = nullptr, bool uneven = true) {
  std::vector<ended<T>> out(workers);
  threads::run(workers, [&](threads::communicator& comm) {
    auto const r = static_cast<std::size_t>(comm.rank());
    toy_model<T> m;
    options o;
    o.batch = per_worker{8};
    o.epoch_size = 1000;
    auto strategy = how;
    strategy.log = &out[r].log;
    if (replay) strategy.replay = &(*replay)[r].log;
    optimizer opt{m.parameters(), rule, rate, strategy, comm, o};
    for (int k = 0; k < calls[r]; ++k) {
      i64 const n = size_of_micro(comm.rank(), k);
      m.backward(run_of(first_of(comm.rank(), k), n));
      if (uneven && !replay) std::this_thread::sleep_for(std::chrono::microseconds(40 * comm.rank()));
      out[r].rounds_seen += opt.step(n).applied ? 1 : 0;
    }
    opt.finish();
    out[r].model = m.all();
    out[r].steps = opt.now().steps;
    out[r].samples = opt.now().samples;
    out[r].calls = opt.now().calls;
  });
  return out;
}

// The paper's recursion by hand, from what the logs say each round held: xₜ₊₁ = xₜ − η (μ v + ḡₜ₋₁).
std::vector<double> by_hand(std::vector<sync::round_log> const& logs, double mu, sync::round_rate how) {
  toy_model<double> x;
  std::vector<double> v(x.all().size()), late;
  double late_samples = 0;
  std::array<int, workers> next{};
  bool first = true;
  auto move = [&] {
    if (late_samples == 0) return;
    double const k = late_samples / 24;
    double const eta = 0.01 * (how == sync::round_rate::linear ? k
                               : how == sync::round_rate::sqrt ? std::sqrt(k)
                                                               : 1);
    for (std::size_t i = 0; i < v.size(); ++i) {
      v[i] = (first ? 0 : mu) * v[i] + late[i] / late_samples;
      (i < x.w.size() ? x.w[i] : x.b[0]) -= eta * v[i];
    }
    first = false;
  };
  for (std::size_t t = 0; t < logs[0].size(); ++t) {
    std::vector<double> sum(v.size());
    double samples = 0;
    for (int r = 0; r < workers; ++r) {
      auto const& e = logs[static_cast<std::size_t>(r)][t];
      BOOST_TEST(e.round == static_cast<i64>(t));
      i64 counted = 0;
      for (i64 c = 0; c < e.calls; ++c) {
        int const k = next[static_cast<std::size_t>(r)]++;
        i64 const n = size_of_micro(r, k);
        counted += n;
        x.gw.assign(x.gw.size(), 0);
        x.gb.assign(1, 0);
        x.backward(run_of(first_of(r, k), n), false);
        for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += i < x.gw.size() ? x.gw[i] : x.gb[0];
      }
      BOOST_TEST(counted == e.samples);
      samples += static_cast<double>(counted);
    }
    move();  // what was computed one round ago
    late = sum;
    late_samples = samples;
  }
  move();
  return x.all();
}

template <class T>
std::vector<sync::round_log> logs_of(std::vector<ended<T>> const& all) {
  std::vector<sync::round_log> out;
  for (auto const& e : all) out.push_back(e.log);
  return out;
}

}  // namespace

BOOST_AUTO_TEST_CASE_TEMPLATE(every_gradient_is_applied_exactly_one_round_late_by_its_samples, T, scalars) {
  for (auto const how : {sync::round_rate::constant, sync::round_rate::linear, sync::round_rate::sqrt}) {
    auto const got = train_rounds<T>(heavy, {40, 25, 18}, {.rate = how});
    auto const want = by_hand(logs_of(got), 0.5, how);
    for (auto const& e : got) {
      std::vector<double> const model(e.model.begin(), e.model.end());
      BOOST_TEST(distance(model, want) < 20 * bound<T>);
      BOOST_TEST(same_bits(e.model, got[0].model));
      BOOST_TEST(e.calls == got[0].calls);
      BOOST_TEST(e.steps == got[0].steps);
    }
  }
}

BOOST_AUTO_TEST_CASE(every_sample_counts_once_whoever_calls_more_often) {
  for (auto const& calls :
       {std::array{40, 25, 18}, std::array{1, 30, 2}, std::array{0, 0, 5}, std::array{0, 0, 0}}) {
    auto const got = train_rounds<double>(heavy, calls, {});
    i64 dealt = 0;
    for (int r = 0; r < workers; ++r)
      for (int k = 0; k < calls[static_cast<std::size_t>(r)]; ++k) dealt += size_of_micro(r, k);
    for (int r = 0; r < workers; ++r) {
      auto const& e = got[static_cast<std::size_t>(r)];
      BOOST_TEST(e.samples == dealt);
      i64 logged = 0;
      for (auto const& entry : e.log) logged += entry.calls;
      BOOST_TEST(logged == calls[static_cast<std::size_t>(r)]);
    }
  }
}

BOOST_AUTO_TEST_CASE_TEMPLATE(a_log_replays_to_the_same_bits, T, scalars) {
  auto const recorded = train_rounds<T>(heavy, {40, 25, 18}, {});
  for (int again = 0; again < 3; ++again) {
    auto const replayed = train_rounds<T>(heavy, {40, 25, 18}, {}, &recorded);
    for (std::size_t r = 0; r < workers; ++r) {
      BOOST_TEST(same_bits(replayed[r].model, recorded[r].model));
      BOOST_TEST((replayed[r].log == recorded[r].log));
    }
  }
}

BOOST_AUTO_TEST_CASE(fast_workers_fold_in_more_while_they_wait_but_at_most_so_many) {
  auto const free = train_rounds<float>(heavy, {400, 40, 40}, {});
  i64 most = 0;
  for (auto const& e : free[0].log) most = std::max(most, e.calls);
  BOOST_TEST(most > 1);
  auto const capped = train_rounds<float>(heavy, {400, 40, 40}, {.max_micro_batches = 2});
  for (auto const& all : capped)
    for (auto const& e : all.log) BOOST_TEST(e.calls <= 2);
  auto const full = train_rounds<float>(heavy, {400, 40, 40}, {.min_micro_batches = 3});
  for (auto const& all : full)
    for (auto const& e : all.log) BOOST_TEST((e.last || e.calls >= 3));
}

BOOST_AUTO_TEST_CASE_TEMPLATE(a_fixed_batch_is_synchronous_with_a_delay_of_one, T, scalars) {
  auto const got = train_rounds<T>(heavy, {20, 20, 20}, {.max_micro_batches = 1});
  for (auto const& e : got) {
    BOOST_TEST(e.rounds_seen == 19);  // the first round moves nothing
    for (auto const& entry : e.log) BOOST_TEST(entry.calls <= 1);
  }
  auto const want = by_hand(logs_of(got), 0.5, sync::round_rate::constant);
  std::vector<double> const model(got[0].model.begin(), got[0].model.end());
  BOOST_TEST(distance(model, want) < 20 * bound<T>);
}

BOOST_AUTO_TEST_CASE_TEMPLATE(one_worker_is_the_plain_rule_fed_each_gradient_one_call_late, T, scalars) {
  auto const run = [](auto const& strategy, bool late) {
    self comm;
    toy_model<T> m;
    options o;
    o.batch = per_worker{8};
    optimizer opt{m.parameters(), nesterov, linear_scaling{.base_lr = 0.01, .base_batch = 8},
                  strategy,       comm,     o};
    std::vector<T> gw, gb;
    for (int k = 0; k < 30; ++k) {
      m.backward(run_of(8 * k, 8));
      if (late) {
        // In place: the optimizer holds views.
        std::vector<T> kept_w(m.gw.size()), kept_b(1);
        kept_w.swap(gw);
        kept_b.swap(gb);
        gw = m.gw;
        gb = m.gb;
        kept_w.resize(m.gw.size());
        kept_b.resize(1);
        std::ranges::copy(kept_w, m.gw.begin());
        std::ranges::copy(kept_b, m.gb.begin());
        opt.step(k == 0 ? 0 : 8);
      } else {
        opt.step(8);
      }
    }
    opt.finish();
    if (late) {
      std::ranges::copy(gw, m.gw.begin());
      std::ranges::copy(gb, m.gb.begin());
      opt.step(8);
    }
    return m.all();
  };
  auto const delayed = run(sync::abs_sgd{}, false);
  BOOST_TEST(same_bits(delayed, run(sync::allreduce{}, true)));
  BOOST_TEST(!same_bits(delayed, run(sync::allreduce{}, false)));
}

BOOST_AUTO_TEST_CASE(a_gradient_that_is_not_finite_changes_nothing_on_any_rank) {
  std::vector<std::vector<float>> before(workers), after(workers);
  threads::run(workers, [&](threads::communicator& comm) {
    auto const r = static_cast<std::size_t>(comm.rank());
    toy_model<float> m;
    optimizer opt{m.parameters(), heavy, 0.01, sync::abs_sgd{.max_micro_batches = 1}, comm};
    for (int k = 0; k < 6; ++k) {
      m.backward(run_of(first_of(comm.rank(), k), 4));
      if (k == 3 && comm.rank() == 1) m.gw[2] = std::numeric_limits<float>::infinity();
      if (k == 4) before[r] = m.all();
      auto const& report = opt.step(4);
      if (k == 4) {
        after[r] = m.all();
        LIMBER_CHECK(report.skipped);
        LIMBER_CHECK(report.culprit == "w");
        LIMBER_CHECK(report.culprit_rank == 1);
      } else {
        LIMBER_CHECK(!report.skipped);
      }
    }
    opt.finish();
    LIMBER_CHECK(opt.now().steps == 5);
  });
  for (std::size_t r = 0; r < workers; ++r) BOOST_TEST(same_bits(before[r], after[r]));
}

BOOST_AUTO_TEST_CASE(workers_come_and_go_between_rounds) {
  std::vector<std::vector<float>> out(workers);
  threads::run(workers, [&](threads::communicator& comm) {
    auto const r = static_cast<std::size_t>(comm.rank());
    auto two = comm.split(comm.rank() < 2 ? 0 : 1);
    toy_model<float> m;
    options o;
    o.batch = per_worker{8};
    if (comm.rank() < 2) {
      optimizer opt{m.parameters(), heavy, rate, sync::abs_sgd{}, two, o};
      for (int k = 0; k < 10 + 5 * comm.rank(); ++k) {
        m.backward(run_of(first_of(comm.rank(), k), 8));
        opt.step(8);
      }
      opt.resize(comm);
      for (int k = 0; k < 10; ++k) {
        m.backward(run_of(first_of(comm.rank(), 100 + k), 8));
        opt.step(8);
      }
      opt.finish();
      LIMBER_CHECK(opt.now().samples == 8 * (10 + 15 + 30));
    } else {
      optimizer opt{m.parameters(), heavy, rate, sync::abs_sgd{}, comm, o};
      for (int k = 0; k < 10; ++k) {
        m.backward(run_of(first_of(comm.rank(), 100 + k), 8));
        opt.step(8);
      }
      opt.finish();
      LIMBER_CHECK(opt.now().samples == 8 * (10 + 15 + 30));
    }
    out[r] = m.all();
  });
  BOOST_TEST(same_bits(out[0], out[1]));
  BOOST_TEST(same_bits(out[0], out[2]));
}

BOOST_AUTO_TEST_CASE(misuse_is_named) {
  self comm;
  toy_model<float> m;
  auto const make = [&](sync::abs_sgd how, options o = {}) {
    optimizer opt{m.parameters(), heavy, 0.1, how, comm, o};
  };
  BOOST_TEST(has(message_of([&] { make({.max_micro_batches = -1}); }), "max_micro_batches", "-1"));
  BOOST_TEST(has(message_of([&] { make({.rate_limit = -2}); }), "rate_limit", "-2"));
  BOOST_TEST(has(message_of([&] { make({.min_micro_batches = 0}); }), "min_micro_batches", "0"));
  BOOST_TEST(has(message_of([&] { make({.max_micro_batches = 1, .min_micro_batches = 2}); }),
                 "max_micro_batches must be 0 or at least 2, got 1"));
  options shards;
  shards.batch = logical_shards{4, 8};
  BOOST_TEST(has(message_of([&] { make({}, shards); }), "logical shards", "step together"));
  options feedback;
  feedback.buckets = {.wire = dtype::bf16, .error_feedback = true};
  BOOST_TEST(has(message_of([&] { make({}, feedback); }), "error_feedback"));
  sync::round_log const empty;
  BOOST_TEST(has(message_of([&] {
                   optimizer opt{m.parameters(), heavy, 0.1, sync::abs_sgd{.replay = &empty}, comm};
                   opt.step(1);
                 }),
                 "replay", "round 0", "rank 0"));
  optimizer opt{m.parameters(), heavy, 0.1, sync::abs_sgd{}, comm};
  opt.step(1);
  BOOST_TEST(has(message_of([&] { opt.visit([](state_piece const&) {}); }), "abs_sgd", "finish()"));
}
