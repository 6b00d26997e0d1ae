// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The thin interface to whatever moves bytes between workers.

#include <limber/core/config.hpp>
#include <limber/core/piece.hpp>
#include <limber/core/tensor.hpp>

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace limber {

/// What a reduction does with the elements of all ranks.
enum class reduction : std::uint8_t { sum, max };

/// An operation in flight. `wait` returns when its result is there, or throws limber::error naming
/// the operation, the bucket (the view's name) and the rank that is missing or failed; `done` never
/// blocks. Move-only. A request that is destroyed before it was waited for ends the group: the other
/// ranks get an error, not a hang.
template <class Q>
concept request = std::movable<Q> && requires(Q& q) {
  q.wait();
  { q.done() } -> std::convertible_to<bool>;
};

/// The request of an engine that has finished when it returns.
struct completed {
  void wait() noexcept {}
  [[nodiscard]] bool done() const noexcept { return true; }
};

/// A group of workers that call the same operations in the same order.
///
///     int rank() const, size() const
///     request all_reduce(const_tensor_view in, tensor_view out, reduction = sum)
///                                                 out[i] = Σ over ranks of in[i]; in ≠ out, in survives
///     request reduce_scatter(const_tensor_view in, tensor_view out)   rank r gets block r of the sum
///     request all_gather(const_tensor_view in, tensor_view out)       out = in of rank 0, 1, …
///     request broadcast(tensor_view data, int root)
///     void barrier()
///
/// Shapes   in and out have equal length and dtype, but for reduce_scatter (in is size() × out) and
///          all_gather (out is size() × in). Length 0 is legal and still a call that all must make.
/// Order    operations complete in the order they were started; several may be in flight.
/// Bits     a reduction gives the same bits on every rank.
/// Memory   views must stay valid until the request was waited for; `out` holds nothing useful before.
/// Types    sum: f32, f64, bf16, f16, int64; max: f32, f64, int64, where NaN wins; the others: every dtype.
template <class C>
concept collective = requires(C& c, C const& k, const_tensor_view in, tensor_view out, reduction how) {
  { k.rank() } -> std::convertible_to<int>;
  { k.size() } -> std::convertible_to<int>;
  { c.all_reduce(in, out) } -> request;
  { c.all_reduce(in, out, how) } -> request;
  { c.reduce_scatter(in, out) } -> request;
  { c.all_gather(in, out) } -> request;
  { c.broadcast(out, 0) } -> request;
  c.barrier();
};

/// Wants to know where tensors start in the view that is summed: the bits of its sums depend on that, and
/// not on which tensors share a view.
///
///     request all_reduce(const_tensor_view in, tensor_view out, std::span<piece const> pieces)
///                                                 sums the pieces; what lies between them is padding
template <class C>
concept sums_pieces = collective<C> &&
    requires(C& c, const_tensor_view in, tensor_view out, std::span<piece const> pieces) {
  { c.all_reduce(in, out, pieces) } -> std::same_as<decltype(c.all_reduce(in, out))>;
};

/// Blocking messages between two ranks, matched by order.
template <class C>
concept point_to_point = collective<C> && requires(C& c, const_tensor_view in, tensor_view out) {
  c.send(in, 1);
  c.recv(out, 1);
};

/// Can be cut into disjoint groups: ranks of equal color, in rank order. A collective call.
template <class C>
concept splittable = collective<C> && requires(C& c) {
  { c.split(0) } -> collective;
};

/// Can be ended from one rank: operations in flight and later ones throw `reason` on every rank.
template <class C>
concept revocable = collective<C> && requires(C& c, std::string const& reason) {
  c.revoke(reason);
};

/// Survivors can go on without the ranks in `lost` (sorted, the same on every survivor).
template <class C>
concept shrinkable = collective<C> && requires(C& c, std::span<int const> lost) {
  { c.shrink(lost) } -> collective;
};

/// A message as it arrives.
struct message {
  int source = 0;
  std::vector<std::byte> bytes;
};

/// Small host messages outside the order of collectives; never blocks. What arrived before a group
/// failed can still be read.
///
///     void post(int peer, i64 tag, std::span<std::byte const>)     delivered in order per (sender, tag)
///     std::optional<message> poll(i64 tag)                         the next from any source, if there is one
///     void listen()          blocks until something has arrived since the last listen; may return early
///
/// Errors   `listen` throws limber::error when nothing comes within the deadline, or nobody is left to write.
template <class C>
concept mailbox = requires(C& c, std::span<std::byte const> bytes) {
  c.post(0, i64{0}, bytes);
  { c.poll(i64{0}) } -> std::same_as<std::optional<message>>;
  c.listen();
};

}  // namespace limber
