// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The collective of NCCL, over any engine that makes its calls (nccl.hpp implements the real one), and
/// memory registered with it.

#include <limber/comm/collective.hpp>
#include <limber/comm/detail/nccl_operation.hpp>
#include <limber/comm/detail/nccl_process_group.hpp>
#include <limber/comm/detail/process_group.hpp>
#include <limber/comm/launch.hpp>
#include <limber/core/error.hpp>
#include <limber/core/tensor.hpp>

#include <cstddef>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <utility>

namespace limber {

/// Can register memory that operations reuse, until the result is destroyed.
template <class C>
concept registers_memory = requires(C& c, tensor_view memory) {
  { c.register_memory(memory) } -> std::movable;
};

namespace nccl {

namespace detail {

/// Keeps the first failure of several results.
struct first_failure {
  answer kept{};
  void operator()(answer const& a) {
    if (!kept.failed()) kept = a;
  }
};

}  // namespace detail

/// Memory registered with a communicator until this object is destroyed. May outlive the communicator.
template <detail::engine E>
class registration {
 public:
  registration(detail::process_group<E>& g, tensor_view memory) : where_(&g) {
    if (memory.length == 0) return;
    answer const a =
        g.engine.register_buffer(g.native, memory.data, static_cast<std::size_t>(memory.bytes()), handle_);
    if (a.failed()) throw error({"nccl", "register_memory", a.code, -1, std::string(memory.name), a.reason});
  }
  registration(registration&& other) noexcept
      : where_(std::move(other.where_)), handle_(std::exchange(other.handle_, nullptr)) {}
  registration& operator=(registration&& other) noexcept {
    std::swap(where_, other.where_);
    std::swap(handle_, other.handle_);
    return *this;
  }
  ~registration() {
    // A destroyed communicator has no registrations.
    if (!where_ || !handle_) return;
    auto& g = static_cast<detail::process_group<E>&>(*where_.get());
    if (g.native) (void)g.engine.deregister_buffer(g.native, handle_);
  }

 private:
  detail::shared_group where_;
  void* handle_ = nullptr;
};

/// Device memory of NCCL's allocator, which all of its transports can use without copies.
///
///     nccl::memory buffer(1 << 20);
///     auto known = comm.register_memory({buffer.data(), n, dtype::f32, "bucket"});
template <detail::engine E>
class basic_memory {
 public:
  /// On the current device. @throws std::invalid_argument unless bytes ≥ 0; limber::error if there is none
  explicit basic_memory(i64 bytes, E engine = {}) : engine_(std::move(engine)), bytes_(bytes) {
    expects(bytes >= 0, "nccl: memory: bytes must be >= 0, got ", bytes);
    if (bytes > 0)
      detail::process_group<E>::must("memory",
                                     engine_.allocate_shared(data_, static_cast<std::size_t>(bytes)));
  }
  basic_memory(basic_memory&& other) noexcept
      : engine_(other.engine_),
        data_(std::exchange(other.data_, nullptr)),
        bytes_(std::exchange(other.bytes_, 0)) {}
  basic_memory& operator=(basic_memory&& other) noexcept {
    std::swap(engine_, other.engine_);
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  ~basic_memory() {
    if (data_) (void)engine_.release_shared(data_);
  }

  [[nodiscard]] std::byte* data() const noexcept { return static_cast<std::byte*>(data_); }
  [[nodiscard]] i64 bytes() const noexcept { return bytes_; }

 private:
  E engine_;
  void* data_ = nullptr;
  i64 bytes_ = 0;
};

}  // namespace nccl
}  // namespace limber

namespace limber::nccl {

/// A bucket of a stream-ordered reduction.
struct reduced {
  const_tensor_view in;
  tensor_view out;
};

/// An operation in flight. `wait` blocks the host until the result is complete, and throws limber::error if
/// the communicator failed before; `done` does not synchronize. Both check for errors of NCCL, revocations
/// and the deadline, which counts from the first of these calls.
using request = limber::detail::group_request;

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
///          and `join` order them with other streams. The result is valid when the host has waited. Starting
///          an operation does not synchronize with its stream; `barrier` blocks the host until all ranks have
///          called it. `send` returns when the receiver has received it: NCCL does not compare lengths and
///          types, which must agree.
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
class basic_communicator : public limber::detail::group_handle {
 public:
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
  basic_communicator(launch_facts const& facts, kv_store const& store, options how = {}, E engine = {})
      : basic_communicator(join(facts, store, std::move(how), std::move(engine))) {}

  /// Ranks that the host program has connected already. Synchronizes with all ranks, for at most
  /// options::rendezvous_deadline seconds.
  basic_communicator(int rank, int size, exchange_function const& exchange, options how = {}, E engine = {})
      : basic_communicator(join(rank, size, exchange, std::move(how), std::move(engine))) {}

  [[nodiscard]] int device() const { return own().device; }
  /// Where all operations run.
  [[nodiscard]] stream_type stream() const { return own().own; }

