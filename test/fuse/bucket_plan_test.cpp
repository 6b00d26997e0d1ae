// SPDX-License-Identifier: Apache-2.0
// labels: unit property memory
#define BOOST_TEST_MODULE limber.fuse.bucket_plan
#include <limber/core/norm.hpp>
#include <limber/fuse/bucket_plan.hpp>

#include <boost/test/unit_test.hpp>

#include <core/says.hpp>
#include <support/require_in_loops.hpp>

#include <deque>
#include <random>
#include <string>

using namespace limber;
using test::says;

namespace {

// A list without memory: plans read names, lengths and types only.
struct names_and_shapes {
  std::deque<std::string> names;
  tensor_list list;
  void add(i64 length, dtype type = dtype::f32) {
    names.push_back(text("t", names.size()));
    list.push_back({nullptr, length, type, names.back()});
  }
};

// Marks the bytes of the flat buffer that buckets cover and tensors own.
void check_coverage(tensor_list const& list, bucket_plan const& plan) {
  std::vector<char> bucketed(static_cast<std::size_t>(plan.where.bytes)), owned(bucketed.size());
  for (auto const& b : plan.buckets) {
    BOOST_TEST(b.offset % 256 == 0);
    BOOST_TEST(b.length > 0);
    for (i64 k = b.offset; k < b.offset + b.length * size_of(b.type); ++k) {
      LIMBER_REQUIRE(k < plan.where.bytes);
      LIMBER_REQUIRE(!bucketed[static_cast<std::size_t>(k)]);
      bucketed[static_cast<std::size_t>(k)] = 1;
    }
  }
  for (std::size_t i = 0; i < list.size(); ++i) {
    auto const& p = plan.where.places[i];
    BOOST_TEST(p.length == list[i].length);
    BOOST_TEST(p.offset % slot_alignment == 0);
    for (i64 k = p.offset; k < p.offset + p.length * size_of(p.type); ++k) {
      LIMBER_REQUIRE(bucketed[static_cast<std::size_t>(k)]);
      LIMBER_REQUIRE(!owned[static_cast<std::size_t>(k)]);
      owned[static_cast<std::size_t>(k)] = 1;
    }
  }
}

// Whole leaves: a cut inside a tensor is a multiple of 4,096 elements from its start.
void check_cuts(bucket_plan const& plan) {
  for (auto const& b : plan.buckets)
    for (auto const& p : plan.where.places) {
      i64 const inside = b.offset - p.offset;
      if (p.length == 0 || inside <= 0 || inside >= p.length * size_of(p.type)) continue;
      BOOST_TEST(inside % (leaf_size * size_of(p.type)) == 0);
    }
}

}  // namespace

BOOST_AUTO_TEST_CASE(random_lists_are_covered_exactly_once_whatever_the_caps) {
  std::mt19937 random(1);
  auto below = [&](i64 n) { return static_cast<i64>(random() % static_cast<std::uint64_t>(n)); };
  for (int round = 0; round < 200; ++round) {
    names_and_shapes t;
    i64 const count = 1 + below(20);
    dtype const types[] = {dtype::f32, dtype::f64, dtype::bf16, dtype::f16};
    for (i64 k = 0; k < count; ++k)
      t.add(below(4) == 0 ? 0 : below(3) == 0 ? below(20000) : below(300), types[below(4)]);
    bucket_options o{1 + below(4000), 1 + below(60000), {}};
    if (below(2) == 0) o.wire = dtype::bf16;
    std::vector<i64> order(static_cast<std::size_t>(count));
    for (i64 k = 0; k < count; ++k) order[static_cast<std::size_t>(k)] = k;
    std::ranges::shuffle(order, random);
    auto const plan = plan_buckets(t.list, o, order);
    check_coverage(t.list, plan);
    check_cuts(plan);
    for (auto const& b : plan.buckets) {
      i64 const cap = &b == plan.buckets.data() ? o.first_bytes : o.bytes;
      BOOST_TEST(b.length * size_of(b.type) <= std::max(cap, leaf_size * size_of(b.type)));
    }
  }
}

