// SPDX-License-Identifier: Apache-2.0
// labels: kernel property
// timeout: 300
// needs: late_cuda
// sanitizers: no
#define BOOST_TEST_MODULE limber.cuda.strategies
#include <limber/batch/policies.hpp>
#include <limber/comm/threads.hpp>
#include <limber/cuda/cuda_device.cuh>
#include <limber/limber.hpp>
#include <limber/sync/strategies.hpp>

#include <boost/test/unit_test.hpp>

#include <support/checks.hpp>

#include <cstring>
#include <limits>
#include <random>
#include <span>
#include <utility>
#include <vector>

// Whatever is written over an executor runs on the gpu's unchanged: the same training, once on the host
// and once on a device where all happens late, must end with the same bits.

using namespace limber;
using namespace limber::testing;

namespace {

// Adds to what only this rank knows.
struct observe {
  float* statistics;
  int rank;
  void operator()(i64 i) const { statistics[i] += 0.1f * static_cast<float>(rank); }
};

// Parameters and gradients where E works; what the host does to them waits in the order of E's stream.
template <executor E>
struct model {
  E exec;
  shared_array<float> w = exec.template share<float>(5000), b = exec.template share<float>(13),
                      statistics = exec.template share<float>(3);
  shared_array<bf16> h = exec.template share<bf16>(300);
  shared_array<float> gw = exec.template share<float>(5000), gb = exec.template share<float>(13),
                      gh = exec.template share<float>(300);

  explicit model(E e) : exec(std::move(e)) {
    std::mt19937 random(3);
    std::normal_distribution<float> normal;
    for (float& x : host_side(w)) x = normal(random);
    for (float& x : host_side(b)) x = normal(random);
    for (bf16& x : host_side(h)) x = bf16(normal(random));
    for (float& x : host_side(statistics)) x = static_cast<float>(1 + &x - statistics.host);
    for (auto* a : {&w, &b, &statistics}) exec.publish(*a);
    exec.publish(h);
  }
  template <class R>
  [[nodiscard]] auto parameters(R const& rule) {
    return groups(
        parameter_group{std::vector<tensor>{{"w", place(w), place(gw)}, {"b", place(b), place(gb)}}, rule},
        parameter_group{std::vector<tensor>{{"h", place(h), place(gh)}},
                        master{sgd{.momentum = 0.9}, true, 5}},
        buffers{{{"statistics", place(statistics)}}});
  }
  void backward(int rank, int call, bool bad = false) {
    std::mt19937 random(static_cast<unsigned>(100 * call + rank));
    std::normal_distribution<float> normal;
    for (auto* g : {&gw, &gb, &gh})
      for (float& x : host_side(*g)) x = normal(random);
    if (bad) gb[3] = std::numeric_limits<float>::infinity();
    for (auto* g : {&gw, &gb, &gh}) exec.publish(*g);
    exec.run(statistics.n, observe{statistics.device, rank});
  }
  [[nodiscard]] std::vector<float> all() {
    for (auto* a : {&w, &b, &statistics}) exec.collect(*a);
    exec.collect(h);
    std::vector<float> out;
    for (auto* a : {&w, &b, &statistics})
      for (float x : host_side(*a)) out.push_back(x);
    for (bf16 x : host_side(h)) out.push_back(static_cast<float>(x));
    return out;
  }

 private:
  template <class T>
  [[nodiscard]] static std::span<T> host_side(shared_array<T> const& a) {
    return {a.host, static_cast<std::size_t>(a.n)};
  }
  template <class T>
  [[nodiscard]] static tensor_view place(shared_array<T> const& a) {
    return {reinterpret_cast<std::byte*>(a.device), a.n, dtype_of<T>, {}};
  }
};

struct on_host {
  static host make() { return host{}; }
};
struct on_device {
  gpu::stream stream;
  [[nodiscard]] gpu::executor make() const { return gpu::executor{stream}; }
};

// Trains 14 calls on three workers, with uneven, missing and bad gradients and a joiner after the ninth.
template <class Where, class Rule, class Strategy>
std::vector<std::vector<float>> train(Rule const& rule, Strategy const& strategy, options const& o) {
  std::vector<std::vector<float>> out(3);
  threads::run(3, [&](threads::communicator& comm) {
    Where const where;
    model m(where.make());
    optimizer opt{m.parameters(rule), 0.05, strategy, comm, o, where.make()};
    for (int call = 0; call < 14; ++call) {
      m.backward(comm.rank(), call, call == 5 && comm.rank() == 1);
      if (call == 8) opt.freeze("b");
      if (call == 11) opt.freeze("b", false);
      opt.step(call == 4 && comm.rank() == 0 ? 0 : 4 + comm.rank());
      if (call == 10) opt.evaluate([] {});
    }
    opt.finish();
    out[static_cast<std::size_t>(comm.rank())] = m.all();
  });
  return out;
}

template <class Rule, class Strategy>
void check_same(char const* what, Rule const& rule, Strategy const& strategy, options o = {}) {
  if (o.batch(batch_facts{3, {}}).shards == 0) o.batch = per_worker{5};
  auto const expected = train<on_host>(rule, strategy, o), got = train<on_device>(rule, strategy, o);
  for (std::size_t r = 0; r < expected.size(); ++r)
    BOOST_TEST(std::memcmp(expected[r].data(), got[r].data(), expected[r].size() * sizeof(float)) == 0,
               what << ", rank " << r);
  BOOST_TEST(std::isfinite(got[0][0]));
}

}  // namespace

