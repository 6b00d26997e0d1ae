// SPDX-License-Identifier: Apache-2.0
// labels: unit property sanitize memory
// forms: header-only
#define BOOST_TEST_MODULE limber.sync.gradients
#include <limber/batch/policies.hpp>
#include <limber/comm/threads.hpp>
#include <limber/limber.hpp>

#include <boost/test/unit_test.hpp>

#include <support/checks.hpp>
#include <support/toy_model.hpp>

#include <cmath>
#include <limits>
#include <numeric>
#include <random>
#include <tuple>

using namespace limber;
using namespace limber::testing;

namespace {

// Cuts n samples into random parts, some of them empty.
std::vector<i64> random_parts(i64 n, std::size_t parts, std::mt19937& random) {
  std::vector<i64> cut{0, n};
  while (cut.size() <= parts)
    cut.push_back(random() % 4 == 0 ? n : static_cast<i64>(random() % static_cast<std::uint64_t>(n + 1)));
  std::ranges::sort(cut);
  std::vector<i64> out;
  for (std::size_t k = 0; k < parts; ++k) out.push_back(cut[k + 1] - cut[k]);
  return out;
}

struct setting {
  gradient_is gradient = gradient_is::mean;
  bucket_options buckets{};
};

// One update from N samples that are dealt to R workers in K calls each; returns every worker's model.
template <class T, class R>
std::vector<std::vector<T>> one_update(R const& rule, int workers, i64 calls, std::vector<i64> const& parts,
                                       int updates, setting s = {}) {
  std::vector<std::vector<T>> out(static_cast<std::size_t>(workers));
  i64 const n = std::accumulate(parts.begin(), parts.end(), i64{0});
  threads::run(workers, [&](threads::communicator& comm) {
    toy_model<T> m;
    options o;
    o.batch = fixed{std::max<i64>(n, workers)};
    o.gradient = s.gradient;
    o.buckets = s.buckets;
    optimizer opt{m.parameters(), rule, 0.05, sync::allreduce{.period = calls}, comm, o};
    for (int u = 0; u < updates; ++u) {
      i64 first = u * n;
      std::size_t part = 0;
      for (i64 k = 0; k < calls; ++k)
        for (int r = 0; r < workers; ++r, first += parts[part++])
          if (r == comm.rank()) {
            m.backward(run_of(first, parts[part]), s.gradient == gradient_is::mean);
            opt.step(parts[part]);
          }
    }
    out[static_cast<std::size_t>(comm.rank())] = m.all();
  });
  return out;
}

template <class T>
constexpr double unit_error = std::is_same_v<T, float> ? 0x1p-23 : 0x1p-52;

}  // namespace

using scalars = std::tuple<float, double>;

// The aggregated gradient: with plain descent at rate η from w₀, (w₀ − w)/η is the gradient that was used.
BOOST_AUTO_TEST_CASE_TEMPLATE(any_partition_of_samples_gives_the_gradient_of_one_worker, T, scalars) {
  std::mt19937 random(3);
  for (int round = 0; round < 40; ++round) {
    int const workers = 1 + static_cast<int>(random() % 7);
    i64 const calls = 1 + static_cast<i64>(random() % 4), n = 1 + static_cast<i64>(random() % 300);
    auto const parts = random_parts(n, static_cast<std::size_t>(workers * calls), random);
    auto const one = one_update<T>(descent{}, 1, 1, {n}, 1)[0];
    auto const many = one_update<T>(descent{}, workers, calls, parts, 1);
    toy_model<T> start;
    auto gradient_of = [&](std::vector<T> const& w) {
      std::vector<T> g;
      for (std::size_t k = 0; k < w.size(); ++k)
        g.push_back(static_cast<T>((static_cast<double>(start.all()[k]) - static_cast<double>(w[k])) / 0.05));
      return g;
    };
    double const bound = unit_error<T> * std::sqrt(static_cast<double>(n));
    // w itself is rounded to T, which the division by η makes visible in the gradient.
    double const rounding_of_w = unit_error<T> * 0.5 / 0.05;
    BOOST_TEST(distance(gradient_of(many[0]), gradient_of(one)) <= bound + rounding_of_w);
    BOOST_TEST(distance(many[0], one) <= bound);
    for (auto const& other : many) BOOST_TEST(same_bits(other, many[0]));
    BOOST_TEST(same_bits(one_update<T>(descent{}, workers, calls, parts, 1)[0], many[0]));
  }
}

