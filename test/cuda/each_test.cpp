// SPDX-License-Identifier: Apache-2.0
// labels: kernel property memory
#define BOOST_TEST_MODULE limber.cuda.each
#include <cuda/bodies.hpp>

#include <boost/test/unit_test.hpp>

using namespace limber;
using namespace limber::test;

namespace {

// Both executors over copies of the same lists; rounds x and z as `round` says.
bool agrees(three_lists const& l, emulated& e, rounding const* round, i64 const* origin) {
  three_lists a = l, b = l;
  host{}.each(mix_three{}, inout(a.x.list, round, origin), in(a.y.list), inout(a.z.list, round, origin));
  // The emulator's functors read what lies on its side.
  auto const n = static_cast<i64>(l.x.list.size());
  auto rounds = e.share<rounding>(n);
  auto origins = e.share<i64>(n);
  for (i64 t = 0; round != nullptr && t < n; ++t) rounds[static_cast<std::size_t>(t)] = round[t];
  for (i64 t = 0; origin != nullptr && t < n; ++t) origins[static_cast<std::size_t>(t)] = origin[t];
  e.publish(rounds);
  e.publish(origins);
  auto const* const r = round != nullptr ? rounds.device : nullptr;
  auto const* const o = origin != nullptr ? origins.device : nullptr;
  e.each(mix_three{}, inout(b.x.list, r, o), in(b.y.list), inout(b.z.list, r, o));
  return same(a.x.list, b.x.list) && same(a.y.list, b.y.list) && same(a.z.list, b.z.list) &&
         same(b.y.list, l.y.list);
}

}  // namespace

BOOST_AUTO_TEST_CASE(the_kernel_bodies_do_what_the_host_does_wherever_tensors_lie) {
  std::mt19937 random(1);
  for (auto how : {lie::aligned, lie::together, lie::apart})
    for (bool f64 : {false, true})
      for (bool only_f32 : {true, false})
        for (i64 warps : {1, 64, 100'000}) {
          emulated e = make_emulated(random(), warps);
          auto const lists = draw_lists(random, edgy_lengths(random), how, f64, only_f32, values::ordinary);
          BOOST_TEST(agrees(lists, e, nullptr, nullptr), "lie " << static_cast<int>(how) << ", f64 " << f64
                                                                << ", f32 " << only_f32 << ", warps "
                                                                << warps);
        }
}

BOOST_AUTO_TEST_CASE(whatever_the_elements_are) {
  std::mt19937 random(2);
  for (auto kind : {values::any_magnitude, values::not_finite})
    for (auto how : {lie::together, lie::apart}) {
      emulated e = make_emulated(random());
      BOOST_TEST(
          agrees(draw_lists(random, edgy_lengths(random), how, true, false, kind), e, nullptr, nullptr));
    }
}

BOOST_AUTO_TEST_CASE(stochastic_rounding_has_the_same_bits_for_the_same_element) {
  std::mt19937 random(3);
  for (auto how : {lie::together, lie::apart}) {
    auto const lengths = edgy_lengths(random);
    std::vector<rounding> round;
    std::vector<i64> origin{i64{1} << 33};
    for (i64 n : lengths) {
      round.push_back({round.size() % 3 != 0, 42, static_cast<std::uint64_t>(round.size())});
      origin.push_back(origin.back() + n);
    }
    emulated e = make_emulated(random());
    auto const lists = draw_lists(random, lengths, how, true, false, values::ordinary);
    BOOST_TEST(agrees(lists, e, round.data(), origin.data()));
    BOOST_TEST(agrees(lists, e, round.data(), nullptr));
  }
}

BOOST_AUTO_TEST_CASE(the_order_of_items_says_nothing) {
  std::mt19937 random(4);
  auto const lists = draw_lists(random, edgy_lengths(random), lie::together, true, false, values::ordinary);
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    emulated e = make_emulated(seed, 10'000);
    BOOST_TEST(agrees(lists, e, nullptr, nullptr));
  }
}

BOOST_AUTO_TEST_CASE(f64_beside_other_types_is_computed_in_double) {
  std::mt19937 random(5);
  three_lists l;
  dtype const types[] = {dtype::f32, dtype::bf16, dtype::f16, dtype::f64};
  for (dtype a : types)
    for (dtype b : types)
      for (std::size_t shift : {0u, 8u}) {
        l.x.add(1001, a, shift);
        l.y.add(1001, b, shift);
        l.z.add(1001, dtype::f64, shift);
      }
  for (auto* x : {&l.x, &l.y, &l.z}) fill(x->list, random, values::ordinary);
  emulated e = make_emulated(1);
  BOOST_TEST(agrees(l, e, nullptr, nullptr));
}

// An element that a body visits twice, or that it reads although it is only written, would show.
BOOST_AUTO_TEST_CASE(every_element_is_visited_once_and_what_is_only_written_is_not_read) {
  std::mt19937 random(6);
  auto lists = draw_lists(random, edgy_lengths(random), lie::apart, true, false, values::ordinary);
  fill(lists.x.list, random, values::not_finite);
  emulated e = make_emulated(7);
  auto const one = [](auto& x, auto const&) { x = 1; };
  auto const more = []<class T>(T& x) { x = math::add(x, T(1)); };
  e.each(one, out(lists.x.list), in(lists.y.list));
  e.each(more, inout(lists.x.list));
  for (auto const& t : lists.x.list)
    with_type(t.type, [&]<class S>() {
      for (auto const& x : t.as<S>()) BOOST_REQUIRE(number(x) == 2);
    });
}

BOOST_AUTO_TEST_CASE(runs_call_every_index_once) {
  emulated e = make_emulated(1);
  for (i64 n : {0, 1, 31, 32, 33, 1000}) {
    auto hits = e.share<i64>(n + 1);
    e.run(n, [p = hits.device](i64 i) { p[i] += 1; });
    e.collect(hits);
    for (i64 i = 0; i < n; ++i) BOOST_REQUIRE(hits[static_cast<std::size_t>(i)] == 1);
    BOOST_TEST(hits[static_cast<std::size_t>(n)] == 0);
  }
}
