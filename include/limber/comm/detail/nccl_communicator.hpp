// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The collective of NCCL, over any engine that makes its calls; nccl.hpp implements the real one.

#include <limber/comm/collective.hpp>
#include <limber/comm/detail/nccl_comm_init.hpp>
#include <limber/comm/detail/nccl_operation.hpp>
#include <limber/comm/detail/nccl_registration.hpp>
#include <limber/comm/detail/signature.hpp>
#include <limber/comm/launch.hpp>

#include <algorithm>
#include <cstddef>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace limber::nccl {

/// A bucket of a stream-ordered reduction.
struct reduced {
  const_tensor_view in;
  tensor_view out;
};

/// Returns rank 0's id on every rank: called once on each rank, with the id on rank 0 and zeros elsewhere (a
/// broadcast by means of the host program).
using exchange_function = std::function<unique_id(unique_id const& mine)>;

/// One rank's handle to an NCCL communicator, with its own stream for all of its operations.
///
///     nccl::communicator comm(facts_from_environment(), nccl::bootstrap_file("/shared/jobs", "run-42"));
///     comm.after(gradients_ready);                       // an event; the host does not wait
///     auto sum = comm.all_reduce(bucket, reduced_bucket);
///     …                                                  // backward continues on its own stream
///     sum.wait();
///
/// Order    operations run in the order in which they are started, on stream(); `after`, `fork_all_reduce`
///          and `join` order them with other streams. The result is valid when the host has waited.
/// Memory   device, managed and host memory. Host views (counters, control values) pass through a staging
///          buffer that is reused; they are read when the operation starts and written by `wait`.
/// Bits     equal on every rank and repetition; the order of additions is NCCL's. Sums only: the mean is a
///          weight in the pack kernel, never ncclAvg. max: NaN wins; floats pass through the host for it.
/// Cost     no allocation in a steady state. The first operation connects: it waits for the other ranks
///          inside the call, under the deadline.
/// Errors   limber::error of engine "nccl" with call, bucket, NCCL's code and text, and the missing rank if
///          known. NCCL does not report it: with options::notices, waiting ranks publish their progress at
///          the deadline, and the missing ones are named. Before an error is thrown, operations in flight are
///          stopped (ncclCommRevoke), so that their memory is no longer used. Afterwards every call throws
///          the same reason, and `shrink` works.
/// Choices  `revoke` reaches other ranks through options::notices, and only while they wait or poll (done,
///          poll_errors); without it, each rank fails at its own deadline. There is no monitoring thread:
///          errors are detected by the waiting thread, so wait for graphs with `await`, not by synchronizing
///          their stream. Two ranks on one GPU are refused, as by NCCL.
///
/// Move-only. A handle and its requests belong to one thread at a time.
template <detail::engine E>
class basic_communicator {
 public:
  using request = basic_request<E>;
  using stream_type = typename E::stream_type;
  using event_type = typename E::event_type;

  /// A group of one, on options::device or the current device.
  explicit basic_communicator(options how = {}, E engine = {})
      : basic_communicator(
            0, 1, [](unique_id const& mine) { return mine; }, std::move(how), std::move(engine)) {}

  /// Ranks that exchange the id through a kv_store (bootstrap_file). If options::notices is empty, `store` is
  /// used for notices, too. A single process needs no store. Synchronizes with all ranks, for at most
  /// options::rendezvous_deadline seconds.
  /// @throws limber::error naming missing ranks, or ranks that share a GPU
  basic_communicator(launch_facts const& facts, kv_store const& store, options how = {}, E engine = {}) {
    detail::check_options(how, facts.rank, facts.size);
    expects(
        facts.size == 1 || store, "nccl: ", facts.size,
        " ranks need a kv_store for the rendezvous (bootstrap_file), or a function that exchanges the id");
    int const device = detail::chosen_device(engine, how, &facts);
    if (!how.notices && facts.size > 1) how.notices = store;
    if (facts.size == 1) {
      unique_id const own = detail::new_id(engine);
      group_ = detail::start(std::move(engine), how, device, 0, 1, own);
      return;
    }
    detail::on_device<E> const here(engine, device);
    std::string gpu;
    process_group::must("bootstrap", engine.device_name(gpu));
    detail::rendezvous rendezvous(store, facts.rank, facts.size, how.rendezvous_deadline, how.clock,
                                  how.pause);
    unique_id const id = rendezvous.agree(gpu, [&] { return detail::new_id(engine); });
    group_ = detail::start(engine, how, device, facts.rank, facts.size, id);
    rendezvous.succeeded();
  }

