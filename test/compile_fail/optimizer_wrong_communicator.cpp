// SPDX-License-Identifier: Apache-2.0
// expect: limber: optimizer: the communicator models no limber::collective
// only
// A text, a number, and a pointer to a communicator.
#include "arguments.hpp"

int main() {
#ifdef CONTROL
  optimizer const opt{parameters, rule, rate, strategy, comm};
#else
  std::string const address = "localhost";
  optimizer const opt{parameters, rule, rate, strategy, address};
  optimizer const number{parameters, rule, rate, strategy, 2};
  optimizer const pointer{parameters, rule, rate, strategy, &comm};
#endif
}