BOOST_AUTO_TEST_CASE_TEMPLATE(the_sgd_update_is_that_of_one_worker_too, T, scalars) {
  std::mt19937 random(5);
  sgd const rule{.momentum = 0.9, .weight_decay = 1e-3, .nesterov = true};
  for (int round = 0; round < 12; ++round) {
    int const workers = 1 + static_cast<int>(random() % 6);
    i64 const calls = 1 + static_cast<i64>(random() % 3), n = 8 + static_cast<i64>(random() % 60);
    auto const parts = random_parts(n, static_cast<std::size_t>(workers * calls), random);
    auto const one = one_update<T>(rule, 1, 1, {n}, 4)[0];
    auto const many = one_update<T>(rule, workers, calls, parts, 4);
    BOOST_TEST(distance(many[0], one) <= unit_error<T> * std::sqrt(static_cast<double>(n)));
    for (auto const& other : many) BOOST_TEST(same_bits(other, many[0]));
  }
}

// PyTorch averages the workers' means: wrong as soon as shares differ.
BOOST_AUTO_TEST_CASE(it_is_not_the_mean_of_means) {
  auto const one = one_update<double>(descent{}, 1, 1, {12}, 1)[0];
  auto const uneven = one_update<double>(descent{}, 3, 1, {1, 2, 9}, 1)[0];
  BOOST_TEST(distance(uneven, one) < 1e-15);
  std::vector<double> wrong(one.size());
  i64 const cut[] = {0, 1, 3, 12};
  for (int r = 0; r < 3; ++r) {
    toy_model<double> m;
    m.backward(run_of(cut[r], cut[r + 1] - cut[r]));
    std::vector<double> g = m.gw;
    g.push_back(m.gb[0]);
    for (std::size_t k = 0; k < g.size(); ++k) wrong[k] += m.all()[k] / 3 - 0.05 * g[k] / 3;
  }
  BOOST_TEST(distance(wrong, one) > 1e-3);
}

BOOST_AUTO_TEST_CASE(sums_and_means_are_the_same_update) {
  auto const mean = one_update<double>(sgd{.momentum = 0.9}, 3, 2, {1, 0, 4, 2, 6, 3}, 3);
  auto const sum = one_update<double>(sgd{.momentum = 0.9}, 3, 2, {1, 0, 4, 2, 6, 3}, 3, {gradient_is::sum});
  BOOST_TEST(distance(sum[0], mean[0]) < 1e-14);
}

// Self and threads add in rank order: bits do not depend on how gradients are cut.
BOOST_AUTO_TEST_CASE(bucket_caps_do_not_change_a_bit) {
  auto const whole = one_update<float>(sgd{.momentum = 0.9}, 4, 1, {3, 1, 7, 2}, 3);
  for (i64 bytes : {i64{4}, i64{40}, i64{64}, i64{1000}}) {
    auto const cut = one_update<float>(sgd{.momentum = 0.9}, 4, 1, {3, 1, 7, 2}, 3,
                                       {gradient_is::mean, {bytes, bytes, {}}});
    BOOST_TEST(same_bits(cut[0], whole[0]));
  }
}