BOOST_AUTO_TEST_CASE(the_last_used_tensor_is_in_the_first_bucket_and_the_first_bucket_is_small) {
  names_and_shapes t;
  for (int k = 0; k < 40; ++k) t.add(250'000);  // 1 MB each
  auto const plan = plan_buckets(t.list);
  BOOST_TEST(plan.buckets.size() == 3u);
  BOOST_TEST(plan.buckets[0].length == 250'000);
  BOOST_TEST(plan.buckets[0].name == "bucket 0: t39");
  BOOST_TEST(plan.buckets[1].length * 4 <= i64{25} << 20);
  BOOST_TEST(plan.buckets[2].first == 0);
}

// torchft's bucketing skipped tensors: sizes 10, 10, 10 with room for 15.
BOOST_AUTO_TEST_CASE(tensors_that_do_not_fill_a_bucket_are_not_lost) {
  names_and_shapes t;
  for (int k = 0; k < 3; ++k) t.add(10);
  check_coverage(t.list, plan_buckets(t.list, {60, 60, {}}));
}

BOOST_AUTO_TEST_CASE(a_tensor_larger_than_a_bucket_is_cut_at_whole_leaves) {
  names_and_shapes t;
  t.add(10'000);
  auto const plan = plan_buckets(t.list, {1000, 40'000, {}});
  BOOST_REQUIRE(plan.buckets.size() == 2u);
  BOOST_TEST(plan.buckets[0].length == 4096);
  BOOST_TEST(plan.buckets[1].length == 10'000 - 4096);  // under the cap of the second: no further cut
  check_cuts(plan);
}

BOOST_AUTO_TEST_CASE(types_have_buckets_of_their_own_and_only_f32_is_cast) {
  names_and_shapes t;
  t.add(5, dtype::f64);
  t.add(7, dtype::f32);
  t.add(9, dtype::bf16);
  auto const plain = plan_buckets(t.list);
  BOOST_REQUIRE(plain.buckets.size() == 2u);
  for (auto const& b : plain.buckets) BOOST_TEST(name_of(b.type) == (b.first == 0 ? "f64" : "f32"));
  auto const cast = plan_buckets(t.list, {1 << 20, 1 << 20, dtype::f16});
  BOOST_TEST(name_of(cast.where.places[0].type) == "f64");
  BOOST_TEST(name_of(cast.where.places[1].type) == "f16");
  BOOST_TEST(name_of(cast.where.places[2].type) == "f16");
}

BOOST_AUTO_TEST_CASE(the_hash_sees_names_lengths_types_and_cuts) {
  names_and_shapes a, b, c;
  a.add(100);
  b.add(101);
  c.add(100, dtype::f64);
  auto const hash = [](names_and_shapes const& t, bucket_options o = {}) {
    return plan_buckets(t.list, o).hash;
  };
  BOOST_TEST(hash(a) == hash(a));
  BOOST_TEST(hash(a) != hash(b));
  BOOST_TEST(hash(a) != hash(c));
  BOOST_TEST(hash(a) != hash(a, {1 << 20, 1 << 20, dtype::bf16}));
  names_and_shapes long_one;
  long_one.add(20'000);
  BOOST_TEST(hash(long_one) != hash(long_one, {20'000, 20'000, {}}));
  tensor_list renamed = a.list;
  renamed[0].name = "other";
  BOOST_TEST(plan_buckets(renamed).hash != hash(a));
}

BOOST_AUTO_TEST_CASE(tensors_that_fill_a_bucket_to_the_last_byte_share_it) {
  names_and_shapes m;
  for (i64 const n : {4, 4, 8}) m.add(n);  // 16, 16 and 32 bytes; the last is first
  auto const exact = plan_buckets(m.list, {.first_bytes = 32, .bytes = 32});
  BOOST_TEST(exact.buckets.size() == 2u);
  BOOST_TEST((exact.buckets[1].tensors == std::vector<i64>{1, 0}));
  BOOST_TEST(plan_buckets(m.list, {.first_bytes = 32, .bytes = 31}).buckets.size() == 3u);
  // One tensor of just the cap is not cut, though the cap is no multiple of a leaf.
  names_and_shapes one;
  one.add(leaf_size + 4);
  i64 const bytes = (leaf_size + 4) * 4;
  BOOST_TEST(plan_buckets(one.list, {.first_bytes = bytes, .bytes = bytes}).buckets.size() == 1u);
  BOOST_TEST(plan_buckets(one.list, {.first_bytes = bytes - 1, .bytes = bytes}).buckets.size() == 2u);
}

// Lengths that padding hides: offsets and buckets are the same.
BOOST_AUTO_TEST_CASE(the_hash_sees_lengths_that_move_nothing_and_error_feedback) {
  names_and_shapes five, six;
  five.add(8), five.add(5);
  six.add(8), six.add(6);
  auto const a = plan_buckets(five.list), b = plan_buckets(six.list);
  BOOST_TEST(
      (a.buckets[0].length == b.buckets[0].length && a.where.places[0].offset == b.where.places[0].offset));
  BOOST_TEST(a.hash != b.hash);
  auto const drops = plan_buckets(five.list, {.wire = dtype::bf16});
  auto const feeds = plan_buckets(five.list, {.wire = dtype::bf16, .error_feedback = true});
  BOOST_TEST(drops.hash != feeds.hash);
  BOOST_TEST((!drops.feedback && feeds.feedback == dtype::bf16));
}

BOOST_AUTO_TEST_CASE(bad_options_are_named) {
  names_and_shapes t;
  t.add(3);
  BOOST_CHECK_EXCEPTION((void)plan_buckets(t.list, {0, 1, {}}), std::invalid_argument,
                        says("first_bytes", "0"));
  BOOST_CHECK_EXCEPTION((void)plan_buckets(t.list, {1, -5, {}}), std::invalid_argument, says("bytes", "-5"));
  BOOST_CHECK_EXCEPTION((void)plan_buckets(t.list, {1, 1, dtype::f64}), std::invalid_argument,
                        says("wire", "f64"));
  BOOST_CHECK_EXCEPTION((void)plan_buckets(t.list, {}, {0, 0}), std::invalid_argument,
                        says("use_order", "2 of 1"));
}
