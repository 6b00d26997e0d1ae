// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <limber/sync/exchange.hpp>

#include <string>

namespace limber::sync {

LIMBER_FN int exchange::server() const noexcept {
  int rank = before.facts().server;
  for (auto const& m : after)
    if (m.facts().server >= 0) rank = m.facts().server;
  return rank;
}

LIMBER_FN i64 exchange::contributors(i64 workers) const noexcept {
  return before.facts().contributors > 0 ? before.facts().contributors : workers;
}

LIMBER_FN bool exchange::counts_epochs() const noexcept {
  bool any = before.facts().counts_epochs;
  for (auto const& m : after) any = any || m.facts().counts_epochs;
  return any;
}

LIMBER_FN std::string exchange::missing(capabilities has) const {
  capabilities lacks = 0, one_of = 0;
  auto const look = [&](detail::stage_facts const& f) {
    lacks |= f.needs & ~has;
    if ((f.needs_one_of & has) == 0) one_of |= f.needs_one_of;
  };
  look(before.facts());
  for (auto const& m : after) look(m.facts());
  std::string out = lacks != 0 ? limber::describe(lacks) : std::string();
  for (capabilities bit = 1; bit <= one_of; bit *= 2)
    if ((one_of & bit) != 0) out += (out.empty() ? "" : " or ") + limber::describe(bit);
  return out;
}

}  // namespace limber::sync
