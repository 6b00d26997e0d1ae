// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The collective of threads in one process: deterministic, with a deadline for every wait.

#include <limber/comm/collective.hpp>
#include <limber/comm/detail/process_group.hpp>
#include <limber/core/clock.hpp>
#include <limber/core/config.hpp>
#include <limber/core/function_ref.hpp>

#include <span>
#include <utility>

namespace limber::threads {

/// Options of a `threads` world.
struct options {
  double deadline = 60;                   ///< seconds of `clock` that a call waits for the others, > 0
  clock_function clock = steady_seconds;  ///< called from all threads at once; must not throw
};

/// An operation in flight. Waiting ranks do part of the work, so all ranks together move each element once.
/// `wait` and `done` check the deadline.
using request = limber::detail::group_request;

/// One rank's handle to a group of threads.
///
/// Bits     sums are added in rank order, starting from rank 0's element, in float (f32, bf16, f16;
///          narrow types are rounded once, at the end), double (f64) or modulo 2^64 (int64). They depend
///          on neither timing nor how buffers are cut (payloads of NaNs excepted). max: NaN wins.
/// Cost     n · (length read + length written) in total, shared by the waiting ranks; at most one sleep per
///          rank and operation. No allocation in a steady state.
/// Errors   limber::error of engine "threads" with the call and bucket of the rank that gets it and the rank
///          at fault: a rank is missing at the deadline (all missing ones are named), threw, left (destroyed
///          its handle) without making a call that others wait in, or destroyed a request before waiting; or
///          ranks differ in operation, count, dtype, reduction or root (both are named). All ranks of a group
///          fail with the same error, at once; completed operations stay valid, and shrink works.
/// Choices  `send` copies and returns. The rank that arrives last works on an operation inside the call that
///          starts it. Split groups fail independently, but a rank that throws fails all of its groups.
///          Messages of split groups give ranks of the world as well.
///
/// Move-only. A handle and its requests belong to one thread at a time.
class communicator : public limber::detail::group_handle {
 public:
  /// The ranks of equal color; this group stays usable.
  [[nodiscard]] communicator split(int color) { return communicator(split_place(color)); }

  /// Fails this group (not those split from it) on all its ranks.
  using group_handle::revoke;

  /// Called by all survivors, in any state of the group; the ranks in `lost` get an error.
  /// @throws std::invalid_argument unless `lost` is sorted, without repetition, within the ranks and
  ///         without the caller
  /// @throws limber::error if survivors pass different lists, or one of them is missing
  [[nodiscard]] communicator shrink(std::span<int const> lost) { return communicator(shrink_place(lost)); }

  using group_handle::post;
  /// The next message in order of arrival, from any rank.
  using group_handle::listen;
  using group_handle::poll;

 private:
  friend class world;
  explicit communicator(limber::detail::place at) noexcept : group_handle("threads", std::move(at)) {}
};

/// Calls f(communicator&) on n threads, one per rank, and returns when all have ended.
///
///     threads::run(4, [&](threads::communicator& comm) { train(comm); });
///
/// Errors   if ranks throw, the first exception is rethrown: the cause, not the errors of other ranks that
///          follow from it, which quote its message.
void run(int n, function_ref<void(communicator&)> f, options how = {});

/// n ranks whose handles are passed to threads by the caller.
///
///     threads::world w(2);
///     std::thread other([c = w.communicator(1)]() mutable { … });
///     auto mine = w.communicator(0);
class world {
 public:
  /// @throws std::invalid_argument unless size ≥ 1, deadline > 0 and there is a clock
  explicit world(int size, options how = {});
  world(world&&) = default;
  world& operator=(world&&) = delete;
  /// Ranks whose handle was not taken leave.
  ~world();

  [[nodiscard]] int size() const noexcept;

  /// The handle of one rank. @throws std::invalid_argument if it was taken before, or is out of range
  [[nodiscard]] threads::communicator communicator(int rank);

 private:
  friend void run(int n, function_ref<void(threads::communicator&)> f, options how);

  [[nodiscard]] bool take(int rank);

  limber::detail::shared_group all_;
};

}  // namespace limber::threads

#if !defined(LIMBER_COMPILED)
#include <limber/comm/impl/threads.ipp>
#endif