BOOST_AUTO_TEST_CASE(all_reduce_has_the_bits_of_the_host) {
  check_same("adamw", clipped{adamw{}, 1.0}, sync::allreduce{});
  check_same("lars, accumulated", lars{.weight_decay = 0.01}, sync::allreduce{.period = 2});
  options o;
  o.buckets = {.first_bytes = 8192, .bytes = 9000, .wire = dtype::bf16};
  check_same("lamb, bf16 wire", lamb{}, sync::allreduce{}, o);
}

BOOST_AUTO_TEST_CASE(logical_shards_have_the_bits_of_the_host) {
  options o;
  o.batch = logical_shards{.shards = 3, .per_shard = 5};
  check_same("shards", sgd{.momentum = 0.9}, sync::allreduce{}, o);
}

BOOST_AUTO_TEST_CASE(local_sgd_has_the_bits_of_the_host) {
  check_same("local", ema{sgd{.momentum = 0.9}, 0.9}, sync::local{.period = 3});
  check_same("local, averaged moments", adamw{},
             sync::local{.period = 4, .at_merge = sync::moments::average});
  check_same("local, reset moments", adamw{}, sync::local{.period = 4, .at_merge = sync::moments::reset});
}

BOOST_AUTO_TEST_CASE(other_merges_have_the_bits_of_the_host) {
  sgd const rule{.momentum = 0.9};
  check_same("slowmo", rule, sync::slowmo{.period = 3});
  check_same("hierarchical", rule, sync::hierarchical{.block_size = 2, .period = 2, .block_periods = 2});
  check_same("elastic", rule, sync::elastic_averaging{.period = 3});
  check_same("gossip", rule, sync::gossip{.period = 2});
}

BOOST_AUTO_TEST_CASE(delayed_gradients_have_the_bits_of_the_host) {
  check_same("abs-sgd", sgd{.momentum = 0.5}, sync::abs_sgd{.max_micro_batches = 1});
  options o;
  o.buckets = {.first_bytes = 8192, .bytes = 9000, .wire = dtype::bf16};
  check_same("abs-sgd, bf16 wire", adamw{},
             sync::abs_sgd{.max_micro_batches = 1, .rate = sync::round_rate::linear}, o);
}

BOOST_AUTO_TEST_CASE(a_joiner_gets_state_from_a_device) {
  std::vector<std::vector<float>> out(3);
  threads::run(3, [&](threads::communicator& comm) {
    on_device const where;
    model m(where.make());
    options o;
    o.batch = per_worker{5};
    // Rank 2 comes late: it has made no call yet when the others meet it.
    threads::communicator pair = comm.split(comm.rank() < 2 ? 0 : 1);
    optimizer opt{m.parameters(adamw{}), 0.05, sync::allreduce{}, pair, o, where.make()};
    if (comm.rank() < 2)
      for (int call = 0; call < 5; ++call) {
        m.backward(comm.rank(), call);
        opt.step(5);
      }
    opt.resize(comm);
    for (int call = 5; call < 8; ++call) {
      m.backward(comm.rank(), call);
      opt.step(5);
    }
    LIMBER_CHECK(opt.now().steps == 8);
    out[static_cast<std::size_t>(comm.rank())] = m.all();
  });
  BOOST_TEST((out[0] == out[1]));
  BOOST_TEST((out[0] == out[2]));
}
