// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Sums whose bits do not depend on the order of ranks, the division into buckets and the number of workers.

#include <limber/comm/collective.hpp>
#include <limber/comm/detail/reproducible_sums.hpp>
#include <limber/comm/detail/signature.hpp>
#include <limber/core/clock.hpp>
#include <limber/core/error.hpp>

#include <bit>
#include <chrono>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <type_traits>
#include <utility>

namespace limber {

/// Options of `reproducible`. Must be equal on all ranks, and in all runs whose bits are compared.
struct reproducible_options {
  i64 most_ranks = 1024;  ///< S, in [2, 2^31]: a larger one costs accuracy (⌈log₂ S⌉ bits), never time
  i64 longest_double = 64;  ///< maximum length of sums of f64, which are gathered; longer ones are refused
  pause_function pause = [] { std::this_thread::sleep_for(std::chrono::microseconds(100)); };
};

/// A collective whose sums depend only on the set of non-zero contributions: permuting ranks, adding ranks
/// that contribute zeros, other bucket caps and other engines change no bit.
///
///     reproducible comm(engine);      // refers to `engine`; reproducible(std::move(engine)) owns it
///     optimizer opt{parameters, rule, lr, sync::allreduce{}, comm, o};
///
/// Formula  per block of 256 elements, counted from each tensor's start:
///            e = MAX over ranks of the block's largest biased exponent, as a float has it: from 1 on (f16:
///                113), since subnormals count as the smallest normal numbers do
///            u = 2^(e − 126 − F), F = 63 − ⌈log₂ S⌉
///            qᵣ = xᵣ / u, to the nearest integer, ties to even
///            out = u Σ qᵣ, where Σ is an int64 SUM and exact; rounded once to the type of x, ties to even
/// Error    that of one rounding as long as the block's magnitudes (zeros aside) span less than
///          2^(39 − ⌈log₂ S⌉), since then all qᵣ are exact: no fp32 sum can be better. Else at most half a
///          unit u of each of the n ranks more: n u / 2 ≤ n M 2^(⌈log₂ S⌉ − 63), M the largest magnitude
///          in the block on any rank. (bf16 and f16: spans up to 2^(55 − ⌈log₂ S⌉) and 2^(52 − ⌈log₂ S⌉).)
/// Special  a block with a NaN or an infinity on any rank is NaN everywhere, all 256 elements of it. Zeros
///          come out as +0. What is too large for the type becomes an infinity, as in a sum of floats.
/// Types    f32, bf16 and f16. int64, and max, go to the engine as they are. f64 is refused but for short
///          vectors (control values: longest_double): they are gathered and added in an order that only
///          depends on the values, so the promise holds for them too, with the error of any fp64 sum.
/// Tensors  `all_reduce(in, out, pieces)` says where tensors start in the view, which the strategies do;
///          what lies between pieces is neither read nor written. Without pieces the view is one tensor.
///          `reduce_scatter` counts blocks from the start of each rank's part: its bits are those of an
///          all_reduce of that part alone, hence depend on the cut unless the first bound of Error holds.
/// Order    the engine gets MAX 1, SUM 1, MAX 2, SUM 2, … on every rank, whenever it waits: the next
///          operation first waits until all ranks have started the latest sum (not for its result), and
///          starts its SUM. So sums overlap, but a rank is at most one sum ahead of the others. Sums make
///          progress only in calls of this object and of its requests: a rank in another long call, such as
///          `recv`, blocks the others.
/// Cost     8 bytes per element and 4 per block, in a MAX followed by a SUM: 2.004 × the bytes of long f32
///          tensors, 4.008 × of bf16 and f16; and three passes over memory. 16 bytes of memory per element
///          for each sum in flight, which are reused.
/// Errors   as the engine's. std::invalid_argument for long f64, or pieces that are not sorted, overlap or
///          reach beyond the view; limber::error of engine "reproducible", on every rank, if ranks differ in
///          type, length, pieces or most_ranks.
/// Choices  keeps the capabilities of C; split and shrink return reproducible groups. Tensors must be in
///          memory that the codec can access: `host_codec` in host memory, `gpu::codec`
///          (limber/cuda/codec.cuh) on a device. Without the latter, engines that own a stream (NCCL) are
///          refused at compile time; do not wrap one to bypass this. `checked` may be the outer or inner
///          wrapper: outside it compares the calls of the program, inside those of the engine, with twice the
///          messages.
///
/// Move-only. A handle and its requests belong to one thread at a time.
template <class C, class Codec = host_codec>
  requires collective<std::remove_reference_t<C>>
class reproducible {
  using engine = std::remove_reference_t<C>;
  using sums = detail::reproducible_sums<C, Codec>;
  static_assert(
      !std::same_as<Codec, host_codec> || !requires { typename engine::stream_type; },
      "limber: reproducible works in host memory, but this engine's tensors may lie on a device");

 public:
  /// A sum in flight. If destroyed before waiting it ends the group, like the engine's. `wait` throws
  /// limber::error as the requests of the engine, and if the calls of ranks differ.
  using request = detail::group_request;

