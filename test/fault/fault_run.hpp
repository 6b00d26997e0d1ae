// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// One training run of real processes, with random kills, stops and joins.

#include "../../examples/elastic_processes/audit.hpp"
#include "ledger_worker.hpp"

#include <limber/core/clock.hpp>
#include <limber/core/random.hpp>

#include <support/processes.hpp>

#include <algorithm>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <deque>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <sstream>
#include <string>
#include <vector>

namespace limber::test {

/// An action on a process.
struct external_event {
  enum class kind { kill, stop, wake, start } what{};
  int who = 0;    ///< a worker; `start` is the next one
  double at = 0;  ///< seconds since the first step
};

/// A run and its events, drawn from a seed.
struct fault_plan {
  std::uint64_t seed = 0;
  std::string name{};
  training_kind what = training_kind::allreduce;
  int workers = 3;
  int pause = 15;       ///< milliseconds that a call computes
  bool shrink = false;  ///< survivors shrink their communicator instead of reconnecting
  std::map<int, fault_point> faults_by_worker{};
  std::vector<external_event> later{};
};

/// A sequence of random numbers of a seed.
class dice {
 public:
  explicit dice(std::uint64_t seed) : seed_(seed) {}
  [[nodiscard]] int below(int n) {
    return static_cast<int>(random_bits(seed_, 5, ++count_) % static_cast<std::uint64_t>(n));
  }
  [[nodiscard]] double between(double low, double high) {
    return low + (high - low) * below(10'000) / 10'000.;
  }

 private:
  std::uint64_t seed_, count_ = 0;
};

[[nodiscard]] inline fault_plan plan_of(std::uint64_t seed) {
  using enum external_event::kind;
  dice d(seed);
  fault_plan p{.seed = seed};
  p.what = static_cast<training_kind>(d.below(4));
  p.workers = 3 + d.below(2);
  int const one = d.below(p.workers), other = (one + 1 + d.below(p.workers - 1)) % p.workers;
  double const when = d.between(0, 0.8);
  auto const fault = [&](fault_point::kind what) {
    return fault_point{what, 1 + d.below(400), d.below(1500)};
  };
  auto const some = [&] {
    return d.below(2) == 0 ? fault_point::kind::kill : fault_point::kind::kill_inside;
  };
  switch (seed % 10) {
    case 0:
      p.name = "one is killed";
      p.later = {{kill, one, when}};
      break;
    case 1:
      p.name = "two are killed at once";
      p.later = {{kill, one, when}, {kill, other, when}};
      break;
    case 2:
      p.name = "one dies in an operation";
      p.faults_by_worker[one] = fault(some());
      break;
    case 3:
      p.name = "two die in operations";
      p.faults_by_worker[one] = fault(some());
      p.faults_by_worker[other] = fault(some());
      break;
    case 4:
      p.name = "one sleeps too long";
      p.later = {{stop, one, when}, {wake, one, when + fault_deadline + d.between(0.1, 0.6)}};
      break;
    case 5:
      p.name = "the lowest rank dies, and one joins";
      p.faults_by_worker[0] = fault(some());
      p.later = {{start, 0, d.between(0, 0.5)}};
      break;
    case 6:
      p.name = "one joins, and one dies while it joins";
      p.later = {{start, 0, when}, {start, 0, when}, {kill, p.workers, when + d.between(0, 0.5)}};
      break;
    case 7:
      p.name = "one sleeps for a while";
      p.later = {{stop, one, when}, {wake, one, when + d.between(0.05, 0.5) * fault_deadline}};
      break;
    case 8:
      p.name = "one is killed and one stops in an operation";
      p.faults_by_worker[other] = fault(fault_point::kind::stop);
      p.later = {{kill, one, when}};
      break;
    default:
      p.name = "one is killed while others recover from another";
      p.faults_by_worker[one] = fault(some());
      p.later = {{kill, other, -d.between(0, 0.4)}};
      break;
  }
  p.shrink = d.below(2) == 0;
  if (p.shrink) p.name += "; survivors shrink";
  return p;
}

/// The outcome of a run.
struct fault_outcome {
  std::vector<std::string> faults{};
  std::vector<double> after_kill{}, after_stop{};  ///< seconds until training continued
  std::vector<float> model{};
  i64 generations = 0;
  int died = 0, stopped = 0, fenced = 0, late = 0, finished = 0;
};

/// The state of a process, as the driver sees it.
struct watched {
  i64 generation = 0;  ///< it was seen in
  bool victim = false, stopped = false, woken = false, ended = false;
  std::optional<double> lost_at{};  ///< when it was killed or stopped
  i64 lost_in = 0;
  bool was_stop = false;
  double wakes = 0;
  std::vector<float> model{};
};

class fault_driver {
 public:
  fault_driver(fault_plan plan, std::filesystem::path folder)
      : plan_(std::move(plan)), folder_(std::move(folder)) {
    std::filesystem::create_directories(folder_ / "histories");
    std::ranges::stable_sort(plan_.later, {}, &external_event::at);
  }

