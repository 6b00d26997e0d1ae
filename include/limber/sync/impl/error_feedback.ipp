// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <limber/core/error.hpp>
#include <limber/fuse/functors.hpp>
#include <limber/sync/error_feedback.hpp>

#include <cstddef>
#include <utility>

namespace limber::sync {

LIMBER_FN void error_feedback::allocate(any_executor& e, tensor_list const& gradients) {
  residual_ = e.make(layout_of(gradients));
}

LIMBER_FN void error_feedback::rescale(any_executor& e, slab& next, double planned) {
  double const before = std::exchange(planned_, planned);
  if (before == planned || before == 0) return;
  e.each(scaled_copy{before / planned}, out(next.parts), in(residual_.parts));
  std::swap(residual_.parts, next.parts);
}

LIMBER_FN void error_feedback::commit(slab& next, updater const& inner) {
  for (std::size_t i = 0; i < residual_.parts.size(); ++i)
    if (!inner.is_frozen(i)) std::swap(residual_.parts[i], next.parts[i]);
}

LIMBER_FN void error_feedback::visit(view_visitor replicated, view_visitor partial) {
  if (!kept()) return;
  replicated(
      "error/planned",
      tensor_view{
          reinterpret_cast<std::byte*>(&planned_), static_cast<i64>(sizeof planned_), dtype::uint8, {}});
  for (auto const& t : residual_.parts) partial(text("error/", t.name), t);
}

}  // namespace limber::sync
