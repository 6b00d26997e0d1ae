// SPDX-License-Identifier: Apache-2.0

/// @file
/// The update launch alone: no finite test, no norm, gradients kept. Limber's one launch for a list beside
/// Thrust's transform per tensor, both with the rule's own functor.

#include <limber/fuse/rule_functors.hpp>
#include <limber/rule/adamw.hpp>
#include <limber/rule/sgd.hpp>

#include <gpu/cases.cuh>
#include <gpu/thrust_peers.cuh>

#include <cstddef>
#include <utility>

namespace limber::bench {
namespace {

constexpr update_facts facts{.t = 10, .rate = 1e-3, .previous_rate = 1e-3};

// What a step reads besides tensors, as the tenth step of a run would have it.
template <update_rule R>
struct control {
  shared_array<coefficients_of<R, float>> coefficients;
  shared_array<i64> index;
  shared_array<hyper_block> hyper;
  norm_memory norms;  // of nothing: finite

  control(gpu_executor& e, R const& rule, i64 tensors)
      : coefficients(e.share<coefficients_of<R, float>>(tensors)),
        index(e.share<i64>(tensors)),
        hyper(e.share<hyper_block>(1)),
        norms(make_norms(e, tensors)) {
    for (i64 t = 0; t < tensors; ++t) {
      coefficients[static_cast<std::size_t>(t)] = rule.template at<float>(facts);
      index[static_cast<std::size_t>(t)] = t;
    }
    hyper[0] = hyper_block(facts.rate, 1);
    e.publish(coefficients);
    e.publish(index);
    e.publish(hyper);
  }
  [[nodiscard]] limber::detail::step_facts<R> facts_of_step() const noexcept {
    return {coefficients.device, nullptr, index.device, hyper.device, norms.facts()};
  }
};

// Array 0: parameters; 1: gradients; the rest: slots.
template <class S, std::size_t... J, update_rule R>
void add_update(program& all, task const& t, shared_shapes const& s, R rule, std::index_sequence<J...>) {
  std::vector<dtype> types{dtype_of<S>, dtype_of<S>};
  types.resize(2 + sizeof...(J), dtype::f32);
  all.add(t, "", role::subject, [=](benchmark::State& state) {
    on_device(state, [&](gpu::stream_view on) {
      gpu_executor e{on};
      arrays const memory(*s, types);
      memory.fill(e, 0);
      memory.fill(e, 1);
      control<R> const c(e, rule, static_cast<i64>(s->lengths.size()));
      limber::detail::update_source<R> const source{c.facts_of_step()};
      time_passes(
          state, on,
          [&](i64 k) {
            e.each(source, inout(memory.list(k, 0)), in(memory.list(k, 1)), inout(memory.list(k, 2 + J))...);
          },
          [] {});
    });
  });
  all.add(t, "thrust", role::peer, [=](benchmark::State& state) {
    on_device(state, [&](gpu::stream_view on) {
      gpu_executor e{on};
      arrays const memory(*s, types);
      memory.fill(e, 0);
      memory.fill(e, 1);
      keeping_gradient<limber::detail::update_element<R, float>> const f{
          {rule.template at<float>(facts), 1.f}};
      time_passes(
          state, on,
          [&](i64 k) {
            auto at = [&](std::size_t a, std::size_t i) { return memory.list(k, a)[i].data; };
            for (std::size_t i = 0; i < s->lengths.size(); ++i) {
              auto* const p = reinterpret_cast<S*>(at(0, i));
              transform(
                  on.get(), s->lengths[i], f,
                  thrust::make_zip_iterator(thrust::make_tuple(p, reinterpret_cast<float*>(at(2 + J, i))...)),
                  p, reinterpret_cast<S const*>(at(1, i)), reinterpret_cast<float*>(at(2 + J, i))...);
            }
          },
          [] {});
    });
  });
}

template <class S>
void add_all(program& all, shared_shapes const& s) {
  auto const one = std::make_index_sequence<1>{};
  auto const sgd_bytes = traffic_of::sgd(sizeof(S));
  add_update<S>(all, task_of(all, "sgd", *s, dtype_of<S>, sgd_bytes), s, sgd{.momentum = 0.9}, one);
  add_update<S>(all, task_of(all, "nesterov", *s, dtype_of<S>, sgd_bytes), s,
                sgd{.momentum = 0.9, .nesterov = true}, one);
  add_update<S>(all, task_of(all, "adamw", *s, dtype_of<S>, traffic_of::adamw(sizeof(S))), s, adamw{},
                std::make_index_sequence<2>{});
}

}  // namespace

void add_updates(program& all, shared_shapes const& s) {
  add_all<float>(all, s);
  add_all<bf16>(all, s);
}

}  // namespace limber::bench
