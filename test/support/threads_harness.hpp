// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <limber/comm/threads.hpp>

#include <support/contract_values.hpp>

#include <concepts>
#include <utility>

namespace limber::test {

/// A harness of the contract suite: communicators that are made of those of threads.
template <class Communicator, int LargestWorld>
struct threads_harness {
  using communicator = Communicator;
  static constexpr int largest_world = LargestWorld;
  static constexpr bool rank_order = true;
  static constexpr int skipped_parts = 0;
  template <class T>
  using buffer = host_buffer<T>;
  template <class F>
  static void run(int n, F f) {
    threads::run(n, [&](threads::communicator& engine) {
      if constexpr (std::same_as<Communicator, threads::communicator>) {
        f(engine);
      } else if constexpr (std::constructible_from<Communicator, threads::communicator&>) {
        Communicator comm(engine);
        f(comm);
      } else {
        Communicator comm(std::move(engine));
        f(comm);
      }
    });
  }
};

}  // namespace limber::test
