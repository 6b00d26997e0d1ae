// SPDX-License-Identifier: Apache-2.0
// labels: property
// timeout: 240
// needs: context
#define BOOST_TEST_MODULE limber.sim.training
#include <limber/comm/threads.hpp>
#include <limber/limber.hpp>
#include <limber/sim/sim.hpp>
#include <limber/sync/strategies.hpp>

#include <boost/test/unit_test.hpp>

#include <sim/both.hpp>
#include <support/toy_model.hpp>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <numeric>
#include <span>
#include <vector>

using namespace limber;
using namespace limber::test;
using namespace limber::testing;

namespace {

using weights = std::vector<std::vector<float>>;

// Worker r takes 4 + r samples a call; a call before, which may take virtual time.
template <class C, class S, class Before>
std::vector<float> train(C& comm, S strategy, options o, Before before) {
  toy_model<float> m;
  o.batch = per_worker{5};
  optimizer opt{m.parameters(), sgd{.momentum = 0.9}, 0.01, strategy, comm, o};
  for (int t = 0; t < 23; ++t) {
    i64 const n = 4 + comm.rank();
    before(n);
    m.backward(run_of(1000 * t + 50 * comm.rank(), n));
    opt.step(n);
  }
  opt.finish();
  return m.all();
}

template <class S>
weights by_threads(int n, S strategy) {
  weights out(static_cast<std::size_t>(n));
  threads::run(n, [&](threads::communicator& comm) {
    out[static_cast<std::size_t>(comm.rank())] = train(comm, strategy, {}, [](i64) {});
  });
  return out;
}

sim::cluster uneven(int n) {
  auto c = idle_cluster(n);
  for (int w = 0; w < n; ++w)
    c.workers[static_cast<std::size_t>(w)] = {
        .seconds_per_call = 0.1, .seconds_per_sample = 0.1 * (w + 1), .jitter = 0.3};
  c.network = {.latency = 0.01, .bandwidth = 1e4};
  c.slowdowns = {{.worker = 0, .from = 3, .until = 9, .factor = 5}};
  return c;
}

template <class S>
weights on_cluster(sim::cluster const& c, S strategy, sim::report& r) {
  weights out(c.workers.size());
  r = sim::run(c, [&](sim::worker& me) {
    out[static_cast<std::size_t>(me.rank())] =
        train(me.comm(), strategy, {.clock = me.clock()}, [&](i64 n) { me.compute(static_cast<double>(n)); });
    me.note("end", me.now());
  });
  return out;
}

}  // namespace

BOOST_AUTO_TEST_CASE(a_model_is_the_same_to_the_bit_as_on_threads) {
  auto check = [](auto strategy) {
    for (int const n : {1, 4}) {
      auto const expected = by_threads(n, strategy);
      for (auto const how : schedulers()) {
        auto c = uneven(n);
        c.how = how;
        sim::report r;
        auto const got = on_cluster(c, strategy, r);
        for (std::size_t w = 0; w < got.size(); ++w) BOOST_TEST(same_bits(got[w], expected[w]));
        BOOST_TEST(r.utilisation() > 0);
        if (n > 1) BOOST_TEST(r.utilisation() < 1);
      }
    }
  };
  check(sync::allreduce{});
  check(sync::local{.period = 4});
  check(sync::gossip{.period = 2});
}

BOOST_AUTO_TEST_CASE(the_same_cluster_gives_the_same_trace_whatever_the_scheduler) {
  auto c = uneven(5);
  sim::report first;
  auto const model = on_cluster(c, sync::local{.period = 3}, first);
  for (auto const how : schedulers()) {
    c.how = how;
    sim::report again;
    auto const same = on_cluster(c, sync::local{.period = 3}, again);
    BOOST_TEST(again.trace_hash == first.trace_hash);
    BOOST_TEST(again.events == first.events);
    BOOST_TEST(again.seconds == first.seconds);
    BOOST_TEST(again.utilisation() == first.utilisation());
    BOOST_TEST(again.bytes() == first.bytes());
    BOOST_TEST((same == model));
  }
  c.seed = 1;
  sim::report other;
  auto const moved = on_cluster(c, sync::local{.period = 3}, other);
  BOOST_TEST(other.trace_hash != first.trace_hash);
  BOOST_TEST((moved == model));  // the result of local SGD does not depend on time
}

