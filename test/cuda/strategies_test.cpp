// SPDX-License-Identifier: Apache-2.0
// labels: kernel property
// optimize: 0
// timeout: 300
// sanitizers: no
#define BOOST_TEST_MODULE limber.cuda.strategies
#include <limber/cuda/executor.hpp>
#include <limber/limber.hpp>

#include <boost/test/unit_test.hpp>

#include <support/checks.hpp>

#include <cstring>
#include <limits>
#include <random>
#include <utility>
#include <vector>

// Whatever is written over an executor runs on the gpu's unchanged: the same training, once on the host
// and once through kernel bodies, must end with the same bits.

using namespace limber;
using namespace limber::testing;

namespace {

using emulated = gpu::basic_executor<gpu::emulator>;

struct model {
  std::vector<float> w = std::vector<float>(5000), b = std::vector<float>(13), statistics{1, 2, 3};
  std::vector<bf16> h = std::vector<bf16>(300);
  std::vector<float> gw = std::vector<float>(5000), gb = std::vector<float>(13), gh = std::vector<float>(300);

  model() {
    std::mt19937 random(3);
    std::normal_distribution<float> normal;
    for (float& x : w) x = normal(random);
    for (float& x : b) x = normal(random);
    for (bf16& x : h) x = bf16(normal(random));
  }
  template <class R>
  [[nodiscard]] auto parameters(R const& rule) {
    return groups(group{std::vector<tensor>{{"w", w, gw}, {"b", b, gb}}, rule},
                  group{std::vector<tensor>{{"h", h, gh}}, master{sgd{.momentum = 0.9}, true, 5}},
                  buffers{{{"statistics", statistics}}});
  }
  void backward(int rank, int call) {
    std::mt19937 random(static_cast<unsigned>(100 * call + rank));
    std::normal_distribution<float> normal;
    for (auto* g : {&gw, &gb, &gh})
      for (float& x : *g) x = normal(random);
    for (float& x : statistics) x += 0.1f * static_cast<float>(rank);
  }
  [[nodiscard]] std::vector<float> all() const {
    std::vector<float> out = w;
    out.insert(out.end(), b.begin(), b.end());
    for (bf16 x : h) out.push_back(static_cast<float>(x));
    out.insert(out.end(), statistics.begin(), statistics.end());
    return out;
  }
};

// Trains 14 calls on three workers, with uneven, missing and bad gradients and a joiner after the ninth.
template <class Rule, class Strategy, class Make>
std::vector<std::vector<float>> train(Rule const& rule, Strategy const& strategy, options const& o,
                                      Make const& make) {
  std::vector<std::vector<float>> out(3);
  threads::run(3, [&](threads::communicator& comm) {
    model m;
    auto opt = make(m, rule, strategy, comm, o);
    for (int call = 0; call < 14; ++call) {
      m.backward(comm.rank(), call);
      if (call == 5 && comm.rank() == 1) m.gb[3] = std::numeric_limits<float>::infinity();
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
  auto const expected =
      train(rule, strategy, o, [](model& m, auto const& r, auto s, auto& comm, options const& with) {
        return optimizer{m.parameters(r), 0.05, s, comm, with};
      });
  auto const got =
      train(rule, strategy, o, [](model& m, auto const& r, auto s, auto& comm, options const& with) {
        return optimizer{m.parameters(r), 0.05, s, comm, with, emulated{}};
      });
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
    model m;
    options o;
    o.batch = per_worker{5};
    // Rank 2 comes late: it has made no call yet when the others meet it.
    threads::communicator pair = comm.split(comm.rank() < 2 ? 0 : 1);
    optimizer opt{m.parameters(adamw{}), 0.05, sync::allreduce{}, pair, o, emulated{}};
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
