// SPDX-License-Identifier: Apache-2.0
// Exits 0 when headers and package are of one version, what both translation units include works, and types
// are the same ones in the program and in the library, which may be a shared one.
#include "train.hpp"

#include <limber/comm/threads.hpp>
#include <limber/limber.hpp>

#include <atomic>
#include <cstdio>
#include <stdexcept>
#include <string>
#include <vector>

#if defined(FORM_compiled) != defined(LIMBER_COMPILED)
#error "linking limber::compiled, and that alone, defines LIMBER_COMPILED"
#endif

namespace {

// What the library throws is caught as what it is.
bool catches() {
  limber::self alone;
  alone.revoke("enough");
  bool engine = false, caller = false;
  try {
    alone.barrier();
  } catch (limber::error const& e) { engine = std::string(e.what()).find("enough") != std::string::npos; }
  std::vector<float> w(1), gradient(1);
  try {
    limber::optimizer const wrong{std::vector<limber::tensor>{{"w", w, gradient}}, limber::sgd{.momentum = 2},
                                  0.1, limber::sync::allreduce{}, alone};
  } catch (std::invalid_argument const& e) {
    caller = std::string(e.what()).find("momentum") != std::string::npos;
  }
  if (!engine || !caller) std::puts("an exception was not caught as its own type");
  return engine && caller;
}

}  // namespace

int main() {
  std::string const headers = std::to_string(LIMBER_VERSION_MAJOR) + "." +
                              std::to_string(LIMBER_VERSION_MINOR) + "." +
                              std::to_string(LIMBER_VERSION_PATCH);
  if (headers != PACKAGE_VERSION) {
    std::printf("headers say %s, the package says %s\n", headers.c_str(), PACKAGE_VERSION);
    return 1;
  }
  if (!catches()) return 1;
  std::atomic<int> learnt{0};
  limber::threads::run(2, [&](limber::threads::communicator& comm) {
    if (train(comm) < 0.05) ++learnt;
  });
  if (learnt != 2) std::printf("%d of 2 workers learnt\n", learnt.load());
  return learnt == 2 ? 0 : 1;
}
