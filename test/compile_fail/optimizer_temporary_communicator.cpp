// SPDX-License-Identifier: Apache-2.0
// expect: limber: optimizer: the communicator is a temporary that is gone after this line
// only
// It must outlive the optimizer; a handle may be a temporary.
#include "arguments.hpp"

int main() {
#ifdef CONTROL
  optimizer const opt{parameters, rule, rate, strategy, communicator(comm)};
#else
  optimizer const opt{parameters, rule, rate, strategy, self{}};
#endif
}
