// SPDX-License-Identifier: Apache-2.0
// labels: unit
// needs: Eigen3 ZLIB
#define BOOST_TEST_MODULE limber.papers.task
#include "../../bench/papers/task.hpp"

#include "../../bench/papers/curvature.hpp"
#include "core/says.hpp"

#include <boost/test/unit_test.hpp>

#include <cmath>
#include <numeric>
#include <string>
#include <vector>

using namespace limber::papers;
using limber::test::says;

namespace {

[[nodiscard]] example::digits squares(int n, int side) {
  example::digits d{.features = side * side};
  for (int i = 0; i < n; ++i) {
    for (int k = 0; k < side * side; ++k) d.pixels.push_back(static_cast<float>((i * 7 + k * 3) % 17) / 16.f);
    d.labels.push_back(static_cast<std::uint8_t>(i % 10));
  }
  d.trained = n - n / 10;
  return d;
}

}  // namespace

BOOST_AUTO_TEST_CASE(gradients_are_those_of_differences) {
  auto const data = task::of_digits(squares(700, 4), 1, 1 << 20);
  std::vector<limber::i64> samples(9);
  std::iota(samples.begin(), samples.end(), 30);
  for (int const hidden : {0, 5}) {
    auto const form = data.of(hidden);
    network net(form);
    values w(form.parameters()), gradient(w.size(), 0.f);
    for (std::size_t i = 0; i < w.size(); ++i)
      w[i] = static_cast<float>(static_cast<double>(limber::random_bits(2, 0, i) >> 11) * 0x1p-53 - .5);
    (void)data.run(net, w, samples, gradient.data());
    for (std::size_t i = 0; i < w.size(); i += 7) {
      auto moved = w;
      constexpr float step = 1e-2f;
      moved[i] = w[i] + step;
      double const up = data.run(net, moved, samples).loss;
      moved[i] = w[i] - step;
      double const slope = (up - data.run(net, moved, samples).loss) / (2 * static_cast<double>(step));
      BOOST_TEST_CONTEXT("hidden " << hidden << ", parameter " << i)
      BOOST_TEST(std::abs(slope - static_cast<double>(gradient[i])) <= 1e-3);
    }
  }
}

BOOST_AUTO_TEST_CASE(gradients_are_added_to_what_is_there) {
  auto const data = task::of_digits(squares(700, 4), 1, 1 << 20);
  network net(data.of(3));
  values w(data.of(3).parameters(), .1f), once(w.size(), 0.f), twice(w.size(), 0.f);
  auto const samples = data.probe(5);
  (void)data.run(net, w, samples, once.data());
  for (int k = 0; k < 2; ++k) (void)data.run(net, w, samples, twice.data());
  for (std::size_t i = 0; i < w.size(); ++i) BOOST_TEST(std::abs(twice[i] - 2 * once[i]) <= 1e-6f);
}

BOOST_AUTO_TEST_CASE(whole_batches_are_trained_on_and_the_rest_of_the_training_part_is_left_out) {
  auto const data = task::of_digits(squares(1300, 4), 1, 1 << 20);
  BOOST_TEST(data.train_size() == 1024);
  BOOST_TEST(data.held_out().size() == 130u);
  BOOST_TEST(data.held_out().front() == 1024);
  BOOST_TEST(data.probe(100).size() == 100u);
  BOOST_CHECK_EXCEPTION((void)task::of_digits(squares(100, 4), 1, 1 << 20), std::invalid_argument,
                        says("got 90"));
  BOOST_CHECK_EXCEPTION((void)task::of_digits(squares(700, 4), 3, 1 << 20), std::invalid_argument,
                        says("pooled by 3"));
}

BOOST_AUTO_TEST_CASE(pooled_images_are_means_of_blocks) {
  auto const fine = squares(700, 4);
  auto const data = task::of_digits(fine, 2, 1 << 20);
  BOOST_TEST(data.inputs() == 4);
  // A network whose first class answers with the first input alone shows it.
  network net(data.of(0));
  values w(data.of(0).parameters(), 0.f);
  w[0] = 1;
  std::vector<limber::i64> const third{2};
  double const x = (fine.image(2)[0] + fine.image(2)[1] + fine.image(2)[4] + fine.image(2)[5]) / 4;
  BOOST_TEST(std::abs(data.run(net, w, third).loss - std::log(std::exp(x) + 9)) <= 1e-5);
}

BOOST_AUTO_TEST_CASE(text_can_be_learnt_too) {
  example::corpus text{{}, "a made-up text"};
  while (text.bytes.size() < 9000)
    text.bytes += "The 7 cats (and a dog) sat on " + std::to_string(text.bytes.size()) + ".\n";
  auto const data = task::of_text(text, 6000);
  BOOST_TEST(data.inputs() == 64);
  BOOST_TEST(data.train_size() % 512 == 0);
  network net(data.of(0));
  values w(data.of(0).parameters(), 0.f), gradient(w.size());
  auto const all = data.probe(data.train_size());
  double const before = data.run(net, w, all).loss;
  for (int k = 0; k < 60; ++k) {
    std::ranges::fill(gradient, 0.f);
    (void)data.run(net, w, all, gradient.data());
    for (std::size_t i = 0; i < w.size(); ++i) w[i] -= .5f * gradient[i];
  }
  BOOST_TEST(data.run(net, w, all).loss < .7 * before);
}

BOOST_AUTO_TEST_CASE(the_largest_curvature_of_a_softmax_is_found) {
  // At w = 0 with 2 inputs of which one is constant the Hessian is (I − 11ᵀ/10)/10 ⊗ mean of x xᵀ, x with
  // its 1.
  auto const data = task::of_digits(squares(700, 1), 1, 1 << 20);
  values const w(data.of(0).parameters(), 0.f);
  double a = 0, b = 0;
  auto const probe = data.probe(1000);
  auto const pixels = squares(700, 1);
  for (auto const i : probe) {
    double const x = static_cast<double>(pixels.image(i)[0]);
    a += x * x / static_cast<double>(probe.size());
    b += x / static_cast<double>(probe.size());
  }
  double const expected = .1 * ((a + 1) / 2 + std::sqrt((a - 1) * (a - 1) / 4 + b * b));
  double const found = top_eigenvalue(data, 0, w);
  BOOST_TEST_CONTEXT(found << ", expected " << expected)
  BOOST_TEST(std::abs(found / expected - 1) <= .01);
}
