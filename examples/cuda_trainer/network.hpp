// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The network of examples/language_model on an executor: forward and backward over batches of a fixed
/// shape.

#include "kernels.hpp"
#include "trainer.hpp"

#include <limber/core/error.hpp>
#include <limber/fuse/layout.hpp>
#include <limber/fuse/shared_array.hpp>

#include <algorithm>
#include <cstddef>
#include <span>
#include <vector>

namespace example {

using limber::i64;

/// Whether a matrix stands in a product as it is.
enum class side { plain, transposed };

/// The samples of some batches of n, and room for the activations of one.
template <class E>
class batches {
 public:
  batches(E& e, network_shape const& s, i64 n, i64 most_samples)
      : exec_(e),
        n_(n),
        feed_(e.template share<i64>(1 + (most_samples + n - 1) / n * n)),
        sums_(e.template share<kernel::losses>(1)) {
    limber::layout room;
    for (int const rows : {s.inputs, s.hidden, s.hidden, s.classes, 1, 1}) {
      room.places.push_back({room.bytes, rows * n, limber::dtype::f32, {}});
      room.bytes = limber::round_up(room.bytes + 4 * rows * n, 256);
    }
    memory_ = e.make(room);
  }

  /// The next batches are of these samples; the last is filled up. Does not synchronize.
  void deal(std::span<i64 const> samples) {
    limber::expects(1 + static_cast<i64>(samples.size()) <= feed_.n, "batches: ", samples.size(),
                    " samples, but room for ", feed_.n - 1);
    feed_[0] = 0;
    std::fill(std::copy(samples.begin(), samples.end(), feed_.host + 1), feed_.host + feed_.n, i64{-1});
    exec_.publish(feed_);
  }

  [[nodiscard]] i64 n() const { return n_; }
  [[nodiscard]] kernel::dealt dealt() const { return {feed_.device, n_}; }
  [[nodiscard]] float* x() const { return at<float>(0); }
  [[nodiscard]] float* h() const { return at<float>(1); }
  [[nodiscard]] float* back() const { return at<float>(2); }
  [[nodiscard]] float* p() const { return at<float>(3); }
  [[nodiscard]] float* bits() const { return at<float>(4); }
  [[nodiscard]] int* target() const { return at<int>(5); }
  [[nodiscard]] limber::shared_array<kernel::losses> const& sums() const { return sums_; }

 private:
  template <class T>
  [[nodiscard]] T* at(std::size_t part) const {
    return reinterpret_cast<T*>(memory_.parts[part].data);
  }

  E& exec_;
  i64 n_;
  limber::shared_array<i64> feed_;
  limber::shared_array<kernel::losses> sums_;
  limber::slab memory_;
};

/// Parameters and gradients are the caller's; gradients are added to, as sums over samples.
///
/// @tparam Blas  has multiply(a, side, b, side, c, m, n, k, keep): c ← A B + keep · c, column by column,
///               where A is m × k and B is k × n once they are turned as said
template <class E, class Blas>
class network {
 public:
  /// @param tensors  the executor's: the embedding if there is one, then weight and bias of both layers
  network(E& e, Blas const& b, network_shape const& shape, network_input const& input,
          std::vector<limber::tensor> const& tensors)
      : exec_(e),
        blas_(b),
        shape_(shape),
        text_(copied(input.text)),
        numbers_(copied(input.pixels)),
        labels_(copied(input.labels)) {
    std::size_t k = shape.context > 0 ? 0 : 1;
    limber::expects(tensors.size() + k == 5, "network: ", tensors.size(), " tensors");
    for (auto const& t : tensors)
      parameter_[k++] = {t.value.template as<float>().data(), t.gradient.template as<float>().data()};
  }

  /// Fills the activations, and p with the gradient of the logits. Does not synchronize.
  void forward(batches<E> const& b) {
    auto const [inputs, hidden, classes, context] = shape_;
    auto const n = static_cast<int>(b.n());
    if (context > 0)
      exec_.run(inputs * b.n(), kernel::look_up_text{b.dealt(), bytes(text_), context, inputs / context,
                                                     value(embedding), b.x(), b.target()});
    else
      exec_.run(inputs * b.n(),
                kernel::look_up_numbers{b.dealt(), reinterpret_cast<float const*>(numbers_.data()),
                                        bytes(labels_), inputs, b.x(), b.target()});
    blas_.multiply(value(hidden_weight), plain, b.x(), plain, b.h(), hidden, n, inputs, 0);
    exec_.run(hidden * b.n(), kernel::add_bias_and_cut{b.h(), value(hidden_bias), hidden});
    blas_.multiply(value(output_weight), plain, b.h(), plain, b.p(), classes, n, hidden, 0);
    exec_.device().launch(kernel::softmax_and_loss{b.p(), value(output_bias), classes, b.target(), b.bits()},
                          b.n());
  }

  /// Adds the gradients' sums over the batch. @pre forward(b). Does not synchronize.
  void backward(batches<E> const& b) {
    auto const [inputs, hidden, classes, context] = shape_;
    auto const n = static_cast<int>(b.n());
    blas_.multiply(b.p(), plain, b.h(), transposed, gradient(output_weight), classes, hidden, n, 1);
    exec_.run(classes, kernel::add_columns{gradient(output_bias), b.p(), classes, n});
    blas_.multiply(value(output_weight), transposed, b.p(), plain, b.back(), hidden, n, classes, 0);
    exec_.run(hidden * b.n(), kernel::cut_back{b.back(), b.h()});
    blas_.multiply(b.back(), plain, b.x(), transposed, gradient(hidden_weight), hidden, inputs, n, 1);
    exec_.run(hidden, kernel::add_columns{gradient(hidden_bias), b.back(), hidden, n});
    if (context == 0) return;
    blas_.multiply(value(hidden_weight), transposed, b.back(), plain, b.x(), inputs, n, hidden, 0);
    exec_.run(256 * inputs / context, kernel::add_embedding{b.dealt(), bytes(text_), context,
                                                            inputs / context, b.x(), gradient(embedding)});
  }

  /// Adds the losses to b.sums(); the next batch is next. @pre forward(b). Does not synchronize.
  void finish(batches<E> const& b) {
    exec_.device().launch(kernel::add_losses{b.dealt(), b.target(), b.bits(), b.sums().device}, 1);
  }

 private:
  static constexpr auto plain = side::plain, transposed = side::transposed;
  enum index { embedding, hidden_weight, hidden_bias, output_weight, output_bias };
  struct parameter {
    float *value = nullptr, *gradient = nullptr;
  };

  template <class T>
  [[nodiscard]] limber::slab copied(std::span<T const> from) {
    limber::slab out = exec_.make({{}, static_cast<i64>(from.size_bytes())});
    if (!from.empty()) exec_.device().upload(out.data(), from.data(), out.bytes);
    return out;
  }
  [[nodiscard]] static std::uint8_t const* bytes(limber::slab const& s) {
    return reinterpret_cast<std::uint8_t const*>(s.data());
  }
  [[nodiscard]] float* value(index i) const { return parameter_[i].value; }
  [[nodiscard]] float* gradient(index i) const { return parameter_[i].gradient; }

  E& exec_;
  Blas const& blas_;
  network_shape shape_;
  limber::slab text_, numbers_, labels_;
  parameter parameter_[5];
};

}  // namespace example
