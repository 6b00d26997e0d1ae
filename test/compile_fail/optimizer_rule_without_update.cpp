// SPDX-License-Identifier: Apache-2.0
// expect: limber: optimizer: the rule has no update\(...\) that takes its coefficients
// only
// The concept asks for coefficients; this is asked where the slots are known.
#include "arguments.hpp"

struct plain_rule {
  static constexpr std::array<slot, 0> slots{};
  template <class T>
  T at(update_facts f) const {
    return static_cast<T>(f.rate);
  }
#ifdef CONTROL
  template <class T>
  static T update(T rate, T p, T g) {
    return p - rate * g;
  }
#else
  template <class T>
  static T update(T p, T g) {
    return p - g;
  }
#endif
};

int main() { optimizer const opt{parameters, plain_rule{}, rate, strategy, comm}; }
