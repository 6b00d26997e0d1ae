// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The parameters of an optimizer in the order that everything below it uses.

#include <limber/core/tensor.hpp>
#include <limber/optimizer/groups.hpp>

#include <algorithm>
#include <numeric>
#include <string>
#include <string_view>
#include <tuple>
#include <vector>

namespace limber {

/// All tensors of all groups sorted by name, so that bits do not depend on the order of registration;
/// that order is kept beside, because buckets follow it.
///
/// Owns the names that every view below points to.
struct registry {
  std::vector<std::string> names;         ///< of the parameters, sorted
  tensor_list values, gradients;          ///< in the order of `names`
  std::vector<std::string> buffer_names;  ///< sorted
  tensor_list buffers;                    ///< in the order of `buffer_names`
  std::vector<i64> use_order;             ///< place in `names` of the first, second, … registered tensor

  /// @throws std::invalid_argument if there is no parameter, or one of them is not as `check` wants it
  template <class... R>
  explicit registry(parameter_groups<R...> const& parameters) {
    std::vector<tensor> all;
    auto collect = [&](auto const& list) {
      for (auto const& g : list) all.insert(all.end(), g.tensors.begin(), g.tensors.end());
    };
    std::apply([&](auto const&... of) { (collect(of), ...); }, parameters.of);
    expects(!all.empty(), "optimizer: the list of parameters is empty");
    check(all, true);
    check(parameters.buffers, false);

    std::vector<std::size_t> order(all.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::ranges::sort(order, {}, [&](std::size_t i) { return std::string_view(all[i].name); });
    use_order.resize(all.size());
    for (std::size_t k = 0; k < order.size(); ++k) {
      names.push_back(all[order[k]].name);
      use_order[order[k]] = static_cast<i64>(k);
    }
    for (std::size_t k = 0; k < order.size(); ++k) {
      values.push_back(named(all[order[k]].value, names[k]));
      gradients.push_back(named(all[order[k]].gradient, names[k]));
    }

    expect_disjoint(values, "values");
    expect_disjoint(gradients, "gradients");

    std::vector<tensor const*> sorted;
    for (auto const& b : parameters.buffers) {
      expects(!std::ranges::binary_search(names, b.name), "'", b.name, "' is a parameter and a buffer");
      sorted.push_back(&b);
    }
    std::ranges::sort(sorted, {}, [](tensor const* b) { return std::string_view(b->name); });
    for (auto const* b : sorted) buffer_names.push_back(b->name);
    for (std::size_t k = 0; k < sorted.size(); ++k)
      buffers.push_back(named(sorted[k]->value, buffer_names[k]));
  }

  /// Place in `names`. @throws std::invalid_argument naming `call` and the name, if there is none
  [[nodiscard]] i64 find(std::string_view call, std::string_view name) const {
    auto const t = std::ranges::lower_bound(names, name);
    expects(t != names.end() && *t == name, call, ": there is no parameter named '", name, "'");
    return t - names.begin();
  }
  /// Place in `names` of the parameter that was registered as number `index`, counting from 0.
  [[nodiscard]] i64 registered(std::string_view call, i64 index) const {
    auto const n = static_cast<i64>(use_order.size());
    expects(index >= 0 && index < n, call, ": there is no parameter ", index, "; there are ", n);
    return use_order[static_cast<std::size_t>(index)];
  }

  registry(registry&&) = default;
  registry& operator=(registry&&) = default;

 private:
  // A tied tensor would be updated twice.
  static void expect_disjoint(tensor_list list, std::string_view what) {
    std::erase_if(list, [](tensor_view const& t) { return t.length == 0; });
    std::ranges::sort(list, std::ranges::less{}, &tensor_view::data);
    for (std::size_t k = 1; k < list.size(); ++k)
      expects(list[k - 1].data + list[k - 1].bytes() <= list[k].data, "'", list[k - 1].name, "' and '",
              list[k].name, "' share memory (", what, "); a tied tensor is registered once");
  }

  [[nodiscard]] static tensor_view named(tensor_view v, std::string const& name) {
    return {v.data, v.length, v.type, name};
  }
};

}  // namespace limber
