// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Compares the calls of all ranks before data are transferred.

#include <limber/comm/collective.hpp>
#include <limber/comm/detail/call_comparison.hpp>
#include <limber/comm/detail/signature.hpp>
#include <limber/core/config.hpp>
#include <limber/core/piece.hpp>
#include <limber/core/tensor.hpp>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

namespace limber {

/// A collective that compares the calls of all ranks before it makes them: sequence number, operation,
/// reduction, dtype, count, root, name of the bucket, and plan hash.
///
///     checked comm(engine);      // refers to `engine`; checked(std::move(engine)) owns it
///     comm.plan_hash(plan.hash());
///
/// Cost     2 (n − 1) messages per operation, through rank 0. Starting an operation waits until all ranks
///          have started it: for debugging and the first steps, not for measuring overlap.
/// Errors   limber::error of engine "checked", on every rank that takes part, with the operation and bucket
///          of most ranks and the rank that differs, or is missing at the deadline (the message names all of
///          them; rank 0 waits 0.8 deadlines, so that its reply is in time). Afterwards every call throws the
///          same error. Operation and bucket are added to errors of the engine while waiting.
/// Choices  `send`, `recv`, `post` and `poll` are not checked; the two lowest tags of the mailbox are
///          reserved. Keeps the capabilities of C; split and shrink return checked groups, with a new
///          sequence and the same plan hash. Requires a mailbox.
template <class C>
  requires collective<C> && mailbox<C>
class checked {
 public:
  /// @throws std::invalid_argument unless deadline > 0, and clock and pause are not empty
  explicit checked(std::type_identity_t<C> inner, check_options how = {}, std::uint64_t plan_hash = 0)
      : inner_(std::forward<C>(inner)), calls_(std::move(how), plan_hash) {}

  [[nodiscard]] int rank() const { return inner_.rank(); }
  [[nodiscard]] int size() const { return inner_.size(); }

  /// Compared from the next call on.
  void plan_hash(std::uint64_t hash) noexcept { calls_.plan_hash(hash); }

  [[nodiscard]] auto all_reduce(const_tensor_view in, tensor_view out, reduction how = reduction::sum) {
    compare(detail::all_reduce_of(in, out, how), detail::bucket_of(in, out));
    return inner_.all_reduce(in, out, how);
  }
  [[nodiscard]] auto all_reduce(const_tensor_view in, tensor_view out,
                                std::span<piece const> pieces) requires sums_pieces<C> {
    compare(detail::all_reduce_of(in, out, reduction::sum), detail::bucket_of(in, out));
    return inner_.all_reduce(in, out, pieces);
  }
  [[nodiscard]] auto reduce_scatter(const_tensor_view in, tensor_view out) {
    compare(detail::reduce_scatter_of(in, out, size()), detail::bucket_of(in, out));
    return inner_.reduce_scatter(in, out);
  }
  [[nodiscard]] auto all_gather(const_tensor_view in, tensor_view out) {
    compare(detail::all_gather_of(in, out, size()), detail::bucket_of(in, out));
    return inner_.all_gather(in, out);
  }
  [[nodiscard]] auto broadcast(tensor_view data, int root) {
    compare(detail::broadcast_of(data, root, size()), data.name);
    return inner_.broadcast(data, root);
  }
  void barrier() {
    compare({detail::operation::barrier}, {});
    inner_.barrier();
  }

  void send(const_tensor_view in, int peer) requires point_to_point<C> { inner_.send(in, peer); }
  void recv(tensor_view out, int peer) requires point_to_point<C> { inner_.recv(out, peer); }

  [[nodiscard]] auto split(int color) requires splittable<C> {
    compare({detail::operation::split}, {});
    using part = decltype(inner_.split(color));
    return checked<part>(inner_.split(color), calls_.options(), calls_.plan_hash());
  }
  void revoke(std::string const& reason) requires revocable<C> { inner_.revoke(reason); }
  /// The calls of survivors are not compared: the mailbox may have failed with the lost ranks.
  [[nodiscard]] auto shrink(std::span<int const> lost) requires shrinkable<C> {
    using rest = decltype(inner_.shrink(lost));
    return checked<rest>(inner_.shrink(lost), calls_.options(), calls_.plan_hash());
  }

  void post(int peer, i64 tag, std::span<std::byte const> bytes) {
    detail::call_comparison::check_tag("post", tag);
    inner_.post(peer, tag, bytes);
  }
  [[nodiscard]] std::optional<message> poll(i64 tag) {
    detail::call_comparison::check_tag("poll", tag);
    return inner_.poll(tag);
  }
  void listen() { inner_.listen(); }

 private:
  void compare(detail::signature const& s, std::string_view bucket) {
    calls_.compare(
        {rank(), size(),
         [this](int peer, i64 tag, std::span<std::byte const> bytes) { inner_.post(peer, tag, bytes); },
         [this](i64 tag) { return inner_.poll(tag); }},
        s, bucket);
  }

  C inner_;
  detail::call_comparison calls_;
};

// An lvalue is referred to, an rvalue is owned.
template <class C>
checked(C&&, check_options = {}, std::uint64_t = 0) -> checked<C>;

}  // namespace limber
