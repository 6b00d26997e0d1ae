// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The collective of Gloo: processes over TCP, on one machine or several. For runs whose workers join, leave
/// and fail. Only this header and its parts in detail/ include headers of Gloo.

#include <limber/comm/collective.hpp>
#include <limber/comm/detail/gloo_calls.hpp>
#include <limber/comm/detail/gloo_messages.hpp>
#include <limber/comm/detail/gloo_options.hpp>
#include <limber/comm/detail/gloo_process_group.hpp>
#include <limber/comm/detail/gloo_rendezvous.hpp>
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

  /// Makes the call in this thread unless a worker thread has begun it.
  /// @throws limber::error if the group failed before the operation was complete
  void wait() {
    if (!where_) return;
    // A request that has thrown counts as waited for.
    auto const where = std::exchange(where_, nullptr);
    where->finish(sequence_, what_, bucket_);
  }
  [[nodiscard]] bool done() { return !where_ || where_->done(sequence_); }

 private:
  friend class communicator;
  request(std::shared_ptr<detail::process_group> g, i64 sequence, detail::operation what,
          std::string_view bucket)
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

  std::shared_ptr<detail::process_group> where_;
  i64 sequence_ = 0;
  detail::operation what_{};
  std::string_view bucket_;
  int exceptions_ = std::uncaught_exceptions();
};

/// One rank's handle to a group of processes.
///
///     gloo::communicator comm(rank, size, gloo::file_rendezvous("/shared/run-7"), {.deadline = 10});
///     gloo::communicator comm(facts_from_environment(), gloo::file_rendezvous("/shared/run-7"));
///
/// Bits     Gloo's ring adds each element along the ring, in a different order for each part of a buffer: all
///          ranks get the same bits, which depend on the number of ranks and on the division into buffers.
///          f32 and f64 are added in their own type, int64 modulo 2^64; bf16 and f16 in float, but rounded
///          after each of the n − 1 additions. max: NaN wins.
/// Cost     all_reduce moves 2 (n − 1) / n of its length each way, reduce_scatter the same (Gloo has none
///          that takes a new buffer each time; it needs scratch memory of the length of its input). A call
///          that is waited for at once is made in the waiting thread. Threads: one of Gloo per world, for all
///          of its groups; per group, one I/O thread and up to options::lanes for calls.
/// Errors   limber::error of engine "gloo", with call and bucket of the rank that gets it, and the rank at
///          fault if known: its connection was lost ("the connection to rank 2 was lost: …", at once when a
///          process ends), it did not make the call or does not answer within the deadline, it left, threw,
///          destroyed a request before waiting, or made a different call. The cause is sent to all ranks. The
///          first failure ends the group on all ranks: every later call throws the same error. `broken`
///          returns the ranks whose connection was lost. shrink works afterwards. Deadline options::deadline
///          seconds without progress, not in total: a large operation that makes progress may take longer.
///          Ranks whose operation, count or dtype differ get an error at the deadline (`checked` detects it
///          before).
/// Choices  `send` copies and returns; it and the mailbox use separate connections. In messages of groups
///          made by split or shrink, ranks are those of that group. A stopped process (SIGSTOP) does not
///          answer and is named at the deadline; when it continues, its group has failed. SIGPIPE is ignored
///          from the first communicator on, unless the program handles it: Gloo writes to connections that
///          may have ended.
///
/// Move-only. A handle and its requests belong to one thread at a time.
class communicator {
 public:
  /// Called by all ranks of a world, with the same store and a prefix that no earlier world used.
  ///
  /// @throws std::invalid_argument naming the value that is out of range
  /// @throws limber::error of call "bootstrap": ranks are missing after options::rendezvous_deadline, or
  ///         cannot be reached; no address to listen at; a prefix that was used before
  communicator(int rank, int size, std::shared_ptr<::gloo::rendezvous::Store> store, options how = {}) {
    detail::check(how);
    expects(size >= 1, "gloo: a world needs at least 1 rank, got ", size);
    limber::detail::check_rank("gloo", "rank", rank, size);
    expects(size == 1 || store != nullptr, "gloo: ", size,
            " ranks need a store for the rendezvous (file_rendezvous)");
    ignore_broken_pipes();
    setup_ = std::make_shared<shared_setup>();
    if (size > 1) setup_->where = detail::make_local_endpoint(how);
    setup_->store = std::move(store);
    setup_->how = std::move(how);
    name_ = setup_->how.prefix;
    detail::participants everyone;
    everyone.ranks.resize(static_cast<std::size_t>(size));
    std::iota(everyone.ranks.begin(), everyone.ranks.end(), 0);
    join(rank, everyone);
  }
  /// A world started by a launcher; the name of its job becomes part of the prefix.
  communicator(launch_facts const& facts, std::shared_ptr<::gloo::rendezvous::Store> store, options how = {})
      : communicator(facts.rank, facts.size, std::move(store), named(std::move(how), facts.job)) {}

  communicator(communicator&&) noexcept = default;
  communicator& operator=(communicator&&) noexcept = default;
  ~communicator() = default;

