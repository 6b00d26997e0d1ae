// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// How workers take turns: as fibers with one small stack each on one thread, or as threads that run one at a
/// time, for sanitizers and debuggers, which support threads.

#include <boost/context/detail/fcontext.hpp>
#include <boost/context/protected_fixedsize_stack.hpp>

#include <cxxabi.h>

#include <cstddef>
#include <cstring>
#include <functional>
#include <memory>
#include <semaphore>
#include <thread>
#include <utility>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#define LIMBER_SIM_ASAN 1
#elif defined(__SANITIZE_THREAD__)
#define LIMBER_SIM_TSAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define LIMBER_SIM_ASAN 1
#elif __has_feature(thread_sanitizer)
#define LIMBER_SIM_TSAN 1
#endif
#endif
#if !defined(LIMBER_SIM_TSAN)
#define LIMBER_SIM_TSAN 0
#endif
#if defined(LIMBER_SIM_ASAN)
#include <sanitizer/common_interface_defs.h>
#else
#define LIMBER_SIM_ASAN 0
#endif

namespace limber::sim::detail {

inline constexpr bool address_sanitizer = LIMBER_SIM_ASAN, thread_sanitizer = LIMBER_SIM_TSAN;

/// The bounds of a stack, for AddressSanitizer; unused in other builds.
struct stack_bounds {
  void const* bottom = nullptr;
  std::size_t size = 0;
};

/// Call before a switch to `next`; `kept` stores the state of this stack, nullptr if it is not resumed.
inline void leave_stack([[maybe_unused]] void** kept, [[maybe_unused]] stack_bounds next) noexcept {
#if LIMBER_SIM_ASAN
  __sanitizer_start_switch_fiber(kept, next.bottom, next.size);
#endif
}
/// Call after a switch; `from` receives the bounds of the previous stack.
inline void enter_stack([[maybe_unused]] void* kept, [[maybe_unused]] stack_bounds* from) noexcept {
#if LIMBER_SIM_ASAN
  __sanitizer_finish_switch_fiber(kept, from ? &from->bottom : nullptr, from ? &from->size : nullptr);
#endif
}

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
  /// All bodies must have ended when it is destroyed.
  explicit thread_scheduler(int workers) : threads_(static_cast<std::size_t>(workers)) {}

  void start(int worker, std::function<void()> body) override {
    auto& made = threads_[static_cast<std::size_t>(worker)] = std::make_unique<worker_thread>();
    made->thread = std::jthread([this, &turn = made->turn, todo = std::move(body)]() mutable {
      turn.acquire();
      todo();
      todo = nullptr;
      loop_turn_.release();
    });
  }

  void resume(int worker) override {
    running_ = threads_[static_cast<std::size_t>(worker)].get();
    running_->turn.release();
    loop_turn_.acquire();
  }

  void suspend() override {
    worker_thread& me = *running_;
    loop_turn_.release();
    me.turn.acquire();
  }

 private:
  struct worker_thread {
    std::binary_semaphore turn{0};
    std::jthread thread{};
  };

  std::binary_semaphore loop_turn_{0};  ///< of the event loop
  worker_thread* running_ = nullptr;
  std::vector<std::unique_ptr<worker_thread>> threads_;
};

/// The exceptions that a stack is handling or unwinding for. The C++ runtime keeps them per thread, so a
/// switch inside a catch block would expose them to the next fiber.
class exception_state {
 public:
  /// Exchanges the thread's state for this one.
  void swap() noexcept {
    globals there;
    auto* const thread = reinterpret_cast<std::byte*>(abi::__cxa_get_globals());
    std::memcpy(&there, thread, sizeof there);
    std::memcpy(thread, &here_, sizeof here_);
    here_ = there;
  }

 private:
  // Itanium C++ ABI, 2.2.2.
  struct globals {
    void* caught = nullptr;
    unsigned int uncaught = 0;
  };
  globals here_{};
};

/// One fiber per worker.
///
/// Memory   stacks are mapped with a guard page below them; pages are allocated on first access.
class fiber_scheduler final : public turn_scheduler {
 public:
  fiber_scheduler(int workers, std::size_t stack_bytes)
      : slots_(static_cast<std::size_t>(workers)), stacks_(stack_bytes) {}

  void start(int worker, std::function<void()> body) override {
    slots_[static_cast<std::size_t>(worker)] = std::make_unique<slot>(stacks_, std::move(body));
  }

  void resume(int worker) override {
    auto& owner = slots_[static_cast<std::size_t>(worker)];
    running_ = owner.get();
    running_->exceptions.swap();
    running_->context = switch_to(running_->context, running_->bounds());
    running_->exceptions.swap();
    if (running_->ended) owner = nullptr;
    running_ = nullptr;
  }

  void suspend() override { loop_ = switch_to(loop_, loop_bounds_, &loop_bounds_); }

 private:
  using context = boost::context::detail::fcontext_t;

  struct slot {
    slot(boost::context::protected_fixedsize_stack s, std::function<void()> todo)
        : stacks(s),
          stack(stacks.allocate()),
          context(boost::context::detail::make_fcontext(stack.sp, stack.size, enter)),
          body(std::move(todo)) {}
    slot(slot const&) = delete;
    slot& operator=(slot const&) = delete;
    ~slot() { stacks.deallocate(stack); }

    [[nodiscard]] stack_bounds bounds() const noexcept {
      return {static_cast<std::byte*>(stack.sp) - stack.size, stack.size};
    }

    boost::context::protected_fixedsize_stack stacks;
    boost::context::stack_context stack;
    fiber_scheduler::context context;  ///< where it continues
    std::function<void()> body;
    exception_state exceptions{};
    bool ended = false;
  };

  /// Continues at `there`, and returns when a context switches back: that context. `from` receives the bounds
  /// of its stack.
  context switch_to(context there, stack_bounds to, stack_bounds* from = nullptr) {
    void* kept = nullptr;
    leave_stack(&kept, to);
    auto const back = boost::context::detail::jump_fcontext(there, this);
    enter_stack(kept, from);
    return back.fctx;
  }

  /// The entry function of every fiber.
  static void enter(boost::context::detail::transfer_t arrival) noexcept {
    fiber_scheduler& all = *static_cast<fiber_scheduler*>(arrival.data);
    enter_stack(nullptr, &all.loop_bounds_);
    all.loop_ = arrival.fctx;
    slot& me = *all.running_;
    me.body();
    me.body = nullptr;
    me.ended = true;
    leave_stack(nullptr, all.loop_bounds_);
    boost::context::detail::jump_fcontext(all.loop_, nullptr);
  }

  std::vector<std::unique_ptr<slot>> slots_;
  boost::context::protected_fixedsize_stack stacks_;
  context loop_ = nullptr;  ///< the context that resumed the running fiber
  stack_bounds loop_bounds_{};
  slot* running_ = nullptr;
};

}  // namespace limber::sim::detail
