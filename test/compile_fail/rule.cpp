// SPDX-License-Identifier: Apache-2.0
// expect: update_rule
// A type that names no slots and folds no rate in is refused where it is used, by the contract's name.
#include <limber/rule/descent.hpp>

struct hyper_parameters {
  double momentum = 0.9;
};

#ifdef CONTROL
using candidate = limber::descent;
#else
using candidate = hyper_parameters;
#endif

int main() { return limber::slots_used(candidate{}); }
