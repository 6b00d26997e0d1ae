// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The whole program but for main().

#include "../language_model/digits.hpp"
#include "../language_model/text.hpp"
#include "audit.hpp"
#include "conduct.hpp"
#include "options.hpp"
#include "worker.hpp"

#include <algorithm>
#include <cmath>
#include <csignal>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <numeric>
#include <optional>
#include <ostream>
#include <string>
#include <utility>
#include <vector>

namespace example {

namespace detail {

/// Calls f(task) while the data and the model live.
template <class F>
void with_task(run_options const& r, F const& f) {
  auto const learn = [&](auto const& data, auto model) {
    task all{.source = data.source, .size = data.train_size(), .parameters = model.parameters()};
    all.held_out.resize(static_cast<std::size_t>(data.size() - all.size));
    std::iota(all.held_out.begin(), all.held_out.end(), all.size);
    all.gradient = [&](std::span<limber::i64 const> samples) { return model.gradient(samples); };
    all.evaluate = [&](std::span<limber::i64 const> samples) { return model.evaluate(samples); };
    f(all);
  };
  std::error_code ignored;
  if (std::filesystem::is_directory(r.data, ignored)) {
    auto const data = load_digits(r.data);
    learn(data, digit_classifier(data, r.hidden, r.seed));
  } else {
    auto const data = load_text(r.data);
    learn(data, language_model(data, r.hidden, r.seed));
  }
}

}  // namespace detail

/// Runs one worker. @return the exit status
inline int work(worker_options const& w) {
  try {
    detail::with_task(w.run, [&](task const& learnt) {
      if (w.run.strategy == "shards")
        train(learnt, w, limber::sync::allreduce{}, limber::logical_shards{shards, w.run.batch / shards});
      else if (w.run.strategy == "local")
        train(learnt, w, limber::sync::local{.period = 8}, limber::fixed{w.run.batch});
      else
        train(learnt, w, limber::sync::allreduce{}, limber::fixed{w.run.batch});
    });
    return 0;
  } catch (std::exception const& e) {
    reporter(w.report_fd).say(limber::text("failed ", e.what()));
    return 1;
  }
}

/// A folder for the run, removed at the end unless the user chose it.
class shared_folder {
 public:
  explicit shared_folder(std::filesystem::path const& wanted) : kept_(!wanted.empty()) {
    namespace fs = std::filesystem;
    std::error_code why;
    if (kept_) {
      fs::create_directories(wanted, why);
      require(!why && fs::is_directory(wanted, why), "--folder ", wanted.string(),
              ": cannot be made a folder");
      require(fs::is_empty(wanted, why) && !why, "--folder ", wanted.string(), ": must be empty");
      path_ = wanted;
    } else {
      std::string name = (fs::temp_directory_path() / "limber-elastic-XXXXXX").string();
      if (::mkdtemp(name.data()) == nullptr) throw bad_input(name + ": cannot be made a folder");
      path_ = name;
    }
  }
  shared_folder(shared_folder const&) = delete;
  shared_folder& operator=(shared_folder const&) = delete;
  ~shared_folder() {
    std::error_code ignored;
    if (!kept_) std::filesystem::remove_all(path_, ignored);
  }

  /// A new folder in it for one run.
  [[nodiscard]] std::filesystem::path sub(char const* name) const {
    std::filesystem::create_directories(path_ / name / "histories");
    return path_ / name;
  }

