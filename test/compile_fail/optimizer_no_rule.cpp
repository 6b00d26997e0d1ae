// SPDX-License-Identifier: Apache-2.0
// expect: limber: optimizer: the rule is missing
// only
// The schedule is in its place.
#include "arguments.hpp"

int main() {
#ifdef CONTROL
  optimizer const opt{parameters, rule, rate, strategy, comm};
#else
  optimizer const opt{parameters, rate, strategy, comm};
#endif
}
