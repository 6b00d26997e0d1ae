// SPDX-License-Identifier: Apache-2.0

/// @file
/// The main job on GPUs. `--help` says how; trainer.cu is what a trainer's author wants to read.

#include "program.hpp"

#include <iostream>

int main(int argc, char** argv) { return example::run_gpu(argc, argv, std::cerr); }
