// SPDX-License-Identifier: Apache-2.0
// expect: limber: optimizer: this strategy needs a communicator that can be split into groups
// only
// Asked for at compile time: blocks are parts of a collective.
#include "arguments.hpp"

int main() {
#ifdef CONTROL
  optimizer const opt{parameters, rule, rate, sync::hierarchical{1, 4, 4}, comm};
#else
  optimizer const opt{parameters, rule, rate, sync::hierarchical{1, 4, 4}, plain_comm};
#endif
}
