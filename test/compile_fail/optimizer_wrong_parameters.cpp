// SPDX-License-Identifier: Apache-2.0
// expect: limber: optimizer: the 1st argument is no list of parameters
// only
// The values alone, and one tensor without a list.
#include "arguments.hpp"

int main() {
#ifdef CONTROL
  optimizer const opt{parameters, rule, rate, strategy, comm};
#else
  optimizer const opt{w, rule, rate, strategy, comm};
  optimizer const one{tensor{"w", w, g}, rule, rate, strategy, comm, {.epoch_size = 4}};
#endif
}
