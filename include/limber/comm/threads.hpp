// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The collective of threads in one process: deterministic, and never hangs.

#include <limber/comm/collective.hpp>
#include <limber/comm/detail/signature.hpp>
#include <limber/comm/detail/threads_group.hpp>
#include <limber/comm/detail/threads_hub.hpp>
#include <limber/comm/detail/threads_messages.hpp>
#include <limber/comm/detail/threads_shrink.hpp>

#include <algorithm>
#include <cstddef>
#include <exception>
#include <memory>
#include <mutex>
#include <numeric>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

namespace limber::threads {

/// An operation in flight. Waiting does a part of the work, so all ranks together move each element
/// once. `wait` and `done` watch the deadline.
class request {
 public:
  request(request&& other) noexcept { take(other); }
  request& operator=(request&& other) noexcept {
    if (this != &other) {
      drop();
      take(other);
    }
    return *this;
  }
  ~request() { drop(); }

  /// @throws limber::error if the group failed before the operation was complete
  void wait() {
    if (!where_) return;
    where_->finish(rank_, sequence_, what_, bucket_);
    where_ = nullptr;
  }
  [[nodiscard]] bool done() { return !where_ || where_->done(sequence_, patience_); }

 private:
  friend class communicator;
  request(std::shared_ptr<detail::group> g, int rank, i64 sequence, detail::operation what,
          std::string_view bucket)
      : where_(std::move(g)), rank_(rank), sequence_(sequence), what_(what), bucket_(bucket) {}

  void take(request& other) noexcept {
    where_ = std::exchange(other.where_, nullptr);
    rank_ = other.rank_;
    sequence_ = other.sequence_;
    what_ = other.what_;
    bucket_ = other.bucket_;
    patience_ = other.patience_;
  }
  void drop() noexcept {
    if (where_) where_->drop(rank_, what_, bucket_, std::uncaught_exceptions() > exceptions_);
    where_ = nullptr;
  }

  std::shared_ptr<detail::group> where_;
  int rank_ = 0;
  i64 sequence_ = 0;
  detail::operation what_{};
  std::string_view bucket_;
  detail::patience patience_;
  int exceptions_ = std::uncaught_exceptions();
};

/// One rank's handle on a group of threads.
///
/// Bits     sums are added in rank order, starting from rank 0's element, in float (f32, bf16, f16;
///          narrow types are rounded once, at the end), double (f64) or modulo 2^64 (int64). They depend
///          on neither timing nor how buffers are cut (payloads of NaNs excepted). max: NaN wins.
/// Cost     n · (length read + length written) in all, shared by the ranks that wait; one sleep a
///          rank and operation at most. No allocation once the most operations were in flight.
/// Errors   limber::error of engine "threads" with the call and bucket of the rank that gets it and
///          the rank at fault: a rank is missing at the deadline (all missing ones are named), threw,
///          left (destroyed its handle) without making a call that others wait in, destroyed a request
///          unwaited; ranks that differ in operation, count, dtype, reduction or root (both are named).
///          All of a group fail alike, at once; what was complete before stays good, and shrink works.
/// Choices  `send` copies and returns. The rank that arrives last works on an operation inside the
///          call that starts it. Split groups fail on their own, but a rank that throws fails every
///          group it is in. In messages of split groups, ranks of the world are given as well.
///
/// Move-only. A handle and its requests belong to one thread at a time.
class communicator {
 public:
  communicator(communicator&& other) noexcept
      : where_(std::exchange(other.where_, nullptr)), rank_(other.rank_) {}
  communicator& operator=(communicator&& other) noexcept {
    if (this != &other) {
      leave();
      where_ = std::exchange(other.where_, nullptr);
      rank_ = other.rank_;
    }
    return *this;
  }
  ~communicator() { leave(); }

  [[nodiscard]] int rank() const noexcept { return rank_; }
  [[nodiscard]] int size() const { return group().size(); }

  [[nodiscard]] request all_reduce(const_tensor_view in, tensor_view out, reduction how = reduction::sum) {
    return start(limber::detail::all_reduce_of(in, out, how), in, out);
  }
  [[nodiscard]] request reduce_scatter(const_tensor_view in, tensor_view out) {
    return start(limber::detail::reduce_scatter_of(in, out, size()), in, out);
  }
  [[nodiscard]] request all_gather(const_tensor_view in, tensor_view out) {
    return start(limber::detail::all_gather_of(in, out, size()), in, out);
  }
  [[nodiscard]] request broadcast(tensor_view data, int root) {
    return start(limber::detail::broadcast_of(data, root, size()), data, data);
  }
  void barrier() { start({detail::operation::barrier}, {}, {}).wait(); }

  void send(const_tensor_view in, int peer) {
    limber::detail::check_memory("send", "in", in, in.name);
    limber::detail::check_rank("send", "peer", peer, size());
    group().send(rank_, peer, in);
  }
  void recv(tensor_view out, int peer) {
    limber::detail::check_memory("recv", "out", out, out.name);
    limber::detail::check_rank("recv", "peer", peer, size());
    group().recv(rank_, peer, out);
  }

  /// The ranks of equal color; this group stays usable.
  [[nodiscard]] communicator split(int color) {
    start({detail::operation::split}, {}, {}, color).wait();
    return communicator(group().take_place(rank_));
  }

  /// Ends this group (not those split from it) for all its ranks.
  void revoke(std::string const& reason) { group().revoke(reason); }

