// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The collective of Gloo: processes over TCP, on one machine or several. For runs whose workers come,
/// go and die. Only this header and its parts in detail/ include Gloo's.

#include <limber/comm/collective.hpp>
#include <limber/comm/detail/gloo_calls.hpp>
#include <limber/comm/detail/gloo_group.hpp>
#include <limber/comm/detail/gloo_meeting.hpp>
#include <limber/comm/detail/gloo_messages.hpp>
#include <limber/comm/detail/gloo_options.hpp>
#include <limber/comm/detail/gloo_store.hpp>
#include <limber/comm/detail/signature.hpp>
#include <limber/comm/launch.hpp>

#include <algorithm>
#include <csignal>
#include <cstddef>
#include <cstring>
#include <exception>
#include <map>
#include <memory>
#include <numeric>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace limber::gloo {

/// An operation in flight.
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

  /// Makes the call in this thread unless a worker has begun it.
  /// @throws limber::error if the group failed before the operation was complete
  void wait() {
    if (!where_) return;
    // Once it has thrown, it has been waited for.
    auto const where = std::exchange(where_, nullptr);
    where->finish(sequence_, what_, bucket_);
  }
  [[nodiscard]] bool done() { return !where_ || where_->done(sequence_); }

 private:
  friend class communicator;
  request(std::shared_ptr<detail::group> g, i64 sequence, detail::operation what, std::string_view bucket)
      : where_(std::move(g)), sequence_(sequence), what_(what), bucket_(bucket) {}

  void take(request& other) noexcept {
    where_ = std::exchange(other.where_, nullptr);
    sequence_ = other.sequence_;
    what_ = other.what_;
    bucket_ = other.bucket_;
  }
  void drop() noexcept {
    if (where_) where_->drop(sequence_, what_, bucket_, std::uncaught_exceptions() > exceptions_);
    where_ = nullptr;
  }

  std::shared_ptr<detail::group> where_;
  i64 sequence_ = 0;
  detail::operation what_{};
  std::string_view bucket_;
  int exceptions_ = std::uncaught_exceptions();
};

/// One rank's handle on a group of processes.
///
///     gloo::communicator comm(rank, size, gloo::file_rendezvous("/shared/run-7"), {.deadline = 10});
///     gloo::communicator comm(facts_from_environment(), gloo::file_rendezvous("/shared/run-7"));
///
/// Bits     Gloo's ring adds each element along the ring, in another order for each part of a buffer: all
///          ranks get the same bits, which depend on the number of ranks and on how buffers are cut. f32
///          and f64 are added in their own type, int64 modulo 2^64; bf16 and f16 in float, but rounded
///          after each of the n − 1 additions. max: NaN wins.
/// Cost     all_reduce moves 2 (n − 1) / n of its length each way, reduce_scatter the same (Gloo has none
///          that takes a new buffer each time; it needs scratch memory as long as its input). A call that
///          is waited for at once is made in the waiting thread. Threads: Gloo's one for each world and
///          all groups made from it; one for letters and up to options::lanes for calls, for each group.
/// Errors   limber::error of engine "gloo", with call and bucket of the rank that gets it, and the rank at
///          fault where it can be told: its connection was lost ("the connection to rank 2 was lost: …",
///          at once when a process ends), it did not come or does not answer within the deadline, it
///          left, threw, destroyed a request unwaited, or called something else. Ranks that wait tell one
///          another the cause. Whatever comes first ends the group for all: every later call throws the
///          same. `broken` says whose connection was lost. shrink works afterwards.
/// Deadline options::deadline seconds without progress, not in all: a large operation that moves may
///          take longer. Ranks that differ in operation, count or dtype find out at the deadline
///          (`checked` finds out before).
/// Choices  `send` copies and returns; it and the mailbox have connections of their own. In messages of
///          groups made by split or shrink, ranks are those of that group. A stopped process (SIGSTOP)
///          does not answer and is named so at the deadline; when it goes on, it finds the group ended.
///          SIGPIPE is ignored from the first communicator on, unless the program handles it: Gloo writes
///          to connections that may have ended.
///
/// Move-only. A handle and its requests belong to one thread at a time.
class communicator {
 public:
  /// Called by all ranks of a world, with one store and prefix that no world used before.
  ///
  /// @throws std::invalid_argument naming what is out of range
  /// @throws limber::error of call "bootstrap": ranks that did not come within options::meeting, or cannot
  ///         be reached; nothing to listen at; a prefix that was used before
  communicator(int rank, int size, std::shared_ptr<::gloo::rendezvous::Store> store, options how = {}) {
    detail::check(how);
    expects(size >= 1, "gloo: a world needs at least 1 rank, got ", size);
    limber::detail::check_rank("gloo", "rank", rank, size);
    expects(size == 1 || store != nullptr, "gloo: ", size,
            " ranks need a store to meet at (file_rendezvous)");
    ignore_broken_pipes();
    base_ = std::make_shared<foundation>();
    if (size > 1) base_->where = detail::make_place(how);
    base_->store = std::move(store);
    base_->how = std::move(how);
    name_ = base_->how.prefix;
    detail::guests everyone;
    everyone.names.resize(static_cast<std::size_t>(size));
    std::iota(everyone.names.begin(), everyone.names.end(), 0);
    join(rank, everyone);
  }
  /// The world that a launcher started; its job's name becomes part of the prefix.
  communicator(launch_facts const& facts, std::shared_ptr<::gloo::rendezvous::Store> store, options how = {})
      : communicator(facts.rank, facts.size, std::move(store), named(std::move(how), facts.job)) {}

  communicator(communicator&&) noexcept = default;
  communicator& operator=(communicator&&) noexcept = default;
  ~communicator() = default;

