// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The two models that the example trains, behind one small interface.

#include "digits.hpp"
#include "mlp.hpp"
#include "text.hpp"

#include <limber/core/config.hpp>

#include <algorithm>
#include <concepts>
#include <cstdint>
#include <random>
#include <span>
#include <string>
#include <vector>

namespace example {

/// What the training loop needs of a model. Samples are numbers; what they mean is the model's business.
///
/// gradient() adds the mean gradient of its samples to the parameters' gradients and returns their
/// mean loss in bits; evaluate() changes nothing.
template <class M>
concept trainable = requires(M& m, std::span<limber::i64 const> samples) {
  { m.parameters() } -> std::same_as<std::vector<limber::tensor>>;
  { m.gradient(samples) } -> std::same_as<double>;
  { m.evaluate(samples) } -> std::same_as<score>;
};

namespace detail {

/// Mean score of `samples`, computed in slices so that a large set needs little memory.
/// @param fill writes the samples of a slice into activations and targets
template <class Fill>
[[nodiscard]] score evaluate(mlp const& net, std::span<limber::i64 const> samples, Fill&& fill) {
  mlp::activations a;
  std::vector<std::uint8_t> targets;
  score mean;
  for (std::size_t first = 0; first < samples.size(); first += 128) {
    fill(a, targets, samples.subspan(first, std::min<std::size_t>(128, samples.size() - first)));
    score const part = net.forward(a, targets);
    mean.bits += part.bits / static_cast<double>(samples.size());
    mean.accuracy += part.accuracy / static_cast<double>(samples.size());
  }
  return mean;
}

}  // namespace detail

/// Predicts a byte from the bytes before it: an embedding for each of them, then an mlp.
///
/// Paper    Bengio, Ducharme, Vincent and Jauvin, A Neural Probabilistic Language Model, JMLR 3, 2003
///          (without its direct connections, over bytes instead of words).
class language_model {
 public:
  static constexpr int width = 16;     ///< numbers an embedding has
  static constexpr int symbols = 256;  ///< classes: the values of a byte

  language_model(corpus const& text, int hidden, std::uint64_t seed)
      : text_(&text),
        embedding_("embedding", width, symbols, 0.5f, seed, 0),
        net_(width * static_cast<int>(corpus::context), hidden, symbols, seed) {}

  [[nodiscard]] std::vector<limber::tensor> parameters() {
    auto all = net_.parameters();
    all.insert(all.begin(), embedding_.tensor());
    return all;
  }

  double gradient(std::span<limber::i64 const> samples) {
    fill(batch_, targets_, samples);
    double const bits = net_.forward(batch_, targets_).bits;
    net_.backward(batch_, targets_, true);
    for (std::size_t j = 0; j < samples.size(); ++j) {
      auto const seen = text_->before(samples[j]);
      for (Eigen::Index c = 0; c < corpus::context; ++c) {
        embedding_.gradient.col(symbol(seen, c)) +=
            batch_.x.col(static_cast<Eigen::Index>(j)).segment<width>(c * width);
      }
    }
    return bits / static_cast<double>(samples.size());
  }

  [[nodiscard]] score evaluate(std::span<limber::i64 const> samples) const {
    return detail::evaluate(net_, samples,
                            [this](auto& a, auto& targets, auto slice) { fill(a, targets, slice); });
  }

  /// Writes `length` bytes that follow `start`, each drawn from pᵢ^(1/temperature), normalised.
  [[nodiscard]] std::string generate(std::string start, int length, double temperature,
                                     std::uint64_t seed) const {
    std::mt19937_64 random(seed);
    mlp::activations a;
    a.x.resize(width * corpus::context, 1);
    std::uint8_t const any = 0;
    std::string out;
    for (int i = 0; i < length; ++i) {
      auto const seen = std::string_view{start}.substr(start.size() - corpus::context);
      embed(a, 0, seen);
      (void)net_.forward(a, {&any, 1});
      std::vector<double> weights;
      for (auto const p : a.p.col(0)) weights.push_back(std::pow(static_cast<double>(p), 1 / temperature));
      auto const next =
          static_cast<char>(std::discrete_distribution<int>(weights.begin(), weights.end())(random));
      start += next;
      out += next;
    }
    return out;
  }

 private:
  [[nodiscard]] static Eigen::Index symbol(std::string_view seen, Eigen::Index c) {
    return static_cast<unsigned char>(seen[static_cast<std::size_t>(c)]);
  }
  void embed(mlp::activations& a, Eigen::Index column, std::string_view seen) const {
    for (Eigen::Index c = 0; c < corpus::context; ++c) {
      a.x.col(column).segment<width>(c * width) = embedding_.value.col(symbol(seen, c));
    }
  }
  void fill(mlp::activations& a, std::vector<std::uint8_t>& targets,
            std::span<limber::i64 const> samples) const {
    a.x.resize(width * corpus::context, static_cast<Eigen::Index>(samples.size()));
    targets.resize(samples.size());
    for (std::size_t j = 0; j < samples.size(); ++j) {
      embed(a, static_cast<Eigen::Index>(j), text_->before(samples[j]));
      targets[j] = text_->target(samples[j]);
    }
  }

  corpus const* text_;
  parameter embedding_;
  mlp net_;
  mlp::activations batch_;
  std::vector<std::uint8_t> targets_;
};

/// Tells digits apart: an mlp over the pixels.
class digit_classifier {
 public:
  digit_classifier(digits const& images, int hidden, std::uint64_t seed)
      : images_(&images), net_(images.features, hidden, digits::classes, seed) {}

  [[nodiscard]] std::vector<limber::tensor> parameters() { return net_.parameters(); }

  double gradient(std::span<limber::i64 const> samples) {
    fill(batch_, targets_, samples);
    double const bits = net_.forward(batch_, targets_).bits;
    net_.backward(batch_, targets_, false);
    return bits / static_cast<double>(samples.size());
  }

  [[nodiscard]] score evaluate(std::span<limber::i64 const> samples) const {
    return detail::evaluate(net_, samples,
                            [this](auto& a, auto& targets, auto slice) { fill(a, targets, slice); });
  }

 private:
  void fill(mlp::activations& a, std::vector<std::uint8_t>& targets,
            std::span<limber::i64 const> samples) const {
    a.x.resize(images_->features, static_cast<Eigen::Index>(samples.size()));
    targets.resize(samples.size());
    for (std::size_t j = 0; j < samples.size(); ++j) {
      a.x.col(static_cast<Eigen::Index>(j)) =
          Eigen::Map<Eigen::VectorXf const>(images_->image(samples[j]), images_->features);
      targets[j] = images_->target(samples[j]);
    }
  }

  digits const* images_;
  mlp net_;
  mlp::activations batch_;
  std::vector<std::uint8_t> targets_;
};

static_assert(trainable<language_model> && trainable<digit_classifier>);

}  // namespace example