  [[nodiscard]] fault_outcome run() {
    crew workers(plan_.workers, body());
    watched_.resize(static_cast<std::size_t>(plan_.workers));
    double const limit = steady_seconds() + 60;
    while (!all_ended() && steady_seconds() < limit) {
      for (int r = 0; r < workers.size(); ++r) read_reports(workers, r);
      apply_events(workers);
    }
    for (int r = 0; r < workers.size(); ++r) workers.signal(r, SIGCONT);
    check_results(workers.join(1));
    return std::move(out_);
  }

 private:
  [[nodiscard]] std::function<void(int, voice const&)> body() const {
    return [this](int rank, voice const& say) {
      auto const at = plan_.faults_by_worker.find(rank);
      work_on_ledger({.folder = folder_,
                      .id = rank,
                      .workers = plan_.workers,
                      .fault = at == plan_.faults_by_worker.end() ? fault_point{} : at->second,
                      .pause = plan_.pause,
                      .shrink = plan_.shrink},
                     plan_.what, say);
    };
  }
  [[nodiscard]] watched& of(int r) { return watched_[static_cast<std::size_t>(r)]; }
  void fault(std::string what) { out_.faults.push_back(std::move(what)); }

  [[nodiscard]] bool all_ended() const {
    return std::ranges::all_of(watched_,
                               [](watched const& w) { return w.ended || (w.victim && !w.was_stop); });
  }

  void read_reports(crew& workers, int r) {
    watched& w = of(r);
    if (w.ended) return;
    auto const words = workers.hear(r, 0.001);
    if (!words) {
      w.ended = workers.silent(r);
      return;
    }
    std::istringstream in(*words);
    std::string what;
    double at = 0;
    i64 generation = 0;
    in >> what >> at >> generation;
    if (what == "first") {
      if (!began_) began_ = at;
      w.generation = generation;
      auto const [first, fresh] = first_steps_.try_emplace(generation, at);
      first->second = std::min(first->second, at);
    } else if (what == "dies" || what == "stops") {
      w.generation = generation;
      record_loss(w, at, what == "stops");
      if (what == "stops") w.wakes = at + fault_deadline + 0.3;
    } else if (what == "fenced") {
      ++out_.fenced;
    } else if (what == "model") {
      w.model.resize(ledger_model::length);
      std::memcpy(w.model.data(), words->data() + 6, ledger_model::length * sizeof(float));
      ends_ = steady_seconds();
    }
  }

  void record_loss(watched& w, double at, bool stop) {
    w.lost_at = at;
    w.lost_in = w.generation;
    w.was_stop = w.stopped = stop;
    w.victim = true;
    last_loss_ = at;
    ++(stop ? out_.stopped : out_.died);
  }

