// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Tensors of many kinds with made-up gradients, for tests of what crosses the wire.

#include <limber/limber.hpp>

#include <cstddef>
#include <cstring>
#include <random>
#include <string>
#include <utility>
#include <vector>

namespace limber::testing {

/// Six tensors, in the order of registration: one longer than two leaves, one without elements, a double.
struct wire_model {
  std::vector<float> a = std::vector<float>(3000), b = std::vector<float>(7), c = std::vector<float>(9000),
                     none, e = std::vector<float>(40);
  std::vector<double> d = std::vector<double>(50);
  std::vector<float> ga = a, gb = b, gc = c, gnone, ge = e;
  std::vector<double> gd = d;

  [[nodiscard]] std::vector<tensor> parameters() {
    return {{"embedding", a, ga},  {"bias", b, gb},   {"wide", c, gc},
            {"none", none, gnone}, {"double", d, gd}, {"attention", e, ge}};
  }
  static constexpr std::size_t tensors = 6;

  /// A gradient that depends on rank and call alone.
  void backward(int rank, int call) {
    std::mt19937 random(static_cast<unsigned>(1000 * call + rank));
    std::normal_distribution<float> normal;
    for (auto* g : {&ga, &gb, &gc, &ge})
      for (float& x : *g) x = normal(random);
    for (double& x : gd) x = static_cast<double>(normal(random));
  }

  [[nodiscard]] std::vector<double> all() const {
    std::vector<double> out(d);
    for (auto const* w : {&a, &b, &c, &e}) out.insert(out.end(), w->begin(), w->end());
    return out;
  }
};

/// Every piece of state of an optimizer whose name starts with `prefix`, as bytes.
template <class Optimizer>
[[nodiscard]] std::vector<std::pair<std::string, std::vector<std::byte>>> state_of(Optimizer& opt,
                                                                                   std::string_view prefix) {
  std::vector<std::pair<std::string, std::vector<std::byte>>> out;
  opt.visit([&](state_piece const& p) {
    if (p.name.starts_with(prefix)) out.push_back({p.name, {p.data.data, p.data.data + p.data.bytes()}});
  });
  return out;
}

}  // namespace limber::testing
