// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Workers as threads that hand a baton around: for sanitizers and debuggers, which know threads.

#include <limber/sim/detail/carrier.hpp>

#include <condition_variable>
#include <cstddef>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

namespace limber::sim::detail {

/// One thread a worker; a thread goes on only while it holds the baton.
class baton final : public carrier {
 public:
  explicit baton(int workers) : runners_(static_cast<std::size_t>(workers)) {}
  baton(baton const&) = delete;
  baton& operator=(baton const&) = delete;
  /// @pre all bodies have ended
  ~baton() override {
    for (auto& r : runners_)
      if (r && r->thread.joinable()) r->thread.join();
  }

  void start(int worker, std::function<void()> body) override {
    auto made = std::make_unique<runner>();
    runner& r = *made;
    r.thread = std::thread([this, &r, todo = std::move(body)]() mutable {
      await(r);
      todo();
      todo = nullptr;
      give_back();
    });
    runners_[static_cast<std::size_t>(worker)] = std::move(made);
  }

  void resume(int worker) override {
    runner& r = *runners_[static_cast<std::size_t>(worker)];
    std::unique_lock lock(door_);
    holder_ = &r;
    r.bell.notify_one();
    loop_bell_.wait(lock, [&] { return holder_ == nullptr; });
  }

  void suspend() override {
    runner& r = *holder_;
    give_back();
    await(r);
  }

 private:
  struct runner {
    std::thread thread{};
    std::condition_variable bell{};
  };

  void await(runner& r) {
    std::unique_lock lock(door_);
    r.bell.wait(lock, [&] { return holder_ == &r; });
  }
  void give_back() {
    std::scoped_lock const lock(door_);
    holder_ = nullptr;
    loop_bell_.notify_one();
  }

  std::mutex door_;
  std::condition_variable loop_bell_;
  runner* holder_ = nullptr;  ///< nullptr: the loop has the baton
  std::vector<std::unique_ptr<runner>> runners_;
};

}  // namespace limber::sim::detail
