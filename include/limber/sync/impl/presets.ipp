// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <limber/rule/sgd.hpp>
#include <limber/sync/presets.hpp>

namespace limber::sync {

LIMBER_FN exchange allreduce::parts() const { return exchange(gradients(every{period}, everyone{})); }

LIMBER_FN exchange local::parts() const {
  return exchange(gradients(every{1}, alone{}),
                  merge(every_after{from, period}, everyone{}, descent{}, 1, at_merge));
}

LIMBER_FN exchange hierarchical::parts() const {
  return exchange(gradients(every{1}, alone{}),
                  merge(every{period}, block{block_size}, descent{}, 1, at_merge),
                  merge(every{period * block_periods}, everyone{}, descent{}, 1, at_merge));
}

LIMBER_FN exchange slowmo::parts() const {
  return exchange(gradients(every{1}, alone{}), merge(every{period}, everyone{}, sgd{.momentum = beta}, alpha,
                                                      at_merge, outer_rate::per_rate));
}

LIMBER_FN exchange diloco::parts() const {
  sgd const outer{.momentum = outer_momentum, .nesterov = outer_momentum > 0};
  return exchange(gradients(every{1}, alone{}), merge(every{period}, everyone{}, outer, outer_lr, at_merge));
}

LIMBER_FN exchange lookahead::parts() const {
  return exchange(gradients(every{1}, everyone{}), merge(every{period}, alone{}, descent{}, alpha, at_merge));
}

}  // namespace limber::sync
