// SPDX-License-Identifier: Apache-2.0
// labels: unit memory
#define BOOST_TEST_MODULE limber.core.tensor
#include <limber/core/tensor.hpp>

#include <boost/test/unit_test.hpp>

#include <core/says.hpp>

#include <array>
#include <span>
#include <string>
#include <vector>

using namespace limber;
using limber::test::says;

namespace {

// Memory of any dtype, for tensors that are only looked at.
alignas(8) std::array<std::byte, 64> memory{};

tensor_view some(dtype type, i64 length) { return {memory.data(), length, type}; }

}  // namespace

BOOST_AUTO_TEST_CASE(a_view_sees_the_memory_it_was_made_of) {
  std::vector<float> v{1, 2, 3, 4, 5};
  auto const all = view(v, "weights");
  BOOST_TEST((all.type == dtype::f32));
  BOOST_TEST(all.length == 5);
  BOOST_TEST(all.bytes() == 20);
  BOOST_TEST(all.name == "weights");
  BOOST_TEST(all.as<float>().data() == v.data());
  all.as<float>()[2] = 30;
  BOOST_TEST(v[2] == 30);
  auto const part = all.sub(1, 3);
  BOOST_TEST(part.length == 3);
  BOOST_TEST(part.name == "weights");
  BOOST_TEST(part.as<float>().data() == v.data() + 1);
  auto const copied = part;  // copies the view, not the elements
  BOOST_TEST(copied.data == part.data);
}

BOOST_AUTO_TEST_CASE(every_storage_type_and_container_can_be_viewed) {
  std::array<double, 3> d{};
  std::vector<bf16> b(4);
  std::vector<f16> h(5);
  std::vector<i64> n(6);
  std::uint8_t bytes[7] = {};
  float c[2] = {};
  BOOST_TEST((view(d).type == dtype::f64));
  BOOST_TEST((view(b).type == dtype::bf16));
  BOOST_TEST((view(h).type == dtype::f16));
  BOOST_TEST((view(n).type == dtype::int64));
  BOOST_TEST((view(bytes).type == dtype::uint8));
  BOOST_TEST((view(std::span(c)).type == dtype::f32));
  BOOST_TEST(view(d).bytes() == 24);
  BOOST_TEST(view(b).sub(1, 2).bytes() == 4);
  BOOST_TEST(view(h).as<f16>().size() == 5u);
  BOOST_TEST(view(bytes).length == 7);
  std::vector<float> none;
  BOOST_TEST(view(none).length == 0);
  // Memory that is only read, and types that are no storage type, cannot be viewed for writing.
  static_assert(!tensor_memory<std::vector<float> const> && !tensor_memory<std::vector<int>>);
  static_assert(!tensor_memory<std::span<float const>> && !tensor_memory<tensor_view>);
}

BOOST_AUTO_TEST_CASE(a_view_for_reading_comes_from_const_memory_or_a_writable_view) {
  std::vector<float> const v{1, 2, 3};
  auto const c = const_view(v, "data");
  BOOST_TEST((c.type == dtype::f32));
  BOOST_TEST(c.length == 3);
  BOOST_TEST(c.bytes() == 12);
  BOOST_TEST(c.as<float>()[1] == 2);
  std::vector<bf16> w(2);
  const_tensor_view const r = view(w, "w");
  BOOST_TEST((r.type == dtype::bf16));
  BOOST_TEST(r.length == 2);
  BOOST_TEST(r.name == "w");
  BOOST_TEST(r.data == reinterpret_cast<std::byte const*>(w.data()));
  BOOST_TEST((const_view(std::span<double const>{}).type == dtype::f64));
}

BOOST_AUTO_TEST_CASE(asking_for_the_wrong_type_names_both) {
  std::vector<float> v(2);
  BOOST_CHECK_EXCEPTION((void)view(v, "w").as<double>(), std::invalid_argument,
                        says("tensor 'w' holds f32, not f64"));
  BOOST_CHECK_EXCEPTION((void)const_view(v, "w").as<bf16>(), std::invalid_argument,
                        says("tensor 'w' holds f32, not bf16"));
}

BOOST_AUTO_TEST_CASE(tensors_and_groups_are_made_in_one_line) {
  std::vector<float> w(6), g(6), running(3);
  struct any_rule {
    double momentum = 0;
  };
  tensor const t{"w", w, g};
  BOOST_TEST(t.value.length == 6);
  BOOST_TEST(t.gradient.as<float>().data() == g.data());
  parameter_group const plain{std::vector{t}, any_rule{.momentum = 0.9}};
  parameter_group const scaled{std::vector{t}, any_rule{.momentum = 0.5}, 2.0};
  BOOST_TEST(plain.lr_scale == 1);
  BOOST_TEST(scaled.lr_scale == 2);
  BOOST_TEST(plain.rule.momentum == 0.9);  // each group has its own copy of the rule
  BOOST_TEST(scaled.rule.momentum == 0.5);
  buffers const b{{tensor{"running_mean", running}}};
  BOOST_TEST(b.tensors[0].value.length == 3);
  BOOST_TEST(b.tensors[0].gradient.length == 0);
  BOOST_CHECK_NO_THROW(check(b.tensors, false));
}

