// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The command line: that of the main job but for what makes no sense here, and where processes meet.

#include "../language_model/options.hpp"

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace example {

/// `workers` are virtual: each is a micro-batch of `per_worker` samples.
struct gpu_options : options {
  std::filesystem::path meet = std::filesystem::temp_directory_path();
};

/// Reads the command line. @return nothing if it asked for help, which has been printed
/// @throws bad_input for an option that is unknown, or a value that cannot be used
[[nodiscard]] inline std::optional<gpu_options> parse_gpu(int argc, char const* const* argv) {
  gpu_options o;
  CLI::App app{
      "Trains the model of language_model on NVIDIA GPUs, on the same samples in the same order: one "
      "captured\n"
      "graph for a micro-batch, one for an update. The batch changes with the number of virtual workers, "
      "one\n"
      "micro-batch each, and no graph is captured again. Compares the same three variants. Started by\n"
      "torchrun, mpirun or srun, every process takes one GPU. Status 77: there is no GPU.",
      "cuda_trainer"};
  app.get_formatter()->column_width(30);
  app.add_option(
         "--text", o.text,
         "Train on this file; its last tenth is held out\n(default: the project's README and headers)")
      ->type_name("FILE");
  app.add_option("--data", o.data, "Train on handwritten digits instead: a folder of IDX or CSV files")
      ->type_name("DIR");
  app.add_option("--json", o.json, "Write all results to this file")->type_name("FILE");
  app.add_option("--out", o.out,
                 limber::text("Folder of the plot and its data\n(default: ", o.out.string(), ")"))
      ->type_name("DIR");
  app.add_flag("--smoke", o.smoke, "Few updates: shows that everything works, not how well");
  app.add_option("--workers", o.workers, "Virtual workers of each generation")
      ->delimiter(',')
      ->capture_default_str();
  auto const* steps =
      app.add_option("--steps", o.steps, "Updates of each generation")->delimiter(',')->capture_default_str();
  app.add_option("--per-worker", o.per_worker, "Samples of a micro-batch")->capture_default_str();
  app.add_option("--eta", o.eta, "Learning rate at the first generation's batch")->capture_default_str();
  app.add_option("--momentum", o.momentum, "Momentum, outside form")->capture_default_str();
  app.add_flag("--constant", o.constant, "No decay of the rate; without this a cosine brings it to 0");
  auto const* hidden =
      app.add_option("--hidden", o.hidden, "Width of the hidden layer (default: 192; digits: 64)");
  app.add_option("--seed", o.seed, "Seed of first weights and order of samples")->capture_default_str();
  app.add_option("--project", o.project, "Folder whose README and headers are the default text")
      ->type_name("DIR");
  app.add_option("--meet", o.meet,
                 limber::text("Folder that all processes share, where they find each other\n(default: ",
                              o.meet.string(), "; over several machines a shared one is needed)"))
      ->type_name("DIR");
  try {
    app.parse(argc, argv);
  } catch (CLI::CallForHelp const&) {
    std::fputs(app.help().c_str(), stdout);
    return std::nullopt;
  } catch (CLI::ParseError const& e) { throw bad_input(e.what()); }
  if (o.data && hidden->count() == 0) o.hidden = 64;
  if (steps->count() == 0) {
    if (o.smoke)
      o.steps = {40, 10, 20};
    else if (o.data)
      o.steps = {300, 200, 300};
    if (o.workers.size() != o.steps.size()) o.steps.resize(o.workers.size(), o.steps.back());
  }
  check(o);
  return o;
}

}  // namespace example
