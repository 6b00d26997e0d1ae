// SPDX-License-Identifier: Apache-2.0
// labels: unit
#define BOOST_TEST_MODULE limber.bench.gpu_lists

#include "../../bench/gpu/lists.hpp"
#include "../../bench/gpu/traffic.hpp"

#include <limber/fuse/functors.hpp>
#include <limber/fuse/host.hpp>
#include <limber/fuse/updater.hpp>
#include <limber/rule/rules.hpp>

#include <boost/test/unit_test.hpp>

#include <algorithm>
#include <numeric>
#include <string>
#include <tuple>
#include <vector>

namespace {

using namespace limber;
using bench::traffic;

i64 sum(std::vector<i64> const& lengths) { return std::accumulate(lengths.begin(), lengths.end(), i64{0}); }

// The host executor, which adds up the bytes of every operand of every pass, for a list of one element.
struct counting : host {
  traffic moved{};

  template <class F, limber::access_mode... A>
  void each(F const& f, operand<A>... lists) {
    (add(lists), ...);
    host::each(f, lists...);
  }
  template <class F, limber::access_mode... A>
  void measure(norm_memory& to, F const& f, operand<A>... lists) {
    (add(lists), ...);
    host::measure(to, f, lists...);
  }

 private:
  template <limber::access_mode A>
  void add(operand<A> const& o) {
    for (auto const& t : *o.list) {
      if (A != limber::access_mode::out) moved.read += t.bytes();
      if (A != limber::access_mode::in) moved.written += t.bytes();
    }
  }
};

// The bytes of an update with norm, finite test and zeroing, of one element.
template <class P, class G, class R>
traffic of_step(R const& rule) {
  std::vector<P> p{P(1.f)};
  std::vector<G> g{G(0.5f)};
  counting e;
  any_executor lists(e, limber::detail::update_operations{});
  updater u({view(p, "p")});
  u.assign<counting>(0, rule);
  u.allocate(lists);
  u.seed(lists);
  e.moved = {};
  BOOST_TEST(u.step(lists, {view(g, "p")}, 0.1, 1, true).applied);
  BOOST_TEST(float(g[0]) == 0.f);
  return e.moved;
}

void equal(traffic a, traffic b) {
  BOOST_TEST(a.read == b.read);
  BOOST_TEST(a.written == b.written);
}

// Lists of one element: x and y of type S, a and b of f32.
template <class S>
struct one_element {
  std::vector<S> memory{S(1.f), S(2.f)};
  std::vector<float> floats{1.f, 2.f};
  tensor_list x{view(memory, "x").sub(0, 1)}, y{view(memory, "y").sub(1, 1)};
  tensor_list a{view(floats, "a").sub(0, 1)}, b{view(floats, "b").sub(1, 1)};
};

using storages = std::tuple<float, bf16>;

}  // namespace

