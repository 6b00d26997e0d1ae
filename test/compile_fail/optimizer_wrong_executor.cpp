// SPDX-License-Identifier: Apache-2.0
// expect: limber: optimizer: the last argument is no executor
// only
// A number of threads is none: host{3} is.
#include "arguments.hpp"

int main() {
#ifdef CONTROL
  optimizer const opt{parameters, rule, rate, strategy, comm, {}, host{3}};
#else
  optimizer const opt{parameters, rule, rate, strategy, comm, {}, 3};
#endif
}