namespace {
// Somebody's own span: it names no concept of the standard, but a constant one gives writable elements.
struct slice {
  float* first;
  [[nodiscard]] float* data() const { return first; }
  [[nodiscard]] std::size_t size() const { return 2; }
};
// … and a framework's tensor, that says itself what its view is.
struct framework_tensor {
  float* first;
  operator tensor_view() const { return view(slice{first}); }
};
}  // namespace

// Temporaries that own their elements do not compile: test/compile_fail/tensor_temporary.cpp.
BOOST_AUTO_TEST_CASE(a_tensor_takes_memory_by_name_and_whatever_only_refers_to_memory) {
  float w[2] = {}, g[2] = {};
  std::array<float, 2> a{};
  auto const same = [&](tensor const& t) {
    BOOST_TEST(t.value.as<float>().data() == w);
    BOOST_TEST(t.gradient.as<float>().data() == g);
    BOOST_TEST(t.value.length == 2);
  };
  same({"w", w, g});
  same({"w", std::span(w), std::span(g)});
  same({"w", slice{w}, slice{g}});
  same({"w", view(w), g});
  same({"w", framework_tensor{w}, std::span(g)});
  std::vector<tensor> list{{"w", w, g}, {"a", a, g}};
  list.emplace_back("s", std::span(w), std::span(g));
  same(list.front());
  same(list.back());
  BOOST_TEST((tensor{"w", framework_tensor{w}}.value.as<float>().data() == w));
  std::span<float> const s(w);
  BOOST_TEST((tensor{"w", s}.gradient.length == 0));
}

BOOST_AUTO_TEST_CASE(good_parameters_pass) {
  BOOST_CHECK_NO_THROW(check({}, true));
  BOOST_CHECK_NO_THROW(check({tensor("a", some(dtype::f32, 4), some(dtype::f32, 4)),
                              tensor("b", some(dtype::bf16, 4), some(dtype::f32, 4)),
                              tensor("c", some(dtype::f16, 4), some(dtype::bf16, 4)),
                              tensor("d", some(dtype::f64, 4), some(dtype::f64, 4))},
                             true));
  // An empty tensor may have any pointer.
  BOOST_CHECK_NO_THROW(check({tensor("empty", tensor_view{}, tensor_view{})}, true));
}

BOOST_AUTO_TEST_CASE(bad_parameters_are_named) {
  auto const bad = [](std::vector<tensor> const& list, auto... parts) {
    BOOST_CHECK_EXCEPTION(check(list, true), std::invalid_argument, says(parts...));
  };
  auto const f32 = [](i64 n) { return some(dtype::f32, n); };
  bad({tensor("", f32(3), f32(3))}, "a parameter of 3 elements has an empty name");
  bad({tensor("w", f32(-2), f32(-2))}, "'w': length -2 is negative");
  bad({tensor("w", tensor_view{nullptr, 4}, f32(4))}, "'w': value is a null pointer");
  bad({tensor("w", some(dtype::int64, 4), f32(4))}, "'w': values of type int64 cannot be trained");
  bad({tensor("w", some(dtype::uint8, 4), f32(4))}, "'w': values of type uint8 cannot be trained");
  bad({tensor("w", f32(4), f32(3))}, "'w': 4 values but 3 gradients");
  bad({tensor("w", f32(4))}, "'w': 4 values but 0 gradients");
  bad({tensor("w", f32(4), tensor_view{nullptr, 4})}, "'w': gradient is a null pointer");
  bad({tensor("w", f32(4), some(dtype::int64, 4))}, "'w': gradients of type int64 cannot be used");
  bad({tensor("w", some(dtype::f64, 4), f32(4))},
      "'w': values are f64 but gradients f32; f64 goes with f64 only");
  bad({tensor("w", f32(4), some(dtype::f64, 4))}, "'w': values are f32 but gradients f64");
  bad({tensor("w", f32(4), f32(4)), tensor("v", f32(4), f32(4)), tensor("w", f32(2), f32(2))},
      "two parameters are named 'w'");
  std::vector<tensor> many;
  for (int k = 0; k < 1000; ++k) many.emplace_back(std::to_string(k), f32(4), f32(4));
  BOOST_CHECK_NO_THROW(check(many, true));
  many.emplace_back("617", f32(4), f32(4));
  bad(many, "two parameters are named '617'");
}

BOOST_AUTO_TEST_CASE(buffers_are_checked_without_gradients) {
  BOOST_CHECK_NO_THROW(check({tensor("mean", some(dtype::f32, 4))}, false));
  BOOST_CHECK_EXCEPTION(check({tensor("mean", some(dtype::int64, 4))}, false), std::invalid_argument,
                        says("'mean'", "int64"));
}
