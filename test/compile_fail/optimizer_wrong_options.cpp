// SPDX-License-Identifier: Apache-2.0
// expect: limber: optimizer: what follows the communicator are limber::options
// only
// An executor comes after the options, a policy is one of them.
#include "arguments.hpp"

int main() {
#ifdef CONTROL
  optimizer const opt{parameters, rule, rate, strategy, comm, {}, host{2}};
#else
  optimizer const opt{parameters, rule, rate, strategy, comm, host{2}};
  optimizer const policy{parameters, rule, rate, strategy, comm, per_worker{32}};
  optimizer const of_groups{groups(parameter_group{parameters, rule}), rate, strategy, comm, host{2}};
#endif
}
