// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// A worker whose model records the consumed samples, and that may die in any operation.

#include "../../examples/elastic_processes/history.hpp"

#include <limber/batch/policies.hpp>
#include <limber/comm/gloo.hpp>
#include <limber/core/clock.hpp>
#include <limber/elastic/session.hpp>
#include <limber/limber.hpp>

#include <support/processes.hpp>
#include <sys/time.h>

#include <chrono>
#include <concepts>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <span>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace limber::test {

inline constexpr double fault_deadline = 1;
inline constexpr std::uint64_t ledger_seed = 3;

enum class training_kind { allreduce, accumulation, shards, local };

/// One weight per sample and epoch: 1 once it is consumed (above 0 if models are averaged); and some weights
/// whose bits depend on the order of all additions.
struct ledger_model {
  static constexpr i64 samples = 384, epochs = 2, batch = 16;
  static constexpr std::size_t entries = 768, others = 64, length = entries + others;

  std::vector<float> w = std::vector<float>(entries), g = std::vector<float>(entries);
  std::vector<float> v = std::vector<float>(others, 1), h = std::vector<float>(others);

  // Σ g / Σ b at rate b: a whole call adds 1 to each of its samples.
  [[nodiscard]] std::vector<parameter_group<sgd>> groups(double rate) {
    return {{{{"ledger", w, g}}, sgd{}, 1.0}, {{{"others", v, h}}, sgd{.momentum = 0.9}, 0.02 / rate}};
  }
  void backward(elastic::work_assignment const& work) {
    for (i64 const s : work.samples) {
      g[static_cast<std::size_t>(work.epoch * samples + s)] -= 1;
      for (std::size_t k = 0; k < others; ++k) {
        float const x = 1 + static_cast<float>((static_cast<std::size_t>(s) * 37 + k * 11) % 101) / 101;
        h[k] += math::mul(x, math::sub(math::mul(x, v[k]), 0.5f));
      }
    }
  }
};

/// A fault: the process ends or stops at a given operation, or connects too late once.
struct fault_point {
  enum class kind { none, kill, kill_inside, stop, connects_late } what = kind::none;
  i64 operations = 0;    ///< until then, counted from 1; 0: never
  int microseconds = 0;  ///< from the beginning of the operation to the end of the process
};

/// Gloo's communicator with fault injection in each operation.
class fault_injector : public gloo_engine::communicator {
 public:
  fault_injector(gloo_engine::communicator inner, fault_point* fault, voice const* say, i64 const* generation)
      : gloo_engine::communicator(std::move(inner)), fault_(fault), say_(say), generation_(generation) {}

  [[nodiscard]] fault_injector shrink(std::span<int const> lost) {
    count_operation();
    return {gloo_engine::communicator::shrink(lost), fault_, say_, generation_};
  }

  gloo_engine::request all_reduce(const_tensor_view in, tensor_view out, reduction how = reduction::sum) {
    count_operation();
    return gloo_engine::communicator::all_reduce(in, out, how);
  }
  gloo_engine::request all_gather(const_tensor_view in, tensor_view out) {
    count_operation();
    return gloo_engine::communicator::all_gather(in, out);
  }
  gloo_engine::request broadcast(tensor_view data, int root) {
    count_operation();
    return gloo_engine::communicator::broadcast(data, root);
  }
  void barrier() {
    count_operation();
    gloo_engine::communicator::barrier();
  }

  [[nodiscard]] static std::string exact(double seconds) {
    char digits[32];
    std::snprintf(digits, sizeof digits, "%.6f", seconds);
    return digits;
  }

 private:
  void count_operation() {
    if (--fault_->operations == 0) inject();
  }
  void inject() {
    bool const stops = fault_->what == fault_point::kind::stop;
    (*say_)(text(stops ? "stops " : "dies ", exact(steady_seconds()), " ", *generation_));
    if (fault_->what == fault_point::kind::kill_inside) {
      // SIGALRM ends the process as abruptly.
      itimerval const soon{{0, 0}, {0, 1 + fault_->microseconds}};
      ::setitimer(ITIMER_REAL, &soon, nullptr);
    } else {
      ::raise(stops ? SIGSTOP : SIGKILL);
    }
  }

  fault_point* fault_;
  voice const* say_;
  i64 const* generation_;
};

/// A worker of a run, and its fault.
struct ledger_job {
  std::filesystem::path folder;  ///< of the run
  int id = 0;
  int workers = 1;  ///< that the run begins with
  fault_point fault{};
  int pause = 15;       ///< milliseconds that a call computes
  bool shrink = false;  ///< survivors shrink their communicator
};

