// SPDX-License-Identifier: Apache-2.0
// expect: satisfy|constraint
// A schedule is called with a progress; a function of the bare step number is none.
#include <limber/schedule/schedule.hpp>

template <limber::schedule S>
double rate_at_start(S const& s) {
  return s(limber::progress{});
}

int main() {
#ifdef CONTROL
  auto const constant = [](limber::progress const&) { return 0.1; };
#else
  auto const constant = [](limber::i64 step) { return 0.1 * static_cast<double>(step); };
#endif
  return rate_at_start(constant) > 0 ? 0 : 1;
}
