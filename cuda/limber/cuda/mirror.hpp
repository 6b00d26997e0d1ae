// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The host's lagging copy of the device's control state.

#include <limber/cuda/device_state.hpp>
#include <limber/fuse/executor.hpp>

#include <array>
#include <concepts>
#include <utility>

namespace limber::gpu {

/// An executor that can send facts to the host without waiting.
///
///     void fetch(shared_array)      executor's side → host side; does not synchronize
///     bool done(event)              whether all that was started before `record` has finished; never waits
template <class E>
concept mirrors_state = limber::executor<E> && requires(E& e, shared_array<i64> a) {
  e.fetch(a);
  { e.done(e.record()) } -> std::convertible_to<bool>;
};

/// Two places that copies travel through. A place is used again only after its copy has arrived, so the
/// host never reads one that is being written, and however far it runs ahead, news keeps coming.
template <mirrors_state E>
class state_mirror {
  using event = decltype(std::declval<E&>().record());
  struct place {
    shared_array<device_state> memory;
    event sent{};
    bool open = false;
  };

 public:
  explicit state_mirror(E& e) {
    for (place& p : places_) p.memory = e.template share<device_state>(1);
  }

  /// Where the coming kernel shall leave a copy; null while both places are under way.
  [[nodiscard]] device_state* open(E& e) {
    collect(e);
    chosen_ = -1;
    for (int k = 0; k < 2; ++k)
      if (!places_[static_cast<std::size_t>(k)].open) chosen_ = k;
    return chosen_ < 0 ? nullptr : places_[static_cast<std::size_t>(chosen_)].memory.device;
  }

  /// Sends what that kernel left. Does not synchronize.
  void send(E& e) {
    if (chosen_ < 0) return;
    place& p = places_[static_cast<std::size_t>(chosen_)];
    e.fetch(p.memory);
    p.sent = e.record();
    p.open = true;
  }

  /// The newest state that has arrived. Does not synchronize.
  [[nodiscard]] device_state const& newest(E& e) {
    collect(e);
    return newest_;
  }

  /// Forgets what came before `now`: training goes on from another point. @pre wait
  void restart(device_state const& now) { newest_ = now; }

  /// Waits for what was sent. Synchronizes.
  void wait(E& e) {
    for (place& p : places_)
      if (p.open) e.wait(p.sent);
    collect(e);
  }

 private:
  void collect(E& e) {
    for (place& p : places_) {
      if (!p.open || !e.done(p.sent)) continue;
      p.open = false;
      if (p.memory[0].now.calls >= newest_.now.calls) newest_ = p.memory[0];
    }
  }

  std::array<place, 2> places_;
  device_state newest_{};
  int chosen_ = -1;
};

}  // namespace limber::gpu
