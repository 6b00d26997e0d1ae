// SPDX-License-Identifier: Apache-2.0
// labels: kernel memory
#define BOOST_TEST_MODULE limber.cuda.executor
#include <cuda/bodies.hpp>

#include <boost/test/unit_test.hpp>

#include <core/says.hpp>

using namespace limber;
using namespace limber::test;

namespace {

owned_list list_of(std::vector<i64> const& lengths, dtype type = dtype::f32, unsigned seed = 1) {
  owned_list l;
  std::mt19937 random(seed);
  for (i64 n : lengths) l.add(n, type);
  fill(l.list, random, values::ordinary);
  return l;
}

}  // namespace

BOOST_AUTO_TEST_CASE(nothing_is_allocated_and_nothing_waits_once_a_list_was_seen) {
  emulated e = make_emulated(1);
  owned_list x = list_of({5000, 3, 0, 70'000}), y = list_of({5000, 3, 0, 70'000});
  auto norms = make_norms(e, 4);
  auto facts = e.share<i64>(10);
  auto const step = [&] {
    e.publish(facts);
    e.each(copy{}, out(x.list), in(y.list));
    e.measure(norms, identity{}, in(x.list));
    tensor_list temporary = x.list;  // lists come and go; their content is known
    e.each(zero{}, out(temporary));
    e.run(100, [](i64) {});
  };
  step();
  auto const before = e.device().seen();
  for (int k = 0; k < 200; ++k) step();
  auto const after = e.device().seen();
  BOOST_TEST(after.allocations == before.allocations);
  BOOST_TEST(after.synchronizations == before.synchronizations);
  BOOST_TEST(after.downloads == before.downloads);
  BOOST_TEST(after.uploads == before.uploads + 200);  // what was published
  BOOST_TEST(after.launches == before.launches + 4 * 200);
}

BOOST_AUTO_TEST_CASE(other_memory_of_the_same_shapes_is_one_transfer) {
  emulated e = make_emulated(1);
  owned_list a = list_of({300, 5000}), b = list_of({300, 5000}, dtype::f32, 2), to = list_of({300, 5000});
  tensor_list from = a.list;
  e.each(copy{}, out(to.list), in(from));
  BOOST_TEST(same(to.list, a.list));
  for (int k = 0; k < 5; ++k) {
    from = k % 2 == 0 ? b.list : a.list;
    auto const before = e.device().seen();
    e.each(copy{}, out(to.list), in(from));
    BOOST_TEST(same(to.list, from));
    BOOST_TEST(e.device().seen().uploads == before.uploads + 1);
    BOOST_TEST(e.device().seen().allocations == before.allocations);
  }
}

BOOST_AUTO_TEST_CASE(a_list_that_grows_shrinks_or_changes_its_type_is_planned_anew) {
  emulated e = make_emulated(1);
  tensor_list l;
  for (auto const& [n, type] :
       {std::pair{i64{10}, dtype::f32}, {5000, dtype::f32}, {5000, dtype::bf16}, {7, dtype::f64}}) {
    owned_list x = list_of({n, n}, type);
    l = x.list;
    host h;
    BOOST_TEST(e.norm(identity{}, in(l)).total.square == h.norm(identity{}, in(l)).total.square);
    l.pop_back();
    BOOST_TEST(e.norm(identity{}, in(l)).total.square == h.norm(identity{}, in(l)).total.square);
    l[0].length = 0;
    BOOST_TEST(e.norm(identity{}, in(l)).total.square == 0);
  }
}

BOOST_AUTO_TEST_CASE(lists_of_many_shapes_push_each_other_out_and_come_back) {
  emulated e = make_emulated(1);
  owned_list const x = list_of({2000});
  host h;
  for (int round = 0; round < 2; ++round)
    for (i64 n = 1; n <= 600; n += 2) {
      tensor_list const part{x.list[0].sub(0, n)};
      BOOST_TEST(e.norm(identity{}, in(part)).total.square == h.norm(identity{}, in(part)).total.square);
    }
  BOOST_TEST(e.device().seen().live < 2000);
}