  [[nodiscard]] int rank() const { return process_group().rank(); }
  [[nodiscard]] int size() const { return process_group().size(); }

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
    process_group().send(in, peer);
  }
  void recv(tensor_view out, int peer) {
    limber::detail::check_memory("recv", "out", out, out.name);
    limber::detail::check_rank("recv", "peer", peer, size());
    process_group().recv(out, peer);
  }

  /// The ranks of equal color; this group stays usable. Their rendezvous uses the same store.
  [[nodiscard]] communicator split(int color) {
    std::vector<i64> colors(static_cast<std::size_t>(size()));
    i64 const mine = color;
    detail::signature const s{detail::operation::split, reduction::sum, dtype::int64, 1, 0};
    start(s, {reinterpret_cast<std::byte const*>(&mine), 1, dtype::int64}, limber::view(colors)).wait();
    detail::participants members;
    int position = 0;
    for (int r = 0; r < size(); ++r) {
      if (colors[static_cast<std::size_t>(r)] != mine) continue;
      if (r == rank()) position = static_cast<int>(members.ranks.size());
      members.ranks.push_back(r);
    }
    return make_subgroup("split", text(name_, "/split", ++splits_, ".", color), position, std::move(members));
  }

  /// Fails this group on all its ranks: calls in flight and later ones throw `reason`.
  void revoke(std::string const& reason) { process_group().revoke(reason); }

  /// Called by all survivors with the same list, in any state of the group; live ranks in `lost` get an
  /// error. Survivors with different lists do not find each other.
  ///
  /// @throws std::invalid_argument unless `lost` is sorted, without repetition, within the ranks and
  ///         without the caller
  /// @throws limber::error if a survivor is missing at the deadline, was lost as well, or left
  [[nodiscard]] communicator shrink(std::span<int const> lost) {
    std::string list;
    for (std::size_t i = 0; i < lost.size(); ++i) {
      limber::detail::check_rank("shrink", "lost rank", lost[i], size());
      expects(i == 0 || lost[i - 1] < lost[i], "shrink: lost ranks must be sorted, got ", lost[i], " after ",
              lost[i == 0 ? 0 : i - 1]);
      expects(lost[i] != rank(), "shrink: rank ", rank(), " cannot call itself lost");
      list += text(list.empty() ? "" : ".", lost[i]);
    }
    detail::participants survivors;
    int position = 0;
    for (int r = 0; r < size(); ++r) {
      if (std::ranges::binary_search(lost, r)) continue;
      if (r == rank()) position = static_cast<int>(survivors.ranks.size());
      survivors.ranks.push_back(r);
    }
    survivors.absence_reason = [this](int r) { return process_group().absence_reason(r); };
    auto reset = make_subgroup("shrink", text(name_, "/less", list, "-", ++shrinks_[list]), position,
                               std::move(survivors));
    std::vector<int> const lost_ranks(lost.begin(), lost.end());
    process_group().abandon(lost_ranks,
                            text("the ranks continue in a new group",
                                 lost_ranks.empty() ? "" : " without " + detail::ranks_text(lost_ranks)));
    return reset;
  }

  /// The ranks whose connection to any rank is known to be lost: their processes have ended or are out of
  /// reach. Ranks that left or are late are not included. Cheap; valid in any state.
  [[nodiscard]] std::vector<int> broken() const { return process_group().broken(); }

  /// May be sent to this rank itself. Messages of any size; bytes that the socket does not accept are copied.
  void post(int peer, i64 tag, std::span<std::byte const> bytes) {
    limber::detail::check_rank("post", "peer", peer, size());
    process_group().post(peer, tag, bytes);
  }
  /// The next message in order of arrival, from any rank.
  [[nodiscard]] std::optional<message> poll(i64 tag) { return process_group().poll(tag); }
  void listen() { process_group().listen(); }

 private:
  /// Shared by a world and all groups made from it.
  struct shared_setup {
    detail::local_endpoint where{};
    std::shared_ptr<::gloo::rendezvous::Store> store{};
    options how{};
  };

  communicator(std::shared_ptr<shared_setup> r, std::string name)
      : setup_(std::move(r)), name_(std::move(name)) {}

  [[nodiscard]] detail::process_group& process_group() const {
    expects(group_ != nullptr, "gloo: this communicator was moved from");
    return *group_;
  }
  request start(detail::signature const& s, const_tensor_view in, tensor_view out) {
    std::string_view const bucket = limber::detail::bucket_of(in, out);
    i64 const sequence = process_group().start(s, {in.data, out.data}, bucket);
    return {group_, sequence, s.what, bucket};
  }

  void join(int rank, detail::participants const& who) {
    detail::connections with =
        detail::run_rendezvous(setup_->where, setup_->store.get(), name_, rank, who, setup_->how);
    group_ = std::make_shared<detail::process_group>(setup_->how, rank, static_cast<int>(who.ranks.size()),
                                                     std::move(with));
  }
  [[nodiscard]] communicator make_subgroup(char const* call, std::string name, int rank,
                                           detail::participants who) const {
    communicator made(setup_, std::move(name));
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

  std::shared_ptr<shared_setup> setup_;
  std::string name_;  ///< the prefix of its keys in the store
  int splits_ = 0;
  std::map<std::string, int> shrinks_;
  std::shared_ptr<detail::process_group> group_;  // ends before the Gloo device in base_
};

static_assert(collective<communicator> && point_to_point<communicator> && splittable<communicator>);
static_assert(revocable<communicator> && shrinkable<communicator> && mailbox<communicator>);

}  // namespace limber::gloo
