// SPDX-License-Identifier: Apache-2.0
// labels: unit
// needs: context
#define BOOST_TEST_MODULE limber.sim.cost
#include <limber/sim/sim.hpp>

#include <boost/test/unit_test.hpp>

#include <core/says.hpp>
#include <sim/both.hpp>

#include <functional>
#include <stdexcept>
#include <string>
#include <vector>

using namespace limber;
using namespace limber::test;

namespace {

sim::link const line{.latency = 0.25, .bandwidth = 64};

// How long one call takes, when all arrive at 0.
template <class F>
double seconds_of(sim::cluster const& c, F call) {
  return sim::run(c, [&](sim::worker& me) { call(me.comm()); }).seconds;
}

}  // namespace

BOOST_AUTO_TEST_CASE(a_message_takes_latency_and_its_bytes) {
  BOOST_TEST(sim::message_seconds(line, 0) == 0.25);
  BOOST_TEST(sim::message_seconds(line, 128) == 2.25);
  BOOST_TEST(sim::message_seconds({}, 1e12) == 0);
}

BOOST_AUTO_TEST_CASE(depth_is_the_logarithm_rounded_up) {
  int const depth[] = {0, 0, 1, 2, 2, 3, 3, 3, 3, 4};
  for (int p = 1; p < 10; ++p) BOOST_TEST(sim::tree_depth(p) == depth[p]);
  BOOST_TEST(sim::tree_depth(1024) == 10);
  BOOST_TEST(sim::tree_depth(1025) == 11);
}

// n = 128 bytes, p = 4, by hand.
BOOST_AUTO_TEST_CASE(all_reduce_costs_what_its_topology_says) {
  using enum sim::topology;
  BOOST_TEST(sim::all_reduce_seconds(ring, line, 128, 4) == 2 * 3 * (0.25 + 0.5));
  BOOST_TEST(sim::all_reduce_seconds(tree, line, 128, 4) == 2 * 2 * (0.25 + 2));
  BOOST_TEST(sim::all_reduce_seconds(server, line, 128, 4) == 2 * 0.25 + 2 * 4 * 2.0);
  BOOST_TEST(sim::all_gather_seconds(line, 128, 4) == 3 * (0.25 + 0.5));
  BOOST_TEST(sim::broadcast_seconds(line, 128, 5) == 3 * (0.25 + 2));
  for (auto how : {ring, tree, server}) BOOST_TEST(sim::all_reduce_seconds(how, line, 128, 1) == 0);
  BOOST_TEST(sim::all_gather_seconds(line, 128, 1) == 0);
  BOOST_TEST(sim::broadcast_seconds(line, 128, 1) == 0);
}

BOOST_AUTO_TEST_CASE(calls_take_what_the_functions_say) {
  auto c = idle_cluster(4);
  c.network = line;
  c.byte_scale = 2;  // 64 bytes cost like 128
  std::vector<std::vector<float>> in(4, std::vector<float>(16)), out(4, std::vector<float>(64));
  auto part = [&](sim::communicator& comm, std::size_t n) {
    return view(out[static_cast<std::size_t>(comm.rank())]).sub(0, static_cast<i64>(n));
  };
  auto mine = [&](sim::communicator& comm) { return view(in[static_cast<std::size_t>(comm.rank())]); };
  BOOST_TEST(seconds_of(c, [&](auto& m) { m.all_reduce(mine(m), part(m, 16)).wait(); }) == 4.5);
  BOOST_TEST(seconds_of(c, [&](auto& m) { m.reduce_scatter(mine(m), part(m, 4)).wait(); }) == 2.25);
  // 4 blocks of 64 bytes, twice: 3 (0.25 + 512 / (4 · 64)).
  BOOST_TEST(seconds_of(c, [&](auto& m) { m.all_gather(mine(m), part(m, 64)).wait(); }) == 6.75);
  BOOST_TEST(seconds_of(c, [&](auto& m) { m.broadcast(mine(m), 3).wait(); }) == 4.5);
  BOOST_TEST(seconds_of(c, [&](auto& m) { m.barrier(); }) == 0.5);
  BOOST_TEST(seconds_of(c, [&](auto& m) { (void)m.split(m.rank() / 2); }) == 0.5);
  BOOST_TEST(seconds_of(c, [&](auto& m) { (void)m.shrink(std::vector<int>{}); }) == 0.5);
  BOOST_TEST(sim::run(c, [&](sim::worker& me) { (void)me.regroup(); }).seconds == 0.5);
  c.reduce = sim::topology::tree;
  BOOST_TEST(seconds_of(c, [&](auto& m) { m.all_reduce(mine(m), part(m, 16)).wait(); }) == 9);
  c.reduce = sim::topology::server;
  BOOST_TEST(seconds_of(c, [&](auto& m) { m.all_reduce(mine(m), part(m, 16)).wait(); }) == 16.5);
}

