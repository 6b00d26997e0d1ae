// SPDX-License-Identifier: Apache-2.0
// The unit of comparison: five headers of the standard library.
#include <algorithm>
#include <functional>
#include <memory>
#include <string>
#include <vector>

int main() {}
