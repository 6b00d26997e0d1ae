// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// What lies behind the stand-in for the CUDA runtime: work that waits, memory that is somebody's, captures.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <new>
#include <random>
#include <string>
#include <string_view>
#include <unordered_set>
#include <utility>
#include <vector>

namespace late_cuda {

/// Something a device shall do, after other things.
struct work {
  std::function<void()> run;
  std::vector<std::shared_ptr<work>> after;
  bool done = false;
};
using work_ptr = std::shared_ptr<work>;

/// What a stream was given between the begin and the end of a capture: works that never run themselves.
struct capture {
  std::vector<work_ptr> nodes;
  bool valid = true;
};

struct stream {
  int device = 0;
  work_ptr last;                ///< the newest work, or the newest node of a capture
  std::vector<work_ptr> waits;  ///< of other streams: the next work comes after them, too
  std::shared_ptr<capture> captured;
  work_ptr before;  ///< the newest work when the capture reached this stream
};

struct event {
  int device = 0;
  work_ptr at;  ///< null: never recorded, or nothing was there
  std::shared_ptr<capture> captured;
};

struct graph {
  std::vector<work_ptr> nodes;
};

struct executable_graph {
  std::vector<work_ptr> nodes;
  work_ptr last;  ///< launches of one graph follow each other
};

enum class kind { device, pinned };

struct allocation {
  std::size_t bytes = 0;
  kind is = kind::device;
  int device = 0;
  bool pooled = false;
};

/// The whole machine; every thread has its own.
///
/// Order    work runs when somebody waits for it, or, now and then, when somebody asks; of all that may run,
///          any. What a real device does by luck of timing is so tried on purpose: a wait that is
///          missing shows as wrong bits.
/// Memory   fresh memory holds noise, freed memory other noise; a sanitizer sees every use of it.
class machine {
 public:
  static machine& one() {
    thread_local machine m;
    return m;
  }

  int devices = 2;
  int current = 0;
  int last_error = 0;
  int fault = 0;                         ///< a kernel failed: every later call says so
  std::string what{};                    ///< why it failed
  std::map<std::string, long> counts{};  ///< calls of the runtime by their names
  std::unordered_set<void const*> handles{};
  std::mt19937_64 random{1};

  /// Puts new work behind what a stream holds, or into its capture.
  work_ptr enqueue(stream& s, std::function<void()> run) {
    auto w = std::make_shared<work>();
    w->run = std::move(run);
    if (s.last != nullptr) w->after.push_back(s.last);
    w->after.insert(w->after.end(), s.waits.begin(), s.waits.end());
    s.waits.clear();
    s.last = w;
    if (s.captured != nullptr)
      s.captured->nodes.push_back(w);
    else
      pending_.push_back(w);
    return w;
  }

  /// Runs whatever may run, in any order, until w is done.
  void finish(work_ptr const& w) {
    while (w != nullptr && !w->done && run_one()) {}
  }
  void finish_all() {
    while (run_one()) {}
  }
  /// Time passes.
  void drift() {
    for (auto n = random() % 4; n > 0; --n) run_one();
  }

  /// Enqueues a graph's nodes anew, with a last one behind them all.
  void launch(executable_graph& g, stream& s) {
    std::map<work const*, work_ptr> copies;
    auto const join = std::make_shared<work>();
    for (auto const& node : g.nodes) {
      auto copy = std::make_shared<work>();
      copy->run = node->run;
      for (auto const& before : node->after) copy->after.push_back(copies.at(before.get()));
      if (s.last != nullptr) copy->after.push_back(s.last);
      if (g.last != nullptr) copy->after.push_back(g.last);
      copy->after.insert(copy->after.end(), s.waits.begin(), s.waits.end());
      copies[node.get()] = copy;
      join->after.push_back(copy);
      pending_.push_back(copy);
    }
    join->after.insert(join->after.end(), s.waits.begin(), s.waits.end());
    if (s.last != nullptr) join->after.push_back(s.last);
    s.waits.clear();
    s.last = g.last = join;
    pending_.push_back(join);
  }

  [[nodiscard]] void* allocate(std::size_t bytes, kind is, bool pooled) {
    auto* const p = static_cast<std::byte*>(::operator new(std::max<std::size_t>(bytes, 1), line));
    std::memset(p, 0xa5, bytes);
    memory_[p] = {bytes, is, current, pooled};
    return p;
  }
  void release(void* p) {
    auto const at = memory_.find(static_cast<std::byte*>(p));
    if (at == memory_.end()) return;
    std::memset(p, 0xdd, at->second.bytes);
    memory_.erase(at);
    ::operator delete(p, line);
  }
  /// The allocation that holds [p, p + bytes), or null.
  [[nodiscard]] allocation const* find(void const* p, std::size_t bytes = 0) const {
    auto at = memory_.upper_bound(const_cast<std::byte*>(static_cast<std::byte const*>(p)));
    if (at == memory_.begin()) return nullptr;
    --at;
    auto const offset = static_cast<std::size_t>(static_cast<std::byte const*>(p) - at->first);
    return offset + bytes <= at->second.bytes ? &at->second : nullptr;
  }
  [[nodiscard]] std::size_t pool_bytes(int device) const {
    std::size_t sum = 0;
    for (auto const& [p, a] : memory_)
      if (a.pooled && a.device == device) sum += a.bytes;
    return sum;
  }
  [[nodiscard]] long live() const { return static_cast<long>(memory_.size()); }
  [[nodiscard]] std::size_t waiting() const { return pending_.size(); }

 private:
  bool run_one() {
    std::vector<std::size_t> ready;
    for (std::size_t i = 0; i < pending_.size(); ++i)
      if (std::ranges::all_of(pending_[i]->after, [](work_ptr const& w) { return w->done; }))
        ready.push_back(i);
    if (ready.empty()) return false;
    auto const at = static_cast<std::ptrdiff_t>(ready[random() % ready.size()]);
    work_ptr const w = pending_[static_cast<std::size_t>(at)];
    pending_.erase(pending_.begin() + at);
    if (w->run && fault == 0) w->run();
    w->done = true;
    w->run = nullptr;
    w->after.clear();
    return true;
  }

  static constexpr std::align_val_t line{256};
  std::vector<work_ptr> pending_;
  std::map<std::byte*, allocation> memory_;
};

}  // namespace late_cuda