// Shares on 16-bit wires: bf16(257) is 256, so counts and weights of that size must not travel there.
BOOST_AUTO_TEST_CASE(a_16_bit_wire_loses_its_own_precision_and_nothing_else) {
  for (dtype wire : {dtype::bf16, dtype::f16}) {
    double const eps = wire == dtype::bf16 ? 0x1p-8 : 0x1p-11;
    std::vector<i64> const parts{257, 1031, 17, 0, 3, 999};
    for (i64 calls : {i64{1}, i64{2}}) {
      int const workers = calls == 1 ? 6 : 3;
      auto const exact = one_update<float>(descent{}, workers, calls, parts, 1);
      auto const cast = one_update<float>(descent{}, workers, calls, parts, 1,
                                          {gradient_is::mean, {1 << 20, 1 << 20, wire}});
      std::vector<float> start = toy_model<float>{}.all(), a, b;
      for (std::size_t k = 0; k < start.size(); ++k) {
        a.push_back(cast[0][k] - start[k]);
        b.push_back(exact[0][k] - start[k]);
      }
      BOOST_TEST(distance(a, b) < 2 * eps);
      BOOST_TEST(distance(a, b) > 0);
      BOOST_TEST(same_bits(cast[0], cast[1]));
    }
  }
}

BOOST_AUTO_TEST_CASE(a_single_worker_is_the_plain_rule_bit_for_bit) {
  sgd const rule{.momentum = 0.9, .weight_decay = 1e-3};
  toy_model<float> m, n;
  self comm;
  options o;
  o.batch = per_worker{12};
  optimizer opt{m.parameters(), rule, 0.05, sync::allreduce{}, comm, o};
  any_executor h(host{});
  updater plain(tensor_list{view(n.b, "b"), view(n.w, "w")});
  plain.assign(0, rule);
  plain.assign(1, rule);
  plain.allocate(h);
  for (int t = 0; t < 20; ++t) {
    m.backward(run_of(12 * t, 12));
    n.backward(run_of(12 * t, 12));
    opt.step(12);
    plain.step(h, {view(n.gb, "b"), view(n.gw, "w")}, 0.05, 1.0, true);
  }
  BOOST_TEST(same_bits(m.all(), n.all()));
}

// An engine that counts sums, to see that nothing is exchanged.
struct counting : private self {
  using self::all_gather, self::barrier, self::broadcast, self::rank, self::reduce_scatter, self::size;
  int sums = 0;
  completed all_reduce(const_tensor_view in, tensor_view out, reduction how = reduction::sum) {
    ++sums;
    return self::all_reduce(in, out, how);
  }
};

BOOST_AUTO_TEST_CASE(one_worker_exchanges_nothing_and_keeps_no_copy) {
  for (bool const overlaps : {false, true}) {
    toy_model<float> m, fewer;
    counting comm;
    self other;
    options o;
    o.batch = per_worker{12};
    auto const rule = clipped{adamw{}, 0.5};
    optimizer opt{m.parameters(), rule, 0.05, sync::allreduce{}, comm, o};
    // A mean is the same gradient whatever it is the mean of: no weight rounds it.
    optimizer uneven{fewer.parameters(), rule, 0.05, sync::allreduce{}, other, o};
    BOOST_TEST(has(opt.explain(), "strategy 0 B"), opt.explain());
    BOOST_TEST(has(opt.explain(), "nothing is communicated; the rule reads gradients where they lie"));
    opt.handshake();
    int const before = comm.sums;
    for (int t = 0; t < 20; ++t) {
      m.backward(run_of(12 * t, 12));
      fewer.backward(run_of(12 * t, 12));
      if (overlaps) {
        opt.begin(12);
        opt.mark_ready("w");
        opt.mark_ready("b");
        opt.step();
      } else {
        opt.step(12);
      }
      uneven.step(1 + t % 11);
    }
    BOOST_TEST(comm.sums == before);
    BOOST_TEST(same_bits(m.all(), fewer.all()));
    BOOST_TEST(opt.now().samples == 240);
    BOOST_TEST(opt.now().steps == 20);
    for (float const g : m.gw) BOOST_TEST(g == 0);
  }
}

