// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The collective of MPI, over any engine that makes its calls; mpi.hpp implements the real one.

#include <limber/comm/collective.hpp>
#include <limber/comm/detail/mpi_process_group.hpp>
#include <limber/comm/detail/process_group.hpp>

#include <utility>

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

}  // namespace limber::mpi
