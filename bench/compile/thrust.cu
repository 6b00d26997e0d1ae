// SPDX-License-Identifier: Apache-2.0
#include <thrust/device_vector.h>

int main() {}
