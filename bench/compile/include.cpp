// SPDX-License-Identifier: Apache-2.0
// Only parsed; nothing is used.
#include <limber/limber.hpp>

int main() {}
