// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The program but for main(): trains the three variants of the main job, compares, and judges itself.

#include "../language_model/compare.hpp"
#include "options.hpp"
#include "run.hpp"

#include <cstdio>
#include <ostream>
#include <string>
#include <utility>
#include <vector>

namespace example {

inline constexpr int no_gpu = 77;  ///< what ctest takes for "skipped"

/// @return 0, or 1 if the GPU's gradient is not the host's, or the loss did not go down
template <class Data>
[[nodiscard]] int train_on_gpus(Data const& data, gpu_options const& o, gpu_machine& machine) {
  constexpr bool is_text = std::is_same_v<Data, corpus>;
  using model = std::conditional_t<is_text, language_model, digit_classifier>;
  limber::i64 const trained = data.train_size(), all = data.size();
  task const what{is_text ? "bits per byte" : "bits per sample", !is_text,
                  spread(trained, all, o.smoke ? 64 : 512), spread(trained, all, o.smoke ? 256 : 65'536)};
  training const run = o.plan(trained);
  model const start(data, o.hidden, static_cast<std::uint64_t>(o.seed));
  bool const speaks = machine.rank() == 0;

  double const difference = gradient_difference(machine, data, o.hidden, start, run, what);
  double const before = speaks ? start.evaluate(what.held_out).bits : 0;
  if (speaks) {
    std::printf("%s: %lld samples to train on, %lld held out\n%s\n", data.source.c_str(),
                static_cast<long long>(trained), static_cast<long long>(all - trained),
                machine.describe().c_str());
    std::printf("first gradient: differs from the host's by %s of its size\n",
                significant(difference).c_str());
    std::fflush(stdout);
  }
  if (!(difference < 1e-3)) {
    std::fprintf(stderr, "cuda_trainer: rank %d: the first gradient is not the host's: differs by %g\n",
                 machine.rank(), difference);
    return 1;
  }

  live_line line;
  std::vector<variant_result> results;
  model last = start;
  for (auto const& [name, how] : variants(run))
    results.push_back(run_on_gpu(machine, name, data, o.hidden, start, last, how, what, line));
  if (!speaks) return 0;

  auto const& immediate = results[1].resizes;
  auto const& dynamic = results[2].resizes;
  auto const resizes = immediate.size() > dynamic.size() ? immediate : dynamic;
  print_results(results, resizes, what);
  std::printf(
      "\n%s\n",
      plot(o.out, is_text ? "cuda_language_model" : "cuda_digits", results, resizes, what.unit).c_str());
  double const after = results.back().final.bits;
  if (o.json) {
    json out = to_json(o, data.source, trained, what, resizes, results, {});
    out["machine"] = machine.describe();
    out["gradient_difference"] = number(difference);
    out["bits_before_training"] = number(before);
    write_json(*o.json, out);
    std::printf("Results: %s\n", o.json->string().c_str());
  }
  std::printf("Loss on held-out data: %.3f before training, %.3f after: %s\n", before, after,
              after < before ? "went down" : "DID NOT GO DOWN");
  return after < before ? 0 : 1;
}

/// Does what the command line asks for.
/// @return the exit status: 77 without a GPU, 2 if an argument or a file cannot be used, 1 for any other
///         failure; whatever went wrong is one line on `errors`
[[nodiscard]] inline int run_gpu(int argc, char const* const* argv, std::ostream& errors) {
  try {
    auto const o = parse_gpu(argc, argv);
    if (!o) return 0;
    std::string why;
    if (visible_gpus(why) == 0) {
      errors << "cuda_trainer: no GPU: " << why << std::endl;
      return no_gpu;
    }
    auto const begin = [&](auto const& data) {
      prepare(*o);
      gpu_machine machine(limber::facts_from_environment(), o->meet);
      return train_on_gpus(data, *o, machine);
    };
    if (o->data) return begin(load_digits(*o->data));
    return begin(o->text ? load_text(*o->text) : project_text(o->project));
  } catch (bad_input const& e) {
    errors << "cuda_trainer: " << e.what() << std::endl;
    return 2;
  } catch (std::exception const& e) {
    errors << "cuda_trainer: failed: " << e.what() << std::endl;
    return 1;
  }
}

}  // namespace example
