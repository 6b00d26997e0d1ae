// SPDX-License-Identifier: Apache-2.0
// Exits 0 when headers and package are of one version and what both translation units include works.
#include "train.hpp"

#include <limber/limber.hpp>

#include <atomic>
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
  std::atomic<int> learnt{0};
  limber::threads::run(2, [&](limber::threads::communicator& comm) {
    if (train(comm) < 0.05) ++learnt;
  });
  if (learnt != 2) std::printf("%d of 2 workers learnt\n", learnt.load());
  return learnt == 2 ? 0 : 1;
}