  [[nodiscard]] int rank() const { return group().rank(); }
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
    group().send(in, peer);
  }
  void recv(tensor_view out, int peer) {
    limber::detail::check_memory("recv", "out", out, out.name);
    limber::detail::check_rank("recv", "peer", peer, size());
    group().recv(out, peer);
  }

  /// The ranks of equal color; this group stays usable. They meet through the same store.
  [[nodiscard]] communicator split(int color) {
    std::vector<i64> colors(static_cast<std::size_t>(size()));
    i64 const mine = color;
    detail::signature const s{detail::operation::split, reduction::sum, dtype::int64, 1, 0};
    start(s, {reinterpret_cast<std::byte const*>(&mine), 1, dtype::int64}, limber::view(colors)).wait();
    detail::guests members;
    int position = 0;
    for (int r = 0; r < size(); ++r) {
      if (colors[static_cast<std::size_t>(r)] != mine) continue;
      if (r == rank()) position = static_cast<int>(members.names.size());
      members.names.push_back(r);
    }
    return meet_again("split", text(name_, "/split", ++splits_, ".", color), position, std::move(members));
  }

  /// Ends this group for all its ranks: calls in flight and later ones throw `reason`.
  void revoke(std::string const& reason) { group().revoke(reason); }

  /// Called by all survivors, whatever state the group is in, with the same list; those in `lost` find
  /// the group ended if they live. Survivors with different lists do not find each other.
  ///
  /// @throws std::invalid_argument unless `lost` is sorted, without repetition, within the ranks and
  ///         without the caller
  /// @throws limber::error if a survivor is missing at the deadline, was lost as well or left
  [[nodiscard]] communicator shrink(std::span<int const> lost) {
    std::string list;
    for (std::size_t i = 0; i < lost.size(); ++i) {
      limber::detail::check_rank("shrink", "lost rank", lost[i], size());
      expects(i == 0 || lost[i - 1] < lost[i], "shrink: lost ranks must be sorted, got ", lost[i], " after ",
              lost[i == 0 ? 0 : i - 1]);
      expects(lost[i] != rank(), "shrink: rank ", rank(), " cannot call itself lost");
      list += text(list.empty() ? "" : ".", lost[i]);
    }
    detail::guests survivors;
    int position = 0;
    for (int r = 0; r < size(); ++r) {
      if (std::ranges::binary_search(lost, r)) continue;
      if (r == rank()) position = static_cast<int>(survivors.names.size());
      survivors.names.push_back(r);
    }
    survivors.excuse = [this](int r) { return group().excuse(r); };
    auto rest = meet_again("shrink", text(name_, "/less", list, "-", ++shrinks_[list]), position,
                           std::move(survivors));
    std::vector<int> const gone(lost.begin(), lost.end());
    group().leave_behind(gone, text("the ranks went on in a new group",
                                    gone.empty() ? "" : " without " + detail::ranks_text(gone)));
    return rest;
  }

  /// The ranks whose connection was lost, as this rank knows or was told: their processes have ended or
  /// are out of reach. Those who left or only are late are not among them. Cheap; in any state.
  [[nodiscard]] std::vector<int> broken() const { return group().broken(); }

  /// To this rank as well. Letters of any size; what does not fit into the socket is copied.
  void post(int peer, i64 tag, std::span<std::byte const> bytes) {
    limber::detail::check_rank("post", "peer", peer, size());
    group().post(peer, tag, bytes);
  }
  /// In order of arrival, whoever sent it.
  [[nodiscard]] std::optional<message> poll(i64 tag) { return group().poll(tag); }
  void listen() { group().listen(); }

 private:
  /// What a world and all groups made from it share.
  struct foundation {
    detail::place where{};
    std::shared_ptr<::gloo::rendezvous::Store> store{};
    options how{};
  };

  communicator(std::shared_ptr<foundation> r, std::string name)
      : base_(std::move(r)), name_(std::move(name)) {}

  [[nodiscard]] detail::group& group() const {
    expects(group_ != nullptr, "gloo: this communicator was moved from");
    return *group_;
  }
  request start(detail::signature const& s, const_tensor_view in, tensor_view out) {
    std::string_view const bucket = limber::detail::bucket_of(in, out);
    i64 const sequence = group().start(s, {in.data, out.data}, bucket);
    return {group_, sequence, s.what, bucket};
  }

  void join(int rank, detail::guests const& who) {
    detail::links with = detail::meet(base_->where, base_->store.get(), name_, rank, who, base_->how);
    group_ = std::make_shared<detail::group>(base_->how, rank, static_cast<int>(who.names.size()),
                                             std::move(with));
  }
  [[nodiscard]] communicator meet_again(char const* call, std::string name, int rank,
                                        detail::guests who) const {
    communicator made(base_, std::move(name));
    try {
      made.join(rank, who);
    } catch (error const& e) {
      failure f = e.where();
      f.call = call;
      throw error(std::move(f));
    }
    return made;
  }

  [[nodiscard]] static options named(options how, std::string const& job) {
    if (!job.empty()) how.prefix += text(".", job);
    return how;
  }
  static void ignore_broken_pipes() {
    static bool const once = [] {
      auto const before = std::signal(SIGPIPE, SIG_IGN);
      if (before != SIG_DFL && before != SIG_ERR) std::signal(SIGPIPE, before);
      return true;
    }();
    (void)once;
  }

  std::shared_ptr<foundation> base_;
  std::string name_;  ///< of its keys in the store
  int splits_ = 0;
  std::map<std::string, int> shrinks_;
  std::shared_ptr<detail::group> group_;  // ends before the Gloo device in base_
};

static_assert(collective<communicator> && point_to_point<communicator> && splittable<communicator>);
static_assert(revocable<communicator> && shrinkable<communicator> && mailbox<communicator>);

}  // namespace limber::gloo
