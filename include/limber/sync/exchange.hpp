// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// A strategy: one path with two stages. Gradients may be communicated before the rule, models after it.

#include <limber/sync/gradients.hpp>
#include <limber/sync/merge.hpp>
#include <limber/sync/plain_stage.hpp>
#include <limber/sync/stage.hpp>

#include <concepts>
#include <string>
#include <vector>

namespace limber::sync {

namespace detail {

/// True if an exchange can be made of these. Else it does not compile, and says why in one sentence.
template <class Gradients, class... Merges>
constexpr bool expect_stages() {
  constexpr bool first = starts_gradient_stage<Gradients>, merges = (starts_model_stage<Merges> && ...);
  static_assert(first || !starts_model_stage<Gradients>,
                "limber: exchange: the first argument is a stage after the rule; what happens to gradients "
                "comes first, for example gradients(every{1}, alone{})");
  static_assert(
      first || starts_model_stage<Gradients>,
      "limber: exchange: the first argument is no stage before the rule: it must be copyable and have a "
      "const member start(training_context&), which returns a state with step(training_context&, samples)");
  static_assert(
      !first || merges,
      "limber: exchange: an argument after the first is no stage after the rule: it must be copyable and "
      "have a const member start(training_context&), which returns a state with exchange(training_context&)");
  return first && merges;
}

template <bool IsStage, class G>
[[nodiscard]] decltype(auto) stage_or_anything(G const& g) {
  if constexpr (IsStage)
    return (g);
  else
    return limber::detail::anything{};
}

}  // namespace detail

/// gradients → rule → merges, finest first. When several merges are due, only the coarsest is made: it
/// subsumes the others.
///
///     exchange(gradients(every{1}, everyone{}))                                     all-reduce
///     exchange(gradients(every{1}, alone{}), merge(every{16}, everyone{}))          local SGD
struct exchange {
  any_gradient_stage before;
  std::vector<any_model_stage> after;

  template <class Gradients, class... Merges>
    requires(!std::same_as<Gradients, exchange>)
  explicit exchange(Gradients const& g, Merges const&... merges)
      : before(detail::stage_or_anything<detail::expect_stages<Gradients, Merges...>()>(g)) {
    if constexpr ((starts_model_stage<Merges> && ...)) {
      after.reserve(sizeof...(Merges));
      (after.emplace_back(merges), ...);
    }
  }

  /// An exchange is a strategy itself.
  [[nodiscard]] exchange const& parts() const noexcept { return *this; }

  /// The rank that serves the others instead of training; −1: none.
  [[nodiscard]] int server() const noexcept {
    int rank = before.facts().server;
    for (auto const& m : after)
      if (m.facts().server >= 0) rank = m.facts().server;
    return rank;
  }
  /// How many of `workers` have a part in one update.
  [[nodiscard]] i64 contributors(i64 workers) const noexcept {
    return before.facts().contributors > 0 ? before.facts().contributors : workers;
  }
  /// True if a stage's timing measures progress in epochs.
  [[nodiscard]] bool counts_epochs() const noexcept {
    bool any = before.facts().counts_epochs;
    for (auto const& m : after) any = any || m.facts().counts_epochs;
    return any;
  }
  /// What it needs of a collective and one with these capabilities lacks, in words; "": nothing is missing.
  [[nodiscard]] std::string missing(capabilities has) const {
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
};

}  // namespace limber::sync
