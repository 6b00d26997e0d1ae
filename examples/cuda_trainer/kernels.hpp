// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// What cuBLAS does not do for the network: looking up, bias, activation, softmax, sums.
///
/// Function objects for an executor: f(i) by a thread of its own, or body(warp, j) by a warp. So they run
/// on the host as well, where a test compares them with the main job's network. Matrices are column by
/// column, one sample a column. Every sum has a fixed order: the same bits on every run. A batch always has
/// n columns; one without a sample (−1) has loss and gradient 0.

#include <limber/core/config.hpp>
#include <limber/core/math.hpp>

#include <cmath>
#include <cstdint>

namespace example::kernel {

using limber::i64;

/// Loss of samples, in bits.
struct losses {
  float sum, count;      ///< of the update under way, or of the probe
  float smooth, weight;  ///< of the updates before, discounted
};

/// Samples as they lie in memory: feed[0] counts the batches that were done, all samples follow.
struct dealt {
  i64* feed;
  i64 n;

  [[nodiscard]] LIMBER_HD i64 sample(i64 j) const { return feed[1 + feed[0] * n + j]; }
};

/// x ← the embeddings of the bytes before. For all elements of x.
struct look_up_text {
  dealt from;
  std::uint8_t const* text;
  int context, width;
  float const* embedding;
  float* x;
  int* target;

  LIMBER_HD void operator()(i64 i) const {
    int const inputs = context * width, row = static_cast<int>(i % inputs);
    i64 const s = from.sample(i / inputs);
    x[i] = s < 0 ? 0.f : embedding[text[s + row / width] * width + row % width];
    if (row == 0) target[i / inputs] = s < 0 ? -1 : text[s + context];
  }
};

/// x ← the samples' numbers. For all elements of x.
struct look_up_numbers {
  dealt from;
  float const* numbers;
  std::uint8_t const* labels;
  int inputs;
  float* x;
  int* target;

  LIMBER_HD void operator()(i64 i) const {
    i64 const s = from.sample(i / inputs), row = i % inputs;
    x[i] = s < 0 ? 0.f : numbers[s * inputs + row];
    if (row == 0) target[i / inputs] = s < 0 ? -1 : labels[s];
  }
};

/// h ← max(0, h + b). For all elements of h.
struct add_bias_and_cut {
  float* h;
  float const* b;
  int rows;

  LIMBER_HD void operator()(i64 i) const {
    float const y = h[i] + b[i % rows];
    h[i] = y > 0 ? y : 0.f;
  }
};

/// back ← 0 where h was cut. For all elements of h.
struct cut_back {
  float* back;
  float const* h;

  LIMBER_HD void operator()(i64 i) const {
    if (!(h[i] > 0.f)) back[i] = 0.f;
  }
};

/// g ← g + the sum of m's n columns. For all rows.
struct add_columns {
  float* g;
  float const* m;
  i64 rows, n;

  LIMBER_HD void operator()(i64 row) const {
    float sum = 0;
    for (i64 j = 0; j < n; ++j) sum += m[j * rows + row];
    g[row] += sum;
  }
};

/// g[:, s] ← g[:, s] + the gradients dx of all places where symbol s was looked up. For all elements of g,
/// so that no two threads add to one.
struct add_embedding {
  dealt from;
  std::uint8_t const* text;
  int context, width;
  float const* dx;
  float* g;

  LIMBER_HD void operator()(i64 i) const {
    float sum = 0;
    for (i64 j = 0; j < from.n; ++j) {
      i64 const s = from.sample(j);
      for (int c = 0; s >= 0 && c < context; ++c)
        if (text[s + c] == i / width) sum += dx[(j * context + c) * width + i % width];
    }
    g[i] += sum;
  }
};

/// op over what the lanes of a warp hold.
template <class W, class S, class Op>
[[nodiscard]] LIMBER_HD float over_lanes(W const& w, S& s, Op const& op) {
  for (int d = 16; d > 0; d /= 2) w.fold(s, d, op);
  return w.broadcast(s, 0);
}
struct add {
  LIMBER_HD float operator()(float a, float b) const { return a + b; }
};
struct larger {
  LIMBER_HD float operator()(float a, float b) const { return a > b ? a : b; }
};

/// p ← softmax(p + b) − onehot(target), the gradient of the loss; bits ← −log₂ softmax(p + b)[target].
/// A warp a column.
struct softmax_and_loss {
  static constexpr char const* name = "softmax_and_loss";
  float* p;
  float const* b;
  int classes;
  int const* target;
  float* bits;

  template <class W>
  LIMBER_HD void operator()(W const& w, i64 j) const {
    typename W::template per_lane<float> tops, totals, logits;
    float* const column = p + j * classes;
    int const wanted = target[j];
    w.for_lanes([&](int lane) {
      float most = -INFINITY;
      for (int c = lane; c < classes; c += 32) {
        column[c] += b[c];
        most = larger{}(most, column[c]);
      }
      w.own(tops, lane) = most;
    });
    float const top = over_lanes(w, tops, larger{});
    w.for_lanes([&](int lane) {
      float sum = 0, logit = 0;
      for (int c = lane; c < classes; c += 32) {
        float const past = column[c] - top;
        if (c == wanted) logit = past;
        column[c] = std::exp(past);
        sum += column[c];
      }
      w.own(totals, lane) = sum;
      w.own(logits, lane) = logit;
    });
    float const total = over_lanes(w, totals, add{}), logit = over_lanes(w, logits, add{});
    w.for_lanes([&](int lane) {
      for (int c = lane; c < classes; c += 32)
        column[c] = wanted < 0 ? 0.f : column[c] / total - (c == wanted ? 1.f : 0.f);
      constexpr float bits_per_nat = 1.44269504f;
      if (lane == 0) bits[j] = wanted < 0 ? 0.f : (std::log(total) - logit) * bits_per_nat;
    });
  }
};

/// Ends a batch: adds up its losses, and lets the next one take the samples that follow. One warp.
struct add_losses {
  static constexpr char const* name = "add_losses";
  dealt from;
  int const* target;
  float const* bits;
  losses* to;

  template <class W>
  LIMBER_HD void operator()(W const& w, i64) const {
    typename W::template per_lane<float> sums, counts;
    w.for_lanes([&](int lane) {
      float sum = 0, count = 0;
      for (i64 j = lane; j < from.n; j += 32) {
        sum += bits[j];
        count += target[j] < 0 ? 0.f : 1.f;
      }
      w.own(sums, lane) = sum;
      w.own(counts, lane) = count;
    });
    float const sum = over_lanes(w, sums, add{}), count = over_lanes(w, counts, add{});
    w.for_lanes([&](int lane) {
      if (lane != 0) return;
      to->sum += sum;
      to->count += count;
      ++from.feed[0];
    });
  }
};

/// Ends an update: its mean loss joins the smoothed one, unless there is none. One thread.
struct close_losses {
  losses* l;

  LIMBER_HD void operator()(i64) const {
    float const mean = l->sum / l->count;
    l->sum = l->count = 0;
    if (!limber::math::finite(mean)) return;
    l->smooth = limber::math::fma(0.95f, l->smooth, 0.05f * mean);
    l->weight = limber::math::fma(0.95f, l->weight, 0.05f);
  }
};

}  // namespace example::kernel
