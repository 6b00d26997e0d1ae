// SPDX-License-Identifier: Apache-2.0
// labels: unit property
#define BOOST_TEST_MODULE limber.comm.reproducible_optimizer
#include <limber/batch/fixed.hpp>
#include <limber/comm/reproducible.hpp>
#include <limber/comm/threads.hpp>
#include <limber/optimizer.hpp>
#include <limber/rule/clipped.hpp>
#include <limber/rule/sgd.hpp>
#include <limber/sync/presets.hpp>

#include <boost/test/unit_test.hpp>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

using namespace limber;

namespace {

// Gradients depend on the model, on who has the samples and on the call; they span many binades, so a sum
// in any other order has other bits.
struct model {
  std::vector<std::size_t> lengths{300, 5000, 7, 1000, 0, 9000};
  std::vector<std::vector<float>> w, g;

  model() {
    for (std::size_t const n : lengths) {
      w.emplace_back(n, 0.5f);
      g.emplace_back(n);
    }
  }
  [[nodiscard]] std::vector<tensor> parameters() {
    std::vector<tensor> out;
    for (std::size_t k = 0; k < lengths.size(); ++k) out.emplace_back(text("t", k), w[k], g[k]);
    return out;
  }
  void backward(unsigned who, unsigned call) {
    std::mt19937 random(1000 * who + call);
    for (std::size_t k = 0; k < lengths.size(); ++k)
      for (std::size_t i = 0; i < lengths[k]; ++i) {
        auto const z = random();
        float const sign = z % 2 == 0 ? 1.0f : -1.0f;
        g[k][i] += sign * std::ldexp(1.0f + w[k][i] * w[k][i] * static_cast<float>(z >> 20) * 0x1p-12f,
                                     -static_cast<int>(z / 2 % 40));
      }
  }
  [[nodiscard]] std::vector<std::uint32_t> bits() const {
    std::vector<std::uint32_t> out;
    for (auto const& t : w)
      for (float const x : t) out.push_back(std::bit_cast<std::uint32_t>(x));
    return out;
  }
};

struct setting {
  i64 cap = i64{1} << 20;
  std::optional<dtype> wire{};
  bool marks = false;
};

struct result {
  std::vector<std::uint32_t> model;
  progress now;
};

/// Trains on workers.size() ranks; rank r has the samples of worker workers[r], or none if that is −1.
result train(std::vector<int> const& workers, setting s = {}) {
  std::vector<result> out(workers.size());
  threads::run(static_cast<int>(workers.size()), [&](threads::communicator& engine) {
    reproducible comm(engine);
    model m;
    options o;
    o.batch = fixed{40};
    o.buckets = {.first_bytes = s.cap, .bytes = s.cap, .wire = s.wire};
    optimizer opt{m.parameters(), clipped{sgd{.momentum = 0.9}, 1.0}, 0.05, sync::allreduce{}, comm, o};
    int const who = workers[static_cast<std::size_t>(comm.rank())];
    for (unsigned call = 0; call < 8; ++call) {
      i64 const n = who < 0 || (who == 1 && call == 3) ? 0 : 10 + 3 * who;
      opt.begin(n);
      if (n > 0) m.backward(static_cast<unsigned>(who), call);
      std::vector<std::size_t> order{0, 1, 2, 3, 4, 5};
      std::ranges::shuffle(order, std::mt19937(10 * call + static_cast<unsigned>(comm.rank())));
      for (std::size_t const t : order)
        if (s.marks) opt.mark_ready(text("t", t));
      opt.step();
    }
    opt.finish();
    out[static_cast<std::size_t>(comm.rank())] = {m.bits(), opt.now()};
  });
  for (auto const& r : out) BOOST_TEST((r.model == out[0].model));
  return out[0];
}

void check_same(result const& a, result const& b) {
  BOOST_TEST((a.model == b.model));
  BOOST_TEST(a.now.samples == b.now.samples);
  BOOST_TEST(a.now.steps == b.now.steps);
  // Made of Σ bᵢ‖gᵢ‖², a control value in double.
  auto const bits = [](double x) { return std::bit_cast<std::uint64_t>(x); };
  BOOST_TEST(a.now.noise.count > 6);
  BOOST_TEST(bits(a.now.noise.variance) == bits(b.now.noise.variance));
  BOOST_TEST(bits(a.now.noise.square) == bits(b.now.noise.square));
}

}  // namespace

BOOST_AUTO_TEST_CASE(bucket_caps_change_no_bit_of_the_model) {
  for (std::optional<dtype> const wire : {std::optional<dtype>{}, {dtype::bf16}}) {
    auto const large = train({0, 1, 2}, {i64{1} << 20, wire});
    BOOST_TEST(large.now.steps == 8);
    check_same(train({0, 1, 2}, {i64{1} << 10, wire}), large);
    check_same(train({0, 1, 2}, {i64{20'000}, wire}), large);
  }
}

BOOST_AUTO_TEST_CASE(overlap_with_backward_changes_no_bit_of_the_model) {
  check_same(train({0, 1, 2}, {i64{1} << 10, {}, true}), train({0, 1, 2}));
}

BOOST_AUTO_TEST_CASE(workers_without_samples_change_no_bit_of_the_model) {
  auto const two = train({0, 1});
  check_same(train({0, 1, -1, -1}), two);
  check_same(train({-1, 0, -1, 1, -1}), two);
}

BOOST_AUTO_TEST_CASE(the_order_of_workers_changes_no_bit_of_the_model) {
  auto const three = train({0, 1, 2});
  check_same(train({2, 0, 1}), three);
  check_same(train({1, -1, 2, 0}), three);
}
