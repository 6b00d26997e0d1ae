// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The command line, checked.

#include "input.hpp"
#include "train.hpp"

#include <CLI/CLI.hpp>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <optional>
#include <string>
#include <vector>

#if !defined(LIMBER_SOURCE_DIR) || !defined(LIMBER_BINARY_DIR)
#error "define LIMBER_SOURCE_DIR and LIMBER_BINARY_DIR: the default text and the default place of reports"
#endif

namespace example {

struct options {
  std::optional<std::filesystem::path> text;
  std::optional<std::filesystem::path> data;
  std::filesystem::path project = LIMBER_SOURCE_DIR;
  std::filesystem::path out = std::filesystem::path(LIMBER_BINARY_DIR) / "reports";
  std::optional<std::filesystem::path> json;
  std::vector<int> workers{4, 64, 16};
  std::vector<limber::i64> steps{600, 400, 600};
  limber::i64 per_worker = 16;
  int hidden = 192;
  double eta = 0.1;
  double momentum = 0.9;
  bool constant = false;
  limber::i64 seed = 1;
  bool sweep = false;
  bool smoke = false;

  /// The training these options ask for, on `epoch_size` samples.
  [[nodiscard]] training plan(limber::i64 epoch_size) const {
    training run{.generations = {},
                 .epoch_size = epoch_size,
                 .per_worker = per_worker,
                 .base_batch = per_worker * workers[0],
                 .base_lr = eta,
                 .momentum = momentum,
                 .anneal = !constant,
                 .seed = static_cast<std::uint64_t>(seed)};
    limber::i64 samples = 0;
    for (std::size_t g = 0; g < workers.size(); ++g) {
      samples += steps[g] * workers[g] * per_worker;
      run.generations.push_back({workers[g], samples});
    }
    return run;
  }
};

/// Most workers that an option may ask for: each is a thread with a model of its own.
inline constexpr int most_workers = 256;

/// @throws bad_input naming the option and its value
inline void check(options const& o) {
  require(!(o.text && o.data), "--text and --data exclude each other");
  require(!o.workers.empty(), "--workers: needs at least one number");
  for (int const n : o.workers) {
    require(n >= 1 && n <= most_workers, "--workers: must lie in 1..", most_workers, ", got ", n);
  }
  require(o.steps.size() == o.workers.size(), "--steps: ", o.steps.size(), " numbers for the ",
          o.workers.size(), " of --workers");
  for (auto const n : o.steps) require(n >= 1 && n <= 1'000'000, "--steps: must lie in 1..1000000, got ", n);
  require(o.per_worker >= 1 && o.per_worker <= 4096, "--per-worker: must lie in 1..4096, got ", o.per_worker);
  require(o.hidden >= 1 && o.hidden <= 8192, "--hidden: must lie in 1..8192, got ", o.hidden);
  require(std::isfinite(o.eta) && o.eta > 0, "--eta: must be a number above 0, got ", o.eta);
  require(o.momentum >= 0 && o.momentum < 1, "--momentum: must lie in [0, 1), got ", o.momentum);
  require(o.seed >= 0, "--seed: must not be negative, got ", o.seed);
  require(!o.sweep || o.workers[0] * 32 <= most_workers, "--sweep: grows the ", o.workers[0],
          " workers that --workers begins with 32-fold, beyond ", most_workers);
}

/// Makes the folder of reports and the JSON file, so that a bad path is known before training, not after.
/// @throws bad_input naming the option and the path
inline void prepare(options const& o) {
  std::error_code why;
  std::filesystem::create_directories(o.out, why);
  require(!why && std::filesystem::is_directory(o.out, why), "--out ", o.out.string(),
          ": cannot be made a folder");
  if (o.json) {
    require(std::ofstream(*o.json, std::ios::app).is_open(), "--json ", o.json->string(),
            ": cannot be opened for writing");
  }
}

/// Reads the command line. @return nothing if it asked for help, which has been printed
/// @throws bad_input for an option that is unknown, or a value that cannot be used
[[nodiscard]] inline std::optional<options> parse(int argc, char const* const* argv) {
  options o;
  CLI::App app{
      "Trains a byte-level language model while its set of workers grows and shrinks, in three variants\n"
      "that see the same samples in the same order: fixed workers, linear scaling of the rate applied at\n"
      "once, and Dynamic SGD, which lets the rate follow the batch. Compares their losses and spikes.",
      "language_model"};
  app.get_formatter()->column_width(30);
  app.add_option(
         "--text", o.text,
         "Train on this file; its last tenth is held out\n(default: the project's README and headers)")
      ->type_name("FILE");
  app.add_option("--data", o.data,
                 "Train on handwritten digits instead: a folder of IDX files (MNIST,\n"
                 "gzip or not), or of *.tra and *.tes (CSV, 64 counts and a class)")
      ->type_name("DIR");
  app.add_option("--json", o.json, "Write all results to this file")->type_name("FILE");
  app.add_option("--out", o.out,
                 limber::text("Folder of the plot and its data\n(default: ", o.out.string(), ")"))
      ->type_name("DIR");
  app.add_flag("--sweep", o.sweep,
               "Then compare immediate and dynamic_sgd at many rates and growth\n"
               "factors; takes a few minutes");
  app.add_flag("--smoke", o.smoke, "Few updates: shows that everything works, not how well");
  app.add_option("--workers", o.workers, "Workers of each generation")->delimiter(',')->capture_default_str();
  auto const* steps = app.add_option("--steps", o.steps, "Updates of each generation, where workers change")
                          ->delimiter(',')
                          ->capture_default_str();
  app.add_option("--per-worker", o.per_worker, "Samples a worker takes per update")->capture_default_str();
  app.add_option("--eta", o.eta, "Learning rate at the first generation's batch")->capture_default_str();
  app.add_option("--momentum", o.momentum, "Momentum, outside form")->capture_default_str();
  app.add_flag("--constant", o.constant, "No decay of the rate; without this a cosine brings it to 0");
  auto const* hidden =
      app.add_option("--hidden", o.hidden, "Width of the hidden layer (default: 192; digits: 64)");
  app.add_option("--seed", o.seed, "Seed of first weights and order of samples")->capture_default_str();
  app.add_option("--project", o.project, "Folder whose README and headers are the default text")
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
    // Other workers, and no word about steps: each generation as long as the last default.
    if (o.workers.size() != o.steps.size()) o.steps.resize(o.workers.size(), o.steps.back());
  }
  check(o);
  return o;
}

}  // namespace example