  void apply_events(crew& workers) {
    if (!began_) return;
    double const now = steady_seconds();
    for (std::size_t r = 0; r < watched_.size(); ++r)
      if (watched& w = watched_[r]; w.stopped && w.wakes > 0 && now >= w.wakes)
        wake(workers, static_cast<int>(r));
    while (next_ < plan_.later.size()) {
      external_event const& m = plan_.later[next_];
      // A negative time counts from the first loss.
      if (m.at < 0 && !last_loss_) break;
      if (now < (m.at < 0 ? *last_loss_ - m.at : *began_ + m.at)) break;
      ++next_;
      if (m.what == external_event::kind::start) {
        if (ends_ == 0) {
          workers.start(body());
          watched_.emplace_back();
        }
        continue;
      }
      if (m.who >= workers.size() || of(m.who).ended) continue;
      if (m.what == external_event::kind::wake) {
        wake(workers, m.who);
      } else if (!of(m.who).victim) {
        bool const stop = m.what == external_event::kind::stop;
        workers.signal(m.who, stop ? SIGSTOP : SIGKILL);
        record_loss(of(m.who), steady_seconds(), stop);
      }
    }
    // A worker that waits to be admitted after the others have finished is not admitted.
    bool const over = ends_ > 0 && now > ends_ + 0.2;
    for (std::size_t r = 0; r < watched_.size(); ++r) {
      watched& w = watched_[r];
      if (over && !w.ended && !w.victim && w.generation == 0) {
        workers.signal(static_cast<int>(r), SIGKILL);
        w.victim = w.ended = true;
        ++out_.late;
      }
    }
  }
  void wake(crew& workers, int r) {
    workers.signal(r, SIGCONT);
    of(r).stopped = false;
    of(r).woken = true;
  }

  void check_results(std::vector<ending> const& endings) {
    watched const* first = nullptr;
    for (std::size_t r = 0; r < endings.size(); ++r) {
      ending const& e = endings[r];
      watched const& w = watched_[r];
      std::string const who = text("worker ", r);
      if (w.victim && !w.was_stop) {
        // It may have finished just before.
        if (e.how == ending::kind::threw || e.how == ending::kind::late)
          fault(text(who, " was killed, but: ", e.what));
        if (e.how != ending::kind::finished) continue;
      }
      // A stopped worker that continues after the end of the run is not admitted.
      if (w.woken && e.how == ending::kind::threw && e.where && e.where->engine == "membership" &&
          e.where->call == "join" && ends_ > 0) {
        ++out_.late;
        continue;
      }
      if (e.how != ending::kind::finished) {
        fault(text(who, " did not finish: ", e.what));
        continue;
      }
      ++out_.finished;
      if (!first) first = &w;
      if (w.model.size() != ledger_model::length || !std::ranges::equal(w.model, first->model, same_bits_of))
        fault(text(who, " has another model than the first survivor"));
    }
    if (!first) return fault("no worker finished");
    out_.model = first->model;
    expect_consumed_once();
    measure();
  }
  [[nodiscard]] static bool same_bits_of(float a, float b) { return std::memcmp(&a, &b, sizeof a) == 0; }

  void expect_consumed_once() {
    bool const exact = plan_.what != training_kind::local;
    i64 wrong = 0;
    for (std::size_t k = 0; k < ledger_model::entries; ++k) {
      float const w = out_.model[k];
      wrong += (exact ? w == 1.f : w > 0.f) ? 0 : 1;
    }
    if (wrong > 0) fault(text(wrong, " of the ledger's entries are wrong"));
    auto const found = example::audit({ledger_model::samples, ledger_model::epochs, ledger_seed},
                                      example::read_histories(folder_ / "histories"));
    for (auto const& f : found.faults) fault("audit: " + f);
    out_.generations = found.generations;
  }

  // From each loss, or the last one before, to the first step of a generation without it.
  void measure() {
    for (watched const& w : watched_) {
      if (!w.lost_at || w.lost_in == 0) continue;
      for (auto const& [generation, at] : first_steps_) {
        if (generation <= w.lost_in || at < *w.lost_at) continue;
        double last = *w.lost_at;
        for (watched const& o : watched_)
          if (o.lost_at && o.lost_in > 0 && *o.lost_at < at) last = std::max(last, *o.lost_at);
        bool const woke_in_time = w.was_stop && at - *w.lost_at < 0.5 * fault_deadline;
        if (!woke_in_time) (w.was_stop ? out_.after_stop : out_.after_kill).push_back(at - last);
        if (at - last > fault_deadline + 2)
          fault(text("training continued only ", at - last, " s after the last loss"));
        break;
      }
    }
  }

  fault_plan plan_;
  std::filesystem::path folder_;
  std::deque<watched> watched_;
  fault_outcome out_;
  std::optional<double> began_, last_loss_;
  std::map<i64, double> first_steps_;  // by generation
  std::size_t next_ = 0;
  double ends_ = 0;
};

}  // namespace limber::test