  /// Called by all survivors, whatever state the group is in; those in `lost` are failed.
  /// @throws std::invalid_argument unless `lost` is sorted, without repetition, within the ranks and
  ///         without the caller
  /// @throws limber::error if survivors disagree about `lost`, or one of them is missing
  [[nodiscard]] communicator shrink(std::span<int const> lost) {
    for (std::size_t i = 0; i < lost.size(); ++i) {
      limber::detail::check_rank("shrink", "lost rank", lost[i], size());
      expects(i == 0 || lost[i - 1] < lost[i], "shrink: lost ranks must be sorted, got ", lost[i], " after ",
              lost[i == 0 ? 0 : i - 1]);
      expects(lost[i] != rank_, "shrink: rank ", rank_, " cannot call itself lost");
    }
    return communicator(group().shrink(rank_, {lost.begin(), lost.end()}));
  }

  void post(int peer, i64 tag, std::span<std::byte const> bytes) {
    limber::detail::check_rank("post", "peer", peer, size());
    group().post(rank_, peer, tag, bytes);
  }
  /// In order of arrival, whoever sent it.
  [[nodiscard]] std::optional<message> poll(i64 tag) { return group().poll(rank_, tag); }
  void listen() { group().listen(rank_); }

 private:
  friend class world;
  explicit communicator(detail::place p) : where_(std::move(p.where)), rank_(p.rank) {}

  [[nodiscard]] detail::group& group() const {
    expects(where_ != nullptr, "threads: this communicator was moved from");
    return *where_;
  }
  request start(detail::signature const& s, const_tensor_view in, tensor_view out, int color = 0) {
    std::string_view const bucket = limber::detail::bucket_of(in, out);
    i64 const sequence = group().start(rank_, s, {in.data, out.data}, bucket, color);
    return {where_, rank_, sequence, s.what, bucket};
  }
  void leave() noexcept {
    if (where_) where_->leave(rank_, std::uncaught_exceptions() > exceptions_);
    where_ = nullptr;
  }

  std::shared_ptr<detail::group> where_;
  int rank_ = 0;
  int exceptions_ = std::uncaught_exceptions();
};

/// Calls f(communicator&) on n threads, one a rank, and returns when all have ended.
///
///     threads::run(4, [&](threads::communicator& comm) { train(comm); });
///
/// Errors   if ranks throw, the exception that came first is thrown again: the cause, not the errors
///          that the other ranks got from it. Theirs quote its message.
template <class F>
void run(int n, F f, options how = {});

/// n ranks before they are handed to threads.
///
///     threads::world w(2);
///     std::thread other([c = w.communicator(1)]() mutable { … });
///     auto mine = w.communicator(0);
class world {
 public:
  /// @throws std::invalid_argument unless size ≥ 1, deadline > 0 and there is a clock
  explicit world(int size, options how = {}) {
    expects(size >= 1, "threads: a world needs at least 1 rank, got ", size);
    expects(how.deadline > 0, "threads: deadline must be > 0 s, got ", how.deadline);
    expects(how.clock != nullptr, "threads: clock is empty");
    hub_ = std::make_shared<detail::hub>(size, std::move(how));
    std::vector<int> seats(static_cast<std::size_t>(size));
    std::iota(seats.begin(), seats.end(), 0);
    all_ = detail::group::make(hub_, seats);
  }
  world(world&&) = default;
  world& operator=(world&&) = delete;
  /// Ranks whose handle nobody took have left.
  ~world() {
    if (!hub_) return;
    for (int r = 0; r < size(); ++r)
      if (take(r)) all_->leave(r, false);
  }

  [[nodiscard]] int size() const noexcept { return all_->size(); }

  /// The handle of one rank. @throws std::invalid_argument if it was taken before, or is out of range
  [[nodiscard]] threads::communicator communicator(int rank) {
    limber::detail::check_rank("threads", "rank", rank, size());
    expects(take(rank), "threads: the communicator of rank ", rank, " was taken before");
    return threads::communicator({all_, rank});
  }

 private:
  template <class F>
  friend void run(int n, F f, options how);

  [[nodiscard]] bool take(int rank) {
    std::scoped_lock const lock(hub_->door);
    return !std::exchange(hub_->seats[static_cast<std::size_t>(rank)].taken, true);
  }
  void supervise(int rank) {
    std::scoped_lock const lock(hub_->door);
    hub_->seats[static_cast<std::size_t>(rank)].supervised = true;
  }

  std::shared_ptr<detail::hub> hub_;
  std::shared_ptr<detail::group> all_;
};

template <class F>
void run(int n, F f, options how) {
  world all(n, std::move(how));
  std::mutex guard;
  std::exception_ptr first;
  auto const fails = [&](int rank, std::string const& reason) {
    {
      std::scoped_lock const lock(guard);
      if (!first) first = std::current_exception();
    }
    // Only now can others fail because of it.
    detail::group::abandon(*all.hub_, rank, reason);
  };
  auto const work = [&](int rank) {
    auto mine = all.communicator(rank);
    all.supervise(rank);
    try {
      f(mine);
      detail::group::settle(*all.hub_, rank);
    } catch (std::exception const& e) { fails(rank, text("threw: ", e.what())); } catch (...) {
      fails(rank, "threw something that is no std::exception");
    }
  };
  std::vector<std::thread> team;
  try {
    team.reserve(static_cast<std::size_t>(n));
    for (int r = 0; r < n; ++r) team.emplace_back(work, r);
  } catch (std::exception const& e) {
    for (int r = static_cast<int>(team.size()); r < n; ++r) fails(r, text("got no thread: ", e.what()));
  }
  for (auto& t : team) t.join();
  if (first) std::rethrow_exception(first);
}

static_assert(collective<communicator> && point_to_point<communicator> && splittable<communicator>);
static_assert(revocable<communicator> && shrinkable<communicator> && mailbox<communicator>);

}  // namespace limber::threads
