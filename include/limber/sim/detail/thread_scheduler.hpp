// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The interface that runs workers in turns, and workers as threads that run one at a time: for sanitizers
/// and debuggers, which support threads.

#include <condition_variable>
#include <cstddef>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

namespace limber::sim::detail {

/// Runs bodies in turns: at any time exactly one of them runs, or the caller of resume().
class turn_scheduler {
 public:
  turn_scheduler() = default;
  turn_scheduler(turn_scheduler const&) = delete;
  turn_scheduler& operator=(turn_scheduler const&) = delete;
  virtual ~turn_scheduler() = default;

  /// Prepares `body`, which must not throw; the first resume() starts it.
  virtual void start(int worker, std::function<void()> body) = 0;
  /// Returns when the body suspends itself or ends. @pre it was started and has not ended
  virtual void resume(int worker) = 0;
  /// Called by the running body: returns to resume().
  virtual void suspend() = 0;
};

/// One thread per worker; a thread runs only while it has the turn.
class thread_scheduler final : public turn_scheduler {
 public:
  explicit thread_scheduler(int workers) : threads_(static_cast<std::size_t>(workers)) {}
  thread_scheduler(thread_scheduler const&) = delete;
  thread_scheduler& operator=(thread_scheduler const&) = delete;
  /// @pre all bodies have ended
  ~thread_scheduler() override {
    for (auto& r : threads_)
      if (r && r->thread.joinable()) r->thread.join();
  }

  void start(int worker, std::function<void()> body) override {
    auto made = std::make_unique<worker_thread>();
    worker_thread& r = *made;
    r.thread = std::thread([this, &r, todo = std::move(body)]() mutable {
      await_turn(r);
      todo();
      todo = nullptr;
      yield_turn();
    });
    threads_[static_cast<std::size_t>(worker)] = std::move(made);
  }

  void resume(int worker) override {
    worker_thread& r = *threads_[static_cast<std::size_t>(worker)];
    std::unique_lock lock(mutex_);
    running_ = &r;
    r.wakeup.notify_one();
    loop_wakeup_.wait(lock, [&] { return running_ == nullptr; });
  }

  void suspend() override {
    worker_thread& r = *running_;
    yield_turn();
    await_turn(r);
  }

 private:
  struct worker_thread {
    std::thread thread{};
    std::condition_variable wakeup{};
  };

  void await_turn(worker_thread& r) {
    std::unique_lock lock(mutex_);
    r.wakeup.wait(lock, [&] { return running_ == &r; });
  }
  void yield_turn() {
    std::scoped_lock const lock(mutex_);
    running_ = nullptr;
    loop_wakeup_.notify_one();
  }

  std::mutex mutex_;
  std::condition_variable loop_wakeup_;
  worker_thread* running_ = nullptr;  ///< nullptr: the event loop has the turn
  std::vector<std::unique_ptr<worker_thread>> threads_;
};

}  // namespace limber::sim::detail
