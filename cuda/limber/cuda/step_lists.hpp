// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The tensors of a fused step, sorted by name, with the order of registration beside.

#include <limber/core/tensor.hpp>
#include <limber/cuda/advance.hpp>
#include <limber/fuse/updater.hpp>
#include <limber/rule/rule.hpp>

#include <algorithm>
#include <memory>
#include <numeric>
#include <string>
#include <string_view>
#include <vector>

namespace limber::gpu {

/// Lists in the order that norms are added in. Owns the names that the views point to.
struct step_lists {
  std::vector<std::string> names;  ///< sorted
  tensor_list values, gradients;   ///< in the order of `names`
  std::vector<i64> use_order;      ///< place in `names` of the first, second, … registered tensor

  /// @throws std::invalid_argument if there is no parameter, or one is not as `check` wants it
  template <update_rule... R>
  explicit step_lists(group<R> const&... groups) {
    std::vector<tensor> all;
    (all.insert(all.end(), groups.tensors.begin(), groups.tensors.end()), ...);
    expects(!all.empty(), "fused_step: the list of parameters is empty");
    check(all, true);
    std::vector<std::size_t> order(all.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::ranges::sort(order, {}, [&](std::size_t i) { return std::string_view(all[i].name); });
    use_order.resize(all.size());
    names.reserve(all.size());
    for (std::size_t k = 0; k < order.size(); ++k) {
      tensor const& t = all[order[k]];
      names.push_back(t.name);
      use_order[order[k]] = static_cast<i64>(k);
      values.push_back({t.value.data, t.value.length, t.value.type, names[k]});
      gradients.push_back({t.gradient.data, t.gradient.length, t.gradient.type, names[k]});
    }
  }

  step_lists(step_lists&&) = delete;

  void move_gradients(std::vector<tensor_view> const& to) {
    expects(to.size() == gradients.size(), "move_gradients: ", to.size(), " gradients for ", gradients.size(),
            " parameters");
    for (std::size_t k = 0; k < to.size(); ++k) {
      tensor_view& g = gradients[static_cast<std::size_t>(use_order[k])];
      expects(to[k].length == g.length, "move_gradients: '", g.name, "' has ", g.length, " elements, got ",
              to[k].length);
      expects(to[k].type == g.type, "move_gradients: '", g.name, "' is ", limber::name_of(g.type), ", got ",
              limber::name_of(to[k].type));
      expects(g.length == 0 || to[k].data != nullptr, "move_gradients: '", g.name, "' is a null pointer");
      g.data = to[k].data;
    }
  }
};

namespace detail {

inline void fill_counters(counters_of<>&, auto const&) {}
template <class First, class... Rest, class U>
void fill_counters(counters_of<First, Rest...>& out, U const& u) {
  out.counters = u.template counters<First>();
  out.tensors = u.template seen<First>().n;
  fill_counters(out.rest, u);
}

}  // namespace detail

/// The counters of all rule types of an updater, for a control kernel.
template <update_rule... R>
[[nodiscard]] detail::counters_of<R...> step_counters(updater<R...> const& u) {
  detail::counters_of<R...> out{};
  detail::fill_counters(out, u);
  return out;
}

}  // namespace limber::gpu