 private:
  bool kept_;
  std::filesystem::path path_;
};

namespace detail {

inline bool print_result(bool ok, std::string const& what, std::string const& found) {
  std::printf("  %-11s %s  %s\n", what.c_str(), ok ? "ok    " : "FAILED", found.c_str());
  return ok;
}

/// Prints the result of the audit. @return whether it holds
inline bool check_results(options const& o, findings const& f, outcome const& did,
                          std::optional<findings> const& calm) {
  std::printf("\naudit of %lld generations\n", static_cast<long long>(f.generations));
  bool ok = true;
  for (auto const& fault : f.faults) ok = print_result(false, "", fault);
  for (auto const& fault : did.failures) ok = print_result(false, "worker", fault);
  if (f.faults.empty()) {
    print_result(true, "samples",
                 limber::text("each sample of ", o.run.epochs, " epochs consumed exactly once; ", f.again,
                              " of ", f.computed, " computed were lost and computed again"));
    print_result(true, "parameters",
                 limber::text("those of all ", f.finished, " survivors are the same bit for bit"));
  }
  if (!did.recoveries.empty())
    std::printf("  %-11s         worst %s s from a loss to the next step without the lost\n", "recovery",
                rounded(std::ranges::max(did.recoveries), 2).c_str());
  std::printf("  %-11s         %s bits, %s %% right, on what was held out\n", "result",
              rounded(f.bits, 4).c_str(), rounded(100 * f.accuracy, 1).c_str());
  if (!calm) return ok;
  for (auto const& fault : calm->faults) ok = print_result(false, "undisturbed", fault);
  bool const same = calm->parameters == f.parameters;
  // Sums of floats depend on the number of workers, so bits may differ; the quality of the model may not.
  bool const near = std::abs(f.bits - calm->bits) <= 0.05 + 0.1 * calm->bits;
  ok = print_result(
           near && (same || o.run.strategy != "shards"), "undisturbed",
           limber::text(rounded(calm->bits, 4), " bits, ", rounded(100 * calm->accuracy, 1), " % right",
                        same                         ? "; the same parameters bit for bit"
                        : o.run.strategy == "shards" ? "; other bits, though shards promise the same"
                                                     : "")) &&
       ok;
  return ok;
}

}  // namespace detail

/// Trains while applying the schedule, and audits the result. @return the exit status
inline int conduct(options o, std::string const& program) {
  limber::i64 size = 0;
  std::string source;
  detail::with_task(o.run, [&](task const& learnt) {
    size = learnt.size;
    source = learnt.source;
  });
  require(o.run.batch <= size, "--batch: must be at most the ", size, " samples there are, got ",
          o.run.batch);
  if (o.run.epochs == 0) {
    double const calls = std::ceil(static_cast<double>(size) / static_cast<double>(o.run.batch));
    o.run.epochs = std::max(2, static_cast<int>(20 / (calls * std::max(o.run.pace, 5.0) / 1000)));
  }
  shared_folder const folder(o.folder);
  std::printf("%d workers learn %s: %lld epochs of %lld samples, %s, deadline %s s\n", o.run.workers,
              source.c_str(), static_cast<long long>(o.run.epochs), static_cast<long long>(size),
              o.run.strategy.c_str(), rounded(o.run.deadline, 1).c_str());
  std::printf("Ctrl-C kills a worker; the last one ends the run.\n");
  std::fflush(stdout);
  struct sigaction on_interrupt {};
  on_interrupt.sa_handler = [](int) { interruptions = interruptions + 1; };
  ::sigaction(SIGINT, &on_interrupt, nullptr);

  audited const what{size, o.run.epochs, o.run.seed};
  auto const disturbed = folder.sub("disturbed");
  outcome const did = conductor(program, o, disturbed).run();
  if (did.interrupted) {
    std::printf("interrupted: no audit\n");
    return 1;
  }
  auto const found = audit(what, read_histories(disturbed / "histories"));
  std::optional<findings> calm;
  if (o.compare) {
    std::printf("\nthe same undisturbed, at full speed\n");
    options quiet = o;
    quiet.events.clear();
    quiet.run.pace = 0;
    auto const undisturbed = folder.sub("undisturbed");
    outcome const again = conductor(program, quiet, undisturbed).run();
    if (again.interrupted) return 1;
    calm = audit(what, read_histories(undisturbed / "histories"));
  }
  return detail::check_results(o, found, did, calm) ? 0 : 1;
}

/// Runs the command line.
/// @return the exit status: 0 if the audit holds, 2 if an argument or a file cannot be used, else 1
[[nodiscard]] inline int elastic_processes(int argc, char const* const* argv, std::ostream& errors) {
  try {
    auto const asked = parse(argc, argv);
    if (asked.worker) return work(*asked.worker);
    if (!asked.run) return 0;
    return conduct(*asked.run, std::filesystem::read_symlink("/proc/self/exe").string());
  } catch (bad_input const& e) {
    errors << "elastic_processes: " << e.what() << std::endl;
    return 2;
  } catch (std::exception const& e) {
    errors << "elastic_processes: failed: " << e.what() << std::endl;
    return 1;
  }
}

}  // namespace example
