// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// One worker process. `train` shows the code of a trainer.

#include "../language_model/model.hpp"
#include "history.hpp"
#include "options.hpp"

#include <limber/comm/gloo.hpp>
#include <limber/core/clock.hpp>
#include <limber/core/fingerprint.hpp>
#include <limber/elastic/session.hpp>
#include <limber/limber.hpp>

#include <unistd.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

namespace example {

/// Reports events to the parent process, line by line.
class reporter {
 public:
  explicit reporter(int fd) : fd_(fd) {}

  void say(std::string line) const {
    line += '\n';
    // A write to a closed pipe fails; that is ignored.
    if (fd_ >= 0) (void)!::write(fd_, line.data(), line.size());
  }

 private:
  int fd_;
};

[[nodiscard]] inline std::uint64_t hash_of(std::vector<limber::tensor> const& parameters) {
  limber::fingerprint all;
  for (auto const& t : parameters)
    all.mix(std::string_view(reinterpret_cast<char const*>(t.value.data),
                             static_cast<std::size_t>(t.value.bytes())));
  return all.value();
}

/// All workers that held the trained state have left the run.
struct nobody_left : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// A training task.
struct task {
  std::string source;    ///< shown to the user
  limber::i64 size = 0;  ///< samples [0, size) are trained on
  std::vector<limber::i64> held_out{};
  std::vector<limber::tensor> parameters{};
  std::function<double(std::span<limber::i64 const>)> gradient{};
  std::function<score(std::span<limber::i64 const>)> evaluate{};
};

/// Trains as worker `w` of its run, until the run ends.
/// @param batch  plans the samples of an update
template <class Strategy>
void train(task const& learnt, worker_options const& w, Strategy strategy, limber::any_policy const& batch) {
  using namespace limber;
  double const deadline = w.run.deadline;
  reporter const report(w.report_fd);
  history_writer history_log(w.folder / "histories" / (w.name + ".txt"));

  elastic::directory_store store(w.folder / "store");
  elastic::session_options how{.name = w.name};
  how.membership = {.deadline = deadline, .grace = deadline / 8, .suspicion = deadline / 20};
  how.membership.min_workers = w.run.workers;
  how.membership.settle = 0.2;
  how.membership.beat_every = deadline / 8;
  how.membership.poll.every = 0.005;
  how.log = [&](std::string const& line) { report.say("log " + line); };
  elastic::session run(
      store,
      [&](elastic::membership_view const& r) {
        return limber::gloo_engine::communicator(
            r.rank, r.size(), limber::gloo_engine::file_rendezvous(w.folder / "mesh"),
            {.deadline = deadline, .rendezvous_deadline = deadline, .prefix = r.prefix, .host = "127.0.0.1"});
      },
      how);
  auto const expect_company = [&] {
    bool alone = run.now().generation > 1;
    for (int const r : run.now().old_ranks) alone = alone && r < 0;
    if (alone) throw nobody_left("all workers that held the trained state have left");
  };
  expect_company();

  optimizer opt{learnt.parameters,
                sgd{.momentum = w.run.momentum},
                constant(w.run.eta) * cosine(epochs(static_cast<double>(w.run.epochs))),
                strategy,
                run.communicator(),
                {.batch = batch, .epoch_size = learnt.size}};
  elastic::dealer samples(learnt.size, w.run.seed);

  i64 entered_last = 0, mine = 0, shown = 0;
  double loss = 0, weight = 0, began = steady_seconds();
  auto const report_progress = [&](double since) {
    report.say(text("step ", run.now().generation, " ", run.now().rank, " ", run.now().size(), " ",
                    opt.now().in(unit::epochs), " ", weight > 0 ? loss / weight : 0, " ",
                    since > 0 ? static_cast<double>(mine - shown) / since : 0));
  };
  run.train(
      opt, samples,
      [&] {
        auto const& now = run.now();
        if (now.generation != entered_last) {
          expect_company();
          entered_last = now.generation;
          auto const& at = samples.position();
          history_log.note(
              entered{now.generation, opt.now().samples, at.epoch, at.cursor, samples.requeued()});
          began = 0;
        }
        return samples.epoch() >= w.run.epochs;
      },
      [&](elastic::work_assignment const& h) {
        history_log.note(run.now().generation, opt.now().calls + 1, h);
        double const start = steady_seconds();
        if (!h.samples.empty()) {
          loss = 0.95 * loss + 0.05 * learnt.gradient(h.samples);
          weight = 0.95 * weight + 0.05;
        }
        mine += std::ssize(h.samples);
        double const rest = w.run.pace / 1000 - (steady_seconds() - start);
        if (rest > 0) std::this_thread::sleep_for(std::chrono::duration<double>(rest));
      },
      [&](step_report const&) {
        double const now = steady_seconds(), since = now - began;
        if (since < 0.2) return;
        report_progress(began > 0 ? since : 0);
        began = now;
        shown = mine;
      });
  report_progress(0);
  score const final = learnt.evaluate(learnt.held_out);
  history_log.note(finished{run.now().generation, opt.now().samples, hash_of(learnt.parameters), final.bits,
                            final.accuracy});
  report.say("finished");
}

}  // namespace example
