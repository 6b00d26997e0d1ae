// SPDX-License-Identifier: Apache-2.0
// Uses one thing of each component, so that its library must be linked.
#ifdef WITH_gloo
#include <limber/comm/gloo.hpp>
#endif
#ifdef WITH_mpi
#include <limber/comm/mpi.hpp>
#endif
#ifdef WITH_sim
#include <limber/sim/sim.hpp>
#endif
#ifdef WITH_state
#include <limber/state/state.hpp>
#endif

#include <cstdio>
#include <vector>

int main() {
  int wrong = 0;
#ifdef WITH_gloo
  limber::gloo_engine::communicator alone(0, 1, nullptr);
  wrong += alone.size() != 1;
#endif
#ifdef WITH_mpi
  wrong += limber::mpi::driver::is_running();  // linked, and not started
#endif
#ifdef WITH_sim
  limber::sim::cluster const two{.workers = std::vector(2, limber::sim::speed{}), .network = {.latency = 1}};
  wrong += limber::sim::run(two, [](limber::sim::worker& me) { me.comm().barrier(); }).seconds <= 0;
#endif
#ifdef WITH_state
  wrong += static_cast<bool>(limber::state::latest("a folder that is not there"));
#endif
  if (wrong != 0) std::printf("%d components do not work\n", wrong);
  return wrong;
}
