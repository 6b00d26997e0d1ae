// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The collective of Gloo: processes over TCP, on one machine or several, with messages by ZeroMQ. For runs
/// whose workers join, leave and fail. Only this header and its parts in detail/ include headers of Gloo.

#include <limber/comm/collective.hpp>
#include <limber/comm/detail/gloo_calls.hpp>
#include <limber/comm/detail/gloo_messages.hpp>
#include <limber/comm/detail/gloo_process_group.hpp>
#include <limber/comm/detail/gloo_rendezvous.hpp>
#include <limber/comm/detail/gloo_store.hpp>
#include <limber/comm/launch.hpp>

#include <csignal>
#include <memory>
#include <numeric>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace limber::gloo_engine {

/// An operation in flight. `wait` makes the call in this thread unless a worker thread has begun it.
using request = limber::detail::group_request;

/// One rank's handle to a group of processes.
///
///     gloo_engine::communicator comm(rank, size, gloo_engine::file_rendezvous("/shared/run-7"), {.deadline =
///     10}); gloo_engine::communicator comm(facts_from_environment(),
///     gloo_engine::file_rendezvous("/shared/run-7"));
///
/// Bits     Gloo's ring adds each element along the ring, in a different order for each part of a buffer: all
///          ranks get the same bits, which depend on the number of ranks and on the division into buffers.
///          f32 and f64 are added in their own type, int64 modulo 2^64; bf16 and f16 in float, but rounded
///          after each of the n − 1 additions. max: NaN wins.
/// Cost     all_reduce moves 2 (n − 1) / n of its length each way, reduce_scatter the same (Gloo has none
///          that takes a new buffer each time; it needs scratch memory of the length of its input). A call
///          that is waited for at once is made in the waiting thread. Messages are ZeroMQ's: two of its
///          threads lie between sender and receiver. Threads: one of Gloo per world, for all of its groups;
///          per group, two of ZeroMQ, one that reads messages, and up to options::lanes for calls.
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
class communicator : public limber::detail::group_handle {
 public:
  /// Called by all ranks of a world, with the same store and a prefix that no earlier world used.
  ///
  /// @throws std::invalid_argument naming the value that is out of range
  /// @throws limber::error of call "bootstrap": ranks are missing after options::rendezvous_deadline, or
  ///         cannot be reached; no address to listen at; a prefix that was used before
  communicator(int rank, int size, std::shared_ptr<::gloo::rendezvous::Store> store, options how = {})
      : communicator({join(rank, size, std::move(store), std::move(how)), rank}) {}
  /// A world started by a launcher; the name of its job becomes part of the prefix.
  communicator(launch_facts const& facts, std::shared_ptr<::gloo::rendezvous::Store> store, options how = {})
      : communicator(facts.rank, facts.size, std::move(store), named(std::move(how), facts.job)) {}

  /// The ranks of equal color; this group stays usable. Their rendezvous uses the same store.
  [[nodiscard]] communicator split(int color) { return communicator(split_place(color)); }

  /// Fails this group on all its ranks: calls in flight and later ones throw `reason`.
  using group_handle::revoke;

  /// Called by all survivors with the same list, in any state of the group; live ranks in `lost` get an
  /// error. Survivors with different lists do not find each other.
  ///
  /// @throws std::invalid_argument unless `lost` is sorted, without repetition, within the ranks and
  ///         without the caller
  /// @throws limber::error if a survivor is missing at the deadline, was lost as well, or left
  [[nodiscard]] communicator shrink(std::span<int const> lost) { return communicator(shrink_place(lost)); }

  /// The ranks whose connection to any rank is known to be lost: their processes have ended or are out of
  /// reach. Ranks that left or are late are not included. Cheap; valid in any state.
  [[nodiscard]] std::vector<int> broken() const {
    return static_cast<detail::process_group&>(group()).broken();
  }

  /// May be sent to this rank itself. Messages of any size; copied.
  using group_handle::post;
  /// The next message in order of arrival, from any rank.
  using group_handle::listen;
  using group_handle::poll;

 private:
  explicit communicator(limber::detail::place at) noexcept : group_handle("gloo", std::move(at)) {}

  [[nodiscard]] static limber::detail::shared_group join(int rank, int size,
                                                         std::shared_ptr<::gloo::rendezvous::Store> store,
                                                         options how) {
    detail::check(how);
    expects(size >= 1, "gloo: a world needs at least 1 rank, got ", size);
    limber::detail::check_rank("gloo", "rank", rank, size);
    expects(size == 1 || store != nullptr, "gloo: ", size,
            " ranks need a store for the rendezvous (file_rendezvous)");
    ignore_broken_pipes();
    auto setup = std::make_shared<detail::shared_setup>();
    if (size > 1) setup->where = detail::make_local_endpoint(how);
    setup->store = std::move(store);
    setup->how = std::move(how);
    detail::participants everyone{std::vector<int>(static_cast<std::size_t>(size))};
    std::iota(everyone.ranks.begin(), everyone.ranks.end(), 0);
    std::string name = setup->how.prefix;
    return detail::process_group::join(std::move(setup), std::move(name), rank, everyone);
  }
  [[nodiscard]] static options named(options how, std::string const& job) {
    if (!job.empty()) how.prefix += text(".", job);
    return how;
  }
  static void ignore_broken_pipes() {
    [[maybe_unused]] static bool const once = [] {
      auto const before = std::signal(SIGPIPE, SIG_IGN);
      if (before != SIG_DFL && before != SIG_ERR) std::signal(SIGPIPE, before);
      return true;
    }();
  }
};

static_assert(collective<communicator> && point_to_point<communicator> && splittable<communicator>);
static_assert(revocable<communicator> && shrinkable<communicator> && mailbox<communicator>);

}  // namespace limber::gloo_engine
