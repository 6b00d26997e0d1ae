// SPDX-License-Identifier: Apache-2.0
// Which synchronisation strategy fits a cluster? Tries them all on a virtual one, with real gradients.
#include "program.hpp"

#include <iostream>

int main(int argc, char** argv) { return example::which_strategy(argc, argv, std::cerr); }
