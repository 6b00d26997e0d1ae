// SPDX-License-Identifier: Apache-2.0

/// @file
/// Trains a real model on real input while its set of workers grows and shrinks. `--help` says how;
/// train.hpp is what a trainer's author wants to read.

#include "program.hpp"

#include <iostream>

int main(int argc, char** argv) { return example::run(argc, argv, std::cerr); }
