// SPDX-License-Identifier: Apache-2.0
// labels: unit property memory
#define BOOST_TEST_MODULE limber.core.norm
#include <limber/core/norm.hpp>

#include <boost/test/unit_test.hpp>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <initializer_list>
#include <limits>
#include <random>
#include <span>
#include <tuple>
#include <vector>

using namespace limber;

namespace {

using types = std::tuple<float, double>;

// Relative error of a sum of squares: 16 rows, 8 levels of columns, and log₂ of the leaves, each at
// most one rounding; far below this bound.
template <class T>
double constexpr tolerance = 64.0 * std::numeric_limits<T>::epsilon();

template <class T>
long double exact_square_sum(std::vector<T> const& x) {
  long double sum = 0;
  for (T const v : x) sum += static_cast<long double>(v) * v;
  return sum;
}

// A tensor's sum as an executor makes it: leaf by leaf, then the tree.
template <class T>
square_sum<T> sum_of(std::vector<T> const& x) {
  std::vector<square_sum<T>> part;
  auto const n = static_cast<i64>(x.size());
  for (i64 i = 0; i < n; i += leaf_size)
    part.push_back(leaf_square_sum(x.data() + i, std::min(leaf_size, n - i)));
  return tree_sum(part.data(), static_cast<i64>(part.size()));
}

template <class T>
long double exact_value(square_sum<T> q) {
  return std::ldexp(static_cast<long double>(q.s), 2 * q.e);
}

template <class T>
void check_close(std::vector<T> const& x) {
  long double const expected = exact_square_sum(x), root = std::sqrt(expected);
  auto const q = sum_of(x);
  BOOST_TEST_REQUIRE(q.finite());
  BOOST_TEST_REQUIRE(static_cast<double>(std::abs(exact_value(q) - expected)) <=
                     static_cast<double>(expected) * tolerance<T>);
  if (root <= static_cast<long double>(std::numeric_limits<T>::max()))
    BOOST_TEST_REQUIRE(static_cast<double>(std::abs(static_cast<long double>(root_of(q)) - root)) <=
                       static_cast<double>(root) * tolerance<T> +
                           static_cast<double>(std::numeric_limits<T>::denorm_min()));
}

template <class T>
bool same(square_sum<T> a, square_sum<T> b) {
  return std::memcmp(&a.s, &b.s, sizeof a.s) == 0 && (a.e == b.e || a.s == 0);
}

template <class T>
std::vector<T> random_values(std::mt19937_64& random, std::size_t n, int lowest, int highest) {
  std::vector<T> x(n);
  for (T& v : x) {
    T const m = static_cast<T>(std::uniform_real_distribution<double>(-1, 1)(random));
    v = std::ldexp(m, lowest + static_cast<int>(random() % static_cast<unsigned>(highest - lowest + 1)));
  }
  return x;
}

}  // namespace

BOOST_AUTO_TEST_CASE_TEMPLATE(sums_of_all_lengths_agree_with_long_double, T, types) {
  std::mt19937_64 random(1);
  for (auto const n : std::initializer_list<std::size_t>{0, 1, 2, 7, 8, 255, 256, 257, 511, 4095, 4096, 4097,
                                                         8192, 20'000, 100'001}) {
    check_close(random_values<T>(random, n, -2, 2));
    check_close(random_values<T>(random, n, -40, 40));
  }
}