BOOST_AUTO_TEST_CASE(both_sides_of_a_shared_array_are_apart_and_zero) {
  emulated e = make_emulated(1);
  auto a = e.share<i64>(3);
  BOOST_TEST(a.host != a.device);
  for (std::size_t k = 0; k < 3; ++k) {
    BOOST_TEST(a.host[k] == 0);
    BOOST_TEST(a.device[k] == 0);
  }
  a[1] = 7;
  BOOST_TEST(a.device[1] == 0);
  e.publish(a);
  a[1] = 8;  // the host side may change at once
  BOOST_TEST(a.device[1] == 7);
  e.collect(a);
  BOOST_TEST(a[1] == 7);
}

BOOST_AUTO_TEST_CASE(what_was_made_is_zero_and_outlives_the_executor) {
  slab s;
  shared_array<i64> a;
  {
    emulated e = make_emulated(1);
    owned_list const like = list_of({3, 0, 100});
    s = e.make(layout_of(like.list));
    a = e.share<i64>(5);
    emulated moved = std::move(e);
    BOOST_TEST(moved.norm(identity{}, in(s.parts)).total.square == 0);
  }
  BOOST_TEST(std::all_of(s.data(), s.data() + s.bytes, [](std::byte b) { return b == std::byte{0}; }));
  BOOST_TEST(a.device[4] == 0);
}

BOOST_AUTO_TEST_CASE(all_memory_is_given_back) {
  gpu::emulator::counts const* seen = nullptr;
  shared_array<i64> last;
  {
    emulated e = make_emulated(1);
    seen = &e.device().seen();
    owned_list const x = list_of({10, 10'000});
    (void)e.norm(identity{}, in(x.list));
    last = e.share<i64>(1);
  }
  BOOST_TEST(seen->live == 2);  // the two sides of `last`, which keeps the device
}

BOOST_AUTO_TEST_CASE(mistakes_are_named) {
  emulated e = make_emulated(1);
  owned_list x = list_of({10, 20}), shorter = list_of({10}), other = list_of({10, 21});
  BOOST_CHECK_EXCEPTION(e.each(copy{}, out(x.list), in(shorter.list)), std::invalid_argument,
                        says("lists of 2 and 1 tensors"));
  BOOST_CHECK_EXCEPTION(e.each(copy{}, out(x.list), in(other.list)), std::invalid_argument,
                        says("'t1' has 20", "21"));
  auto norms = make_norms(e, 3);
  BOOST_CHECK_EXCEPTION(e.measure(norms, identity{}, in(x.list)), std::invalid_argument,
                        says("measure: memory for 3 norms, but 2 tensors"));
  tensor_list odd = x.list;
  odd[1].data += 1;
  odd[1].length -= 1;
  odd[1].name = "odd one";
  BOOST_CHECK_EXCEPTION(e.each(zero{}, out(odd)), std::invalid_argument,
                        says("'odd one'", "not a multiple of 4", "f32"));
  odd[1].data = nullptr;
  BOOST_CHECK_EXCEPTION(e.each(zero{}, out(odd)), std::invalid_argument, says("'odd one'", "null pointer"));
  odd[1] = x.list[1];
  odd[1].length = -1;
  BOOST_CHECK_EXCEPTION(e.each(zero{}, out(odd)), std::invalid_argument, says("'t1' has -1 elements"));
  std::vector<i64> counts(3);
  tensor_list const integers{view(counts, "counts")};
  BOOST_CHECK_EXCEPTION(e.each(zero{}, out(integers)), std::invalid_argument, says("'counts' is int64"));
  // After every mistake the executor is as before.
  e.each(zero{}, out(x.list));
  BOOST_TEST(e.norm(identity{}, in(x.list)).total.square == 0);
}

BOOST_AUTO_TEST_CASE(the_device_is_asked_whether_kernels_may_access_a_tensor) {
  owned_list x = list_of({10, 20, 0});
  std::vector<std::byte*> asked;
  emulated e{gpu::emulator::options{1, 64, [&](tensor_view const& t) {
                                      asked.push_back(t.data);
                                      expects(t.length != 20, "executor: '", t.name,
                                              "' is in the host's memory");
                                    }}};
  BOOST_CHECK_EXCEPTION(e.each(zero{}, out(x.list)), std::invalid_argument,
                        says("'t1' is in the host's memory"));
  tensor_list fine{x.list[0], x.list[2]};
  asked.clear();
  e.each(zero{}, out(fine));
  e.each(zero{}, out(fine));
  BOOST_TEST(asked.size() == 1);  // once, and not for what is empty
  fine[0].data += 4;
  fine[0].length -= 1;
  e.each(zero{}, out(fine));
  BOOST_TEST(asked.size() == 2);
}
