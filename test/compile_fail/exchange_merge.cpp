// SPDX-License-Identifier: Apache-2.0
// expect: limber: exchange: an argument after the first is no stage after the rule
// only
// One with a constructor alone, and one whose state does not exchange.
#include "arguments.hpp"

using sync::alone, sync::every, sync::everyone, sync::exchange, sync::gradients, sync::merge;

struct constructed {
  explicit constructed(int) {}
};
struct idle {
  struct state {};
  state start(sync::training_context&) const { return {}; }
};

int main() {
  auto const before = gradients(every{1}, alone{});
#ifdef CONTROL
  optimizer const opt{parameters, rule, rate, exchange(before, merge(every{4}, everyone{})), comm};
#else
  optimizer const opt{parameters, rule, rate, exchange(before, constructed(3)), comm};
  optimizer const second{parameters, rule, rate, exchange(before, merge(every{4}, everyone{}), idle{}), comm};
#endif
}
