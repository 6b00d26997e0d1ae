// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Whole steps: schedule, unscale, norm, finite test, clip, decay, update, master and 16-bit copy, zeroed
/// gradients. Limber's fused_step beside a sequence of Thrust's transforms and reductions per tensor.

#include <limber/cuda/fused_step.hpp>
#include <limber/cuda/graph.cuh>
#include <limber/rule/rules.hpp>

#include <gpu/cases.cuh>
#include <gpu/thrust_peers.cuh>

#include <cmath>
#include <cstddef>
#include <tuple>
#include <utility>

namespace limber::bench {

inline constexpr double rate = 1e-3, max_norm = 0.5;
// Gradients are sums over two samples: the step unscales by 1/2.
inline constexpr float unscale = 0.5f;

template <update_rule R>
using step_of = gpu::fused_step<gpu_executor, gpu::schedule_of<double>, std::tuple<R>>;

// Parameters of type P, gradients of type G. @param replay  update by a captured graph
template <class P, class G, update_rule R>
auto limber_step(shared_shapes const& s, R rule, bool replay) {
  return [=](benchmark::State& state) {
    on_device(state, [&](gpu::stream_view on) {
      gpu_executor e{on};
      constexpr i64 slots = 4 * static_cast<i64>(R::slots.size());
      arrays const memory(*s, {dtype_of<P>, dtype_of<G>}, slots);
      memory.fill(e, 0);
      std::vector<std::unique_ptr<step_of<R>>> steps;
      for (i64 k = 0; k < memory.copies(); ++k) {
        std::vector<tensor> tensors;
        for (std::size_t t = 0; t < s->lengths.size(); ++t)
          tensors.emplace_back(s->names[t], memory.list(k, 0)[t], memory.list(k, 1)[t]);
        steps.push_back(std::make_unique<step_of<R>>(e, std::move(tensors), rule, rate,
                                                     gpu::fused_options{.gradient = gradient_is::sum}));
      }
      // Zeroed gradients would let the moments decay to denormal numbers.
      auto const renew = [&] { memory.fill(e, 1); };
      std::vector<gpu::graph> graphs;
      time_passes(
          state, on,
          [&](i64 k) {
            auto const c = static_cast<std::size_t>(k % memory.copies());
            steps[c]->advance(2, 2);
            if (!replay) return steps[c]->update();
            while (graphs.size() <= c)
              graphs.push_back(gpu::graph::capture(on.get(), [&] { steps[graphs.size()]->update(); }));
            graphs[c].launch(on.get());
          },
          renew);
      state.counters["launches"] = kernels_in(on, [&] { steps.front()->update(); });
    });
  };
}

template <class G>
[[nodiscard]] float total_norm(cudaStream_t on, arrays const& memory, shapes const& s, i64 k) {
  double squares = 0;
  for (std::size_t i = 0; i < s.lengths.size(); ++i)
    squares += static_cast<double>(
        sum_of_squares(on, s.lengths[i], reinterpret_cast<G const*>(memory.list(k, 1)[i].data)));
  return static_cast<float>(std::sqrt(squares));
}

// Calls one(f, k, i, coefficients) for each tensor of copy k, after its norm and finite test.
template <class G, update_rule R, class One>
void thrust_loop(benchmark::State& state, shapes const& s, std::vector<dtype> types, R const& rule,
                 One const& one) {
  on_device(state, [&](gpu::stream_view on) {
    gpu_executor e{on};
    arrays const memory(s, std::move(types));
    memory.fill(e, 0);
    time_passes(
        state, on,
        [&](i64 k) {
          float const total = total_norm<G>(on.get(), memory, s, k);
          if (!math::finite(total)) return;
          auto c = rule.template at<float>({.t = k + 1, .rate = rate, .previous_rate = rate});
          if constexpr (uses_norms<R>) c = R::refine(c, norms<float>{0, 0, unscale * total});
          for (std::size_t i = 0; i < s.lengths.size(); ++i) one(on.get(), memory, k, i, c);
        },
        [&] { memory.fill(e, 1); });
  });
}

template <class S>
[[nodiscard]] S* at(arrays const& memory, i64 k, std::size_t array, std::size_t tensor) noexcept {
  return reinterpret_cast<S*>(memory.list(k, array)[tensor].data);
}

// Array 0: parameters; 1: gradients; the rest: slots.
template <class P, class G, std::size_t... J, update_rule R>
auto thrust_step(shared_shapes const& s, R rule, std::index_sequence<J...>) {
  std::vector<dtype> types{dtype_of<P>, dtype_of<G>};
  types.resize(2 + sizeof...(J), dtype::f32);
  return [=](benchmark::State& state) {
    thrust_loop<G>(state, *s, types, rule,
                   [&](cudaStream_t on, arrays const& memory, i64 k, std::size_t i, auto const& c) {
                     clearing_gradient<limber::detail::update_element<R, float>> const f{{c, unscale}};
                     auto const* const p = at<P const>(memory, k, 0, i);
                     auto const all = thrust::make_zip_iterator(thrust::make_tuple(
                         at<P>(memory, k, 0, i), at<G>(memory, k, 1, i), at<float>(memory, k, 2 + J, i)...));
                     transform(on, s->lengths[i], f, all, p, at<G const>(memory, k, 1, i),
                               at<float>(memory, k, 2 + J, i)...);
                   });
  };
}

// LAMB: direction, two norms, application.
template <update_rule R>
auto thrust_lamb(shared_shapes const& s, R rule) {
  return [=](benchmark::State& state) {
    thrust_loop<float>(
        state, *s, {dtype::f32, dtype::f32, dtype::f32, dtype::f32}, rule,
        [&](cudaStream_t on, arrays const& memory, i64 k, std::size_t i, auto const& c) {
          i64 const n = s->lengths[i];
          auto *const p = at<float>(memory, k, 0, i), *const g = at<float>(memory, k, 1, i);
          auto *const m = at<float>(memory, k, 2, i), *const v = at<float>(memory, k, 3, i);
          making_direction<limber::detail::direct_element<R, float>> const direct{{c, unscale}};
          transform(on, n, direct, thrust::make_zip_iterator(thrust::make_tuple(g, m, v)), g, p, m, v);
          norms<float> const of{std::sqrt(sum_of_squares(on, n, p)), std::sqrt(sum_of_squares(on, n, g)), 0};
          applying_direction<limber::detail::apply_element<R, float, true>> const apply{
              {R::refine_direction(c, of)}};
          transform(on, n, apply, thrust::make_zip_iterator(thrust::make_tuple(p, g)), p, g);
        });
  };
}

template <class P, class G, std::size_t Slots, update_rule R>
void add_step(program& all, std::string const& name, shared_shapes const& s, traffic bytes, R rule) {
  auto const t = task_of(all, name, *s, dtype_of<P>, bytes);
  all.add(t, "", role::subject, limber_step<P, G>(s, rule, false));
  all.add(t, "graph", role::part, limber_step<P, G>(s, rule, true));
  all.add(t, "thrust", role::peer, thrust_step<P, G>(s, rule, std::make_index_sequence<Slots>{}));
}

template <update_rule R>
void add_lamb(program& all, std::string const& name, shared_shapes const& s, R rule) {
  auto const t = task_of(all, name, *s, dtype::f32, traffic_of::lamb_step());
  all.add(t, "", role::subject, limber_step<float, float>(s, rule, false));
  all.add(t, "graph", role::part, limber_step<float, float>(s, rule, true));
  all.add(t, "thrust", role::peer, thrust_lamb(s, rule));
}

}  // namespace limber::bench
