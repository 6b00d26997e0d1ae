// SPDX-License-Identifier: Apache-2.0
// expect: limber: needs C\+\+20
// first
// flags: -std=c++17
// The first line that an older language reports, and the last but one.
#include <limber/limber.hpp>

int main() { return 0; }
