// SPDX-License-Identifier: Apache-2.0

/// @file
/// Trains on real processes that are killed, stopped and added, and accounts for every sample. `--help`
/// says how; worker.hpp is what a trainer's author wants to read.

#include "program.hpp"

#include <iostream>

int main(int argc, char** argv) { return example::elastic_processes(argc, argv, std::cerr); }