  /// @throws std::invalid_argument if most_ranks is out of range, or less than the number of ranks
  explicit reproducible(std::type_identity_t<C> inner, reproducible_options how = {}, Codec codec = {})
      : how_(std::move(how)) {
    expects(how_.most_ranks >= 2 && how_.most_ranks <= i64{1} << 31,
            "reproducible: most_ranks must lie in [2, 2^31], got ", how_.most_ranks);
    expects(inner.size() <= how_.most_ranks, "reproducible: ", inner.size(),
            " ranks are more than most_ranks = ", how_.most_ranks);
    expects(how_.longest_double >= 0, "reproducible: longest_double must not be negative, got ",
            how_.longest_double);
    expects(how_.pause != nullptr, "reproducible: pause is empty");
    auto const guard = static_cast<int>(std::bit_width(static_cast<std::uint64_t>(how_.most_ranks - 1)));
    sums_ = detail::shared_group(new sums(std::forward<C>(inner), guard, std::move(codec)));
  }
  reproducible(reproducible&&) noexcept = default;
  reproducible& operator=(reproducible&&) noexcept = default;

  [[nodiscard]] int rank() const { return inner().rank(); }
  [[nodiscard]] int size() const { return inner().size(); }

  [[nodiscard]] request all_reduce(const_tensor_view in, tensor_view out, reduction how = reduction::sum) {
    if (how == reduction::max) {
      (void)detail::all_reduce_of(in, out, how);
      return in_flight(state().pass(in, out, how, false));
    }
    piece const whole{0, in.length};
    return all_reduce(in, out, {&whole, 1});
  }
  /// The sums of the tensors in a view; `pieces` is not used after the call.
  [[nodiscard]] request all_reduce(const_tensor_view in, tensor_view out, std::span<piece const> pieces) {
    detail::signature const s = detail::all_reduce_of(in, out, reduction::sum);
    i64 end = 0;
    for (auto const& p : pieces) {
      expects(p.offset >= end && p.length >= 0 && p.length <= in.length - p.offset, "all_reduce of '",
              detail::bucket_of(in, out), "': a tensor of ", p.length, " elements at ", p.offset,
              " does not lie between ", end, ", where the one before ends, and ", in.length);
      end = p.offset + p.length;
    }
    return start(s, in, out, pieces, false);
  }
  [[nodiscard]] request reduce_scatter(const_tensor_view in, tensor_view out) {
    return start(detail::reduce_scatter_of(in, out, size()), in, out, {}, true);
  }
  [[nodiscard]] auto all_gather(const_tensor_view in, tensor_view out) {
    (void)detail::all_gather_of(in, out, size());
    return idle_engine().all_gather(in, out);
  }
  [[nodiscard]] auto broadcast(tensor_view data, int root) {
    (void)detail::broadcast_of(data, root, size());
    return idle_engine().broadcast(data, root);
  }
  void barrier() { idle_engine().barrier(); }

  void send(const_tensor_view in, int peer) requires point_to_point<engine> {
    advanced_engine().send(in, peer);
  }
  void recv(tensor_view out, int peer) requires point_to_point<engine> { advanced_engine().recv(out, peer); }

  [[nodiscard]] auto split(int color) requires splittable<engine> {
    using part = decltype(inner().split(color));
    return reproducible<part, Codec>(idle_engine().split(color), how_, state().codec());
  }
  void revoke(std::string const& reason) requires revocable<engine> { inner().revoke(reason); }
  [[nodiscard]] auto shrink(std::span<int const> lost) requires shrinkable<engine> {
    using rest = decltype(inner().shrink(lost));
    return reproducible<rest, Codec>(inner().shrink(lost), how_, state().codec());
  }

  void post(int peer, i64 tag, std::span<std::byte const> bytes) requires mailbox<engine> {
    advanced_engine().post(peer, tag, bytes);
  }
  [[nodiscard]] std::optional<message> poll(i64 tag) requires mailbox<engine> {
    return advanced_engine().poll(tag);
  }
  /// Returns early, after `pause`, while a sum has not started its SUM.
  void listen() requires mailbox<engine> {
    if (state().try_advance()) return inner().listen();
    how_.pause();
  }

 private:
  [[nodiscard]] engine& inner() { return state().inner(); }
  [[nodiscard]] engine const& inner() const { return state().inner(); }
  [[nodiscard]] sums& state() const {
    expects(static_cast<bool>(sums_), "reproducible: this communicator was moved from");
    return static_cast<sums&>(*sums_.get());
  }
  // For operations of all ranks.
  [[nodiscard]] engine& idle_engine() {
    state().advance();
    return inner();
  }
  // For calls of some ranks only.
  [[nodiscard]] engine& advanced_engine() {
    state().try_advance();
    return inner();
  }

  [[nodiscard]] request in_flight(typename sums::sum& it) const { return {sums_, {it.number}}; }
  [[nodiscard]] request start(detail::signature const& s, const_tensor_view in, tensor_view out,
                              std::span<piece const> pieces, bool scatters) {
    if (s.type == dtype::int64) return in_flight(state().pass(in, out, reduction::sum, scatters));
    if (s.type != dtype::f64) return in_flight(state().start_sum(in, out, pieces, scatters));
    expects(in.length <= how_.longest_double, detail::name_of(s.what), " of '", detail::bucket_of(in, out),
            "': reproducible sums of f64 have at most ", how_.longest_double,
            " elements (longest_double), got ", in.length, "; send f32");
    return in_flight(state().gather(in, out, scatters));
  }

  reproducible_options how_;
  detail::shared_group sums_;
};

// An lvalue is referred to, an rvalue is owned.
template <class C>
reproducible(C&&, reproducible_options = {}) -> reproducible<C>;
template <class C, class Codec>
reproducible(C&&, reproducible_options, Codec) -> reproducible<C, Codec>;

}  // namespace limber