BOOST_AUTO_TEST_CASE(a_group_within_a_block_uses_its_links_and_others_the_network) {
  auto c = idle_cluster(4);
  c.network = {.latency = 1};
  c.inside = {.latency = 0.125};
  c.block_size = 2;
  // The split costs a barrier over the network: 2.
  BOOST_TEST(seconds_of(c, [](auto& m) { m.split(m.rank() / 2).barrier(); }) == 2.125);
  BOOST_TEST(seconds_of(c, [](auto& m) { m.split(m.rank() % 2).barrier(); }) == 3);
  BOOST_TEST(seconds_of(c, [](auto& m) { m.barrier(); }) == 2);
  c.block_size = 0;
  BOOST_TEST(seconds_of(c, [](auto& m) { m.split(m.rank() / 2).barrier(); }) == 3);
}

BOOST_AUTO_TEST_CASE(operations_of_a_group_follow_one_another_and_those_of_groups_do_not) {
  auto c = idle_cluster(4);
  c.network = {.latency = 1};
  std::vector<double> ends(3), other(3);
  sim::run(c, [&](sim::worker& me) {
    std::vector<float> in(1), out(3);
    auto half = me.comm().split(me.rank() / 2);  // until 2
    auto a = half.all_reduce(view(in), view(out).sub(0, 1));
    auto b = half.all_reduce(view(in), view(out).sub(1, 1));
    auto whole = me.comm().all_reduce(view(in), view(out).sub(2, 1));
    auto& mine = me.rank() == 0 ? ends : other;
    b.wait();
    mine[1] = me.now();
    if (!a.done()) throw std::logic_error("operations end in the order in which they were started");
    a.wait();
    mine[0] = me.now();
    whole.wait();
    mine[2] = me.now();
  });
  BOOST_TEST(ends == (std::vector<double>{6, 6, 8}), boost::test_tools::per_element());
}

BOOST_AUTO_TEST_CASE(an_invalid_cluster_is_refused) {
  auto refused = [](std::function<void(sim::cluster&)> const& spoil, auto... parts) {
    auto c = idle_cluster(2);
    spoil(c);
    BOOST_CHECK_EXCEPTION(sim::run(c, [](sim::worker&) {}), std::invalid_argument, says(parts...));
  };
  refused([](auto& c) { c.workers.clear(); }, "workers");
  refused([](auto& c) { c.workers[1].seconds_per_sample = -2; }, "seconds_per_sample", "-2");
  refused([](auto& c) { c.workers[1].seconds_per_call = -3; }, "seconds_per_call", "-3");
  refused([](auto& c) { c.workers[1].jitter = -4; }, "jitter", "-4");
  refused([](auto& c) { c.network.latency = -1; }, "network: latency", "-1");
  refused([](auto& c) { c.inside.bandwidth = 0; }, "inside: bandwidth", "0");
  refused([](auto& c) { c.block_size = -1; }, "block_size", "-1");
  refused([](auto& c) { c.slowdowns.push_back({2, 0, 1, 2}); }, "slowdowns: worker", "2");
  refused([](auto& c) { c.slowdowns.push_back({1, 3, 3, 2}); }, "slowdowns: until", "3");
  refused([](auto& c) { c.slowdowns.push_back({1, 0, 1, 0}); }, "slowdowns: factor", "0");
  refused([](auto& c) { c.deaths.push_back({-1, 0}); }, "deaths: worker", "-1");
  refused([](auto& c) { c.deaths.push_back({0, -5}); }, "deaths: at", "-5");
  refused([](auto& c) { c.joins = {{0, 1}, {0, 2}}; }, "worker 0 joins twice");
  refused([](auto& c) { c.joins = {{0, 1}, {1, 2}}; }, "at the start");
  refused([](auto& c) { c.byte_scale = -1; }, "byte_scale", "-1");
  refused([](auto& c) { c.detection = -1; }, "detection", "-1");
  refused([](auto& c) { c.stack_bytes = 100; }, "stack_bytes", "100");
}
