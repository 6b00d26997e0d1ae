// SPDX-License-Identifier: Apache-2.0

/// @file
/// Norm, pack, unpack, accumulate, blend and difference: Limber's one launch for a list beside Thrust's
/// transform per tensor.

#include <gpu/cases.cuh>
#include <gpu/thrust_peers.cuh>

namespace limber::bench {
namespace {

// Where tensor t of a list begins.
template <class S>
[[nodiscard]] S* at(tensor_list const& list, std::size_t t) noexcept {
  return reinterpret_cast<S*>(list[t].data);
}

/// Adds Limber's row and Thrust's.
///
/// @param types    of the arrays; all are filled, and array `renew` again before every batch (−1: none)
/// @param launch   launch(executor, norms, list…) of one copy
/// @param by_hand  by_hand(stream, n, t, list…): tensor t
template <class Launch, class ByHand>
void add_rows(program& all, task const& t, shared_shapes const& s, std::vector<dtype> types, int renew,
              Launch launch, ByHand by_hand) {
  auto const row = [=](benchmark::State& state, auto const& pass) {
    on_device(state, [&](gpu::stream_view on) {
      gpu_executor e{on};
      arrays const memory(*s, types);
      for (std::size_t a = 0; a < types.size(); ++a) memory.fill(e, a);
      auto norms = make_norms(e, static_cast<i64>(s->lengths.size()));
      auto const renewed = [&] {
        if (renew >= 0) memory.fill(e, static_cast<std::size_t>(renew));
      };
      auto const list = [&](i64 k, std::size_t a) -> tensor_list const& {
        return memory.list(k, std::min(a, types.size() - 1));
      };
      time_passes(
          state, on, [&](i64 k) { pass(e, norms, list(k, 0), list(k, 1), list(k, 2)); }, renewed);
    });
  };
  all.add(t, "", role::subject, [=](benchmark::State& state) { row(state, launch); });
  all.add(t, "thrust", role::peer, [=](benchmark::State& state) {
    row(state, [&](gpu_executor& e, norm_memory&, auto const&... lists) {
      for (std::size_t i = 0; i < s->lengths.size(); ++i)
        by_hand(e.device().stream().get(), s->lengths[i], i, lists...);
    });
  });
}

template <class S>
void add_norm(program& all, shared_shapes const& s) {
  auto const t = task_of(all, "norm", *s, dtype_of<S>, traffic_of::norm(sizeof(S)));
  add_rows(
      all, t, s, {dtype_of<S>}, -1,
      [](gpu_executor& e, norm_memory& norms, auto& x, auto&, auto&) { e.measure(norms, identity{}, in(x)); },
      [](cudaStream_t on, i64 n, std::size_t i, auto& x, auto&, auto&) {
        double sum = sum_of_squares(on, n, at<S const>(x, i));
        benchmark::DoNotOptimize(sum);
      });
}

// Gradients in f32, a wire of type S.
template <class S>
void add_pack(program& all, shared_shapes const& s) {
  auto const t = task_of(all, "pack", *s, dtype_of<S>, traffic_of::pack(sizeof(S)));
  add_rows(
      all, t, s, {dtype_of<S>, dtype::f32}, 1,
      [](gpu_executor& e, norm_memory& norms, auto& to, auto& g, auto&) {
        e.measure(norms, pack{0.25}, out(to), inout(g));
      },
      [](cudaStream_t on, i64 n, std::size_t i, auto& to, auto& g, auto&) {
        double sum = sum_of_squares(on, n, at<float const>(g, i));
        benchmark::DoNotOptimize(sum);
        auto* const x = at<float>(g, i);
        transform(on, n, packing<S>{pack{0.25}},
                  thrust::make_zip_iterator(thrust::make_tuple(at<S>(to, i), x)), x);
      });
  auto const u = task_of(all, "unpack", *s, dtype_of<S>, traffic_of::unpack(sizeof(S)));
  add_rows(
      all, u, s, {dtype_of<S>, dtype::f32}, -1,
      [](gpu_executor& e, norm_memory&, auto& sum, auto& g, auto&) {
        e.each(scaled_copy{0.5}, out(g), in(sum));
      },
      [](cudaStream_t on, i64 n, std::size_t i, auto& sum, auto& g, auto&) {
        transform(on, n, one_to_one<scaled_copy, float>{scaled_copy{0.5}}, at<float>(g, i), at<S>(sum, i));
      });
}

// What S is: of the delayed gradient; of both models; of the difference that crosses.
template <class S>
void add_merges(program& all, shared_shapes const& s) {
  auto const a = task_of(all, "accumulate", *s, dtype_of<S>, traffic_of::accumulate(sizeof(S)));
  add_rows(
      all, a, s, {dtype::f32, dtype_of<S>}, 0,
      [](gpu_executor& e, norm_memory&, auto& sum, auto& x, auto&) {
        e.each(accumulate{}, inout(sum), in(x));
      },
      [](cudaStream_t on, i64 n, std::size_t i, auto& sum, auto& x, auto&) {
        transform(on, n, into_first<accumulate>{}, at<float>(sum, i), at<float>(sum, i), at<S>(x, i));
      });
  auto const b = task_of(all, "blend", *s, dtype_of<S>, traffic_of::blend(sizeof(S)));
  add_rows(
      all, b, s, {dtype_of<S>, dtype_of<S>}, 0,
      [](gpu_executor& e, norm_memory&, auto& to, auto& from, auto&) {
        e.each(blend{0.25}, inout(to), in(from));
      },
      [](cudaStream_t on, i64 n, std::size_t i, auto& to, auto& from, auto&) {
        transform(on, n, into_first<blend>{blend{0.25}}, at<S>(to, i), at<S>(to, i), at<S>(from, i));
      });
  auto const d = task_of(all, "difference", *s, dtype_of<S>, traffic_of::difference(sizeof(S)));
  add_rows(
      all, d, s, {dtype_of<S>, dtype::f32, dtype::f32}, -1,
      [](gpu_executor& e, norm_memory&, auto& to, auto& anchor, auto& x) {
        e.each(difference{0.5}, out(to), in(anchor), in(x));
      },
      [](cudaStream_t on, i64 n, std::size_t i, auto& to, auto& anchor, auto& x) {
        transform(on, n, two_to_one<difference, S>{difference{0.5}}, at<S>(to, i), at<float>(anchor, i),
                  at<float>(x, i));
      });
}

}  // namespace

void add_fusion(program& all, shared_shapes const& s) {
  add_norm<float>(all, s);
  add_norm<bf16>(all, s);
  add_pack<float>(all, s);
  add_pack<bf16>(all, s);
  add_merges<float>(all, s);
  add_merges<bf16>(all, s);
}

}  // namespace limber::bench
