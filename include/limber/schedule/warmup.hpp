// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Linear (gradual) warm-up, alone and before a long plateau and a decay whose start can be put off.

#include <limber/schedule/elapsed.hpp>
#include <limber/schedule/polynomial.hpp>
#include <limber/schedule/sequence.hpp>

#include <utility>

namespace limber {

/// Rises linearly from `from` to 1, then stays there.
///
///     η(t) = from + (1 − from) min(1, t / T)      t = 0, 1, …
///
/// Units    t is the progress before the update: the first update of a warm-up of T steps runs at
///          `from`, the last at from + (1 − from)(T − 1)/T, and update number T, the first of the next
///          piece, is the first at full rate. Update 0 at rate 0 changes no parameter but fills the
///          momentum; pass `from` to let it move.
/// Choices  measured in samples or epochs it ends after the same data whatever the number of workers.
///          A constant warm-up is `lasting(length, value)`. Length 0: the full rate at once.
/// Paper    Goyal et al., Accurate, Large Minibatch SGD, arXiv:1706.02677, §2.2; their warm-up from η to
///          kη, whose target follows the batch, is `linear_scaling::warmup`.
/// @throws std::invalid_argument unless length ≥ 0 and finite, and from lies in [0, 1]
struct warmup {
  amount length;
  double from;

  explicit warmup(amount over, double start = 0) : length(over), from(start) {
    detail::expects_length("warmup", "length", over);
    detail::expects_0_to_1("warmup", "from", start);
  }

  [[nodiscard]] LIMBER_HD double operator()(progress const& p) const noexcept {
    return detail::between(from, 1, detail::fraction(p, length));
  }
};

/// Linear warm-up from 0, rate 1 for `stable`, then `decay`, any schedule with an end.
///
///     warmup_stable_decay(1000_steps, 8000_steps, cosine(1000_steps))
///
/// Paper    Hu et al., MiniCPM, arXiv:2404.06395.
/// @throws std::invalid_argument unless all three lengths are ≥ 0 and finite, and share one unit
template <finite_schedule S>
[[nodiscard]] auto warmup_stable_decay(amount warm, amount stable, S decay) {
  return warmup(warm) | lasting(stable, 1) | std::move(decay);
}

/// The same with a linear decay to `to`.
[[nodiscard]] inline auto warmup_stable_decay(amount warm, amount stable, amount decay, double to = 0) {
  return warmup_stable_decay(warm, stable, polynomial{.length = decay, .to = to});
}

}  // namespace limber
