// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <limber/sync/elastic_averaging.hpp>

namespace limber::sync {

LIMBER_FN exchange elastic_averaging::parts() const {
  return exchange(gradients(every{1}, alone{}), elastic_force(every{period}, moving_rate, at_merge));
}

}  // namespace limber::sync
