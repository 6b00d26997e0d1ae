// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <limber/fuse/norm_report.hpp>

namespace limber {

LIMBER_FN void read_norms(norm_memory const& m, norm_report& out, int sum) {
  auto const at = static_cast<std::size_t>(sum) * static_cast<std::size_t>(m.tensors + 1);
  bool const any_wide = m.facts(sum).any_wide;
  if (std::ssize(out.tensors) != m.tensors) out.tensors.resize(static_cast<std::size_t>(m.tensors));
  out.culprit = -1;
  auto read = [](auto const& x) {
    return norm_report::entry{value_of(x.sum), static_cast<double>(x.root), x.sum.finite()};
  };
  for (std::size_t t = 0; t < out.tensors.size(); ++t) {
    out.tensors[t] = m.is_wide[t] != 0 ? read(m.wide[at + t]) : read(m.narrow[at + t]);
    if (!out.tensors[t].finite && out.culprit < 0) out.culprit = static_cast<i64>(t);
  }
  auto const last = at + static_cast<std::size_t>(m.tensors);
  out.total = any_wide ? read(m.wide[last]) : read(m.narrow[last]);
}

}  // namespace limber
