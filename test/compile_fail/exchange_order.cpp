// SPDX-License-Identifier: Apache-2.0
// expect: limber: exchange: the first argument is a stage after the rule
// only
// Gradients come first, merges after them.
#include "arguments.hpp"

using sync::alone, sync::every, sync::everyone, sync::exchange, sync::gradients, sync::merge;

int main() {
#ifdef CONTROL
  exchange const how(gradients(every{1}, alone{}), merge(every{4}, everyone{}));
#else
  exchange const how(merge(every{4}, everyone{}), gradients(every{1}, alone{}));
#endif
  optimizer const opt{parameters, rule, rate, how, comm};
}