BOOST_AUTO_TEST_CASE(one_worker_adds_up_the_calls_of_an_update) {
  toy_model<double> m, whole;
  self comm;
  options o;
  o.batch = per_worker{4};
  optimizer opt{m.parameters(), sgd{.momentum = 0.9}, 0.05, sync::allreduce{.period = 3}, comm, o};
  BOOST_TEST(!has(opt.explain(), "strategy 0 B"), opt.explain());
  o.batch = per_worker{12};
  optimizer once{whole.parameters(), sgd{.momentum = 0.9}, 0.05, sync::allreduce{}, comm, o};
  for (int t = 0; t < 10; ++t) {
    for (i64 k = 0; k < 3; ++k) {
      m.backward(run_of(12 * t + 4 * k, 4));
      opt.step(4);
    }
    whole.backward(run_of(12 * t, 12));
    once.step(12);
  }
  BOOST_TEST(distance(m.all(), whole.all()) < 1e-12);
}

// State may be loaded before the ranks of a block have met: there is room for what is open.
BOOST_AUTO_TEST_CASE(an_open_round_of_a_block_has_memory_before_the_handshake) {
  threads::run(2, [](threads::communicator& comm) {
    toy_model<float> m;
    optimizer opt{m.parameters(), sgd{},
                  0.05,           sync::exchange(sync::gradients(sync::every{3}, sync::block{2})),
                  comm,           {.batch = per_worker{4}}};
    i64 open = 0;
    opt.visit([&](state_piece const& p) {
      if (p.name == "sync/calls") p.data.as<i64>()[0] = 2;
      if (p.name.starts_with("sync/open/") && p.data.type == dtype::f32) open += p.data.length;
    });
    if (open != static_cast<i64>(m.all().size())) throw std::logic_error(text(open, " elements are open"));
    comm.barrier();
  });
}

// What would cross is other numbers than the gradient: one worker does as many would.
BOOST_AUTO_TEST_CASE(one_worker_rounds_to_the_wire_and_sums_as_its_collective_does) {
  self alone;
  auto const trained = [](auto& comm, options const& o) {
    toy_model<float> m;
    optimizer opt{m.parameters(), sgd{}, 0.05, sync::allreduce{}, comm, o};
    for (int t = 0; t < 5; ++t) {
      m.backward(run_of(12 * t, 12));
      opt.step(12);
    }
    return m.all();
  };
  options o, wired;
  o.batch = wired.batch = per_worker{12};
  wired.buckets.wire = dtype::bf16;
  auto const plain = trained(alone, o), rounded = trained(alone, wired);
  BOOST_TEST(!same_bits(plain, rounded));
  toy_model<float> m;
  for (int t = 0; t < 5; ++t) {
    m.backward(run_of(12 * t, 12));
    for (auto* list : {&m.gw, &m.gb})
      for (float& g : *list) g = static_cast<float>(bf16(g));
    for (std::size_t i = 0; i < m.w.size(); ++i) m.w[i] = std::fma(-0.05f, m.gw[i], m.w[i]);
    m.b[0] = std::fma(-0.05f, m.gb[0], m.b[0]);
    std::ranges::fill(m.gw, 0.0f);
    m.gb[0] = 0;
  }
  BOOST_TEST(distance(rounded, m.all()) < 1e-6);
}

BOOST_AUTO_TEST_CASE(a_world_that_grows_from_one_worker_allocates_then) {
  toy_model<float> m;
  self alone;
  options o;
  o.batch = fixed{12};
  std::vector<float> after;
  threads::run(2, [&](threads::communicator& comm) {
    toy_model<float> mine;
    self first;
    auto part = comm.split(comm.rank());
    optimizer opt{mine.parameters(), sgd{.momentum = 0.9}, 0.05, sync::allreduce{}, first, o};
    if (comm.rank() == 0)
      for (int t = 0; t < 3; ++t) {
        mine.backward(run_of(12 * t, 12));
        opt.step(12);
      }
    opt.resize(comm);
    opt.handshake();
    for (int t = 3; t < 6; ++t) {
      mine.backward(run_of(12 * t + 6 * comm.rank(), 6));
      opt.step(6);
    }
    if (!has(opt.explain(), "wire      gradients every call: 1 buckets"))
      throw std::logic_error(opt.explain());
    if (comm.rank() == 0) after = mine.all();
    opt.resize(part);
    mine.backward(run_of(72, 12));
    opt.step(12);
    if (comm.rank() == 0) after = mine.all();
  });
  optimizer opt{m.parameters(), sgd{.momentum = 0.9}, 0.05, sync::allreduce{}, alone, o};
  for (int t = 0; t < 7; ++t) {
    m.backward(run_of(12 * t, 12));
    opt.step(12);
  }
  BOOST_TEST(distance(after, m.all()) < 1e-5);
}

