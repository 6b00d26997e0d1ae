// SPDX-License-Identifier: Apache-2.0
// labels: gloo
// timeout: 120
// needs: gloo
// sanitizers: no
#define BOOST_TEST_MODULE limber.comm.gloo_strategies
#include <limber/comm/threads.hpp>
#include <limber/limber.hpp>
#include <limber/sync/strategies.hpp>

#include <boost/test/unit_test.hpp>

#include <comm/gloo_worlds.hpp>
#include <support/toy_model.hpp>

#include <cstddef>
#include <cstring>
#include <string>
#include <vector>

// Strategies between three real processes, on one rule and one small model.

namespace limber::test {

using testing::distance;
using testing::run_of;
using testing::same_bits;
using testing::toy_model;

constexpr int ranks = 3;

/// The loss of the twelve samples that the ranks have together.
double loss(std::vector<double> const& all) {
  toy_model<double> m;
  double sum = 0;
  for (i64 const s : run_of(0, 4 * ranks)) {
    double e = all.back() - 1 - m.uniform(s, 99);
    for (i64 k = 0; k < m.features; ++k)
      e += (all[static_cast<std::size_t>(k)] - 0.2 * static_cast<double>(k)) * (m.uniform(s, k) + 0.3);
    sum += 0.5 * e * e;
  }
  return sum / (4 * ranks);
}

/// The result of a rank.
template <class Strategy, class C>
std::vector<double> train(C& comm, Strategy const& how, int calls, int server = -1) {
  toy_model<double> m;
  optimizer opt{m.parameters(), sgd{.momentum = 0.5}, 0.01, how, comm, {.batch = per_worker{4}}};
  if constexpr (requires { opt.serve(); }) {
    if (comm.rank() == server) {
      opt.serve();
      return m.all();
    }
  }
  for (int k = 0; k < calls; ++k) {
    m.backward(run_of(4 * comm.rank(), 4));
    opt.step(4);
  }
  opt.finish();
  return m.all();
}

template <class Strategy>
std::vector<std::vector<double>> trained(Strategy const& how, int calls, int server = -1) {
  rendezvous_folder const place;
  crew workers(ranks, [&](int rank, voice const& say) {
    auto comm = place.join(rank, ranks, {.deadline = 20});
    auto const all = train(comm, how, calls, server);
    say({reinterpret_cast<char const*>(all.data()), all.size() * sizeof(double)});
  });
  expect_finished(workers.join(60));
  std::vector<std::vector<double>> models;
  for (int r = 0; r < ranks; ++r) {
    std::string const bytes = workers.hear(r, 1).value();
    models.emplace_back(bytes.size() / sizeof(double));
    std::memcpy(models.back().data(), bytes.data(), bytes.size());
  }
  return models;
}

void expect_learned(std::vector<std::vector<double>> const& models, double share) {
  double const before = loss(toy_model<double>{}.all());
  for (auto const& m : models) BOOST_TEST(loss(m) < share * before);
}

BOOST_AUTO_TEST_CASE(allreduce_equals_that_of_threads_and_replicas_are_identical) {
  auto const models = trained(sync::allreduce{}, 60);
  expect_learned(models, 0.1);
  for (auto const& m : models) BOOST_TEST(same_bits(m, models[0]));
  std::vector<double> by_threads;
  threads::run(ranks, [&](threads::communicator& comm) {
    auto const all = train(comm, sync::allreduce{}, 60);
    if (comm.rank() == 0) by_threads = all;
  });
  BOOST_TEST(distance(models[0], by_threads) < 1e-6);
}

BOOST_AUTO_TEST_CASE(local_descent_merges_to_identical_replicas) {
  auto const models = trained(sync::local{.period = 4}, 60);
  expect_learned(models, 0.1);
  for (auto const& m : models) BOOST_TEST(same_bits(m, models[0]));
}

BOOST_AUTO_TEST_CASE(abs_sgd_trains_and_ends) {
  // A step takes no time here: no rank may run ahead of the communication without bound.
  auto const models = trained(sync::abs_sgd{.max_micro_batches = 2}, 200);
  expect_learned(models, 0.2);
  for (auto const& m : models) BOOST_TEST(same_bits(m, models[0]));
}

BOOST_AUTO_TEST_CASE(asynchronous_gossip_trains_and_ends) {
  // How often others answer in time depends on the machine; without them it learns a little less.
  expect_learned(trained(sync::asynchronous_gossip{1, sync::gossip_how::pull}, 150), 0.5);
}

BOOST_AUTO_TEST_CASE(asynchronous_elastic_averaging_trains_and_ends) {
  expect_learned(trained(sync::asynchronous_elastic_averaging{.period = 2}, 150, 0), 0.3);
}

BOOST_AUTO_TEST_CASE(a_parameter_server_trains_and_ends) {
  auto const models = trained(sync::parameter_server{}, 60, 0);
  expect_learned(models, 0.1);
  for (auto const& m : models) BOOST_TEST(same_bits(m, models[0]));
}

}  // namespace limber::test
