// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The collective of MPI, over any engine that makes its calls; mpi.hpp implements the real one.

#include <limber/comm/collective.hpp>
#include <limber/comm/detail/mpi_messages.hpp>
#include <limber/comm/detail/signature.hpp>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

namespace limber::mpi {

template <detail::engine E>
class basic_communicator;

/// An operation in flight. MPI makes progress only in calls of `wait`, `done`, or a new operation.
template <detail::engine E>
class basic_request {
 public:
  basic_request(basic_request&& other) noexcept
      : where_(std::exchange(other.where_, nullptr)), op_(std::move(other.op_)) {}
  basic_request& operator=(basic_request&& other) noexcept {
    if (this != &other) {
      drop();
      where_ = std::exchange(other.where_, nullptr);
      op_ = std::move(other.op_);
    }
    return *this;
  }
  ~basic_request() { drop(); }

  /// @throws limber::error if MPI reports one; at the deadline options::fatal is called
  void wait() {
    if (!where_) return;
    auto const here = std::exchange(where_, nullptr);
    here->wait(op_);
  }
  /// Checks the deadline as well. Once true, the request may be destroyed.
  [[nodiscard]] bool done() {
    if (where_ && where_->done(op_)) where_ = nullptr;
    return !where_;
  }

 private:
  friend class basic_communicator<E>;
  using process_group = detail::messaging_group<E>;

  basic_request(std::shared_ptr<process_group> g, std::string_view call, std::string_view bucket)
      : where_(std::move(g)), op_{call, bucket} {}

  /// Makes a call of MPI for this operation: start(E&, comm, request&).
  template <class Start>
  void make(Start start) {
    where_->must(start(where_->engine, where_->native, op_.next()), op_);
  }
  void drop() noexcept {
    if (where_) where_->drop(op_);
    where_ = nullptr;
  }

  std::shared_ptr<process_group> where_;
  detail::in_flight_op<E> op_;
};

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
class basic_communicator {
 public:
  using request = basic_request<E>;
  using comm_type = typename E::comm_type;

  /// Duplicates `host`, which remains owned by the host program. A collective call of all of its ranks.
  /// @throws std::invalid_argument unless MPI runs and `host` is an intracommunicator
  explicit basic_communicator(comm_type host = E::world(), options how = {}, E engine = {}) {
    detail::check_options(how);
    expects(engine.is_running(),
            "mpi: MPI is not running: make an mpi::environment first, and let it live longer");
    expects(host != E::no_comm(), "mpi: the communicator is MPI_COMM_NULL");
    group_ = std::make_shared<process_group>(std::move(how), std::move(engine));
    bool between_two = false;
    group_->must(group_->engine.examine(host, between_two, group_->rank, group_->size), "communicator");
    expects(!between_two, "mpi: an intercommunicator cannot be used");
    request q(group_, "communicator", {});
    q.make([&](E& e, comm_type& made, auto& state) { return e.duplicate(host, made, state); });
    q.wait();
    group_->open("communicator");
  }

  [[nodiscard]] int rank() const { return here().rank; }
  [[nodiscard]] int size() const { return here().size; }

  [[nodiscard]] request all_reduce(const_tensor_view in, tensor_view out, reduction how = reduction::sum) {
    auto const s = limber::detail::all_reduce_of(in, out, how);
    request q = begin(s, limber::detail::bucket_of(in, out));
    detail::in_pieces(s.count, piece(s.type), [&](i64 first, int n) {
      q.make([&](E& e, comm_type c, auto& state) {
        return e.all_reduce(c, at(in, first), at(out, first), n, s.type, s.how, state);
      });
    });
    return q;
  }
  [[nodiscard]] request reduce_scatter(const_tensor_view in, tensor_view out) {
    auto const s = limber::detail::reduce_scatter_of(in, out, size());
    request q = begin(s, limber::detail::bucket_of(in, out));
    if (in.length <= piece(s.type)) {
      q.make([&](E& e, comm_type c, auto& state) {
        return e.reduce_scatter(c, in.data, out.data, static_cast<int>(s.count), s.type, s.how, state);
      });
      return q;
    }
    for (int r = 0; r < size(); ++r)
      detail::in_pieces(s.count, piece(s.type), [&](i64 first, int n) {
        q.make([&](E& e, comm_type c, auto& state) {
          return e.reduce(c, at(in, r * s.count + first), at(out, first), n, s.type, s.how, r, state);
        });
      });
    return q;
  }
  [[nodiscard]] request all_gather(const_tensor_view in, tensor_view out) {
    auto const s = limber::detail::all_gather_of(in, out, size());
    request q = begin(s, limber::detail::bucket_of(in, out));
    if (out.length <= piece(s.type)) {
      q.make([&](E& e, comm_type c, auto& state) {
        return e.all_gather(c, in.data, out.data, static_cast<int>(s.count), s.type, state);
      });
      return q;
    }
    std::memcpy(at(out, rank() * s.count), in.data, static_cast<std::size_t>(in.bytes()));
    for (int r = 0; r < size(); ++r) broadcast_pieces(q, out.sub(r * s.count, s.count), r);
    return q;
  }
  [[nodiscard]] request broadcast(tensor_view data, int root) {
    request q = begin(limber::detail::broadcast_of(data, root, size()), data.name);
    broadcast_pieces(q, data, root);
    return q;
  }
  void barrier() {
    request q = begin({limber::detail::operation::barrier}, {});
    q.make([](E& e, comm_type c, auto& state) { return e.barrier(c, state); });
    q.wait();
  }

