// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The example from beginning to end: trains the three variants, compares and reports.

#include "experiment.hpp"
#include "model.hpp"
#include "options.hpp"
#include "plot.hpp"
#include "report.hpp"
#include "sweep.hpp"

#include <cstdio>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace example {

/// The variants of a training: who takes part, and how the rate follows.
[[nodiscard]] inline std::vector<std::pair<std::string, training>> variants(training const& run) {
  training fixed = run, immediate = run, dynamic = run;
  for (auto& g : fixed.generations) g.workers = run.generations[0].workers;
  immediate.ramp = limber::immediate;
  dynamic.ramp = limber::ramp_rule{};
  return {{"fixed", fixed}, {"immediate", immediate}, {"dynamic_sgd", dynamic}};
}

/// Trains, prints, plots and writes what the options ask for. `Data` is a corpus or digits.
template <class Data>
void compare(Data const& data, options const& o) {
  constexpr bool is_text = std::is_same_v<Data, corpus>;
  using model = std::conditional_t<is_text, language_model, digit_classifier>;
  constexpr limber::i64 probe_samples = 512, held_out_samples = 65'536;

  limber::i64 const trained = data.train_size(), all = data.size();
  task const what{is_text ? "bits per byte" : "bits per sample", !is_text,
                  spread(trained, all, o.smoke ? 64 : probe_samples),
                  spread(trained, all, o.smoke ? 256 : held_out_samples)};
  training const run = o.plan(trained);
  auto const seed = static_cast<std::uint64_t>(o.seed);
  model const start(data, o.hidden, seed);
  std::printf("%s: %lld samples to train on, %lld held out\n", data.source.c_str(),
              static_cast<long long>(trained), static_cast<long long>(all - trained));

  live_line line;
  std::vector<variant_result> results;
  model last = start;
  for (auto const& [name, how] : variants(run)) {
    auto [result, model_of_it] = run_variant(name, start, how, what, line);
    results.push_back(std::move(result));
    last = std::move(model_of_it);
  }
  // A variant that diverged may not have come to the last resize.
  auto const& immediate = results[1].resizes;
  auto const& dynamic = results[2].resizes;
  auto const resizes = immediate.size() > dynamic.size() ? immediate : dynamic;
  print_results(results, resizes, what);

  if constexpr (is_text) {
    if (results.back().failure.empty()) {
      auto const text = last.generate(data.bytes.substr(static_cast<std::size_t>(trained), corpus::context),
                                      o.smoke ? 80 : 300, 0.8, seed);
      std::printf("\nText by dynamic_sgd at temperature 0.8:\n  %s\n", printable(text).c_str());
    }
  }
  std::string const stem = is_text ? "language_model" : "digits";
  std::printf("\n%s\n", plot(o.out, stem, results, resizes, what.unit).c_str());

  std::vector<sweep_row> sweep;
  if (o.sweep) {
    sweep = run_sweep(start, o, trained, what, results.back().samples_per_second(), line);
    print_sweep(sweep, what);
  }
  if (o.json) {
    write_json(*o.json, to_json(o, data.source, trained, what, resizes, results, sweep));
    std::printf("Results: %s\n", o.json->string().c_str());
  }
}

}  // namespace example
