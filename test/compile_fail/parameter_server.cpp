// SPDX-License-Identifier: Apache-2.0
// expect: limber: optimizer: this strategy needs a mailbox \(post, poll, listen\)
// only
// Asked for at compile time: a collective without messages cannot have a server.
#include "arguments.hpp"

#include <limber/sync/parameter_server.hpp>

int main() {
#ifdef CONTROL
  optimizer const opt{parameters, rule, rate, sync::parameter_server{}, comm};
#else
  optimizer const opt{parameters, rule, rate, sync::parameter_server{}, plain_comm};
#endif
}
