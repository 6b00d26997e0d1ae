// SPDX-License-Identifier: Apache-2.0
#include <Eigen/Dense>

int main() {}