BOOST_AUTO_TEST_CASE(nobody_has_samples_and_nothing_happens_but_the_call) {
  threads::run(3, [](threads::communicator& comm) {
    toy_model<float> m;
    m.gw[0] = std::numeric_limits<float>::quiet_NaN();
    optimizer opt{m.parameters(), sgd{.momentum = 0.9, .weight_decay = 0.1}, 0.05, sync::allreduce{}, comm};
    auto const before = m.all();
    auto const& did = opt.step(0);
    LIMBER_CHECK(!did.applied);
    LIMBER_CHECK(!did.skipped);
    LIMBER_CHECK(same_bits(m.all(), before));
    LIMBER_CHECK(opt.now().calls == 1);
    LIMBER_CHECK(opt.now().steps == 0);
    LIMBER_CHECK(m.gw[0] == 0);
  });
}

// A skip is everybody's: parameters, slots, counts and progress stay, calls do not; tensor and rank are
// named.
BOOST_AUTO_TEST_CASE(a_bad_gradient_on_one_rank_is_skipped_by_all_and_named) {
  for (int bad_call : {0, 2})
    for (i64 period : {i64{1}, i64{2}})
      threads::run(3, [&](threads::communicator& comm) {
        toy_model<float> m, clean;
        optimizer opt{m.parameters(), adamw{}, 0.05, sync::allreduce{period}, comm};
        self alone;
        int updates = 0;
        for (int call = 0; call < 6; ++call) {
          m.backward(run_of(call * 30 + comm.rank() * 10, 10));
          if (call == bad_call && comm.rank() == 1) m.gb[0] = std::numeric_limits<float>::infinity();
          auto const before = m.all();
          auto const now = opt.now();
          auto const& did = opt.step(10);
          bool const due = (call + 1) % period == 0, bad = due && call / period == bad_call / period;
          LIMBER_CHECK(did.applied == (due && !bad));
          LIMBER_CHECK(did.skipped == bad);
          LIMBER_CHECK(did.culprit == (bad ? "b" : ""));
          LIMBER_CHECK(did.culprit_rank == (bad ? 1 : -1));
          LIMBER_CHECK(opt.now().calls == now.calls + 1);
          LIMBER_CHECK(opt.now().steps == now.steps + (did.applied ? 1 : 0));
          LIMBER_CHECK(same_bits(m.all(), before) == !did.applied);
          updates += did.applied ? 1 : 0;
        }
        LIMBER_CHECK(opt.rules().seen<adamw>()[0] == updates);
      });
}

BOOST_AUTO_TEST_CASE(endless_skipping_is_an_error_on_every_rank) {
  auto train = [](threads::communicator& comm) {
    toy_model<float> m;
    options o;
    o.max_skipped = 3;
    optimizer opt{m.parameters(), sgd{}, 0.05, sync::allreduce{}, comm, o};
    for (int t = 0; t < 10; ++t) {
      m.gw[2] = std::numeric_limits<float>::quiet_NaN();
      if (t < 3) {
        opt.step(1);
        continue;
      }
      auto const message = message_of([&] { opt.step(1); });
      LIMBER_CHECK(has(message, "not finite", "4 updates", "[w]"));
      return;
    }
    LIMBER_CHECK(false);  // no error
  };
  threads::run(2, train);
}

