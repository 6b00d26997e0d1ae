// SPDX-License-Identifier: Apache-2.0
// labels: unit property memory
#define BOOST_TEST_MODULE limber.fuse.host
#include <limber/fuse/functors.hpp>
#include <limber/fuse/host.hpp>

#include <boost/test/unit_test.hpp>

#include <core/says.hpp>

#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <tuple>

using namespace limber;
using test::says;

namespace {

struct blend_of_three {
  template <class T>
  LIMBER_HD void operator()(T& x, T const& y, T& z) const noexcept {
    x = math::fma(T(0.5), y, math::mul(x, z));
    z = math::sub(x, y);
  }
};

template <class S>
std::vector<S> random_values(std::size_t n, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<S> out;
  for (std::size_t k = 0; k < n; ++k) out.push_back(S(normal(random)));
  return out;
}

constexpr std::size_t lengths[] = {0, 1, 2, 511, 512, 513, 4095, 4096, 4097, 12'289};

template <class T>
bool same_bits(std::vector<T> const& a, std::vector<T> const& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}

}  // namespace

using storage_types =
    std::tuple<std::tuple<float, float, float>, std::tuple<double, double, double>,
               std::tuple<bf16, float, float>, std::tuple<f16, bf16, float>, std::tuple<bf16, bf16, bf16>>;

BOOST_AUTO_TEST_CASE_TEMPLATE(each_does_what_a_plain_loop_does, Types, storage_types) {
  using X = std::tuple_element_t<0, Types>;
  using Y = std::tuple_element_t<1, Types>;
  using Z = std::tuple_element_t<2, Types>;
  using T = std::conditional_t<std::is_same_v<X, double>, double, float>;
  for (std::size_t n : lengths) {
    auto x = random_values<X>(n, 1);
    auto const y = random_values<Y>(n, 2);
    auto z = random_values<Z>(n, 3);
    auto expected_x = x;
    auto expected_z = z;
    for (std::size_t k = 0; k < n; ++k) {
      T a = static_cast<T>(expected_x[k]), c = static_cast<T>(expected_z[k]);
      T const b = static_cast<T>(y[k]);
      blend_of_three{}(a, b, c);
      expected_x[k] = X(a);
      expected_z[k] = Z(c);
    }
    auto copy_of_y = y;
    tensor_list const lx{view(x, "a")}, ly{view(copy_of_y, "a")}, lz{view(z, "a")};
    host{}.each(blend_of_three{}, inout(lx), in(ly), inout(lz));
    BOOST_TEST(same_bits(x, expected_x));
    BOOST_TEST(same_bits(z, expected_z));
    BOOST_TEST(same_bits(copy_of_y, y));
  }
}

BOOST_AUTO_TEST_CASE(what_is_only_written_is_not_read_and_what_is_only_read_is_not_written) {
  std::vector<bf16> from(700, bf16(2.f));
  std::vector<float> to(700, std::numeric_limits<float>::quiet_NaN());
  tensor_list const a{view(to, "a")}, b{view(from, "a")};
  host{}.each([](auto& x, auto const& y) { x = y + y; }, out(a), in(b));
  BOOST_TEST(std::ranges::all_of(to, [](float x) { return x == 4.f; }));
}

BOOST_AUTO_TEST_CASE(norms_do_not_depend_on_threads_and_follow_the_leaves) {
  for (std::size_t n : lengths) {
    auto x = random_values<float>(n, 7);
    std::vector<double> y(n == 0 ? 0 : 100, 0.5);
    tensor_list const list{view(x, "a"), view(y, "b")};
    host serial;
    norm_report const one = serial.norm(identity{}, in(list));
    std::vector<square_sum<float>> leaves;
    for (std::size_t at = 0; at < n; at += leaf_size)
      leaves.push_back(
          leaf_square_sum(x.data() + at, static_cast<i64>(std::min<std::size_t>(leaf_size, n - at))));
    auto const expected = tree_sum(leaves.data(), static_cast<i64>(leaves.size()));
    BOOST_TEST(one.tensors[0].square == value_of(expected));
    BOOST_TEST(one.tensors[0].root == static_cast<double>(root_of(expected)));
    double plain = 0;
    for (float v : x) plain += static_cast<double>(v) * static_cast<double>(v);
    BOOST_TEST(one.tensors[0].square == plain, boost::test_tools::tolerance(1e-6));
    BOOST_TEST(one.total.square == plain + 25 * (n == 0 ? 0 : 1), boost::test_tools::tolerance(1e-6));
    BOOST_TEST(one.culprit == -1);
#if defined(_OPENMP)
    for (int threads : {2, 3, 5}) {
      host parallel(threads);
      norm_report const many = parallel.norm(identity{}, in(list));
      BOOST_TEST(many.total.square == one.total.square);
      BOOST_TEST(many.total.root == one.total.root);
    }
#endif
  }
}

// fp32 squares overflow from 1.9e19; the finite test looks at exponents and the norm is scaled.
BOOST_AUTO_TEST_CASE(a_large_finite_gradient_is_finite_and_its_norm_is_right) {
  std::vector<float> x(5000, 3e19f);
  tensor_list const list{view(x, "a")};
  host h;
  auto const& r = h.norm(identity{}, in(list));
  BOOST_TEST(r.total.finite);
  BOOST_TEST(r.total.root == 3e19 * std::sqrt(5000.0), boost::test_tools::tolerance(1e-6));
}

BOOST_AUTO_TEST_CASE(the_first_tensor_that_is_not_finite_is_named) {
  for (float bad : {std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity(),
                    std::numeric_limits<float>::quiet_NaN()})
    for (std::size_t where : {std::size_t{0}, std::size_t{4999}}) {
      std::vector<float> x(5000, 1.f), y(5000, 1.f), z(3, 1.f);
      y[where] = bad;
      tensor_list const list{view(x, "a"), view(y, "b"), view(z, "c")};
      host h;
      auto const& r = h.norm(identity{}, in(list));
      BOOST_TEST(!r.total.finite);
      BOOST_TEST(r.culprit == 1);
      BOOST_TEST(r.tensors[0].finite);
      BOOST_TEST(r.tensors[2].finite);
    }
}

BOOST_AUTO_TEST_CASE(packing_weighs_adds_zeroes_and_returns_the_square_in_one_pass) {
  auto g = random_values<float>(6000, 5);
  auto const before = g;
  std::vector<float> sum(6000, 7.f);
  tensor_list const s{view(sum, "a")}, l{view(g, "a")};
  host h;
  double const square = h.norm(pack{3.0, false}, inout(s), inout(l)).total.square;
  double plain = 0;
  for (float v : before) plain += static_cast<double>(v) * static_cast<double>(v);
  BOOST_TEST(square == plain, boost::test_tools::tolerance(1e-6));
  for (std::size_t k = 0; k < g.size(); ++k) BOOST_REQUIRE(sum[k] == 3.f * before[k]);
  BOOST_TEST(std::ranges::all_of(g, [](float x) { return x == 0; }));
  g = before;
  h.norm(pack{0.5, true}, inout(s), inout(l));
  for (std::size_t k = 0; k < g.size(); ++k)
    BOOST_REQUIRE(sum[k] == std::fma(0.5f, before[k], 3.f * before[k]));
}

BOOST_AUTO_TEST_CASE(a_worker_without_samples_may_hold_anything) {
  std::vector<float> g(10, std::numeric_limits<float>::quiet_NaN()), sum(10, 2.f);
  tensor_list const s{view(sum, "a")}, l{view(g, "a")};
  host h;
  BOOST_TEST(h.norm(pack{0, true}, inout(s), inout(l)).total.square == 0);
  BOOST_TEST(std::ranges::all_of(sum, [](float x) { return x == 2.f; }));
  BOOST_TEST(std::ranges::all_of(g, [](float x) { return x == 0.f; }));
}

BOOST_AUTO_TEST_CASE(stochastic_rounding_depends_on_seed_step_and_index_alone) {
  auto const x = random_values<float>(5000, 9);
  auto round = [&](std::size_t cut, rounding how) {
    std::vector<bf16> y(x.size());
    auto from = x;
    // The same elements as one tensor or as two: the origin keeps their indices.
    tensor_list to{view(y, "a")}, of{view(from, "a")};
    std::vector<i64> origin{0};
    if (cut > 0) {
      i64 const n = static_cast<i64>(cut);
      to = {to[0].sub(0, n), to[0].sub(n, to[0].length - n)};
      of = {of[0].sub(0, n), of[0].sub(n, of[0].length - n)};
      origin = {0, n};
    }
    std::vector<rounding> const all(to.size(), how);
    host{}.each(copy{}, out(to, all.data(), origin.data()), in(of));
    return y;
  };
  rounding const how{true, 42, 3};
  auto const one = round(0, how);
  BOOST_TEST(same_bits(one, round(777, how)));
  BOOST_TEST(!same_bits(one, round(0, {true, 42, 4})));
  BOOST_TEST(!same_bits(one, round(0, {true, 43, 3})));
  for (std::size_t k = 0; k < x.size(); ++k)
    BOOST_REQUIRE(one[k].bits == bf16(x[k], how.bits(static_cast<i64>(k))).bits);
}

BOOST_AUTO_TEST_CASE(lists_that_do_not_match_are_named) {
  std::vector<float> a(3), b(4);
  tensor_list const x{view(a, "weight")}, y{view(b, "weight")}, none{};
  host h;
  BOOST_CHECK_EXCEPTION(h.each(copy{}, out(x), in(y)), std::invalid_argument, says("weight", "3", "4"));
  BOOST_CHECK_EXCEPTION(h.each(copy{}, out(x), in(none)), std::invalid_argument, says("1 and 0"));
  std::vector<i64> integers(3);
  tensor_list const z{view(integers, "counts")};
  BOOST_CHECK_EXCEPTION(h.each(copy{}, out(x), in(z)), std::invalid_argument, says("counts", "int64"));
  BOOST_CHECK_EXCEPTION(host(0), std::invalid_argument, says("threads", "0"));
}

BOOST_AUTO_TEST_CASE(memory_is_zeroed_aligned_and_laid_out_as_asked) {
  std::vector<float> a(3);
  std::vector<bf16> b(5);
  std::vector<double> c(7);
  tensor_list const like{view(a, "a"), view(b, "b"), view(c, "c")};
  slab const s = host{}.make(layout_of(like));
  BOOST_REQUIRE(s.parts.size() == 3u);
  BOOST_TEST(name_of(s.parts[1].type) == "f32");
  BOOST_TEST(name_of(s.parts[2].type) == "f64");
  for (auto const& p : s.parts) BOOST_TEST(reinterpret_cast<std::uintptr_t>(p.data) % 16 == 0u);
  for (i64 k = 0; k < s.bytes; ++k) BOOST_REQUIRE(s.data()[k] == std::byte{0});
}