  void send(const_tensor_view in, int peer) {
    limber::detail::check_memory("send", "in", in, in.name);
    limber::detail::check_rank("send", "peer", peer, size());
    here().must_be_alive("send", in.name);
    request q(group_, "send", in.name);
    group_->carried_messages = true;
    detail::in_pieces(in.length, piece(in.type), [&](i64 first, int n) {
      q.make([&](E& e, comm_type c, auto& state) {
        return e.send(c, at(in, first), n, in.type, peer, group_->tensor_tag(), state);
      });
    });
    q.wait();
  }
  void recv(tensor_view out, int peer) {
    limber::detail::check_memory("recv", "out", out, out.name);
    limber::detail::check_rank("recv", "peer", peer, size());
    here().recv(out, peer);
  }

  /// The ranks of equal color; this group stays usable.
  [[nodiscard]] basic_communicator split(int color) {
    // MPI's colors are not negative, and its call has no deadline, so the ranks exchange their colors first.
    // The buffer belongs to the group, since MPI may write to it after a deadline.
    auto& all = here().gathered;
    all.assign(static_cast<std::size_t>(size()) + 1, color);
    request q = begin({limber::detail::operation::split}, {});
    q.make([&](E& e, comm_type c, auto& state) {
      return e.all_gather(c, all.data(), all.data() + 1, 1, dtype::int64, state);
    });
    q.wait();
    std::ranges::sort(all);
    all.erase(std::unique(all.begin(), all.end()), all.end());
    auto const index = static_cast<int>(std::ranges::lower_bound(all, i64{color}) - all.begin());
    auto part = std::make_shared<process_group>(here().how, here().engine);
    here().must(here().engine.split(here().native, index, rank(), part->native), "split");
    part->open("split");
    return basic_communicator(std::move(part));
  }

  void post(int peer, i64 tag, std::span<std::byte const> bytes) {
    limber::detail::check_rank("post", "peer", peer, size());
    here().post(peer, tag, bytes);
  }
  /// The next message of the tag in order of arrival, from any rank.
  [[nodiscard]] std::optional<message> poll(i64 tag) { return here().poll(tag); }
  void listen() { here().listen(); }

 private:
  using process_group = detail::messaging_group<E>;

  explicit basic_communicator(std::shared_ptr<process_group> g) : group_(std::move(g)) {}

  [[nodiscard]] process_group& here() const {
    expects(group_ != nullptr, "mpi: this communicator was moved from");
    return *group_;
  }
  [[nodiscard]] i64 piece(dtype type) const { return detail::piece_of(group_->how, type); }
  [[nodiscard]] static std::byte const* at(const_tensor_view v, i64 first) noexcept {
    return v.data + first * size_of(v.type);
  }
  [[nodiscard]] static std::byte* at(tensor_view v, i64 first) noexcept {
    return v.data + first * size_of(v.type);
  }
  [[nodiscard]] request begin(limber::detail::signature const& s, std::string_view bucket) const {
    std::string_view const call = limber::detail::name_of(s.what);
    here().must_be_alive(call, bucket);
    return {group_, call, bucket};
  }
  void broadcast_pieces(request& q, tensor_view data, int root) const {
    detail::in_pieces(data.length, piece(data.type), [&](i64 first, int n) {
      q.make([&](E& e, comm_type c, auto& state) {
        return e.broadcast(c, at(data, first), n, data.type, root, state);
      });
    });
  }

  std::shared_ptr<process_group> group_;
};

}  // namespace limber::mpi
