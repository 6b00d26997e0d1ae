// SPDX-License-Identifier: Apache-2.0
// labels: unit property
// sanitizers: no
// needs: Eigen3 ZLIB
#define BOOST_TEST_MODULE limber.examples.model
#include "../../examples/language_model/model.hpp"

#include "files.hpp"

#include <boost/test/unit_test.hpp>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <span>
#include <string>
#include <utility>
#include <vector>

using example::corpus;
using example::digit_classifier;
using example::digits;
using example::language_model;
using limber::i64;

namespace {

corpus text() { return {limber::test::pattern(3000), "pattern"}; }

digits images() {
  digits d{.features = 6, .trained = 40};
  for (int i = 0; i < 50; ++i) {
    d.labels.push_back(static_cast<std::uint8_t>(i % 10));
    for (int f = 0; f < 6; ++f) d.pixels.push_back(static_cast<float>((i * 5 + f * 3) % 17) / 16.f);
  }
  return d;
}

template <class Model>
std::vector<float> gradient_of(Model& model, std::vector<i64> const& samples) {
  for (auto& t : model.parameters()) std::ranges::fill(t.gradient.template as<float>(), 0.f);
  model.gradient(samples);
  std::vector<float> all;
  for (auto& t : model.parameters()) {
    auto const g = t.gradient.template as<float>();
    all.insert(all.end(), g.begin(), g.end());
  }
  return all;
}

double norm(std::vector<float> const& x) {
  return std::sqrt(std::transform_reduce(x.begin(), x.end(), x.begin(), 0.0));
}

// A directional derivative, because differences of single floats drown in rounding: along the gradient
// d, the loss must change by step · |d|² to first order.
template <class Model>
void loss_changes_as_its_gradient_says(Model model, std::vector<i64> const& samples) {
  auto const d = gradient_of(model, samples);
  double const length = norm(d);
  BOOST_TEST_REQUIRE(length > 0.01);
  for (auto const& t : model.parameters()) {
    double inside = 0;
    auto const g = t.gradient.template as<float>();
    for (float const x : g) inside += static_cast<double>(x) * static_cast<double>(x);
    BOOST_TEST(inside > 0, t.name << " has no gradient");

    // Along this tensor's part alone, so that an error in a small tensor is not hidden by a large one.
    float const h = static_cast<float>(0.01 / std::sqrt(inside));
    std::vector<float> const direction(g.begin(), g.end());
    auto const moved = [&](float by) {
      auto const v = t.value.template as<float>();
      for (std::size_t i = 0; i < v.size(); ++i) v[i] += by * direction[i];
      return model.evaluate(samples).bits;
    };
    double const up = moved(h), down = moved(-2 * h);
    moved(h);
    double const slope = (up - down) / (2 * static_cast<double>(h)) * std::log(2.0);
    BOOST_TEST(slope == inside, boost::test_tools::tolerance(0.02));
  }
}

}  // namespace

BOOST_AUTO_TEST_CASE(the_loss_changes_as_its_gradient_says) {
  auto const t = text();
  loss_changes_as_its_gradient_says(language_model(t, 24, 3), {0, 5, 5, 71, 2000});
  auto const d = images();
  loss_changes_as_its_gradient_says(digit_classifier(d, 24, 3), {0, 3, 17, 39});
}

BOOST_AUTO_TEST_CASE(gradients_are_means_and_add_up) {
  auto const t = text();
  language_model model(t, 24, 3);
  auto const all = gradient_of(model, {1, 2, 3, 4, 5, 6, 7, 8}), first = gradient_of(model, {1, 2}),
             rest = gradient_of(model, {3, 4, 5, 6, 7, 8});
  std::vector<float> difference;
  for (std::size_t i = 0; i < all.size(); ++i)
    difference.push_back(all[i] - (first[i] * 2 + rest[i] * 6) / 8);
  BOOST_TEST(norm(difference) < 1e-5 * norm(all));

  model.gradient(std::vector<i64>{3, 4, 5, 6, 7, 8});
  std::size_t i = 0;
  for (auto& p : model.parameters()) {
    for (float const g : p.gradient.as<float>()) {
      BOOST_TEST_REQUIRE(std::abs(g - 2 * rest[i]) <= 1e-5f * std::abs(rest[i]) + 1e-9f);
      ++i;
    }
  }
}

BOOST_AUTO_TEST_CASE(gradient_and_evaluation_agree_on_the_loss) {
  auto const t = text();
  language_model model(t, 24, 3);
  std::vector<i64> samples(300);
  std::iota(samples.begin(), samples.end(), i64{40});
  double mean = 0;
  for (i64 const s : samples) mean += model.gradient(std::span{&s, 1}) / 300;
  auto const score = model.evaluate(samples);
  BOOST_TEST(score.bits == mean, boost::test_tools::tolerance(1e-5));
  BOOST_TEST(score.bits > 7);
  BOOST_TEST(score.bits < 9);
  BOOST_TEST(score.accuracy >= 0);
  BOOST_TEST(score.accuracy <= 0.2);
}

BOOST_AUTO_TEST_CASE(models_of_one_seed_are_alike_and_of_another_not) {
  auto const t = text();
  language_model a(t, 24, 3), b(t, 24, 3), c(t, 24, 4);
  auto const pa = a.parameters(), pb = b.parameters(), pc = c.parameters();
  for (std::size_t i = 0; i < pa.size(); ++i) {
    auto const va = pa[i].value.as<float>(), vb = pb[i].value.as<float>(), vc = pc[i].value.as<float>();
    BOOST_TEST(std::ranges::equal(va, vb));
    // Biases begin at zero.
    if (pa[i].name.find("bias") == std::string::npos) BOOST_TEST(!std::ranges::equal(va, vc));
  }
}

BOOST_AUTO_TEST_CASE(generated_text_is_the_same_for_the_same_seed) {
  auto const t = text();
  language_model const model(t, 24, 3);
  auto const start = t.bytes.substr(0, corpus::context);
  auto const a = model.generate(start, 40, 0.8, 1);
  BOOST_TEST(a.size() == 40u);
  BOOST_TEST(a == model.generate(start, 40, 0.8, 1));
  BOOST_TEST(a != model.generate(start, 40, 0.8, 2));
}

// At a temperature near 0 the likeliest byte always follows: training on one sequence brings it back.
BOOST_AUTO_TEST_CASE(a_trained_model_continues_what_it_has_seen) {
  std::string bytes;
  while (bytes.size() < 3000) bytes += "limber up, ";
  corpus const t{bytes, "repeated"};
  language_model model(t, 24, 3);
  std::vector<i64> samples(22);
  std::iota(samples.begin(), samples.end(), i64{0});
  for (int step = 0; step < 200; ++step) {
    model.gradient(samples);
    for (auto& p : model.parameters()) {
      auto const v = p.value.as<float>(), g = p.gradient.as<float>();
      for (std::size_t i = 0; i < v.size(); ++i) v[i] -= 0.5f * std::exchange(g[i], 0.f);
    }
  }
  BOOST_TEST(model.evaluate(samples).bits < 0.1);
  BOOST_TEST(model.evaluate(samples).accuracy == 1.0);
  BOOST_TEST(model.generate(bytes.substr(0, 12), 22, 0.1, 1) == bytes.substr(12, 22));
}