BOOST_AUTO_TEST_CASE(huge_and_tiny_elements_neither_overflow_nor_vanish) {
  std::mt19937_64 random(2);
  check_close(std::vector<float>{3e38f});
  check_close(std::vector<float>(20'000, 3e38f));
  check_close(std::vector<float>{1e-44f});
  check_close(std::vector<float>(20'000, 1e-44f));
  check_close(std::vector<float>{std::numeric_limits<float>::denorm_min()});
  check_close(std::vector<float>{3e19f, -3e19f});  // finite, with an infinite square in float
  check_close(std::vector<float>{1e-30f, 1e-44f, 1e-38f});
  check_close(random_values<float>(random, 9000, -140, 127));
  for (float const big : {3e38f, 1.0f, 1e-37f}) {
    auto x = random_values<float>(random, 9000, -148, -126);
    x[4242] = big;
    check_close(x);
  }
  // Long double has the exponents to check double with.
  check_close(std::vector<double>{1.7e308, 1.7e308, 1e-320});
  check_close(std::vector<double>(5000, 5e-324));
  check_close(random_values<double>(random, 9000, -1060, 1023));
}

BOOST_AUTO_TEST_CASE_TEMPLATE(the_norm_of_extremes_is_in_range, T, types) {
  using limits = std::numeric_limits<T>;
  BOOST_TEST(root_of(sum_of(std::vector<T>{})) == 0);
  BOOST_TEST(root_of(sum_of(std::vector<T>{0, -T{0}})) == 0);
  BOOST_TEST(root_of(sum_of(std::vector<T>{3, 4})) == 5);
  BOOST_TEST(root_of(sum_of(std::vector<T>{limits::max()})) == limits::max());
  BOOST_TEST(root_of(sum_of(std::vector<T>{limits::denorm_min()})) == limits::denorm_min());
  BOOST_TEST(root_of(sum_of(std::vector<T>{limits::min()})) == limits::min());
  BOOST_TEST(std::isinf(root_of(sum_of(std::vector<T>(4, limits::max())))));  // 2 · max is out of range
  BOOST_TEST(sum_of(std::vector<T>(4, limits::max())).finite());              // the sum itself is not
  BOOST_TEST(std::isnan(root_of(sum_of(std::vector<T>{limits::infinity()}))));
}

BOOST_AUTO_TEST_CASE_TEMPLATE(one_element_that_is_not_finite_shows_wherever_it_is, T, types) {
  using limits = std::numeric_limits<T>;
  for (T const bad : {limits::infinity(), -limits::infinity(), limits::quiet_NaN()})
    for (auto const at : std::initializer_list<std::size_t>{0, 1, 255, 256, 4095, 4096, 8999, 9999}) {
      std::vector<T> x(10'000, T{1});
      x[at] = bad;
      auto const q = sum_of(x);
      BOOST_TEST_REQUIRE(!q.finite());
      BOOST_TEST_REQUIRE(std::isnan(value_of(q)));
      BOOST_TEST_REQUIRE(!add(q, {}).finite());
      BOOST_TEST_REQUIRE(!add({}, q).finite());
      BOOST_TEST_REQUIRE(!add(sum_of(std::vector<T>{2}), q).finite());
    }
}

BOOST_AUTO_TEST_CASE_TEMPLATE(a_power_of_two_scales_the_sum_exactly, T, types) {
  std::mt19937_64 random(3);
  auto x = random_values<T>(random, 9001, -3, 3);
  auto const q = sum_of(x);
  for (T& v : x) v = std::ldexp(v, 60);
  auto const scaled = sum_of(x);
  BOOST_TEST(scaled.s == q.s);
  BOOST_TEST(scaled.e == q.e + 60);
}

BOOST_AUTO_TEST_CASE_TEMPLATE(trailing_zeros_and_signs_leave_the_bits_alone, T, types) {
  std::mt19937_64 random(4);
  for (auto const n : std::initializer_list<std::size_t>{1, 100, 257, 4000, 5000}) {
    auto x = random_values<T>(random, n, -5, 5);
    auto const q = sum_of(x);
    for (std::size_t i = 0; i < n; i += 3) x[i] = -x[i];
    BOOST_TEST_REQUIRE(same(sum_of(x), q));
    x.resize((n + 4095) / 4096 * 4096);
    BOOST_TEST_REQUIRE(same(sum_of(x), q));
  }
}

BOOST_AUTO_TEST_CASE_TEMPLATE(the_order_of_addition_is_the_documented_tree, T, types) {
  // Typed independently: columns, eights, then 32 sums; by recursion instead of strides.
  std::mt19937_64 random(5);
  std::vector<T> x = random_values<T>(random, 4096, 0, 0);
  std::vector<T> column(256);
  for (std::size_t i = 0; i < x.size(); ++i) column[i % 256] = std::fma(x[i], x[i], column[i % 256]);
  auto const tree = [](auto const& self, std::vector<T> const& v) -> T {
    if (v.size() == 1) return v[0];
    std::vector<T> half(v.size() / 2);
    for (std::size_t i = 0; i < half.size(); ++i) half[i] = v[i] + v[i + half.size()];
    return self(self, half);
  };
  std::vector<T> eights;
  for (auto i = column.begin(); i != column.end(); i += 8) eights.push_back(tree(tree, {i, i + 8}));
  auto const q = leaf_square_sum(x.data(), 4096);
  BOOST_TEST(std::ldexp(q.s, 2 * q.e) == tree(tree, eights));
  BOOST_TEST(q.s >= 1);
  BOOST_TEST(q.s < 4);
}

// What a device does element by element: the host's short way for ordinary leaves has the same bits.
BOOST_AUTO_TEST_CASE_TEMPLATE(one_pass_over_columns_gives_the_bits_of_a_leaf, T, types) {
  std::mt19937_64 random(8);
  int const edge = square_column<T>::limit;
  auto const one_pass = [](std::vector<T> const& x) {
    std::vector<square_column<T>> columns(256);
    for (std::size_t i = 0; i < x.size(); ++i) columns[i % 256].add(x[i]);
    square_column<T> total;
    for (auto const part : {&square_column<T>::ordinary, &square_column<T>::large, &square_column<T>::tiny}) {
      std::vector<T> column;
      for (auto const& c : columns) column.push_back(c.*part);
      total.*part = limber::detail::column_tree(column.data());
    }
    return leaf_sum(total);
  };
  for (auto const n : std::initializer_list<std::size_t>{1, 255, 256, 1000, 4095, 4096})
    for (int const middle : {0, edge, -edge, 2 * edge, -2 * edge})
      for (int const width : {2, 40, 2 * edge}) {
        auto x = random_values<T>(random, n, middle - width / 2, middle + width / 2);
        x[n / 2] = 0;
        BOOST_TEST_REQUIRE(same(one_pass(x), leaf_square_sum(x.data(), static_cast<i64>(n))));
      }
  for (T const at : {std::ldexp(T{1}, edge), std::ldexp(T{1}, -edge)})
    for (T const v : {std::nextafter(at, T{0}), at, std::nextafter(at, 2 * at)})
      BOOST_TEST(square_column<T>::is_ordinary(v) ==
                 (v >= std::ldexp(T{1}, -edge) && v < std::ldexp(T{1}, edge)));
}

BOOST_AUTO_TEST_CASE_TEMPLATE(leaves_are_added_in_halves_of_a_power_of_two, T, types) {
  std::mt19937_64 random(6);
  std::vector<square_sum<T>> p;
  for (int i = 0; i < 7; ++i) p.push_back(sum_of(random_values<T>(random, 50, -9, 9)));
  auto const expected = add(add(add(p[0], p[1]), add(p[2], p[3])), add(add(p[4], p[5]), p[6]));
  auto const first = p[0];
  BOOST_TEST(same(tree_sum(p.data(), 1), first));
  BOOST_TEST(same(tree_sum(p.data(), 7), expected));
  BOOST_TEST(tree_sum(p.data(), 0).s == 0);
}

BOOST_AUTO_TEST_CASE_TEMPLATE(adding_is_commutative_and_safe_for_every_scale, T, types) {
  std::mt19937_64 random(7);
  int const reach = std::numeric_limits<T>::max_exponent - 30;
  for (int i = 0; i < 20'000; ++i) {
    auto const draw = [&] {
      T const s = static_cast<T>(std::uniform_real_distribution<double>(1, 1e9)(random));
      return square_sum<T>{random() % 10 == 0 ? 0 : s,
                           static_cast<int>(random() % static_cast<unsigned>(2 * reach)) - reach};
    };
    auto const a = draw();
    auto b = draw();
    if (i % 2) b.e = a.e + static_cast<int>(random() % 80) - 40;
    auto const c = add(a, b), d = add(b, a);
    BOOST_TEST_REQUIRE(same(c, d));
    long double const expected = exact_value(a) + exact_value(b);
    BOOST_TEST_REQUIRE(std::abs(exact_value(c) - expected) <=
                       expected * static_cast<long double>(std::numeric_limits<T>::epsilon()));
  }
}

BOOST_AUTO_TEST_CASE(the_value_in_double_is_exact_or_infinite) {
  BOOST_TEST(value_of(square_sum<float>{3, 5}) == 3072);
  BOOST_TEST(value_of(square_sum<float>{1, 126}) == 0x1p252);
  BOOST_TEST(value_of(square_sum<float>{1, -126}) == 0x1p-252);
  BOOST_TEST(std::isinf(value_of(square_sum<double>{1, 1000})));
  BOOST_TEST(value_of(square_sum<double>{}) == 0);
}
