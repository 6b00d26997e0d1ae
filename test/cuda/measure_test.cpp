// SPDX-License-Identifier: Apache-2.0
// labels: kernel property memory
// optimize: 1
#define BOOST_TEST_MODULE limber.cuda.measure
#include <cuda/bodies.hpp>

#include <boost/test/unit_test.hpp>

using namespace limber;
using namespace limber::test;

namespace {

// NaNs have one payload here: sums that are not finite are made, not computed.
template <class T>
bool same_norm(tensor_norm<T> const& a, tensor_norm<T> const& b) {
  return std::memcmp(&a.sum.s, &b.sum.s, sizeof(T)) == 0 && a.sum.e == b.sum.e &&
         std::memcmp(&a.root, &b.root, sizeof(T)) == 0;
}

// Compares what kernels will read: the norm of each tensor and both totals, for each sum.
bool same_norms(norm_memory const& a, norm_memory const& b) {
  bool equal = a.tensors == b.tensors && a.is_wide == b.is_wide;
  for (int s = 0; equal && s < a.sums; ++s) {
    auto const at = static_cast<std::size_t>(s) * static_cast<std::size_t>(a.tensors + 1);
    auto const total = at + static_cast<std::size_t>(a.tensors);
    for (std::size_t t = 0; t < a.is_wide.size(); ++t)
      equal = equal && (a.is_wide[t] != 0 ? same_norm(a.wide[at + t], b.wide[at + t])
                                          : same_norm(a.narrow[at + t], b.narrow[at + t]));
    equal = equal && same_norm(a.narrow[total], b.narrow[total]) &&
            (!a.facts().any_wide || same_norm(a.wide[total], b.wide[total]));
  }
  return equal;
}

bool same_reports(norm_report const& a, norm_report const& b) {
  auto const equal = [](norm_report::entry const& x, norm_report::entry const& y) {
    return std::memcmp(&x.square, &y.square, sizeof x.square) == 0 &&
           std::memcmp(&x.root, &y.root, sizeof x.root) == 0 && x.finite == y.finite;
  };
  return std::ranges::equal(a.tensors, b.tensors, equal) && equal(a.total, b.total) && a.culprit == b.culprit;
}

bool agrees(three_lists const& l, emulated& e) {
  three_lists a = l, b = l;
  host h;
  auto const n = static_cast<i64>(l.x.list.size());
  auto one = make_norms(h, n), other = make_norms(e, n);
  auto one_of_two = make_norms(h, n, 2), other_of_two = make_norms(e, n, 2);
  bool equal = true;
  for (int again = 0; again < 2; ++again) {  // counters are ready for the next launch
    h.measure(one, mix_three{}, inout(a.x.list), in(a.y.list), inout(a.z.list));
    e.measure(other, mix_three{}, inout(b.x.list), in(b.y.list), inout(b.z.list));
    e.collect(other.narrow);
    e.collect(other.wide);
    equal = equal && same_norms(one, other) && same_reports(h.report(one), e.report(other));
    h.measure(one_of_two, add_both{}, out(a.z.list), in(a.x.list), in(a.y.list));
    e.measure(other_of_two, add_both{}, out(b.z.list), in(b.x.list), in(b.y.list));
    e.collect(other_of_two.narrow);
    e.collect(other_of_two.wide);
    equal = equal && same_norms(one_of_two, other_of_two);
    equal = equal && same(a.x.list, b.x.list) && same(a.y.list, b.y.list) && same(a.z.list, b.z.list);
    equal = equal && same_reports(h.norm(identity{}, in(a.z.list)), e.norm(identity{}, in(b.z.list)));
  }
  return equal;
}

}  // namespace

BOOST_AUTO_TEST_CASE(norms_have_the_hosts_bits_wherever_tensors_lie) {
  std::mt19937 random(1);
  for (auto how : {lie::aligned, lie::together, lie::apart})
    for (bool f64 : {false, true})
      for (bool only_f32 : {true, false}) {
        emulated e = make_emulated(random());
        auto const lists = draw_lists(random, edgy_lengths(random), how, f64, only_f32, values::ordinary);
        BOOST_TEST(agrees(lists, e),
                   "lie " << static_cast<int>(how) << ", f64 " << f64 << ", f32 " << only_f32);
      }
}

BOOST_AUTO_TEST_CASE(and_whatever_the_elements_are) {
  std::mt19937 random(2);
  for (auto kind : {values::any_magnitude, values::not_finite})
    for (bool f64 : {false, true})
      for (bool only_f32 : {true, false})
        for (int k = 0; k < 3; ++k) {
          emulated e = make_emulated(random());
          auto const lists = draw_lists(random, edgy_lengths(random), lie::aligned, f64, only_f32, kind);
          BOOST_TEST(agrees(lists, e),
                     "values " << static_cast<int>(kind) << ", f64 " << f64 << ", f32 " << only_f32);
        }
}

