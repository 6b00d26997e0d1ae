// SPDX-License-Identifier: Apache-2.0
// labels: gpu
// timeout: 300
#define BOOST_TEST_MODULE limber.cuda.gpu_bits
#include <limber/cuda/cuda_device.cuh>
#include <limber/fuse/host.hpp>
#include <limber/fuse/updater.hpp>
#include <limber/rule/rules.hpp>

#include <cuda/device_lists.hpp>

#include <boost/test/unit_test.hpp>

#include <support/gpu_main.hpp>

#include <limits>
#include <optional>
#include <tuple>

// CPU and GPU end with the same bits, whatever the rule, storage type, size and alignment, given the
// same coefficients: those are computed with pow and the like, which differ in the last place.

using namespace limber;
using namespace limber::testing;

namespace {

struct setting {
  dtype value, gradient;
};

// Odd sizes, empty ones, and every alignment that the type allows.
struct lists {
  std::deque<twin> values, gradients;
  tensor_list host_values, device_values, host_gradients, device_gradients;

  explicit lists(setting s) {
    int k = 0;
    for (i64 const n : {1, 7, 0, 255, 256, 257, 4095, 4096, 4097, 13'001}) {
      std::string const name(1, static_cast<char>('a' + k));
      values.emplace_back(name, n, s.value, k % 8);
      gradients.emplace_back(name, n, s.gradient, k < 5 ? k % 8 : (3 * k) % 8);
      ++k;
    }
    for (twin& t : values) {
      host_values.push_back(t.on_host());
      device_values.push_back(t.on_device());
    }
    for (twin& t : gradients) {
      host_gradients.push_back(t.on_host());
      device_gradients.push_back(t.on_device());
    }
  }
};

template <class E, class R>
struct side {
  E exec;
  any_executor lists{exec, limber::detail::update_operations{}};
  updater rules;

  side(E e, tensor_list const& values, R const& rule) : exec(std::move(e)), rules(values) {
    for (std::size_t i = 0; i < values.size(); ++i) rules.assign<E>(static_cast<i64>(i), rule);
    rules.allocate(lists);
  }
  void prepare(double rate, double scale) {
    rules.hyper()[0] = hyper_block(rate, scale);
    exec.publish(rules.hyper());
    rules.seed(lists);
    rules.mask(lists);
    exec.run(count(), limber::detail::prepare_rule<R>{rules.template counters<R>(), rules.hyper().device});
  }
  void step(tensor_list const& gradients) {
    rules.launch(lists, gradients, true);
    exec.run(count(), limber::detail::commit_rule<R>{rules.template counters<R>(), rules.hyper().device,
                                                     rules.norms().facts()});
  }
  [[nodiscard]] i64 count() const { return static_cast<i64>(rules.values().size()); }
};

template <class R>
void hundred_steps(R const& rule, setting s) {
  std::mt19937 random(17);
  gpu::stream stream;
  lists l(s);
  for (twin& t : l.values) t.fill(random);
  side<host, R> here(host{}, l.host_values, rule);
  side<gpu::executor, R> there(gpu::executor{stream}, l.device_values, rule);
  for (int i = 0; i < 100; ++i) {
    for (twin& t : l.gradients) t.fill(random, i % 10 == 3 ? 1e18 : 1);
    if (i == 0 || i == 40) {
      l.gradients[7].put(4095, std::numeric_limits<double>::quiet_NaN());
      l.gradients[7].upload();
    }
    double const rate = 0.01 / (1 + i);
    here.prepare(rate, 0.5);
    there.prepare(rate, 0.5);
    there.exec.device().synchronize();
    auto const a = here.rules.template counters<R>(), b = there.rules.template counters<R>();
    auto const fetch = [&](auto* to, auto const* from) {
      gpu::check(
          cudaMemcpy(to, from, static_cast<std::size_t>(here.count()) * sizeof *to, cudaMemcpyDeviceToHost),
          "cudaMemcpy");
    };
    fetch(a.narrow, b.narrow);
    fetch(a.wide, b.wide);
    here.step(l.host_gradients);
    there.step(l.device_gradients);
    there.exec.device().synchronize();
    for (twin& t : l.values) BOOST_TEST_REQUIRE(t.same(), "values of " << t.name() << ", step " << i);
    for (twin& t : l.gradients) BOOST_TEST_REQUIRE(t.same(), "gradients of " << t.name() << ", step " << i);
  }
}

using rules = std::tuple<sgd, adamw, lion, adagrad, lars, clipped<lamb>, ema<sgd>>;
using masters = std::tuple<master<adamw>, master<lamb>>;

}  // namespace

BOOST_AUTO_TEST_CASE_TEMPLATE(rules_in_single_precision, R, rules) {
  hundred_steps(R{}, {dtype::f32, dtype::f32});
  hundred_steps(R{}, {dtype::f32, dtype::bf16});
}

BOOST_AUTO_TEST_CASE_TEMPLATE(rules_in_double_precision, R, rules) {
  hundred_steps(R{}, {dtype::f64, dtype::f64});
}

BOOST_AUTO_TEST_CASE(momentum_in_all_its_forms) {
  for (auto const form : {momentum_form::outside, momentum_form::inside})
    for (bool const nesterov : {false, true})
      hundred_steps(sgd{.momentum = 0.9, .weight_decay = 0.01, .nesterov = nesterov, .form = form},
                    {dtype::f32, dtype::f32});
}

BOOST_AUTO_TEST_CASE_TEMPLATE(masters_of_16_bits, R, masters) {
  for (dtype const d : {dtype::bf16, dtype::f16}) {
    hundred_steps(R{}, {d, dtype::f32});
    hundred_steps(R{}, {d, d});
  }
  hundred_steps(R{.stochastic = true, .seed = 5}, {dtype::bf16, dtype::bf16});
  hundred_steps(R{.stochastic = true, .seed = 5}, {dtype::f16, dtype::f16});
}

BOOST_AUTO_TEST_CASE(every_float_is_rounded_to_16_bits_as_on_the_host) {
  gpu::stream stream;
  gpu::executor e{stream};
  host h;
  constexpr i64 n = i64{1} << 22;
  for (dtype const d : {dtype::bf16, dtype::f16}) {
    twin from("from", n, dtype::f32, 0), to("to", n, d, 0);
    for (std::uint32_t block = 0; block < (1u << 10); ++block) {
      auto const x = from.on_host().as<float>();
      // NaNs keep no payload on a device; all else must agree.
      for (std::uint32_t i = 0; i < n; ++i) {
        float const v = limber::detail::from_bits(block * static_cast<std::uint32_t>(n) + i);
        x[i] = v == v ? v : 0;
      }
      from.upload();
      tensor_list const hf{from.on_host()}, ht{to.on_host()}, df{from.on_device()}, dt{to.on_device()};
      h.each(copy{}, out(ht), in(hf));
      e.each(copy{}, out(dt), in(df));
      e.device().synchronize();
      BOOST_TEST_REQUIRE(to.same(), name_of(d) << ", block " << block);
      h.each(copy{}, out(hf), in(ht));
      e.each(copy{}, out(df), in(dt));
      e.device().synchronize();
      BOOST_TEST_REQUIRE(from.same(), name_of(d) << " back, block " << block);
    }
  }
}
