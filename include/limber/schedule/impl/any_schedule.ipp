// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <limber/schedule/any_schedule.hpp>

namespace limber {

LIMBER_FN bool any_schedule::counts_epochs() const {
  bool found = false;
  each_amount([&found](amount a) { found = found || a.in == unit::epochs; });
  return found;
}

}  // namespace limber