  /// Later operations run after the work that `event` has recorded, on any stream. Does not synchronize.
  void after(event_type event) {
    process_group& g = own();
    detail::call const c{"after"};
    g.check(c);
    detail::on_device<E> const here(g.engine, g.device);
    g.need(c, g.engine.wait(g.own, event));
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
    process_group& g = own();
    for (auto const& b : buckets) {
      (void)limber::detail::all_reduce_of(b.in, b.out, reduction::sum);
      (void)detail::lies_on_device(g, b.in, limber::detail::bucket_of(b.in, b.out), true);
      (void)detail::lies_on_device(g, b.out, limber::detail::bucket_of(b.in, b.out), true);
    }
    if (buckets.empty()) return;
    auto const& first = buckets.front();
    detail::call const c =
        detail::call::of(limber::detail::all_reduce_of(first.in, first.out, reduction::sum),
                         limber::detail::bucket_of(first.in, first.out));
    g.check(c);
    ++g.calls;
    detail::on_device<E> const here(g.engine, g.device);
    g.need(c, g.engine.record(g.forked, stream));
    g.need(c, g.engine.wait(g.own, g.forked));
    g.need(c, g.engine.group_start());
    detail::first_failure failure;
    for (auto const& b : buckets)
      failure(g.engine.all_reduce(b.in.data, b.out.data, static_cast<std::size_t>(b.in.length), b.in.type,
                                  reduction::sum, g.native, g.own));
    // group_start() must be followed by group_end(), also after a failure.
    failure(g.engine.group_end());
    g.need(c, failure.kept);
    g.await_enqueued(c);
  }

  /// Later work on `stream` runs after all operations started so far. Does not synchronize.
  void join(stream_type stream) {
    check_stream("join", stream);
    process_group& g = own();
    detail::call const c{"join"};
    g.check(c);
    detail::on_device<E> const here(g.engine, g.device);
    g.need(c, g.engine.record(g.joined, g.own));
    g.need(c, g.engine.wait(stream, g.joined));
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
    process_group& g = own();
    detail::call const c{what};
    g.check(c);
    g.poll_until(c, g.now(), [&] { return g.engine.query(event); });
  }

  /// Throws if the communicator failed, NCCL reports an error, or another rank revoked it. For loops that
  /// rarely wait. Does not synchronize.
  void poll_errors() {
    process_group& g = own();
    detail::call const c{"poll_errors"};
    g.check(c);
    g.poll_errors(c);
  }

  // Groups ----------------------------------------------------------------------------------------

  /// The ranks of equal color, in rank order; this communicator stays usable. All ranks call it.
  [[nodiscard]] basic_communicator split(int color) { return basic_communicator(split_place(color)); }

  /// Fails this communicator (not those split from it); see Choices for when other ranks detect it.
  using group_handle::revoke;

  /// A communicator of the survivors. Called by all survivors with the same list, in any state of the
  /// communicator, which has failed afterwards. Synchronizes with the survivors, for at most the deadline.
  /// @throws std::invalid_argument unless `lost` is sorted, without repetition, within the ranks and
  ///         without the caller
  /// @throws limber::error if a survivor is missing, or the communicator had to be aborted
  [[nodiscard]] basic_communicator shrink(std::span<int const> lost) requires E::can_revoke {
    return basic_communicator(shrink_place(lost));
  }

  // Memory ----------------------------------------------------------------------------------------

  /// Registers memory that operations reuse, so that NCCL accesses it without copies, until the result is
  /// destroyed. @throws limber::error if NCCL refuses it
  [[nodiscard]] registration<E> register_memory(tensor_view memory) {
    process_group& g = own();
    detail::call const c{"register_memory", memory.name};
    limber::detail::check_memory("register_memory", "memory", memory, memory.name);
    (void)detail::lies_on_device(g, memory, memory.name, true);
    g.check(c);
    detail::on_device<E> const here(g.engine, g.device);
    return registration<E>(g, memory);
  }

 private:
  using process_group = detail::process_group<E>;

  explicit basic_communicator(detail::place at) noexcept : group_handle("nccl", std::move(at)) {}

  [[nodiscard]] static detail::place join(launch_facts const& facts, kv_store const& store, options how,
                                          E engine) {
    detail::check_options(how, facts.rank, facts.size);
    expects(
        facts.size == 1 || store, "nccl: ", facts.size,
        " ranks need a kv_store for the rendezvous (bootstrap_file), or a function that exchanges the id");
    int const device = detail::chosen_device(engine, how, &facts);
    if (facts.size == 1) {
      unique_id const id = detail::new_id(engine);
      return detail::init_group(std::move(engine), how, device, 0, 1, id);
    }
    if (!how.notices) how.notices = store;
    detail::on_device<E> const here(engine, device);
    std::string gpu;
    process_group::must("bootstrap", engine.device_name(gpu));
    detail::rendezvous rendezvous(store, facts.rank, facts.size, how.rendezvous_deadline, how.clock,
                                  how.pause);
    unique_id const id = rendezvous.agree(gpu, [&] { return detail::new_id(engine); });
    detail::place made = detail::init_group(engine, how, device, facts.rank, facts.size, id);
    rendezvous.succeeded();
    return made;
  }
  [[nodiscard]] static detail::place join(int rank, int size, exchange_function const& exchange,
                                          options const& how, E engine) {
    detail::check_options(how, rank, size);
    expects(exchange != nullptr, "nccl: the function that exchanges the id is empty");
    int const device = detail::chosen_device(engine, how, nullptr);
    unique_id const mine = rank == 0 ? detail::new_id(engine) : unique_id{};
    return detail::init_group(std::move(engine), how, device, rank, size, exchange(mine));
  }

  [[nodiscard]] process_group& own() const { return static_cast<process_group&>(group()); }

  void check_stream(std::string_view what, stream_type stream) {
    process_group& g = own();
    int theirs = g.device;
    process_group::must(what, g.engine.stream_device(stream, theirs));
    expects(theirs == g.device, what, ": the stream is on device ", theirs, ", the communicator on device ",
            g.device);
  }
};

}  // namespace limber::nccl
