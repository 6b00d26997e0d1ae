// SPDX-License-Identifier: Apache-2.0
#include <limber/cuda/launch_plan.hpp>

int main() { return limber::gpu::launch_plan{}.slots() == 0 ? 0 : 1; }