BOOST_AUTO_TEST_CASE(lists_are_those_of_the_models) {
  BOOST_TEST(bench::resnet50_lengths().size() == 161u);
  BOOST_TEST(sum(bench::resnet50_lengths()) == 25'557'032);
  BOOST_TEST(bench::gpt2_lengths().size() == 148u);
  BOOST_TEST(sum(bench::gpt2_lengths()) == 124'439'808);
  BOOST_TEST(bench::llama_lengths().size() == 201u);
  BOOST_TEST(sum(bench::llama_lengths()) == 1'100'048'384);
}

BOOST_AUTO_TEST_CASE(ten_thousand_small_tensors_have_every_length_up_to_2000_five_times) {
  auto lengths = bench::small_lengths();
  BOOST_TEST(lengths.size() == 10'000u);
  std::ranges::sort(lengths);
  for (std::size_t i = 0; i < lengths.size(); ++i) BOOST_REQUIRE(lengths[i] == static_cast<i64>(i / 5) + 1);
}

BOOST_AUTO_TEST_CASE(there_are_five_lists_and_quick_ones_have_the_same_names) {
  auto const full = bench::gpu_lists(false), quick = bench::gpu_lists(true);
  BOOST_REQUIRE(full.size() == 5u);
  BOOST_REQUIRE(quick.size() == 5u);
  for (std::size_t i = 0; i < full.size(); ++i) {
    BOOST_TEST(full[i].name == quick[i].name);
    BOOST_TEST(quick[i].elements * 50 < full[i].elements);
    BOOST_TEST(full[i].elements == sum(full[i].lengths));
  }
  BOOST_TEST(full.back().elements == 1'000'000'000);
}

BOOST_AUTO_TEST_CASE(bytes_per_parameter_are_those_that_the_issue_names) {
  namespace of = bench::traffic_of;
  BOOST_TEST(of::sgd(4).both() == 20);
  BOOST_TEST(of::adamw(4).both() == 28);
  BOOST_TEST((of::norm(4) + of::sgd(4)).both() == 24);
  BOOST_TEST((of::norm(4) + of::adamw(4)).both() == 32);
  BOOST_TEST(of::master_step(2, 4, 1).both() == 30);
  BOOST_TEST(of::master_step(2, 2, 2).both() == 32);
  BOOST_TEST(of::lamb_step().both() == 48);
}

BOOST_AUTO_TEST_CASE(formulas_of_steps_are_what_an_updater_asks_of_its_executor) {
  namespace of = bench::traffic_of;
  sgd const momentum{.momentum = 0.9};
  equal(of_step<float, float>(momentum), of::sgd_step());
  equal(of_step<float, float>(sgd{.momentum = 0.9, .nesterov = true}), of::sgd_step());
  equal(of_step<float, float>(adamw{}), of::adamw_step());
  equal(of_step<bf16, bf16>(momentum), of::norm(2) + of::sgd(2) + of::zeroing(2));
  equal(of_step<bf16, bf16>(adamw{}), of::norm(2) + of::adamw(2) + of::zeroing(2));
  equal(of_step<float, float>(lamb{}), of::lamb_step());
  equal(of_step<float, float>(clipped{lamb{}, 1}), of::lamb_step());
}

BOOST_AUTO_TEST_CASE(formulas_leave_out_only_what_a_rule_is_handed_and_does_not_look_at) {
  namespace of = bench::traffic_of;
  // The old parameter, which a rule with a master does not read.
  traffic const parameter{2, 0};
  equal(of_step<bf16, float>(clipped{master{sgd{.momentum = 0.9}}, 1}), of::master_step(2, 4, 1) + parameter);
  equal(of_step<bf16, bf16>(clipped{master{adamw{}}, 1}), of::master_step(2, 2, 2) + parameter);
}

BOOST_AUTO_TEST_CASE_TEMPLATE(formulas_of_passes_are_what_their_operands_are, S, storages) {
  namespace of = bench::traffic_of;
  constexpr i64 s = sizeof(S);
  one_element<S> m;
  auto const moved = [](auto const& pass) {
    counting e;
    auto norms = make_norms(e, 1);
    pass(e, norms);
    return e.moved;
  };
  equal(moved([&](auto& e, auto& to) { e.measure(to, identity{}, in(m.x)); }), of::norm(s));
  equal(moved([&](auto& e, auto& to) { e.measure(to, pack{0.25}, out(m.x), inout(m.a)); }), of::pack(s));
  equal(moved([&](auto& e, auto&) { e.each(scaled_copy{0.5}, out(m.a), in(m.x)); }), of::unpack(s));
  equal(moved([&](auto& e, auto&) { e.each(accumulate{}, inout(m.a), in(m.x)); }), of::accumulate(s));
  equal(moved([&](auto& e, auto&) { e.each(blend{0.25}, inout(m.x), in(m.y)); }), of::blend(s));
  equal(moved([&](auto& e, auto&) { e.each(difference{0.5}, out(m.x), in(m.a), in(m.b)); }),
        of::difference(s));
}