  /// Ranks that the host program has connected already. Synchronizes with all ranks, for at most
  /// options::rendezvous_deadline seconds.
  basic_communicator(int rank, int size, exchange_function const& exchange, options how = {}, E engine = {}) {
    detail::check_options(how, rank, size);
    expects(exchange != nullptr, "nccl: the function that exchanges the id is empty");
    int const device = detail::chosen_device(engine, how, nullptr);
    unique_id const mine = rank == 0 ? detail::new_id(engine) : unique_id{};
    group_ = detail::start(std::move(engine), how, device, rank, size, exchange(mine));
  }

  basic_communicator(basic_communicator&&) noexcept = default;
  basic_communicator& operator=(basic_communicator&& other) noexcept {
    if (this != &other) {
      if (group_) group_->leave();
      group_ = std::move(other.group_);
    }
    return *this;
  }
  /// Finalizes the communicator; operations in flight are stopped and fail.
  ~basic_communicator() {
    if (group_) group_->leave();
  }

  [[nodiscard]] int rank() const { return group_->rank; }
  [[nodiscard]] int size() const { return group_->size(); }
  [[nodiscard]] int device() const { return group_->device; }
  /// Where all operations run.
  [[nodiscard]] stream_type stream() const { return group_->own; }

  /// Later operations run after the work that `event` has recorded, on any stream. Does not synchronize.
  void after(event_type event) {
    detail::call const c{"after"};
    group_->check(c);
    detail::on_device<E> const here(engine(), group_->device);
    group_->need(c, engine().wait(group_->own, event));
  }

  /// Starting an operation does not synchronize with its stream.
  [[nodiscard]] request all_reduce(const_tensor_view in, tensor_view out, reduction how = reduction::sum) {
    auto const s = limber::detail::all_reduce_of(in, out, how);
    bool const keys = how == reduction::max && is_floating(s.type);
    return detail::begin(group_, detail::call::of(s, limber::detail::bucket_of(in, out)), in, out, keys,
                         [&](void const* from, void* to) {
                           return engine().all_reduce(from, to, count(s.count), keys ? dtype::int64 : s.type,
                                                      how, group_->native, group_->own);
                         });
  }
  [[nodiscard]] request reduce_scatter(const_tensor_view in, tensor_view out) {
    auto const s = limber::detail::reduce_scatter_of(in, out, size());
    return detail::begin(group_, detail::call::of(s, limber::detail::bucket_of(in, out)), in, out, false,
                         [&](void const* from, void* to) {
                           return engine().reduce_scatter(from, to, count(s.count), s.type, group_->native,
                                                          group_->own);
                         });
  }
  [[nodiscard]] request all_gather(const_tensor_view in, tensor_view out) {
    auto const s = limber::detail::all_gather_of(in, out, size());
    return detail::begin(group_, detail::call::of(s, limber::detail::bucket_of(in, out)), in, out, false,
                         [&](void const* from, void* to) {
                           return engine().all_gather(from, to, count(s.count), s.type, group_->native,
                                                      group_->own);
                         });
  }
  [[nodiscard]] request broadcast(tensor_view data, int root) {
    auto const s = limber::detail::broadcast_of(data, root, size());
    return detail::begin(
        group_, detail::call::of(s, data.name), data, data, false, [&](void const* from, void* to) {
          return engine().broadcast(from, to, count(s.count), s.type, root, group_->native, group_->own);
        });
  }
  /// Blocks the host until all ranks have called it.
  void barrier() {
    i64 const in[] = {1};
    i64 out[] = {0};
    detail::call const c{"barrier", {}, {operation::all_reduce, reduction::sum, dtype::int64, 1, 0}};
    detail::begin(group_, c, const_view(in), view(out), false, [&](void const* from, void* to) {
      return engine().all_reduce(from, to, 1, dtype::int64, reduction::sum, group_->native, group_->own);
    }).wait();
  }

  /// Returns when the receiver has received it. NCCL does not compare lengths and types: they must agree.
  void send(const_tensor_view in, int peer) {
    limber::detail::check_memory("send", "in", in, in.name);
    check_peer("send", peer);
    detail::call const c{
        "send", in.name, {operation::broadcast, reduction::sum, in.type, in.length, 0}, peer};
    detail::begin(group_, c, in, {}, false, [&](void const* from, void*) {
      return engine().send(from, count(in.length), in.type, peer, group_->native, group_->own);
    }).wait();
  }
  void recv(tensor_view out, int peer) {
    limber::detail::check_memory("recv", "out", out, out.name);
    check_peer("recv", peer);
    detail::call const c{
        "recv", out.name, {operation::broadcast, reduction::sum, out.type, out.length, 0}, peer};
    detail::begin(group_, c, {}, out, false, [&](void const*, void* to) {
      return engine().recv(to, count(out.length), out.type, peer, group_->native, group_->own);
    }).wait();
  }

