// SPDX-License-Identifier: Apache-2.0
// Processes over Gloo that save checkpoints and go on from them.
#include <limber/comm/gloo.hpp>
#include <limber/comm/launch.hpp>
#include <limber/limber.hpp>
#include <limber/state/state.hpp>

#include <filesystem>
#include <vector>

int main() {
  std::filesystem::path const folder = "checkpoints";
  auto const facts = limber::facts_from_environment();
  limber::gloo_engine::communicator comm(
      facts, facts.size == 1 ? nullptr : limber::gloo_engine::file_rendezvous("meet"));
  std::vector<float> w(4, 1.f), gradient(4);
  limber::optimizer opt{std::vector<limber::tensor>{{"w", w, gradient}},
                        limber::adamw{},
                        limber::warmup(limber::steps(10)) | limber::constant(0.01),
                        limber::sync::allreduce{},
                        comm,
                        {.batch = limber::per_worker{1}}};
  if (auto const last = limber::state::latest(folder))
    limber::load(opt, last, {.rank = comm.rank(), .world = comm.size()});
  for (int t = 0; t < 50; ++t) {
    gradient = w;
    opt.step(1);
  }
  opt.finish();
  limber::save(opt, folder, {.step = 50, .rank = comm.rank(), .world = comm.size()},
               {.barrier = [&] { comm.barrier(); }});
  return w[0] < 1 ? 0 : 1;
}
