// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <limber/sync/abs_sgd.hpp>

namespace limber::sync {

LIMBER_FN exchange abs_sgd::parts() const {
  return exchange(delayed{{1, max_micro_batches}, {}, rate, rate_limit, log, replay});
}

}  // namespace limber::sync
