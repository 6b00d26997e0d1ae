// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The collective of the virtual cluster: real data, modelled time.

#include <limber/comm/collective.hpp>
#include <limber/comm/detail/signature.hpp>
#include <limber/sim/detail/group.hpp>
#include <limber/sim/detail/messages.hpp>
#include <limber/sim/detail/regroup.hpp>

#include <cstddef>
#include <exception>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace limber::sim {

/// An operation in flight. `wait` lets virtual time pass until it has ended; `done` is true from then on.
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

  /// @throws limber::error if the group failed before the operation had ended
  void wait() {
    if (!where_) return;
    where_->finish(rank_, sequence_, what_, bucket_);
    where_ = nullptr;
  }
  [[nodiscard]] bool done() { return !where_ || where_->done(rank_, sequence_, what_, bucket_); }

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
  int exceptions_ = std::uncaught_exceptions();
};

/// One worker's handle to a group of workers of the virtual cluster.
///
/// Time     an operation starts when its last rank has arrived and the previous operation of the group has
///          ended; it takes the time given in cost.hpp. Operations of different groups do not slow each other
///          down. A message occupies its sender's link for n/β and, from then on or as soon as it is free,
///          its receiver's link; it arrives α after the receiver's link has taken it. A worker has one
///          outgoing and one incoming link of each kind (network, inside). Messages to oneself arrive at
///          once.
/// Bits     as in `threads`: sums are added in rank order, so a model trained here is equal bit for bit.
/// Errors   limber::error of engine "sim" with the call and bucket of the rank that gets it and the rank at
///          fault: a rank died (known after cluster.detection), threw, left without making a call that others
///          wait in, or destroyed a request before waiting; ranks differ in their calls; or a deadlock, whose
///          message lists what each worker waits for. There is no deadline.
/// Choices  an operation in flight when a rank dies completes on no rank. A death fails a group when a rank
///          needs the dead one; the mailbox keeps working, and messages to the dead are dropped. `done` and
///          `poll` cost no time, but a worker that keeps polling at one instant waits until an event at it,
///          so that loops around them end. `send` returns when the sender's link has taken the message,
///          whether or not it is received.
///
/// Move-only. Used by its own worker only, inside sim::run.
class communicator {
 public:
  explicit communicator(detail::place p) : where_(std::move(p.where)), rank_(p.rank) {}
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

  /// Fails this group (not those split from it) on all its ranks, at once.
  void revoke(std::string const& reason) { group().fail(-1, reason); }

  /// Called by all survivors, in any state of the group; the ranks in `lost` get an error.
  /// @throws std::invalid_argument unless `lost` is sorted, without repetition, within the ranks and
  ///         without the caller
  /// @throws limber::error if survivors pass different lists, or one of them has left or died
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
  /// The next message that has arrived, in order of arrival, from any rank.
  [[nodiscard]] std::optional<message> poll(i64 tag) { return group().poll(rank_, tag); }

  /// Waits for an unread message, of any tag, that arrived after the last listen() returned.
  /// @throws limber::error if the group failed, or all others have left or died and no message is in transit
  void listen() { group().listen(rank_); }

 private:
  [[nodiscard]] detail::group& group() const {
    expects(where_ != nullptr, "sim: this communicator was moved from");
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

static_assert(collective<communicator> && point_to_point<communicator> && splittable<communicator>);
static_assert(revocable<communicator> && shrinkable<communicator> && mailbox<communicator>);

}  // namespace limber::sim
