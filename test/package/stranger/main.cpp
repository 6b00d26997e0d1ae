// SPDX-License-Identifier: Apache-2.0
// Exits 0 when headers and package are of one version and the two translation units agree.
#include "rates.hpp"

#include <limber/core/version.hpp>
#include <limber/schedule/schedule.hpp>

#include <cstdio>
#include <string>

int main() {
  std::string const headers = std::to_string(LIMBER_VERSION_MAJOR) + "." +
                              std::to_string(LIMBER_VERSION_MINOR) + "." +
                              std::to_string(LIMBER_VERSION_PATCH);
  if (headers != PACKAGE_VERSION) {
    std::printf("headers say %s, the package says %s\n", headers.c_str(), PACKAGE_VERSION);
    return 1;
  }
  limber::progress const early{.steps = 9}, late{.steps = 10};
  if (rate(early) != 0.1 || rate(late) != 0.05) {
    std::printf("rates %g and %g\n", rate(early), rate(late));
    return 1;
  }
  return 0;
}
