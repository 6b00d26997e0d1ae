// SPDX-License-Identifier: Apache-2.0

/// @file
/// One binary for every launcher: mpirun of Open MPI or MPICH, torchrun, srun, or none. Rank and size are
/// read from what the launcher says, and Gloo connects the processes through a folder that all of them see.
///
///     mpirun -n 4 build/release/examples/launched --meet /shared/folder

#include "line.hpp"

#include <limber/comm/gloo.hpp>
#include <limber/comm/launch.hpp>
#include <limber/limber.hpp>

#include <CLI/CLI.hpp>

#include <algorithm>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <string>
#include <vector>

namespace {

using limber::gloo_engine::communicator;

/// The weights of all ranks.
std::vector<float> gather(communicator& comm, example::line const& model) {
  std::vector<float> all(2 * static_cast<std::size_t>(comm.size()));
  comm.all_gather(limber::const_view(model.w), limber::view(all)).wait();
  return all;
}

int train(std::filesystem::path const& meet, double deadline) {
  auto const facts = limber::facts_from_environment();
  limber::expects(facts.size == 1 || !meet.empty(), "launched: ", facts.size,
                  " processes need --meet: a folder that all of them see");
  communicator comm(facts, facts.size == 1 ? nullptr : limber::gloo_engine::file_rendezvous(meet),
                    {.deadline = deadline, .rendezvous_deadline = deadline});
  example::line model;
  limber::optimizer opt{model.parameters(),
                        limber::sgd{.momentum = 0.9},
                        0.1,
                        limber::sync::allreduce{},
                        comm,
                        {.batch = limber::fixed{128}, .epoch_size = 10'000}};
  limber::sampler sampler(10'000, /*seed=*/1);
  while (sampler.epoch() < 10) {
    auto const batch = sampler.take(opt.planned().share, comm.rank());
    model.backward(batch);
    opt.step(static_cast<limber::i64>(batch.size()));
  }
  opt.finish();

  auto const all = gather(comm, model);
  for (std::size_t k = 0; k < all.size(); k += 2)
    if (all[k] != model.w[0] || all[k + 1] != model.w[1]) {
      std::fprintf(stderr, "rank %d: rank %zu ended with another model\n", comm.rank(), k / 2);
      return 1;
    }
  if (comm.rank() == 0)
    std::printf("%s: %d %s on y = %.2f x %+.2f\n", facts.launcher.c_str(), facts.size,
                facts.size == 1 ? "process agrees" : "processes agree", model.w[0], model.w[1]);
  return model.error() < 0.1f ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"Trains a line on as many processes as a launcher (mpirun, torchrun, srun) has started."};
  std::string meet;
  double deadline = 60;
  app.add_option("--meet", meet, "a folder that all processes see, where they find each other");
  app.add_option("--deadline", deadline, "seconds until a process that does not come is given up")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  try {
    return train(meet, deadline);
  } catch (std::exception const& e) {
    std::fprintf(stderr, "launched: %s\n", e.what());
    return 1;
  }
}
