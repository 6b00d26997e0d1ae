// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <limber/core/function_ref.hpp>
#include <limber/fuse/parameter_lists.hpp>

#include <algorithm>

namespace limber {

namespace detail {

/// A run of memory, and what it is for.
struct memory_use {
  std::byte const* begin;
  std::byte const* end;
  std::string_view name;
  std::string_view what;
};

// 0, 1, …, n − 1, sorted by before(i, j): a heap sort, of which a unit compiles a tenth of std::sort.
[[nodiscard]] LIMBER_COLD LIMBER_FN std::vector<std::size_t> sorted_order(
    std::size_t n, function_ref<bool(std::size_t, std::size_t)> before) {
  std::vector<std::size_t> order(n);
  auto const sink = [&](std::size_t at, std::size_t end) {
    for (std::size_t child = 2 * at + 1; child < end; child = 2 * (at = child) + 1) {
      if (child + 1 < end && before(order[child], order[child + 1])) ++child;
      if (!before(order[at], order[child])) return;
      std::swap(order[at], order[child]);
    }
  };
  for (std::size_t k = 0; k < n; ++k) order[k] = k;
  for (std::size_t k = n / 2; k > 0; --k) sink(k - 1, n);
  for (std::size_t end = n; end > 1; --end) {
    std::swap(order[0], order[end - 1]);
    sink(0, end - 1);
  }
  return order;
}

// A tied tensor would be updated twice, and a gradient in its parameter's memory would overwrite it.
LIMBER_COLD LIMBER_FN void expect_disjoint(std::vector<memory_use> const& uses) {
  auto const order =
      sorted_order(uses.size(), [&](std::size_t i, std::size_t j) { return uses[i].begin < uses[j].begin; });
  std::size_t last = 0;  // the one that ends last so far
  for (std::size_t k = 1; k < order.size(); ++k) {
    memory_use const &a = uses[order[last]], &b = uses[order[k]];
    if (a.end > b.begin) {
      if (a.what == b.what)
        expects(false, "'", a.name, "' and '", b.name, "' share memory (", a.what,
                "); a tied tensor is registered once");
      expects(false, "the ", a.what, " of '", a.name, "' and the ", b.what, " of '", b.name,
              "' share memory; each needs its own");
    }
    if (b.end > a.end) last = k;
  }
}

}  // namespace detail

LIMBER_COLD LIMBER_FN parameter_lists::parameter_lists(std::string_view who, std::vector<tensor> const& all,
                                                       std::vector<tensor> const& all_buffers) {
  expects(!all.empty(), who, ": the list of parameters is empty");
  check(all, true);
  check(all_buffers, false);

  auto const order = detail::sorted_order(
      all.size(), [&](std::size_t a, std::size_t b) { return all[a].name < all[b].name; });
  use_order.resize(all.size());
  for (std::size_t k = 0; k < order.size(); ++k) {
    names.push_back(all[order[k]].name);
    use_order[order[k]] = static_cast<i64>(k);
  }
  for (auto const& b : all_buffers)
    expects(!std::binary_search(names.begin(), names.end(), b.name), "'", b.name,
            "' is a parameter and a buffer");
  auto const sorted = detail::sorted_order(all_buffers.size(), [&](std::size_t a, std::size_t b) {
    return all_buffers[a].name < all_buffers[b].name;
  });
  for (std::size_t const k : sorted) buffer_names.push_back(all_buffers[k].name);

  std::vector<detail::memory_use> uses;
  auto const add = [&](tensor_list& to, tensor_view const& v, std::string const& name,
                       std::string_view what) {
    to.push_back({v.data, v.length, v.type, name});
    if (v.length > 0) uses.push_back({v.data, v.data + v.bytes(), name, what});
  };
  for (std::size_t k = 0; k < order.size(); ++k) {
    add(values, all[order[k]].value, names[k], "values");
    add(gradients, all[order[k]].gradient, names[k], "gradients");
  }
  for (std::size_t k = 0; k < sorted.size(); ++k)
    add(buffers, all_buffers[sorted[k]].value, buffer_names[k], "buffers");
  detail::expect_disjoint(uses);
}

LIMBER_FN i64 parameter_lists::find(std::string_view call, std::string_view name) const {
  auto const t = std::lower_bound(names.begin(), names.end(), name);
  expects(t != names.end() && *t == name, call, ": there is no parameter named '", name, "'");
  return t - names.begin();
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
