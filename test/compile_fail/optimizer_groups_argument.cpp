// SPDX-License-Identifier: Apache-2.0
// expect: limber: optimizer: groups\(...\) takes limber::parameter_group
// only
// Tensors and rule go into one group.
#include "arguments.hpp"

int main() {
#ifdef CONTROL
  optimizer const opt{groups(parameter_group{parameters, rule}), rate, strategy, comm};
#else
  optimizer const opt{groups(parameters, rule), rate, strategy, comm};
#endif
}
