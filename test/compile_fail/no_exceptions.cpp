// SPDX-License-Identifier: Apache-2.0
// expect: limber: needs exceptions
// first
// flags: -fno-exceptions
// Errors are thrown.
#include <limber/limber.hpp>

int main() { return 0; }
