// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The command line, checked.

#include "../language_model/input.hpp"

#include <limber/core/config.hpp>

#include <CLI/CLI.hpp>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#if !defined(LIMBER_SOURCE_DIR)
#error "define LIMBER_SOURCE_DIR: where the text is that is learnt where there is no data"
#endif

namespace example {

/// Options common to all workers of a run.
struct run_options {
  std::filesystem::path data{};  ///< a folder of digits, or a text
  std::string strategy = "allreduce";
  int workers = 4;
  limber::i64 epochs = 0;  ///< 0: as many as take about 20 s
  limber::i64 batch = 64;  ///< of all workers together
  int hidden = 64;
  double eta = 0.05;
  double momentum = 0.9;
  double pace = 20;     ///< minimum milliseconds of a call
  double deadline = 2;  ///< seconds
  std::uint64_t seed = 1;
};

/// Options of one worker process.
struct worker_options {
  run_options run{};
  std::filesystem::path folder{};
  std::string name{};
  int report_fd = -1;
};

enum class action { kill, stop, add };

/// An action on `count` workers at once, `seconds` after training began.
struct event {
  action what{};
  int count = 0;
  double seconds = 0;
};

struct options {
  run_options run{};
  std::vector<event> events{};
  std::filesystem::path folder{};  ///< empty: a temporary one
  bool compare = true;
};

inline constexpr int most_processes = 32;
inline constexpr limber::i64 shards = 8;  ///< of an update, with logical shards

/// "2@5s", "1@0.5"
[[nodiscard]] inline event event_of(action what, std::string const& option, std::string const& words) {
  event e{.what = what};
  std::string_view rest = words;
  auto const number = [&](auto& into) {
    auto const [end, failed] = std::from_chars(rest.data(), rest.data() + rest.size(), into);
    bool const ok = failed == std::errc();
    if (ok) rest.remove_prefix(static_cast<std::size_t>(end - rest.data()));
    return ok;
  };
  bool ok = number(e.count) && rest.starts_with('@');
  if (ok) rest.remove_prefix(1);
  ok = ok && number(e.seconds) && (rest.empty() || rest == "s");
  require(ok, option, ": expected a number of workers and when, like 2@5s, got '", words, "'");
  require(e.count >= 1 && e.count <= most_processes, option, ": must be 1 to ", most_processes,
          " workers, got ", e.count);
  require(std::isfinite(e.seconds) && e.seconds >= 0, option, ": the time must not be negative, got ",
          e.seconds);
  return e;
}

/// @throws bad_input naming the option and its value
inline void check(options const& o) {
  run_options const& r = o.run;
  require(r.workers >= 1 && r.workers <= most_processes, "--workers: must lie in 1..", most_processes,
          ", got ", r.workers);
  int processes = r.workers;
  for (event const& e : o.events) processes += e.what == action::add ? e.count : 0;
  require(processes <= most_processes, "--add: ", processes, " workers in all, at most ", most_processes);
  require(r.epochs >= 0 && r.epochs <= 10'000, "--epochs: must lie in 0..10000, got ", r.epochs);
  require(r.batch >= processes && r.batch <= 65'536, "--batch: must lie in ", processes,
          "..65536, a sample a worker at least, got ", r.batch);
  require(r.strategy != "shards" || r.batch % shards == 0, "--batch: must be a multiple of the ", shards,
          " shards, got ", r.batch);
  require(r.hidden >= 1 && r.hidden <= 8192, "--hidden: must lie in 1..8192, got ", r.hidden);
  require(std::isfinite(r.eta) && r.eta > 0, "--eta: must be a number above 0, got ", r.eta);
  require(r.momentum >= 0 && r.momentum < 1, "--momentum: must lie in [0, 1), got ", r.momentum);
  require(r.pace >= 0 && r.pace <= 10'000, "--pace: must lie in 0..10000, got ", r.pace);
  require(r.deadline >= 0.2 && r.deadline <= 600, "--deadline: must lie in 0.2..600, got ", r.deadline);
}

/// Where there is no other data: the digits in LIMBER_DATA, or the project's README.
[[nodiscard]] inline std::filesystem::path default_data() {
  if (char const* folder = std::getenv("LIMBER_DATA")) {
    auto const digits = std::filesystem::path(folder) / "optdigits";
    std::error_code ignored;
    if (std::filesystem::is_directory(digits, ignored)) return digits;
  }
  return std::filesystem::path(LIMBER_SOURCE_DIR) / "README.md";
}

/// The parsed command line: a run, one worker of a run, or nothing (help).
struct request {
  std::optional<options> run{};
  std::optional<worker_options> worker{};
};

/// @throws bad_input for an option that is unknown, or a value that cannot be used
[[nodiscard]] inline request parse(int argc, char const* const* argv) {
  options o;
  worker_options w;
  CLI::App app{
      "Trains a small model on worker processes that are killed, stopped and added meanwhile, and accounts\n"
      "for every sample afterwards.\n\n"
      "  elastic_processes                                 with an example schedule\n"
      "  elastic_processes --workers 4 --kill 2@5s --add 1@8s\n"
      "  elastic_processes --calm                          no schedule; press Ctrl-C\n\n"
      "Each Ctrl-C kills one worker; when one is left, it ends the run. Afterwards the same training runs\n"
      "undisturbed, to compare. The exit status is 0 if each sample of each epoch was consumed exactly "
      "once,\n"
      "all survivors have the same parameters, and they are as good as undisturbed ones.",
      "elastic_processes"};
  std::vector<std::string> kills, stops, additions;
  bool calm = false, smoke = false, alone = false;
  run_options& r = o.run;
  app.get_formatter()->column_width(30);
  app.add_option("--workers", r.workers, "Processes that begin")->capture_default_str();
  app.add_option("--kill", kills, "Kill N workers (SIGKILL) T seconds after training began")
      ->type_name("N@T");
  app.add_option("--stop", stops,
                 "Stop N workers (SIGSTOP) for two deadlines: the others continue without\n"
                 "them, and they join again later")
      ->type_name("N@T");
  app.add_option("--add", additions, "Start N more workers")->type_name("N@T");
  app.add_flag("--calm", calm, "No example schedule");
  app.add_option("--strategy", r.strategy,
                 "allreduce; shards: logical shards, so that deaths change no bit;\n"
                 "local: models are merged every 8 calls")
      ->check(CLI::IsMember({"allreduce", "shards", "local"}))
      ->capture_default_str();
  app.add_option("--data", r.data,
                 "A folder of digits (IDX or optdigits), or a text to learn\n"
                 "(default: LIMBER_DATA/optdigits, or else the project's README)")
      ->type_name("PATH");
  auto const* epochs = app.add_option("--epochs", r.epochs, "(default: as many as take about 20 s)");
  app.add_option("--batch", r.batch, "Samples of an update, of all workers together")->capture_default_str();
  app.add_option("--hidden", r.hidden, "Width of the hidden layer")->capture_default_str();
  app.add_option("--eta", r.eta, "Learning rate; a cosine brings it to 0")->capture_default_str();
  app.add_option("--momentum", r.momentum)->capture_default_str();
  app.add_option("--pace", r.pace, "Milliseconds that a call takes at least")->capture_default_str();
  app.add_option("--deadline", r.deadline, "Seconds until a worker that does not answer is excluded")
      ->capture_default_str();
  app.add_option("--seed", r.seed, "Of first weights, order of samples, and who is killed")
      ->capture_default_str();
  app.add_option("--folder", o.folder, "Shared by the workers; kept (default: a temporary one)")
      ->type_name("DIR");
  app.add_flag("--alone", alone, "Do not compare with an undisturbed run");
  app.add_flag("--smoke", smoke, "A few seconds: shows that everything works");

  // Options of worker processes.
  app.add_option("--worker", w.name)->group("");
  app.add_option("--report", w.report_fd)->group("");
  try {
    app.parse(argc, argv);
  } catch (CLI::CallForHelp const&) {
    std::fputs(app.help().c_str(), stdout);
    return {};
  } catch (CLI::ParseError const& e) { throw bad_input(e.what()); }

  for (auto const& k : kills) o.events.push_back(event_of(action::kill, "--kill", k));
  for (auto const& s : stops) o.events.push_back(event_of(action::stop, "--stop", s));
  for (auto const& a : additions) o.events.push_back(event_of(action::add, "--add", a));
  if (smoke) {
    r.workers = std::min(r.workers, 3);
    r.pace = std::min(r.pace, 10.0);
    if (epochs->count() == 0) r.epochs = 4;
  }
  if (o.events.empty() && !calm && r.workers >= 3)
    o.events = smoke ? std::vector<event>{{action::kill, 1, 0.6}, {action::add, 1, 1.2}}
                     : std::vector<event>{{action::kill, 2, 3}, {action::add, 1, 6}, {action::stop, 1, 10}};
  std::ranges::stable_sort(o.events, {}, &event::seconds);
  o.compare = !alone;
  if (r.data.empty()) r.data = default_data();
  check(o);
  if (w.name.empty()) return {o, std::nullopt};
  w.run = o.run;
  w.folder = o.folder;
  return {std::nullopt, w};
}

}  // namespace example
