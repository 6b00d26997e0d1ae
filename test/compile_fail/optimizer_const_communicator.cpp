// SPDX-License-Identifier: Apache-2.0
// expect: limber: optimizer: the communicator is const, and communicating changes it
// only
// Its operations are not const.
#include "arguments.hpp"

int main() {
#ifdef CONTROL
  optimizer const opt{parameters, rule, rate, strategy, comm};
#else
  self const fixed;
  optimizer const opt{parameters, rule, rate, strategy, fixed};
#endif
}
