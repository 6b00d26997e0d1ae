// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The host executor with news that arrives late.

#include <limber/fuse/host.hpp>

namespace limber::testing {

/// Runs functors as `host` does; what is sent to the host side counts as arrived `lag` questions later.
struct late_host : host {
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