// The noise estimate of unequal contributions, from what packing already returned.
BOOST_AUTO_TEST_CASE(norms_of_the_workers_gradients_are_gathered_on_the_way) {
  std::vector<i64> const share{3, 5, 9, 0};
  double squares = 0, batch = 17;
  toy_model<double> mean;
  mean.backward(run_of(0, 17));
  auto square = [](toy_model<double> const& m) {
    double s = m.gb[0] * m.gb[0];
    for (double g : m.gw) s += g * g;
    return s;
  };
  for (std::size_t r = 0, first = 0; r < 3; first += static_cast<std::size_t>(share[r++])) {
    toy_model<double> m;
    m.backward(run_of(static_cast<i64>(first), share[r]));
    squares += static_cast<double>(share[r]) * square(m);
  }
  noise_statistics expected;
  expected.update(3, batch, squares, square(mean));
  for (auto kind : {gradient_is::mean, gradient_is::sum})
    threads::run(4, [&](threads::communicator& comm) {
      toy_model<double> m;
      options o;
      o.gradient = kind;
      optimizer opt{m.parameters(), sgd{}, 0.05, sync::allreduce{}, comm, o};
      i64 first = 0;
      for (int r = 0; r < comm.rank(); ++r) first += share[static_cast<std::size_t>(r)];
      i64 const n = share[static_cast<std::size_t>(comm.rank())];
      m.backward(run_of(first, n), kind == gradient_is::mean);
      opt.step(n);
      LIMBER_CHECK(std::abs(opt.now().noise.variance - (expected.variance)) <
                   1e-12 * std::abs(expected.variance));
      LIMBER_CHECK(std::abs(opt.now().noise.square - (expected.square)) < 1e-12 * std::abs(expected.square));
    });
}

BOOST_AUTO_TEST_CASE(buffers_are_averaged_by_samples_and_a_bad_one_is_left_out) {
  threads::run(3, [](threads::communicator& comm) {
    toy_model<float> m;
    std::vector<double> statistics{1.0 + comm.rank(), 10.0};
    std::vector<tensor> const b{{"running_mean", statistics}};
    optimizer opt{groups(parameter_group{m.parameters(), sgd{}}, buffers{b}), 0.05, sync::allreduce{}, comm};
    m.backward(run_of(0, 4));
    opt.step(comm.rank() == 0 ? 6 : 3);
    // The handshake made all of them rank 0's; here they move apart, then meet by weight.
    statistics[0] = 1.0 + comm.rank();
    if (comm.rank() == 2) statistics[1] = std::numeric_limits<double>::infinity();
    m.backward(run_of(0, 4));
    opt.step(comm.rank() == 0 ? 6 : 3);
    LIMBER_CHECK(std::abs(statistics[0] - 4.0 / 3) < 1e-12);
    LIMBER_CHECK(std::abs(statistics[1] - (10.0)) < 1e-12 * std::abs(10.0));
  });
}

