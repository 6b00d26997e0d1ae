// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <limber/rule/sgd.hpp>
#include <limber/sync/streaming_diloco.hpp>

namespace limber::sync {

LIMBER_FN exchange streaming_diloco::parts() const {
  sgd const outer{.momentum = outer_momentum, .nesterov = outer_momentum > 0};
  return exchange(gradients(every{1}, alone{}),
                  streaming(stream{period, fragments, late, mixing, wire}, outer, outer_lr, at_merge));
}

}  // namespace limber::sync
