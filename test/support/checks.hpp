// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Checks from several threads at once: Boost.Test's own are for one.

#include <boost/test/unit_test.hpp>

#include <exception>
#include <mutex>
#include <string>

namespace limber::testing {

[[nodiscard]] inline std::mutex& check_mutex() {
  static std::mutex m;
  return m;
}

/// The message of what f throws; empty if it throws nothing.
template <class F>
[[nodiscard]] std::string message_of(F const& f) {
  try {
    f();
  } catch (std::exception const& e) { return e.what(); }
  return {};
}

/// The text contains every part.
template <class... Parts>
[[nodiscard]] bool has(std::string const& text, Parts const&... parts) {
  return ((text.find(parts) != std::string::npos) && ...);
}

}  // namespace limber::testing

/// BOOST_TEST for code that runs on several threads. The expression must not block.
#define LIMBER_CHECK(...)                                                 \
  do {                                                                    \
    bool const limber_ok = static_cast<bool>(__VA_ARGS__);                \
    std::scoped_lock const limber_lock(::limber::testing::check_mutex()); \
    BOOST_TEST(limber_ok, #__VA_ARGS__);                                  \
  } while (false)