BOOST_AUTO_TEST_CASE(fewer_merges_leave_less_time_waiting) {
  sim::report often, seldom;
  auto const c = uneven(4);
  (void)on_cluster(c, sync::allreduce{}, often);
  (void)on_cluster(c, sync::local{.period = 8}, seldom);
  BOOST_TEST(seldom.utilisation() > often.utilisation());
  BOOST_TEST(seldom.seconds < often.seconds);
  BOOST_TEST(seldom.bytes() < often.bytes());
}

BOOST_AUTO_TEST_CASE(a_thousand_workers_reduce_in_rank_order) {
  bool const slow = sim::detail::address_sanitizer || sim::detail::thread_sanitizer;
  int const n = slow ? 64 : 1024;
  auto c = idle_cluster(n);
  for (auto& s : c.workers) s.jitter = 0.5;
  std::size_t const length = 3000;
  auto const value = [](int rank, std::size_t i) {
    return static_cast<float>(toy_model<float>::uniform(rank, static_cast<i64>(i)));
  };
  std::vector<float> expected(length);
  for (std::size_t i = 0; i < length; ++i) {
    expected[i] = value(0, i);
    for (int r = 1; r < n; ++r) expected[i] += value(r, i);
  }
  int wrong = 0;
  auto const r = sim::run(c, [&](sim::worker& me) {
    std::vector<float> in(length), out(length);
    for (std::size_t i = 0; i < length; ++i) in[i] = value(me.rank(), i);
    for (int round = 0; round < 3; ++round) {
      me.compute(1);
      me.comm().all_reduce(view(in), view(out)).wait();
      if (!same_bits(out, expected)) ++wrong;
    }
    if (me.comm().split(me.rank() % 7).size() > n / 7 + 1) ++wrong;
  });
  BOOST_TEST(wrong == 0);
  BOOST_TEST(r.workers.size() == static_cast<std::size_t>(n));
  BOOST_TEST(r.samples() == 3. * n);
}

// A server that serves workers in order of arrival, which depends on virtual time.
BOOST_AUTO_TEST_CASE(programs_driven_by_messages_have_the_same_trace_too) {
  std::vector<std::uint64_t> hashes;
  for (auto const how : schedulers()) {
    auto c = uneven(6);
    c.how = how;
    auto const r = sim::run(c, [&](sim::worker& me) {
      auto& comm = me.comm();
      std::vector<double> x{0};
      auto const bytes = std::as_bytes(std::span(x));
      if (me.rank() > 0) {
        for (int k = 0; k < 20; ++k) {
          me.compute(1);
          comm.post(0, 0, bytes);
          comm.listen();
          auto const m = comm.poll(1);
          std::memcpy(x.data(), m->bytes.data(), sizeof(double));
        }
        return;
      }
      double version = 0;
      while (version < 100) {
        comm.listen();
        while (auto const m = comm.poll(0)) {
          double seen = 0;
          std::memcpy(&seen, m->bytes.data(), sizeof seen);
          me.note("staleness", version - seen);
          x[0] = ++version;
          comm.post(m->source, 1, bytes);
        }
      }
    });
    hashes.push_back(r.trace_hash);
    auto const stale = r.values("staleness");
    BOOST_TEST(stale.size() == 100u);
    double const mean = std::accumulate(stale.begin(), stale.end(), 0.) / 100;
    BOOST_TEST(mean > 2);  // of five workers, four others come in between
    BOOST_TEST(mean < 40);
  }
  for (auto const h : hashes) BOOST_TEST(h == hashes[0]);
}
