// SPDX-License-Identifier: Apache-2.0
#include "rates.hpp"

#include <limber/schedule/schedule.hpp>

double rate(limber::progress const& at) {
  auto const halving = [](limber::progress const& p) { return p.steps < 10 ? 0.1 : 0.05; };
  static_assert(limber::schedule<decltype(halving)>);
  return halving(at);
}