  // Stream order, for graphs --------------------------------------------------------------------------

  /// Starts the sums of all `buckets` as one NCCL operation after the work that is on `stream` now. Later
  /// work on `stream` overlaps it, until `join`. May be captured. Does not synchronize.
  ///
  /// Memory   device memory only; views stay valid until joined, or as long as the captured graph is used.
  ///          A graph that holds such work has to be destroyed before the communicator.
  /// Errors   std::invalid_argument for host memory or a stream of another device. Run it once before a
  ///          capture: the first operation of a communicator connects. Wait for replays with `await`.
  void fork_all_reduce(stream_type stream, std::span<reduced const> buckets) {
    check_stream("fork_all_reduce", stream);
    for (auto const& b : buckets) {
      (void)limber::detail::all_reduce_of(b.in, b.out, reduction::sum);
      (void)detail::lies_on_device(*group_, b.in, limber::detail::bucket_of(b.in, b.out), true);
      (void)detail::lies_on_device(*group_, b.out, limber::detail::bucket_of(b.in, b.out), true);
    }
    if (buckets.empty()) return;
    auto const& first = buckets.front();
    detail::call const c =
        detail::call::of(limber::detail::all_reduce_of(first.in, first.out, reduction::sum),
                         limber::detail::bucket_of(first.in, first.out));
    group_->check(c);
    ++group_->calls;
    detail::on_device<E> const here(engine(), group_->device);
    group_->need(c, engine().record(group_->forked, stream));
    group_->need(c, engine().wait(group_->own, group_->forked));
    group_->need(c, engine().group_start());
    detail::first_failure failure;
    for (auto const& b : buckets)
      failure(engine().all_reduce(b.in.data, b.out.data, count(b.in.length), b.in.type, reduction::sum,
                                  group_->native, group_->own));
    // group_start() must be followed by group_end(), also after a failure.
    failure(engine().group_end());
    group_->need(c, failure.kept);
    group_->await_enqueued(c);
  }

  /// Later work on `stream` runs after all operations started so far. Does not synchronize.
  void join(stream_type stream) {
    check_stream("join", stream);
    detail::call const c{"join"};
    group_->check(c);
    detail::on_device<E> const here(engine(), group_->device);
    group_->need(c, engine().record(group_->joined, group_->own));
    group_->need(c, engine().wait(stream, group_->joined));
  }

  /// fork_all_reduce and join: runs after the work on `stream`, and before later work on it; overlaps other
  /// streams only. May be captured. Does not synchronize.
  void enqueue_all_reduce(stream_type stream, std::span<reduced const> buckets) {
    fork_all_reduce(stream, buckets);
    join(stream);
  }

  /// Blocks the host until an event after operations of this communicator (for example a replay of a graph),
  /// under the deadline. Synchronizes `event`.
  void await(event_type event, std::string_view what = "await") {
    detail::call const c{what};
    group_->check(c);
    group_->poll_until(c, group_->now(), [&] { return engine().query(event); });
  }

  /// Throws if the communicator failed, NCCL reports an error, or another rank revoked it. For loops that
  /// rarely wait. Does not synchronize.
  void poll_errors() {
    detail::call const c{"poll_errors"};
    group_->check(c);
    group_->poll_errors(c);
  }

  // Groups ----------------------------------------------------------------------------------------

  /// The ranks of equal color, in rank order; this communicator stays usable. All ranks call it.
  [[nodiscard]] basic_communicator split(int color) {
    // NCCL's colors start at 0, and it does not report the members of the new group.
    std::vector<i64> const mine{color};
    std::vector<i64> colors(static_cast<std::size_t>(size()));
    detail::call const c{"split", {}, {operation::all_gather, reduction::sum, dtype::int64, 1, 0}};
    detail::begin(group_, c, const_view(mine), view(colors), false, [&](void const* from, void* to) {
      return engine().all_gather(from, to, 1, dtype::int64, group_->native, group_->own);
    }).wait();
    std::vector<i64> kinds = colors;
    std::ranges::sort(kinds);
    kinds.erase(std::unique(kinds.begin(), kinds.end()), kinds.end());
    auto const kind = static_cast<int>(std::ranges::lower_bound(kinds, color) - kinds.begin());
    std::vector<int> members;
    for (int r = 0; r < size(); ++r)
      if (colors[static_cast<std::size_t>(r)] == color) members.push_back(r);
    return divide(kind, members, text(group_->name, ".", ++group_->children, "-", kind));
  }