// A constant global batch of shards: not one bit depends on how many workers share it.
BOOST_AUTO_TEST_CASE(logical_shards_make_training_independent_of_the_number_of_workers) {
  auto train = [](int workers, bucket_options buckets) {
    std::vector<float> out;
    noise_statistics noise;
    threads::run(workers, [&](threads::communicator& comm) {
      toy_model<float> m;
      options o;
      o.batch = logical_shards{.shards = 6, .per_shard = 5};
      o.epoch_size = 100;
      o.buckets = buckets;
      optimizer opt{m.parameters(), clipped{adamw{}, 1.0}, 0.02, sync::allreduce{}, comm, o};
      sampler deal(100, 9);
      while (deal.epoch() < 2) {
        for (i64 call = 0; call < opt.planned().calls_per_update; ++call) {
          auto const mine =
              deal.deal_shard(opt.planned(), shard_of(opt.planned(), workers, comm.rank(), call));
          m.backward(mine);
          opt.step(static_cast<i64>(mine.size()));
        }
        deal.advance(opt.planned().total);
      }
      LIMBER_CHECK(opt.now().samples == 200);
      LIMBER_CHECK(opt.now().steps == 8);
      if (comm.rank() == 0) {
        out = m.all();
        noise = opt.now().noise;
      }
    });
    return std::pair{out, noise.variance};
  };
  for (bucket_options buckets :
       {bucket_options{}, bucket_options{64, 64, {}}, bucket_options{1 << 20, 1 << 20, dtype::bf16}}) {
    auto const one = train(1, buckets);
    for (int workers : {2, 3, 4, 5, 6, 8}) {
      auto const many = train(workers, buckets);
      LIMBER_CHECK(same_bits(many.first, one.first));
      LIMBER_CHECK(many.second == one.second);
    }
    // And it is the same training as one worker with the whole batch, but for the order of sums.
    toy_model<float> m;
    self comm;
    optimizer opt{m.parameters(), clipped{adamw{}, 1.0}, 0.02, sync::allreduce{}, comm, {.batch = fixed{30}}};
    sampler deal(100, 9);
    while (deal.epoch() < 2) {
      auto const all = deal.take(opt.planned().share, 0);
      m.backward(all);
      opt.step(static_cast<i64>(all.size()));
    }
    LIMBER_CHECK(distance(one.first, m.all()) < (buckets.wire ? 1e-2 : 1e-5));
  }
}

BOOST_AUTO_TEST_CASE(samples_of_a_rank_without_a_shard_are_not_lost_in_silence) {
  std::string first;
  try {
    threads::run(2, [](threads::communicator& comm) {
      toy_model<float> m;
      optimizer opt{m.parameters(), sgd{}, 0.05, sync::allreduce{}, comm, {.batch = logical_shards{3, 4}}};
      for (int call = 0; call < 2; ++call) opt.step(4);
    });
  } catch (std::invalid_argument const& e) { first = e.what(); }
  BOOST_TEST(has(first, "rank 1", "no logical shard", "4 samples"), first);
}

// x · w and then · 1/w would round twice, with a bias, at every update.
BOOST_AUTO_TEST_CASE(buffers_that_nobody_changes_keep_their_bits) {
  for (int workers : {1, 3})
    threads::run(workers, [](threads::communicator& comm) {
      toy_model<float> m;
      std::vector<float> constant{0.1f, 0.3f, 0.7f, -1e-3f}, before = constant;
      std::vector<tensor> const b{{"statistics", constant}};
      optimizer opt{groups(parameter_group{m.parameters(), sgd{}}, buffers{b}),
                    0.0,
                    sync::allreduce{},
                    comm,
                    {.batch = per_worker{32}}};
      for (int t = 0; t < 500; ++t) opt.step(13 + (t + 5 * comm.rank()) % 7);
      LIMBER_CHECK(same_bits(constant, before));
    });
}

BOOST_AUTO_TEST_CASE(a_frozen_tensor_counts_neither_as_noise_nor_as_a_fault) {
  threads::run(3, [](threads::communicator& comm) {
    toy_model<double> with, without;
    optimizer frozen{with.parameters(), sgd{}, 0.05, sync::allreduce{}, comm};
    frozen.freeze("b");
    optimizer absent{std::vector{without.parameters()[0]}, sgd{}, 0.05, sync::allreduce{}, comm};
    for (int t = 0; t < 3; ++t) {
      auto const mine = run_of(30 * t + 10 * comm.rank(), 10);
      with.backward(mine);
      without.backward(mine);
      if (comm.rank() == 1) with.gb[0] = std::numeric_limits<double>::quiet_NaN();
      LIMBER_CHECK(frozen.step(10).applied);
      absent.step(10);
    }
    LIMBER_CHECK(std::abs(frozen.now().noise.variance - absent.now().noise.variance) < 1e-12);
    LIMBER_CHECK(same_bits(with.w, without.w));
  });
}