/// Hooks of a worker: before training, and after committed steps.
struct no_hooks {
  void begin(auto&, auto&, elastic::dealer&) {}
  void stepped(auto&, auto&, elastic::dealer&) {}
};

template <class Strategy, class Else = no_hooks>
void train_ledger(ledger_job job, Strategy strategy, any_policy const& batch, voice const& say,
                  Else other = {}) {
  example::history_writer history_log(job.folder / "histories" / text("w", job.id, ".txt"));
  elastic::directory_store store(job.folder / "store");
  elastic::session_options how{.name = text("w", job.id)};
  how.check_every = 4;
  how.shrink = job.shrink;
  how.membership = {.deadline = fault_deadline, .grace = 0.2, .suspicion = 0.05, .min_workers = job.workers};
  how.membership.settle = 0.05;
  how.membership.beat_every = 0.1;
  how.membership.join_deadline = 5;
  how.membership.poll.every = 0.005;
  how.log = [&](std::string const& line) {
    if (std::getenv("LIMBER_LOG"))
      std::fprintf(stderr, "%.3f w%d: %s\n", steady_seconds(), job.id, line.c_str());
    if (line.find("without this worker") != std::string::npos) say("fenced 0 0");
  };
  i64 generation = 0;
  elastic::session run(
      store,
      [&](elastic::membership_view const& r) {
        generation = r.generation;
        if (job.fault.what == fault_point::kind::connects_late) {
          job.fault.what = fault_point::kind::none;
          std::this_thread::sleep_for(std::chrono::duration<double>(1.5 * fault_deadline));
          throw error({"gloo", "bootstrap", 0, -1, {}, "it was too late"});
        }
        return fault_injector(
            gloo_engine::communicator(r.rank, r.size(), gloo_engine::file_rendezvous(job.folder / "mesh"),
                                      {.deadline = fault_deadline,
                                       .rendezvous_deadline = fault_deadline,
                                       .prefix = r.prefix,
                                       .host = "127.0.0.1"}),
            &job.fault, &say, &generation);
      },
      how);
  ledger_model m;
  options o;
  o.batch = batch;
  o.epoch_size = ledger_model::samples;
  o.gradient = gradient_is::sum;
  o.buckets.first_bytes = o.buckets.bytes = 512;
  auto rate = static_cast<double>(ledger_model::batch);
  if constexpr (std::same_as<Strategy, sync::allreduce>) rate *= static_cast<double>(strategy.period);
  optimizer opt{m.groups(rate), rate, strategy, run.communicator(), o};
  elastic::dealer samples(ledger_model::samples, ledger_seed);

  other.begin(run, opt, samples);

  i64 entered = 0, stepped = 0;
  run.train(
      opt, samples,
      [&] {
        auto const& now = run.now();
        generation = now.generation;
        if (std::exchange(entered, now.generation) != now.generation) {
          auto const& at = samples.position();
          history_log.note(
              example::entered{now.generation, opt.now().samples, at.epoch, at.cursor, samples.requeued()});
        }
        return samples.epoch() >= ledger_model::epochs;
      },
      [&](elastic::work_assignment const& h) {
        history_log.note(run.now().generation, opt.now().calls + 1, h);
        m.backward(h);
        std::this_thread::sleep_for(std::chrono::milliseconds(job.pause));
      },
      [&](step_report const&) {
        i64 const g = run.now().generation;
        other.stepped(run, opt, samples);
        if (std::exchange(stepped, g) != g)
          say(text("first ", fault_injector::exact(steady_seconds()), " ", g));
      });
  history_log.note(example::finished{run.now().generation, opt.now().samples, 0, 0, 0});
  std::string all = "model ";
  all.append(reinterpret_cast<char const*>(m.w.data()), m.w.size() * sizeof(float));
  all.append(reinterpret_cast<char const*>(m.v.data()), m.v.size() * sizeof(float));
  say(all);
}

inline void work_on_ledger(ledger_job const& job, training_kind what, voice const& say) {
  i64 const b = ledger_model::batch;
  switch (what) {
    case training_kind::allreduce: return train_ledger(job, sync::allreduce{}, fixed{b}, say);
    case training_kind::accumulation: return train_ledger(job, sync::allreduce{.period = 3}, fixed{b}, say);
    case training_kind::shards: return train_ledger(job, sync::allreduce{}, logical_shards{4, b / 4}, say);
    case training_kind::local: return train_ledger(job, sync::local{.period = 4}, fixed{b}, say);
  }
}

}  // namespace limber::test
