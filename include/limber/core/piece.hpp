// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Where the tensors lie within one flat view.

#include <limber/core/config.hpp>

namespace limber {

/// A tensor, or a part of one that starts at a whole leaf of it, inside a flat view of several.
///
/// Lists of them are sorted and do not overlap; what lies between two is padding.
struct piece {
  i64 offset = 0;  ///< elements from the start of the view
  i64 length = 0;  ///< elements

  bool operator==(piece const&) const = default;
};

}  // namespace limber
