// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <limber/core/order.hpp>
#include <limber/fuse/parameter_lists.hpp>

namespace limber {

namespace detail {

// A tied tensor would be updated twice, and a gradient in its parameter's memory would overwrite it.
LIMBER_COLD LIMBER_FN void expect_disjoint(parameter_lists const& lists) {
  tensor_list uses;
  for (auto const* list : {&lists.values, &lists.gradients, &lists.buffers})
    for (auto const& v : *list) uses.push_back(v);
  auto const at = [&](i64 k) -> tensor_view const& { return uses[static_cast<std::size_t>(k)]; };
  auto const end = [&](i64 k) { return at(k).data + at(k).bytes(); };
  auto const what = [&, n = static_cast<i64>(lists.values.size())](i64 k) -> std::string_view {
    return k < n ? "values" : k < 2 * n ? "gradients" : "buffers";
  };
  i64 last = -1;  // the one that ends last so far
  for (i64 const k : sorted_order(uses.size(), [&](i64 a, i64 b) { return at(a).data < at(b).data; })) {
    if (at(k).length == 0) continue;
    if (last >= 0 && end(last) > at(k).data) {
      if (what(last) == what(k))
        expects(false, "'", at(last).name, "' and '", at(k).name, "' share memory (", what(k),
                "); a tied tensor is registered once");
      expects(false, "the ", what(last), " of '", at(last).name, "' and the ", what(k), " of '", at(k).name,
              "' share memory; each needs its own");
    }
    if (last < 0 || end(k) > end(last)) last = k;
  }
}

}  // namespace detail

LIMBER_COLD LIMBER_FN parameter_lists::parameter_lists(std::string_view who, std::vector<tensor> const& all,
                                                       std::vector<tensor> const& all_buffers) {
  expects(!all.empty(), who, ": the list of parameters is empty");
  check(all, true);
  check(all_buffers, false);

  auto const sorted = [](std::vector<tensor> const& list) {
    return detail::sorted_order(list.size(), [&](i64 a, i64 b) {
      return list[static_cast<std::size_t>(a)].name < list[static_cast<std::size_t>(b)].name;
    });
  };
  std::vector<i64> const order = sorted(all), order_of_buffers = sorted(all_buffers);
  use_order.resize(all.size());
  for (i64 const k : order) {
    use_order[static_cast<std::size_t>(k)] = static_cast<i64>(names.size());
    names.push_back(all[static_cast<std::size_t>(k)].name);
  }
  for (i64 const k : order_of_buffers) {
    buffer_names.push_back(all_buffers[static_cast<std::size_t>(k)].name);
    expects(place_of(buffer_names.back()) < 0, "'", buffer_names.back(), "' is a parameter and a buffer");
  }
  auto const add = [](tensor_list& to, tensor_view const& v, std::string const& name) {
    to.push_back({v.data, v.length, v.type, name});
  };
  for (std::size_t k = 0; k < order.size(); ++k) {
    tensor const& t = all[static_cast<std::size_t>(order[k])];
    add(values, t.value, names[k]);
    add(gradients, t.gradient, names[k]);
  }
  for (std::size_t k = 0; k < order_of_buffers.size(); ++k)
    add(buffers, all_buffers[static_cast<std::size_t>(order_of_buffers[k])].value, buffer_names[k]);
  detail::expect_disjoint(*this);
}

LIMBER_FN i64 parameter_lists::place_of(std::string_view name) const noexcept {
  std::size_t from = 0, to = names.size();
  while (from < to) {
    std::size_t const middle = from + (to - from) / 2;
    if (names[middle] < name)
      from = middle + 1;
    else
      to = middle;
  }
  return from < names.size() && names[from] == name ? static_cast<i64>(from) : -1;
}
LIMBER_FN i64 parameter_lists::find(std::string_view call, std::string_view name) const {
  i64 const t = place_of(name);
  expects(t >= 0, call, ": there is no parameter named '", name, "'");
  return t;
}

LIMBER_FN i64 parameter_lists::registered(std::string_view call, i64 index) const {
  auto const n = static_cast<i64>(use_order.size());
  expects(index >= 0 && index < n, call, ": there is no parameter ", index, "; there are ", n);
  return use_order[static_cast<std::size_t>(index)];
}

LIMBER_COLD LIMBER_FN void parameter_lists::move_gradients(std::vector<tensor_view> const& to) {
  expects(to.size() == gradients.size(), "move_gradients: ", to.size(), " gradients for ", gradients.size(),
          " parameters");
  for (std::size_t k = 0; k < to.size(); ++k) {
    tensor_view& g = gradients[static_cast<std::size_t>(use_order[k])];
    expects(to[k].length == g.length, "move_gradients: '", g.name, "' has ", g.length, " elements, got ",
            to[k].length);
    expects(to[k].type == g.type, "move_gradients: '", g.name, "' is ", name_of(g.type), ", got ",
            name_of(to[k].type));
    expects(g.length == 0 || to[k].data != nullptr, "move_gradients: '", g.name, "' is a null pointer");
    g.data = to[k].data;
  }
}

}  // namespace limber
