// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The host executor, seen as one whose reports come later.

#include <limber/fuse/host.hpp>

namespace limber::testing {

/// Runs functors as `host` does, but lets nobody know at once: what is deferred must then be decided by
/// the functors themselves. News arrives `lag` questions late.
struct late_host : host {
  static constexpr bool deferred = true;
  int lag = 0;
  int published = 0;
  int asked = 0;

  template <class T>
  void publish(shared_array<T> const&) noexcept {
    ++published;
  }
  template <class T>
  void fetch(shared_array<T> const&) const noexcept {}
  [[nodiscard]] int record() noexcept { return asked = 0; }
  void wait(int) const noexcept {}
  [[nodiscard]] bool done(int) noexcept { return ++asked > lag; }
};

}  // namespace limber::testing