  /// Fails this communicator (not those split from it); see Choices for when other ranks detect it.
  void revoke(std::string const& reason) { group_->end({0, -1, reason}); }

  /// A communicator of the survivors. Called by all survivors with the same list, in any state of the
  /// communicator, which has failed afterwards. Synchronizes with the survivors, for at most the deadline.
  /// @throws std::invalid_argument unless `lost` is sorted, without repetition, within the ranks and
  ///         without the caller
  /// @throws limber::error if a survivor is missing, or the communicator had to be aborted
  [[nodiscard]] basic_communicator shrink(std::span<int const> lost) requires E::can_revoke {
    for (std::size_t i = 0; i < lost.size(); ++i) {
      limber::detail::check_rank("shrink", "lost rank", lost[i], size());
      expects(i == 0 || lost[i - 1] < lost[i], "shrink: lost ranks must be sorted, got ", lost[i], " after ",
              lost[i == 0 ? 0 : i - 1]);
      expects(lost[i] != rank(), "shrink: rank ", rank(), " cannot call itself lost");
    }
    std::vector<int> survivors, lost_ranks(lost.begin(), lost.end());
    for (int r = 0; r < size(); ++r)
      if (!std::ranges::binary_search(lost, r)) survivors.push_back(r);
    // Operations in flight are stopped first: NCCL shrinks only an idle communicator.
    group_->end({0, lost.empty() ? -1 : lost[0],
                 text("the ranks continue in a new group",
                      lost.empty() ? "" : text(" without ", detail::ranks_text(lost_ranks)))});
    if (group_->ended_as() == detail::end_state::aborted || !group_->native)
      throw error({"nccl",
                   "shrink",
                   0,
                   rank(),
                   {},
                   "NCCL could not be revoked and was aborted; make a new communicator from a new id"});
    std::string name = text(group_->name, ".");
    for (int const r : lost) name += text("-", r);
    if (lost.empty()) return divide(0, survivors, name + "-all");
    bool const unclean = group_->ended_as() == detail::end_state::unclean;
    return basic_communicator(detail::make_child(*group_, "shrink", survivors, name, [&](auto& place) {
      return engine().shrink(group_->native, lost, unclean, place);
    }));
  }

  // Memory ----------------------------------------------------------------------------------------

  /// Registers memory that operations reuse, so that NCCL accesses it without copies, until the result is
  /// destroyed. @throws limber::error if NCCL refuses it
  [[nodiscard]] registration<E> register_memory(tensor_view memory) {
    detail::call const c{"register_memory", memory.name};
    limber::detail::check_memory("register_memory", "memory", memory, memory.name);
    (void)detail::lies_on_device(*group_, memory, memory.name, true);
    group_->check(c);
    detail::on_device<E> const here(engine(), group_->device);
    return registration<E>(group_, memory);
  }

 private:
  using process_group = detail::process_group<E>;
  using operation = limber::detail::operation;

  explicit basic_communicator(std::shared_ptr<process_group> g) : group_(std::move(g)) {}

  [[nodiscard]] E& engine() { return group_->engine; }
  [[nodiscard]] static std::size_t count(i64 n) noexcept { return static_cast<std::size_t>(n); }

  void check_peer(std::string_view what, int peer) const {
    limber::detail::check_rank(what, "peer", peer, size());
    expects(peer != rank(), what, ": peer ", peer, " is this rank itself");
  }

  void check_stream(std::string_view what, stream_type stream) {
    int theirs = group_->device;
    process_group::must(what, engine().stream_device(stream, theirs));
    expects(theirs == group_->device, what, ": the stream is on device ", theirs,
            ", the communicator on device ", group_->device);
  }

  [[nodiscard]] basic_communicator divide(int kind, std::vector<int> const& members,
                                          std::string const& name) {
    return basic_communicator(detail::make_child(*group_, "split", members, name, [&](auto& place) {
      return engine().split(group_->native, kind, rank(), place);
    }));
  }

  std::shared_ptr<process_group> group_;
};

}  // namespace limber::nccl
