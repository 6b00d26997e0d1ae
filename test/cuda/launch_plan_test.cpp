// SPDX-License-Identifier: Apache-2.0
// labels: kernel property memory
#define BOOST_TEST_MODULE limber.cuda.launch_plan
#include <limber/cuda/launch_plan.hpp>

#include <boost/test/unit_test.hpp>

#include <core/says.hpp>
#include <support/require_in_loops.hpp>

#include <random>
#include <set>

using namespace limber;
using namespace limber::gpu;

namespace {

// Every element of every tensor is in exactly one window: windows of a tensor follow each other.
void check_coverage(launch_plan const& plan, std::vector<i64> const& lengths, int log_parts, int phase) {
  std::vector<i64> next(lengths.size(), -1);
  for (leaf const& l : plan.leaves)
    for (int part = 0; part < 1 << log_parts; ++part) {
      auto const t = static_cast<std::size_t>(l.tensor);
      window const w = window_of(l, part, log_parts, phase);
      LIMBER_REQUIRE(w.head >= 0);
      LIMBER_REQUIRE(w.count >= 0);
      LIMBER_REQUIRE(w.count <= leaf_size >> log_parts);
      if (next[t] < 0) {
        LIMBER_REQUIRE(w.head == std::min<i64>(phase, lengths[t]));
        next[t] = w.head;
      } else {
        LIMBER_REQUIRE(w.head == 0);
      }
      if (w.count == 0) continue;
      LIMBER_REQUIRE(w.begin == next[t]);
      LIMBER_REQUIRE((w.begin - phase) % 256 == 0);
      next[t] += w.count;
    }
  for (std::size_t t = 0; t < lengths.size(); ++t) LIMBER_REQUIRE(next[t] == lengths[t]);
}

// Every slot but the last is awaited by exactly one node, and every tensor's by the tree over tensors.
void check_trees(launch_plan const& plan) {
  auto const leaves = static_cast<std::int32_t>(plan.leaves.size());
  std::vector<int> awaited(static_cast<std::size_t>(plan.slots()), 0);
  for (std::size_t k = 0; k < plan.nodes.size(); ++k) {
    node const& n = plan.nodes[k];
    LIMBER_REQUIRE(n.children >= 1);
    LIMBER_REQUIRE(n.children <= node_children);
    for (int c = 0; c < n.children; ++c) {
      auto const slot = n.first + c;
      ++awaited[static_cast<std::size_t>(slot)];
      auto const parent = slot < leaves ? plan.leaves[static_cast<std::size_t>(slot)].node
                                        : plan.nodes[static_cast<std::size_t>(slot - leaves)].parent;
      LIMBER_REQUIRE(parent == static_cast<std::int32_t>(k));
    }
  }
  LIMBER_REQUIRE(awaited.back() == 0);
  for (std::size_t k = 0; k + 1 < awaited.size(); ++k) LIMBER_REQUIRE(awaited[k] == 1);
  BOOST_TEST(plan.nodes.back().parent == -1);
  BOOST_TEST(plan.nodes.back().tensor == plan.tensors);
  for (i64 t = 0; t < plan.tensors; ++t) LIMBER_REQUIRE(plan.nodes[static_cast<std::size_t>(t)].tensor == t);
  for (std::size_t k = static_cast<std::size_t>(plan.tensors); k + 1 < plan.nodes.size(); ++k)
    LIMBER_REQUIRE(plan.nodes[k].tensor == -1);
}

}  // namespace

BOOST_AUTO_TEST_CASE(every_element_of_random_lists_is_in_one_window) {
  std::mt19937 random(1);
  std::uniform_int_distribution<i64> length(0, 30'000), small(0, 9), many(1, 40);
  for (int k = 0; k < 20; ++k) {
    std::vector<i64> lengths;
    std::vector<char> wide;
    for (i64 t = many(random); t > 0; --t) {
      lengths.push_back(small(random) < 3 ? small(random) : length(random));
      wide.push_back(small(random) == 0 ? 1 : 0);
    }
    auto const plan = make_plan(lengths, wide);
    for (int log_parts = 0; log_parts <= 4; ++log_parts)
      for (int phase = 0; phase <= max_phase; ++phase) check_coverage(plan, lengths, log_parts, phase);
    check_trees(plan);
    for (std::size_t l = 0; l < plan.leaves.size(); ++l)
      LIMBER_REQUIRE((wide[static_cast<std::size_t>(plan.leaves[l].tensor)] != 0) ==
                     (static_cast<i64>(l) >= plan.narrow_leaves));
  }
}

BOOST_AUTO_TEST_CASE(lengths_at_the_edges_of_leaves_are_covered) {
  for (i64 n = 4080; n < 4120; ++n)
    for (int phase = 0; phase <= max_phase; ++phase)
      for (int log_parts : {0, 4})
        check_coverage(make_plan({n, 2 * n}, {0, 0}), {n, 2 * n}, log_parts, phase);
}

BOOST_AUTO_TEST_CASE(more_than_two_to_the_31_elements_are_covered) {
  std::vector<i64> const lengths{5'000'000'011, 17, (i64{1} << 31) + 1, 0, 4096};
  auto const plan = make_plan(lengths, {0, 0, 1, 0, 0});
  for (int phase : {0, 3}) check_coverage(plan, lengths, 0, phase);
  check_trees(plan);
  BOOST_TEST(plan.narrow_elements == 5'000'000'011 + 17 + 4096);
  BOOST_TEST(plan.wide_elements == (i64{1} << 31) + 1);
}

BOOST_AUTO_TEST_CASE(what_no_table_can_hold_is_an_error) {
  BOOST_CHECK_EXCEPTION((void)make_plan({i64{1} << 62}, {0}), std::invalid_argument,
                        limber::test::says("executor", "too long", "4096"));
}

BOOST_AUTO_TEST_CASE(trees_over_many_tensors_and_leaves_are_whole) {
  for (std::size_t many : {std::size_t{1}, std::size_t{256}, std::size_t{257}, std::size_t{70'000}})
    check_trees(make_plan(std::vector<i64>(many, 1), std::vector<char>(many, 0)));
  check_trees(make_plan({leaf_size * 66'000, 1}, {0, 0}));
}

BOOST_AUTO_TEST_CASE(small_lists_are_cut_into_more_parts) {
  BOOST_TEST(launch_plan::log_parts(1, 1000) == 4);
  BOOST_TEST(launch_plan::log_parts(500, 1000) == 1);
  BOOST_TEST(launch_plan::log_parts(1000, 1000) == 0);
}
