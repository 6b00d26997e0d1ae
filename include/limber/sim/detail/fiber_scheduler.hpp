// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Workers as fibers: one small stack each, on one thread.

#include <limber/sim/detail/sanitizers.hpp>
#include <limber/sim/detail/thread_scheduler.hpp>

#include <boost/context/detail/fcontext.hpp>
#include <boost/context/protected_fixedsize_stack.hpp>

#include <cxxabi.h>

#include <cstddef>
#include <cstring>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

namespace limber::sim::detail {

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
