// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The collective of MPI 3: processes that a launcher started together. The only header that includes mpi.h.

#include <limber/comm/collective.hpp>
#include <limber/comm/detail/mpi_process_group.hpp>
#include <limber/comm/detail/pairwise_reduction.hpp>
#include <limber/comm/detail/process_group.hpp>
#include <limber/core/clock.hpp>
#include <limber/core/dtype.hpp>
#include <limber/core/error.hpp>

// Without these macros the C++ bindings of both libraries would have to be linked.
#ifndef OMPI_SKIP_MPICXX
#define OMPI_SKIP_MPICXX 1
#endif
#ifndef MPICH_SKIP_MPICXX
#define MPICH_SKIP_MPICXX 1
#endif
#include <mpi.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <memory>
#include <string>
#include <thread>
#include <type_traits>
#include <utility>

static_assert(MPI_VERSION >= 3, "limber: MPI 3 is needed, for collectives that do not block");

namespace limber::mpi {

/// An operation in flight. MPI makes progress only in calls of `wait`, `done`, or a new operation. `wait`
/// throws limber::error if MPI reports one; at the deadline options::fatal is called. Once `done` is true,
/// the request may be destroyed.
using request = limber::detail::group_request;

/// One rank's handle to a duplicate of an MPI communicator, for host memory and static worlds.
///
///     limber::mpi::environment const mpi;             // or the host program calls MPI_Init
///     limber::mpi::communicator comm(MPI_COMM_WORLD, {.deadline = 120});
///
/// Bits     equal on every rank and repetition of one world, as MPI requires of its reductions (payloads of
///          NaNs excepted in f32 and f64); the order of additions is MPI's, and depends on length and world.
///          bf16 and f16 are added in float and rounded at every pairwise step, so a sum over n ranks is
///          rounded up to n − 1 times. max: NaN wins, +0 beats −0.
/// Cost     one call of MPI per operation, or one per options::largest_call bytes. Beyond that,
///          reduce_scatter becomes a reduction to, and all_gather a broadcast from, each rank.
/// Errors   limber::error of engine "mpi" with call, bucket, MPI's code and text; it ends the group on this
///          rank, and the others meet their deadline. MPI cannot cancel a collective: an operation that
///          misses its deadline calls options::fatal, by default MPI_Abort, while the memory is still valid.
///          An exception of it passes through, but group and memory are lost. `recv` and `listen` have
///          nothing in flight when they time out: they throw limber::error, and the group stays usable.
/// Choices  neither shrinkable nor revocable. The destructor of a request that was not waited for waits, and
///          ends the group on this rank. `recv` compares bytes, not dtypes; `send` may wait for the receiver.
///          The constructor and `split` are collective calls, under the deadline; when all ranks have reached
///          a split, it calls MPI_Comm_split, which has none. A communicator that has carried messages (post,
///          send) is not freed before MPI ends: MPI has at least 2048 of them.
///
/// Move-only. A handle and its requests belong to one thread at a time; see `threading`.
template <detail::engine E>
class basic_communicator : public limber::detail::group_handle {
 public:
  using comm_type = typename E::comm_type;

  /// Duplicates `host`, which remains owned by the host program. A collective call of all of its ranks.
  /// @throws std::invalid_argument unless MPI runs and `host` is an intracommunicator
  explicit basic_communicator(comm_type host = E::world(), options how = {}, E engine = {})
      : basic_communicator(join(host, std::move(how), std::move(engine))) {}

  /// The ranks of equal color; this group stays usable.
  [[nodiscard]] basic_communicator split(int color) { return basic_communicator(split_place(color)); }

  using group_handle::post;
  /// The next message of the tag in order of arrival, from any rank.
  using group_handle::listen;
  using group_handle::poll;

 private:
  explicit basic_communicator(limber::detail::place at) noexcept : group_handle("mpi", std::move(at)) {}

  [[nodiscard]] static limber::detail::place join(comm_type host, options how, E engine) {
    detail::check_options(how);
    expects(engine.is_running(),
            "mpi: MPI is not running: make an mpi::environment first, and let it live longer");
    expects(host != E::no_comm(), "mpi: the communicator is MPI_COMM_NULL");
    auto* const group = new detail::process_group<E>(std::move(how), std::move(engine));
    limber::detail::shared_group const made(group);
    group->duplicate(host);
    return {made, group->rank()};
  }
};

/// The calls of MPI. Only the creation of reductions throws.
class driver {
  using answer = detail::answer;

 public:
  using comm_type = MPI_Comm;
  using request_type = MPI_Request;
  using message_type = MPI_Message;

  [[nodiscard]] static comm_type world() noexcept { return MPI_COMM_WORLD; }
  [[nodiscard]] static comm_type no_comm() noexcept { return MPI_COMM_NULL; }
  [[nodiscard]] static request_type no_request() noexcept { return MPI_REQUEST_NULL; }
  [[nodiscard]] static message_type no_message() noexcept { return MPI_MESSAGE_NULL; }

