// SPDX-License-Identifier: Apache-2.0
// labels: unit property
#define BOOST_TEST_MODULE limber.batch.permutation
#include <limber/batch/permutation.hpp>

#include <boost/test/unit_test.hpp>

#include <core/says.hpp>

#include <algorithm>
#include <map>
#include <set>
#include <vector>

using limber::i64;
using limber::permutation;
using limber::test::says;

namespace {

std::vector<i64> listed(permutation const& p) {
  std::vector<i64> all(static_cast<std::size_t>(p.size()));
  for (i64 i = 0; i < p.size(); ++i) all[static_cast<std::size_t>(i)] = p(i);
  return all;
}

bool is_a_permutation(std::vector<i64> all) {
  std::ranges::sort(all);
  for (std::size_t i = 0; i < all.size(); ++i)
    if (all[i] != static_cast<i64>(i)) return false;
  return true;
}

// How far a chi-square statistic lies above its mean, in standard deviations. Seeds are fixed, so the
// limit of 4.5 used below is met or not, never now and then.
double excess(double chi_square, double freedom) { return (chi_square - freedom) / std::sqrt(2 * freedom); }

}  // namespace

BOOST_AUTO_TEST_CASE(every_size_up_to_2000_is_permuted) {
  for (i64 n = 1; n <= 2000; n += n < 300 ? 1 : 17)
    BOOST_TEST_REQUIRE(is_a_permutation(listed(permutation(n, static_cast<std::uint64_t>(n) * 77, 5))));
  for (i64 const n : {1023, 1024, 1025, 1999, 2000, 50'000, 65'537})
    BOOST_TEST_REQUIRE(is_a_permutation(listed(permutation(n, 3, 4))));
}

BOOST_AUTO_TEST_CASE(elements_of_a_huge_set_are_distinct_and_in_range) {
  for (i64 const n :
       {(i64{1} << 62), (i64{1} << 62) - 1, (i64{1} << 40) + 1, i64{3'037'000'500} * 1'000'000'007}) {
    permutation const p(n, 11, 1);
    std::set<i64> seen;
    for (i64 i = 0; i < 5000; ++i) {
      seen.insert(p(i));
      seen.insert(p(n - 1 - i));
    }
    BOOST_TEST(seen.size() == 10'000u);
    BOOST_TEST(*seen.begin() >= 0);
    BOOST_TEST(*seen.rbegin() < n);
    BOOST_TEST(*seen.rbegin() > n / 10 * 9);
  }
}

BOOST_AUTO_TEST_CASE(all_permutations_of_small_sets_are_equally_likely) {
  double factorial = 1;
  for (i64 n = 2; n <= 6; ++n) {
    factorial *= static_cast<double>(n);
    int const draws = 24'000;
    std::map<std::vector<i64>, int> drawn;
    for (int i = 0; i < draws; ++i)
      ++drawn[listed(
          permutation(n, static_cast<std::uint64_t>(i % 100), static_cast<std::uint64_t>(i / 100)))];
    double const expected = draws / factorial;
    double chi_square = (factorial - static_cast<double>(drawn.size())) * expected;
    for (auto const& [order, count] : drawn) chi_square += (count - expected) * (count - expected) / expected;
    BOOST_TEST(excess(chi_square, factorial - 1) < 4.5, "n = " << n << ": chi square " << chi_square);
  }
}

BOOST_AUTO_TEST_CASE(neighbours_in_the_order_are_not_neighbours_in_the_data) {
  for (i64 const n : {i64{64}, i64{257}, i64{1000}, i64{5000}, i64{1} << 30}) {
    int constexpr bins = 16;
    std::vector<double> place(bins), step(bins);
    double draws = 0;
    for (std::uint64_t seed = 0; seed < 1000; ++seed) {
      permutation const p(n, seed, 1);
      i64 before = p(0);
      for (i64 i = 1; i < 20; ++i, ++draws) {
        i64 const x = p(i);
        place[static_cast<std::size_t>(static_cast<double>(x) * bins / static_cast<double>(n))] += 1;
        double const d = static_cast<double>((x - before + n) % n - 1);
        step[static_cast<std::size_t>(d * bins / static_cast<double>(n - 1))] += 1;
        before = x;
      }
    }
    auto const chi_square = [&](std::vector<double> const& h, i64 values) {
      double sum = 0;
      for (int b = 0; b < bins; ++b) {  // a bin holds ⌈(b+1) values/bins⌉ − ⌈b values/bins⌉ of them
        auto const edge = [&](i64 k) { return (k * values + bins - 1) / bins; };
        double const e = draws * static_cast<double>(edge(b + 1) - edge(b)) / static_cast<double>(values);
        double const off = h[static_cast<std::size_t>(b)] - e;
        sum += off * off / e;
      }
      return sum;
    };
    BOOST_TEST(excess(chi_square(place, n), bins - 1) < 4.5, "places, n = " << n);
    BOOST_TEST(excess(chi_square(step, n - 1), bins - 1) < 4.5, "steps, n = " << n);
  }
}

BOOST_AUTO_TEST_CASE(seeds_and_streams_give_different_orders) {
  std::set<std::vector<i64>> orders;
  for (std::uint64_t seed = 0; seed < 20; ++seed)
    for (std::uint64_t stream = 0; stream < 20; ++stream)
      orders.insert(listed(permutation(50, seed, stream)));
  orders.insert(listed(permutation(50, std::uint64_t{1} << 63, 0)));
  orders.insert(listed(permutation(50, 0, std::uint64_t{1} << 63)));
  BOOST_TEST(orders.size() == 402u);
  BOOST_TEST((listed(permutation(50, 1, 2)) == listed(permutation(50, 1, 2))));
}

BOOST_AUTO_TEST_CASE(the_order_is_part_of_the_contract) {
  // Checkpoints hold a cursor into this order: it must never change.
  BOOST_TEST(listed(permutation(8, 1, 0)) == (std::vector<i64>{4, 1, 6, 5, 2, 7, 0, 3}),
             boost::test_tools::per_element());
  BOOST_TEST(permutation(2000, 1, 0)(0) == 291);
  BOOST_TEST(permutation(i64{1} << 62, 1, 0)(0) == 3'308'336'039'100'629'500);
}

BOOST_AUTO_TEST_CASE(impossible_sizes_are_named_with_their_value) {
  BOOST_CHECK_EXCEPTION(permutation(0, 1, 1), std::invalid_argument, says("permutation: size", "got 0"));
  BOOST_CHECK_EXCEPTION(permutation(-7, 1, 1), std::invalid_argument, says("got -7"));
  BOOST_CHECK_EXCEPTION(permutation((i64{1} << 62) + 1, 1, 1), std::invalid_argument,
                        says("got 4611686018427387905"));
}
