// SPDX-License-Identifier: Apache-2.0
// expect: limber: exchange: the first argument is no stage before the rule
// only
// One with a constructor alone, and one whose state does not step.
#include "arguments.hpp"

using sync::everyone, sync::every, sync::exchange;

struct constructed {
  explicit constructed(int) {}
};
struct idle {
  struct state {};
  state start(sync::training_context&) const { return {}; }
};

int main() {
#ifdef CONTROL
  optimizer const opt{parameters, rule, rate, exchange(sync::gradients(every{1}, everyone{})), comm};
#else
  optimizer const opt{parameters, rule, rate, exchange(constructed(3)), comm};
  optimizer const second{parameters, rule, rate, exchange(idle{}), comm};
#endif
}
