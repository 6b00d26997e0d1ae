// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Workers on a virtual clock, one thread each, of which one runs at a time. They die and sleep between any
/// two operations on the store, in an order that a seed reproduces.

#include <limber/elastic/membership.hpp>

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace limber::elastic::test {

/// Thrown to unwind a worker that dies.
struct killed {};

/// The times of a worker's events, in seconds.
struct worker_events {
  double starts = 0;
  double dies = std::numeric_limits<double>::infinity();
  double sleeps = std::numeric_limits<double>::infinity(), wakes = 0;
  double leaves = std::numeric_limits<double>::infinity();
};

/// Runs the worker with the earliest wake-up time.
class virtual_time {
 public:
  explicit virtual_time(std::vector<worker_events> events, double end) : end_(end) {
    for (worker_events const& e : events) workers_.push_back(std::make_unique<worker_thread>(e));
  }

  [[nodiscard]] double now() const { return now_; }
  [[nodiscard]] worker_events const& of(int worker) const {
    return workers_[static_cast<std::size_t>(worker)]->f;
  }
  [[nodiscard]] bool dead(int worker) const { return now_ >= of(worker).dies; }

  /// Runs body(worker) for each, until all have returned or were killed; the rest are killed at the end.
  template <class Body>
  void run(Body const& body) {
    std::vector<std::thread> threads;
    for (std::size_t w = 0; w < workers_.size(); ++w)
      threads.emplace_back([&, w] {
        own() = static_cast<int>(w);
        try {
          std::unique_lock lock(guard_);
          await_turn(lock, *workers_[w]);
          lock.unlock();
          pause(0);
          body(static_cast<int>(w));
        } catch (killed const&) {
        } catch (std::exception const& e) { failures_.push_back(text("worker ", w, ": ", e.what())); }
        std::scoped_lock const lock(guard_);
        workers_[w]->done = true;
        pass_turn();
      });
    {
      std::scoped_lock const lock(guard_);
      pass_turn();
    }
    for (auto& t : threads) t.join();
  }

  void pause(double seconds) {
    std::unique_lock lock(guard_);
    worker_thread& s = *workers_[static_cast<std::size_t>(own())];
    s.wake = now_ + seconds;
    for (;;) {
      if (s.wake >= s.f.sleeps && s.wake < s.f.wakes) s.wake = s.f.wakes;
      s.wake = std::min({s.wake, std::max(now_, s.f.dies), std::max(now_, end_)});
      pass_turn();
      await_turn(lock, s);
      if (now_ >= s.f.dies || now_ >= end_) throw killed{};
      if (!(now_ >= s.f.sleeps && now_ < s.f.wakes)) return;
    }
  }

  /// The calling worker.
  static int& own() {
    thread_local int worker = -1;
    return worker;
  }

  [[nodiscard]] std::vector<std::string> const& failures() const { return failures_; }

 private:
  struct worker_thread {
    explicit worker_thread(worker_events const& given) : f(given), wake(given.starts) {}
    worker_events f;
    double wake;
    bool turn = false, done = false;
    std::condition_variable wakeup;
  };

  void pass_turn() {
    worker_thread* first = nullptr;
    for (auto const& s : workers_)
      if (!s->done && (!first || s->wake < first->wake)) first = s.get();
    if (!first) return;
    now_ = std::max(now_, first->wake);
    first->turn = true;
    first->wakeup.notify_one();
  }
  void await_turn(std::unique_lock<std::mutex>& lock, worker_thread& s) {
    s.wakeup.wait(lock, [&] { return s.turn; });
    s.turn = false;
  }

  double now_ = 0, end_;
  std::vector<std::unique_ptr<worker_thread>> workers_;
  std::vector<std::string> failures_;
  std::mutex guard_;
};

/// A store whose operations take time, before and after they take effect.
class slow_store {
  template <class F>
  auto timed(std::string const& call, std::string const& key, F const& f) {
    double const half = longest_ * static_cast<double>(random_() % 1000) / 2000;
    time_.pause(half);
    if (before) before(call, key);
    auto result = f();
    time_.pause(half);
    return result;
  }

 public:
  slow_store(virtual_time& t, double longest, std::uint64_t seed)
      : time_(t), longest_(longest), random_(seed) {}

  bool put_if_absent(std::string const& key, std::string const& value) {
    return timed("put_if_absent", key, [&] {
      bool const won = inner.put_if_absent(key, value);
      if (won) ++wins[key];
      return won;
    });
  }
  void replace(std::string const& key, std::string const& value) {
    timed("replace", key, [&] { return inner.replace(key, value), 0; });
  }
  std::optional<std::string> get(std::string const& key) {
    return timed("get", key, [&] { return inner.get(key); });
  }
  std::vector<std::string> list(std::string const& prefix) {
    return timed("list", prefix, [&] { return inner.list(prefix); });
  }
  bool remove(std::string const& key) {
    return timed("remove", key, [&] { return inner.remove(key); });
  }

  memory_store inner;
  std::function<void(std::string const& call, std::string const& key)>
      before;  ///< called before an operation takes effect
  std::map<std::string, int> wins;

 private:
  virtual_time& time_;
  double longest_;
  std::mt19937_64 random_;
};

/// How a collective ended.
struct outcome {
  std::optional<ending> failed{};
  std::vector<int> suspects{};
};

/// A model of one generation's communicator: a rank that dies or closes is detected at once, a sleeping one
/// is not, and a wait ends at the deadline.
class mesh {
 public:
  mesh(virtual_time& t, int size, double deadline)
      : time_(t), deadline_(deadline), ranks_(static_cast<std::size_t>(size)) {}

  outcome connect(int rank, int worker) {
    ranks_[static_cast<std::size_t>(rank)].worker = worker;
    return wait(0);
  }
  outcome step(int rank, long number) {
    ranks_[static_cast<std::size_t>(rank)].arrived = number;
    return wait(number);
  }
  void close(int rank) { ranks_[static_cast<std::size_t>(rank)].closed = true; }

  long planned_after = std::numeric_limits<long>::max();

 private:
  struct peer {
    int worker = -1;
    long arrived = 0;
    bool closed = false;
  };

  outcome wait(long number) {
    double const start = time_.now();
    for (;;) {
      bool all = true;
      std::vector<int> lost;
      for (std::size_t r = 0; r < ranks_.size(); ++r) {
        peer const& p = ranks_[r];
        if (p.worker >= 0 && p.arrived >= number) continue;
        all = false;
        if (p.closed || (p.worker >= 0 && time_.dead(p.worker))) lost.push_back(static_cast<int>(r));
      }
      if (all) return {};
      if (!lost.empty()) return {ending::lost_connection, lost};
      if (time_.now() - start >= deadline_) return {ending::deadline, {}};
      time_.pause(0.07);
    }
  }

  virtual_time& time_;
  double deadline_;
  std::vector<peer> ranks_;
};

/// What happened in a run.
struct history {
  std::map<i64, std::vector<std::pair<int, membership_view>>>
      seen;  ///< by generation: the view of each worker
  struct completed {
    double when;
    int worker;
    i64 generation;
  };
  std::vector<completed> steps;          ///< and connections
  std::map<std::string, int> worker_of;  ///< by id
  std::map<std::string, int> wins;       ///< of put_if_absent, by key
  std::vector<std::string> keys;         ///< at the end
  std::vector<std::string> failures;
  std::vector<std::string> leavers;  ///< by id
  std::vector<int> fenced;           ///< workers
};

struct settings {
  double deadline = 4;
  int min_workers = 1;
  double end = 60;
  double latency = 0.02;
  std::uint64_t seed = 1;
  std::function<void(virtual_time&, std::string const& call, std::string const& key)> before{};
};

[[nodiscard]] inline membership_options options_of(settings const& s, virtual_time& t,
                                                   std::mt19937_64& random) {
  membership_options how{.deadline = s.deadline, .min_workers = s.min_workers};
  how.join_deadline = 10 * s.end;
  how.poll = {0.1, [&t] { return t.now(); }, [&t](double seconds) { t.pause(seconds); }};
  how.random = [&random] { return random(); };
  return how;
}

/// Runs workers with these events: they train together, and use `membership` as documented.
[[nodiscard]] inline history run(std::vector<worker_events> const& events, settings const& s) {
  virtual_time time(events, s.end);
  slow_store store(time, s.latency, s.seed);
  if (s.before)
    store.before = [&](std::string const& call, std::string const& key) { s.before(time, call, key); };
  std::mt19937_64 random(s.seed * 977 + 5);
  std::map<std::string, std::unique_ptr<mesh>> meshes;
  history out;
  time.run([&](int worker) {
    membership<slow_store> m(store, text("w", worker), options_of(s, time, random));
    membership_view mine = m.join();
    long number = 0;
    for (;;) {
      out.worker_of[m.id()] = worker;
      out.seen[mine.generation].emplace_back(worker, mine);
      auto& engine = meshes[mine.prefix];
      if (!engine) engine = std::make_unique<mesh>(time, mine.size(), s.deadline);
      double asked = time.now();
      outcome o = engine->connect(mine.rank, worker);
      if (!o.failed) out.steps.push_back({time.now(), worker, mine.generation});
      for (number = 1; !o.failed; ++number) {
        time.pause(0.2 + 0.3 * static_cast<double>(random() % 1000) / 1000);
        if (!m.beat()) break;
        if (time.now() >= time.of(worker).leaves) {
          out.leavers.push_back(m.id());
          m.leave(mine);
          engine->close(mine.rank);
          return;
        }
        if (mine.rank == 0 && time.now() >= asked + 1 && engine->planned_after > number) {
          asked = time.now();
          if (!m.joiners().empty()) engine->planned_after = number;
        }
        o = engine->step(mine.rank, number);
        if (o.failed) break;
        out.steps.push_back({time.now(), worker, mine.generation});
        if (engine->planned_after <= number) o.failed = ending::planned;
      }
      if (o.failed) m.announce(mine, *o.failed, o.suspects);
      engine->close(mine.rank);
      if (!o.failed) {  // fenced
        out.fenced.push_back(worker);
        mine = m.join();
        continue;
      }
      try {
        mine = m.next(mine);
      } catch (fenced const&) {
        out.fenced.push_back(worker);
        mine = m.join();
      }
    }
  });
  out.wins = store.wins;
  out.keys = store.inner.list("");
  out.failures = time.failures();
  return out;
}

}  // namespace limber::elastic::test
