// SPDX-License-Identifier: Apache-2.0
// labels: kernel property
// timeout: 300
// sanitizers: no
#define BOOST_TEST_MODULE limber.sync.server_gpu
#include <limber/comm/threads.hpp>
#include <limber/cuda/executor.hpp>
#include <limber/limber.hpp>
#include <limber/sync/strategies.hpp>

#include <boost/test/unit_test.hpp>

#include <support/baton.hpp>
#include <support/checks.hpp>
#include <support/toy_model.hpp>

#include <cmath>
#include <limits>
#include <random>
#include <vector>

// A server and its workers through kernel bodies: under one script the bits are the host's.

using namespace limber;
using namespace limber::testing;

namespace {

using emulated = gpu::basic_executor<gpu::emulator>;

struct model {
  std::vector<float> w = std::vector<float>(5000, 0.25f), statistics{1, 2, 3};
  std::vector<bf16> h = std::vector<bf16>(300, bf16(0.5f));
  std::vector<float> gw = std::vector<float>(5000), gh = std::vector<float>(300);

  [[nodiscard]] auto parameters() {
    return groups(parameter_group{std::vector<tensor>{{"w", w, gw}}, adamw{}},
                  parameter_group{std::vector<tensor>{{"h", h, gh}}, master{sgd{.momentum = 0.9}, true, 5}},
                  buffers{{{"statistics", statistics}}});
  }
  void backward(int rank, std::size_t call) {
    std::mt19937 random(static_cast<unsigned>(100 * call) + static_cast<unsigned>(rank));
    std::normal_distribution<float> normal;
    for (auto* g : {&gw, &gh})
      for (float& x : *g) x = normal(random);
    for (float& x : statistics) x += 0.1f * static_cast<float>(rank);
  }
  [[nodiscard]] std::vector<float> all() const {
    std::vector<float> out = w;
    for (bf16 x : h) out.push_back(static_cast<float>(x));
    out.insert(out.end(), statistics.begin(), statistics.end());
    return out;
  }
};

template <class Strategy, class Make>
std::vector<std::vector<float>> train(Strategy const& strategy, options const& o, Make const& make) {
  script events;
  for (int k = 0; k < 4; ++k)
    for (event const e :
         {event{1, 5}, event{2, k == 1 ? 0 : 7}, event{1, 4}, event{1, 5}, event{2, 5}, event{1, 5}})
      events.push_back(e);
  baton turn(events);
  std::vector<std::vector<float>> out(3);
  threads::run(3, [&](threads::communicator& comm) {
    model m;
    auto opt = make(m, strategy, comm, o);
    opt.handshake();
    if (comm.rank() == 0) {
      opt.serve();
    } else {
      turn.follow(comm.rank(), [&](event const& e, std::size_t k) {
        m.backward(comm.rank(), k);
        if (k == 7) m.gw[3] = std::numeric_limits<float>::infinity();
        opt.step(e.samples);
        if (k == 9) opt.evaluate([] {});
      });
      opt.finish();
    }
    opt.evaluate([] {});
    out[static_cast<std::size_t>(comm.rank())] = m.all();
  });
  return out;
}

template <class Strategy>
void check_same(char const* what, Strategy const& strategy, options o = {}) {
  o.batch = per_worker{5};
  auto const expected = train(strategy, o, [](model& m, auto s, auto& comm, options const& with) {
    return optimizer{m.parameters(), 0.05, s, comm, with};
  });
  auto const got = train(strategy, o, [](model& m, auto s, auto& comm, options const& with) {
    return optimizer{m.parameters(), 0.05, s, comm, with, emulated{}};
  });
  for (std::size_t r = 0; r < expected.size(); ++r)
    BOOST_TEST(same_bits(expected[r], got[r]), what << ", rank " << r);
  BOOST_TEST(std::isfinite(got[0][0]));
  BOOST_TEST(got[0][0] != 0.25f);
}

}  // namespace

BOOST_AUTO_TEST_CASE(a_parameter_server_has_the_bits_of_the_host) {
  check_same("plain", sync::parameter_server{});
  check_same("softsync", sync::parameter_server{.staleness = sync::staleness_rule::inverse, .softsync = 3});
  check_same("compensated", sync::parameter_server{.compensation = 0.04});
  options wired;
  wired.buckets.wire = dtype::bf16;
  check_same("adaptive",
             sync::parameter_server{.compensation = 2, .adaptive_compensation = true, .softsync = 2}, wired);
}

BOOST_AUTO_TEST_CASE(a_centre_has_the_bits_of_the_host) {
  check_same("elastic", sync::asynchronous_elastic_averaging{.period = 2});
}
