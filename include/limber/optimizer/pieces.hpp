// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// All state of a training run, piece by piece, in the order in which it is handed over.

#include <limber/core/fingerprint.hpp>
#include <limber/core/kinds.hpp>
#include <limber/optimizer/handover.hpp>
#include <limber/optimizer/options.hpp>

#include <cstdint>
#include <string>

namespace limber::detail {

/// Of all that must be equal on all ranks and can be compared before anything is exchanged.
template <class Site, class State>
[[nodiscard]] std::uint64_t fingerprint_of(Site const& at, State& strategy, options const& o) {
  fingerprint h;
  strategy.mix(h);
  at.inner.mix(h);
  mix(h, o);
  return h.value();
}

/// Calls f(state_piece): progress, the strategy's control and rounds, the model, buffers, rule state. Which
/// pieces there are, and of what kind, may depend on those before.
template <class Site, class State, class F>
void visit_pieces(Site& at, State& strategy, F const& f) {
  f(progress_piece(at.now));
  strategy.visit([&](std::string const& name, kept how, tensor_view v) { f(state_piece{name, how, v}); });
  // All start from one model, also where they never hold the same one again.
  bool const untouched = at.now.calls == 0 && !strategy.open();
  kept const model = untouched ? kept::alike : strategy.model_kept();
  for (auto const& v : at.inner.values()) f(state_piece{text("parameter/", v.name), model, v});
  for (auto const& v : at.buffers) f(state_piece{text("buffer/", v.name), strategy.buffers_kept(), v});
  at.inner.visit("", [&](std::string const& name, tensor_view v, bool weight) {
    f(state_piece{name, weight ? model : State::agreed ? kept::alike : kept::apart, v});
  });
}

}  // namespace limber::detail
