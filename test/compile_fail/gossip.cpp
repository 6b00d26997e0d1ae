// SPDX-License-Identifier: Apache-2.0
// expect: limber: optimizer: this strategy needs messages between two ranks \(send, recv\)
// only
// Asked for at compile time: partners exchange models without the others.
#include "arguments.hpp"

#include <limber/sync/gossip.hpp>

int main() {
#ifdef CONTROL
  optimizer const opt{parameters, rule, rate, sync::gossip{}, comm};
#else
  optimizer const opt{parameters, rule, rate, sync::gossip{}, plain_comm};
#endif
}
