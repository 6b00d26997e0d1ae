// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The whole program but for main(), so that tests can call it.

#include "ranking.hpp"

#include <CLI/CLI.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <fstream>
#include <optional>
#include <ostream>
#include <string>
#include <vector>

#if !defined(LIMBER_SOURCE_DIR)
#error "define LIMBER_SOURCE_DIR: where the text is that is learnt where there is no data"
#endif

namespace example {

/// Does what the command line asks for.
/// @return the exit status: 0, 2 if an argument or a file cannot be used, 1 for any other failure
[[nodiscard]] inline int which_strategy(int argc, char const* const* argv, std::ostream& errors) {
  CLI::App app{
      "Which synchronisation strategy fits a cluster?\n\n"
      "Runs every strategy of Limber, with real gradients of a small classifier, on a virtual cluster of "
      "the\n"
      "workers and links that you describe, and ranks them by the virtual time to a target loss.\n\n"
      "  which_strategy --speeds 1000,1000,2000,2000 --latency 1e-4 --bandwidth 1.25e9 --model-bytes 1e8\n"
      "  which_strategy --cluster cluster.json --json ranking.json\n",
      "which_strategy"};
  cluster_description c;
  trial_options o;
  std::optional<std::filesystem::path> file, json;
  std::vector<std::string> only;
  bool smoke = false;
  app.add_option("--cluster", file,
                 "a JSON file with the names below (per_call, model_bytes, …) and slowdowns");
  auto* const speeds = app.add_option("--speeds", c.speeds, "samples/s of each worker")->delimiter(',');
  app.add_option("--per-call", c.per_call, "seconds that a micro-batch costs besides")->excludes("--cluster");
  app.add_option("--jitter", c.jitter, "sigma of a lognormal factor on every micro-batch")
      ->excludes("--cluster");
  app.add_option("--latency", c.latency, "seconds a message")->excludes("--cluster");
  app.add_option("--bandwidth", c.bandwidth, "bytes/s of a link")->excludes("--cluster");
  app.add_option("--inside-latency", c.inside_latency, "the same within a machine")->excludes("--cluster");
  app.add_option("--inside-bandwidth", c.inside_bandwidth, "the same within a machine")
      ->excludes("--cluster");
  app.add_option("--block-size", c.block_size, "workers of one machine; 0: no machines")
      ->excludes("--cluster");
  app.add_option("--model-bytes", c.model_bytes, "bytes of the model that you train")->excludes("--cluster");
  app.add_option("--topology", c.topology, "of an all-reduce: ring, tree or server")->excludes("--cluster");
  speeds->excludes("--cluster");
  app.add_option("--micro-batch", o.micro_batch, "samples a worker and call")->check(CLI::Range(1, 4096));
  app.add_option("--target", o.target, "loss of the small task, in nats")->check(CLI::PositiveNumber);
  app.add_option("--epochs", o.epochs, "of the small task, after which a run gives up")
      ->check(CLI::PositiveNumber);
  app.add_option("--hidden", o.hidden, "hidden units of the small task; 0: softmax regression")
      ->check(CLI::Range(0, 1024));
  app.add_option("--seeds", o.seeds, "runs of the tuned strategy")->check(CLI::Range(1, 100));
  app.add_option("--only", only, "strategies whose name contains one of these")->delimiter(',');
  app.add_option("--json", json, "writes the ranking to this file");
  app.add_flag("--smoke", smoke, "a few seconds: fewer rates, one seed, an easy target");
  app.get_formatter()->column_width(34);
  try {
    app.parse(argc, argv);
  } catch (CLI::ParseError const& e) { return app.exit(e, std::cout, errors) == 0 ? 0 : 2; }

  try {
    if (file) c = read_cluster(*file);
    check(c);
    if (smoke) {
      o.rates = {0.1, 0.4};
      o.momenta = {0};
      o.seeds = 1;
      o.target = 1;
      o.epochs = 3;
    }
    auto what = candidates(c, o.micro_batch);
    if (!only.empty())
      std::erase_if(what, [&](candidate const& k) {
        return std::ranges::none_of(only,
                                    [&](auto const& part) { return k.name.find(part) != std::string::npos; });
      });
    require(!what.empty(), "--only: no strategy's name contains '", only.empty() ? "" : only.front(), "'");
    if (json)
      require(std::ofstream(*json, std::ios::app).is_open(), "--json ", json->string(),
              ": cannot be opened for writing");

    auto const data = papers::load_task(LIMBER_SOURCE_DIR);
    std::printf("%zu workers, %s/s in all; %s of model; learns %s\n", c.speeds.size(),
                counted([&] {
                  double sum = 0;
                  for (double const s : c.speeds) sum += s;
                  return sum;
                }())
                    .c_str(),
                (counted(c.model_bytes) + "B").c_str(), data.source().c_str());
    live_line line;
    auto const ranked = try_all(what, c, o, data, [&](std::size_t done, std::size_t all) {
      if (line.due()) line.show(limber::text(done, " of ", all, " runs"));
    });
    line.finish(limber::text("all runs done"));
    print(ranked, o);
    if (json) {
      std::ofstream out(*json);
      out << nlohmann::ordered_json{{"target", o.target}, {"ranking", as_json(ranked)}}.dump(2) << '\n';
      require(out.good(), "--json ", json->string(), ": cannot be written");
      std::printf("written: %s\n", json->string().c_str());
    }
    return 0;
  } catch (bad_input const& e) {
    errors << "which_strategy: " << e.what() << std::endl;
    return 2;
  } catch (std::exception const& e) {
    errors << "which_strategy: failed: " << e.what() << std::endl;
    return 1;
  }
}

}  // namespace example
