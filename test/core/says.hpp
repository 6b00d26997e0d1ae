// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Checks of error messages: BOOST_CHECK_EXCEPTION(f(), std::invalid_argument, says("momentum", "1.5")).

#include <exception>
#include <string_view>

namespace limber::test {

/// A predicate: the message of an exception contains every part.
template <class... Parts>
[[nodiscard]] auto says(Parts... parts) {
  return [=](std::exception const& e) {
    std::string_view const text = e.what();
    return ((text.find(parts) != std::string_view::npos) && ...);
  };
}

}  // namespace limber::test