  /// True between MPI_Init and MPI_Finalize, whoever called them.
  [[nodiscard]] static bool is_running() noexcept {
    int started = 0, ended = 0;
    return MPI_Initialized(&started) == MPI_SUCCESS && MPI_Finalized(&ended) == MPI_SUCCESS && started != 0 &&
           ended == 0;
  }
  [[nodiscard]] static std::string reason(int code) {
    char words[MPI_MAX_ERROR_STRING] = "";
    int length = 0;
    if (MPI_Error_string(code, words, &length) != MPI_SUCCESS) return "an unknown error";
    return {words, static_cast<std::size_t>(length)};
  }
  static void abort() noexcept { MPI_Abort(MPI_COMM_WORLD, EXIT_FAILURE); }

  answer examine(comm_type comm, bool& between_two, int& rank, int& size) {
    int inter = 0;
    if (int const code = MPI_Comm_test_inter(comm, &inter)) return {code, "MPI_Comm_test_inter"};
    between_two = inter != 0;
    if (int const code = MPI_Comm_rank(comm, &rank)) return {code, "MPI_Comm_rank"};
    return {MPI_Comm_size(comm, &size), "MPI_Comm_size"};
  }
  answer duplicate(comm_type comm, comm_type& made, request_type& state) {
    return {MPI_Comm_idup(comm, &made, &state), "MPI_Comm_idup"};
  }
  answer adopt(comm_type comm) {
    return {MPI_Comm_set_errhandler(comm, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler"};
  }
  answer split(comm_type comm, int color, int key, comm_type& made) {
    return {MPI_Comm_split(comm, color, key, &made), "MPI_Comm_split"};
  }
  answer free(comm_type& comm) { return {MPI_Comm_free(&comm), "MPI_Comm_free"}; }

  answer test(request_type& state, bool& done) {
    int flag = 0;
    int const code = MPI_Test(&state, &flag, MPI_STATUS_IGNORE);
    done = flag != 0;
    return {code, "MPI_Test"};
  }

  answer all_reduce(comm_type comm, void const* in, void* out, int n, dtype type, reduction how,
                    request_type& state) {
    return {MPI_Iallreduce(in, out, n, of(type), of(type, how), comm, &state), "MPI_Iallreduce"};
  }
  answer reduce(comm_type comm, void const* in, void* out, int n, dtype type, reduction how, int root,
                request_type& state) {
    return {MPI_Ireduce(in, out, n, of(type), of(type, how), root, comm, &state), "MPI_Ireduce"};
  }
  answer reduce_scatter(comm_type comm, void const* in, void* out, int n, dtype type, reduction how,
                        request_type& state) {
    return {MPI_Ireduce_scatter_block(in, out, n, of(type), of(type, how), comm, &state),
            "MPI_Ireduce_scatter_block"};
  }
  answer all_gather(comm_type comm, void const* in, void* out, int n, dtype type, request_type& state) {
    return {MPI_Iallgather(in, n, of(type), out, n, of(type), comm, &state), "MPI_Iallgather"};
  }
  answer broadcast(comm_type comm, void* data, int n, dtype type, int root, request_type& state) {
    return {MPI_Ibcast(data, n, of(type), root, comm, &state), "MPI_Ibcast"};
  }
  answer barrier(comm_type comm, request_type& state) { return {MPI_Ibarrier(comm, &state), "MPI_Ibarrier"}; }

  answer send(comm_type comm, void const* in, int n, dtype type, int peer, int tag, request_type& state) {
    return {MPI_Isend(in, n, of(type), peer, tag, comm, &state), "MPI_Isend"};
  }
  answer probe(comm_type comm, int source, int tag, message_type& found, detail::arrival& what) {
    int there = 0;
    MPI_Status about;
    int const code = MPI_Improbe(source < 0 ? MPI_ANY_SOURCE : source, tag, comm, &there, &found, &about);
    what.there = there != 0;
    if (code != MPI_SUCCESS || !what.there) return {code, "MPI_Improbe"};
    what.source = about.MPI_SOURCE;
    return {MPI_Get_count(&about, MPI_BYTE, &what.bytes), "MPI_Get_count"};
  }
  answer take(message_type& found, void* out, int n, dtype type, request_type& state) {
    return {MPI_Imrecv(out, n, of(type), &found, &state), "MPI_Imrecv"};
  }

 private:
  /// The reductions that MPI lacks, freed with the last driver that uses them.
  struct reductions {
    reductions() {
      make<bf16, limber::detail::pair_sum<bf16>>(add_bf16);
      make<f16, limber::detail::pair_sum<f16>>(add_f16);
      make<float, limber::detail::pair_max<float>>(max_f32);
      make<double, limber::detail::pair_max<double>>(max_f64);
    }
    reductions(reductions const&) = delete;
    reductions& operator=(reductions const&) = delete;
    ~reductions() {
      if (is_running())
        for (MPI_Op* const op : {&add_bf16, &add_f16, &max_f32, &max_f64}) MPI_Op_free(op);
    }
    template <class T, T (*combine)(T, T) noexcept>
    static void make(MPI_Op& op) {
      auto* const all = +[](void* in, void* inout, int* n, MPI_Datatype*) {
        limber::detail::combine_pairs<T, combine>(inout, in, inout, static_cast<std::size_t>(*n));
      };
      detail::check(driver(), {MPI_Op_create(all, 1, &op), "MPI_Op_create"}, "communicator");
    }
    MPI_Op add_bf16 = MPI_OP_NULL, add_f16 = MPI_OP_NULL, max_f32 = MPI_OP_NULL, max_f64 = MPI_OP_NULL;
  };

  [[nodiscard]] MPI_Op of(dtype type, reduction how) {
    if (how == reduction::max && !is_floating(type)) return MPI_MAX;
    if (how == reduction::sum && type != dtype::bf16 && type != dtype::f16) return MPI_SUM;
    if (!own_) own_ = std::make_shared<reductions>();
    if (how == reduction::max) return type == dtype::f32 ? own_->max_f32 : own_->max_f64;
    return type == dtype::bf16 ? own_->add_bf16 : own_->add_f16;
  }
  [[nodiscard]] static MPI_Datatype of(dtype type) noexcept {
    switch (type) {
      case dtype::f32: return MPI_FLOAT;
      case dtype::f64: return MPI_DOUBLE;
      case dtype::bf16:
      case dtype::f16: return MPI_UINT16_T;
      case dtype::int64: return MPI_INT64_T;
      case dtype::uint8: return MPI_BYTE;
    }
    return MPI_BYTE;
  }

  std::shared_ptr<reductions> own_;
};

/// The thread support that a process needs of MPI.
enum class threading : int {
  single = MPI_THREAD_SINGLE,          ///< the process has one thread
  funneled = MPI_THREAD_FUNNELED,      ///< only the one that made the environment does
  serialized = MPI_THREAD_SERIALIZED,  ///< any, one at a time
  multiple = MPI_THREAD_MULTIPLE       ///< any, at once: communicators in several threads need it
};

/// Initializes MPI, and finalizes it in the destructor; does neither if the host program has initialized it.
///
///     int main() {
///       limber::mpi::environment const mpi;
///       limber::mpi::communicator comm;
///
/// Errors   limber::error if MPI, or the host program, provides less threading than `level`. During stack
///          unwinding the destructor does not finalize MPI, which would wait for ranks that wait for this
///          one; the launcher stops the others when a process ends without it.
class environment {
 public:
  explicit environment(threading level = threading::funneled) {
    int started = 0, given = MPI_THREAD_SINGLE, ended = 0;
    check(MPI_Finalized(&ended), "MPI_Finalized");
    expects(ended == 0, "mpi: MPI was ended before, and cannot be started twice");
    check(MPI_Initialized(&started), "MPI_Initialized");
    owns_ = started == 0;
    if (owns_)
      check(MPI_Init_thread(nullptr, nullptr, static_cast<int>(level), &given), "MPI_Init_thread");
    else
      check(MPI_Query_thread(&given), "MPI_Query_thread");
    if (given >= static_cast<int>(level)) return;
    if (owns_) MPI_Finalize();
    throw error({"mpi",
                 "environment",
                 0,
                 -1,
                 {},
                 text("threads may call MPI at level ", given, ", but level ", static_cast<int>(level),
                      " was asked for; ",
                      owns_ ? "ask for less" : "the host program has to ask MPI_Init_thread for it")});
  }
  environment(environment const&) = delete;
  environment& operator=(environment const&) = delete;
  ~environment() {
    if (!owns_ || std::uncaught_exceptions() > exceptions_ || !driver::is_running()) return;
    // Waits briefly for the last messages to be sent; they may have no receiver.
    driver engine;
    try {
      auto& pending = detail::pending_sends<driver>::of_process();
      for (double const start = steady_seconds(); !pending.is_empty(engine) && steady_seconds() - start < 1;)
        std::this_thread::yield();
    } catch (std::exception const&) {}
    MPI_Finalize();
  }

  /// This object has initialized MPI and will finalize it.
  [[nodiscard]] bool owns() const noexcept { return owns_; }

 private:
  static void check(int code, char const* function) {
    detail::check(driver(), {code, function}, "environment");
  }

  bool owns_ = false;
  int exceptions_ = std::uncaught_exceptions();
};

using communicator = basic_communicator<driver>;

static_assert(collective<communicator> && point_to_point<communicator> && splittable<communicator>);
static_assert(mailbox<communicator> && !revocable<communicator> && !shrinkable<communicator>);

}  // namespace limber::mpi