BOOST_AUTO_TEST_CASE(one_element_anywhere_that_is_not_finite_is_found) {
  std::mt19937 random(3);
  for (i64 n : {1, 7, 8, 255, 257, 4096, 4099, 12'345})
    for (i64 where : {i64{0}, n / 2, n - 1})
      for (float bad : {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
        owned_list l;
        for (i64 length : {i64{100}, n, i64{0}, i64{4097}}) l.add(length, dtype::f32);
        fill(l.list, random, values::ordinary);
        l.list[1].as<float>()[static_cast<std::size_t>(where)] = bad;
        emulated e = make_emulated(random());
        auto const& r = e.norm(identity{}, in(l.list));
        BOOST_TEST(!r.total.finite);
        BOOST_TEST(r.culprit == 1);
        BOOST_TEST(r.tensors[3].finite);
      }
}

// 700 leaves make two levels of nodes below a tensor's norm.
BOOST_AUTO_TEST_CASE(trees_of_several_levels_add_in_the_hosts_order) {
  std::mt19937 random(4);
  for (i64 leaves : {255, 256, 257, 700}) {
    owned_list l;
    l.add(leaves * leaf_size - 5, dtype::bf16);
    l.add(leaves * leaf_size / 2 + 3, dtype::f32);
    fill(l.list, random, values::any_magnitude);
    emulated e = make_emulated(random());
    host h;
    BOOST_TEST(same_reports(h.norm(identity{}, in(l.list)), e.norm(identity{}, in(l.list))));
  }
}

BOOST_AUTO_TEST_CASE(many_small_tensors_make_a_tree_over_tensors) {
  std::mt19937 random(5);
  for (bool f64 : {false, true})
    for (std::size_t many : {1u, 2u, 255u, 256u, 257u, 3000u}) {
      std::uniform_int_distribution<i64> length(0, 40);
      std::vector<i64> lengths;
      for (std::size_t t = 0; t < many; ++t) lengths.push_back(length(random));
      emulated e = make_emulated(random());
      BOOST_TEST(agrees(draw_lists(random, lengths, lie::together, f64, false, values::any_magnitude), e));
    }
}

// Three levels over tensors: 66,000 leaves are 258 nodes, and they are two.
BOOST_AUTO_TEST_CASE(a_tree_of_three_levels_over_tensors) {
  owned_list l;
  l.add(66'000 * 3, dtype::f32);
  std::mt19937 random(6);
  fill(l.list, random, values::any_magnitude);
  tensor_list parts;
  for (i64 t = 0; t < 66'000; ++t) parts.push_back(l.list[0].sub(3 * t, 3));
  emulated e = make_emulated(random());
  host h;
  BOOST_TEST(same_reports(h.norm(identity{}, in(parts)), e.norm(identity{}, in(parts))));
}

BOOST_AUTO_TEST_CASE(lists_without_elements_and_without_tensors_have_norm_zero) {
  emulated e = make_emulated(1);
  host h;
  owned_list l;
  l.add(0, dtype::f64);
  l.add(0, dtype::bf16);
  for (auto const& list : {l.list, tensor_list{}}) {
    auto const n = static_cast<i64>(list.size());
    auto one = make_norms(h, n, 2), other = make_norms(e, n, 2);
    h.measure(one, identity{}, in(list));
    e.measure(other, identity{}, in(list));
    e.collect(other.narrow);
    e.collect(other.wide);
    BOOST_TEST(same_norms(one, other));
  }
}

BOOST_AUTO_TEST_CASE(a_frozen_tensor_of_f64_has_norm_zero_where_it_is_looked_for) {
  std::mt19937 random(7);
  owned_list l;
  l.add(300, dtype::f64);
  l.add(300, dtype::f32);
  fill(l.list, random, values::ordinary);
  emulated e = make_emulated(1);
  auto norms = make_norms(e, 2);
  e.measure(norms, identity{}, in(l.list));
  BOOST_TEST(e.report(norms).tensors[0].root > 0);
  tensor_list frozen = l.list;
  frozen[0].length = 0;
  e.measure(norms, identity{}, in(frozen));
  e.collect(norms.wide);
  BOOST_TEST(e.report(norms).tensors[0].root == 0);
  BOOST_TEST(norms.wide[0].root == 0);
}

BOOST_AUTO_TEST_CASE(floats_are_widened_by_integers_as_by_the_processor) {
  std::mt19937 random(8);
  auto const check = [](std::uint32_t bits) {
    float x;
    std::memcpy(&x, &bits, sizeof x);
    double const expected = static_cast<double>(x);
    std::uint64_t u;
    std::memcpy(&u, &expected, sizeof u);
    if (x == x) BOOST_REQUIRE(gpu::detail::widened_bits(x) == u);
  };
  for (std::uint32_t bits : {0u, 1u, 0x007f'ffffu, 0x0080'0000u, 0x3f80'0000u, 0x7f7f'ffffu, 0x7f80'0000u}) {
    check(bits);
    check(bits | 0x8000'0000u);
  }
  for (int k = 0; k < 100'000; ++k) check(static_cast<std::uint32_t>(random()));
  for (int k = 0; k < 10'000; ++k) check(static_cast<std::uint32_t>(random()) & 0x007f'ffffu);
}
