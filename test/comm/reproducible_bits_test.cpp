// SPDX-License-Identifier: Apache-2.0
// labels: unit property sanitize
#define BOOST_TEST_MODULE limber.comm.reproducible_bits
#include <limber/comm/any_communicator.hpp>
#include <limber/comm/reproducible.hpp>
#include <limber/comm/self.hpp>
#include <limber/comm/threads.hpp>
#include <limber/fuse/bucket_plan.hpp>

#include <boost/test/unit_test.hpp>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <deque>
#include <limits>
#include <numeric>
#include <random>
#include <tuple>
#include <vector>

using namespace limber;
namespace fp = limber::fixed_point;

namespace {

using types = std::tuple<float, bf16, f16>;
template <class T>
using rows = std::vector<std::vector<T>>;  // one per rank

template <class T>
long double number(T x) {
  return static_cast<float>(x);
}
template <class T>
T nothing(bool negative = false) {
  return T(negative ? -0.0f : 0.0f);
}

/// The sum of all rows, one per rank, by pieces; all ranks must have the same bits.
template <class T>
std::vector<T> summed_by(rows<T> const& in, std::vector<piece> const& pieces, reproducible_options how = {},
                         T fill = T(77.0f)) {
  std::vector<std::vector<T>> out(in.size(), std::vector<T>(in[0].size(), fill));
  threads::run(static_cast<int>(in.size()), [&](threads::communicator& engine) {
    reproducible comm(engine, how);
    auto const r = static_cast<std::size_t>(comm.rank());
    comm.all_reduce(const_view(in[r], "in"), view(out[r], "out"), std::span(pieces)).wait();
  });
  for (auto const& o : out)
    BOOST_REQUIRE(o.empty() || std::memcmp(o.data(), out[0].data(), o.size() * sizeof(T)) == 0);
  return out[0];
}
template <class T>
std::vector<T> summed(rows<T> const& in, reproducible_options how = {}) {
  return summed_by(in, {{0, static_cast<i64>(in[0].size())}}, how);
}

template <class T>
bool same(std::vector<T> const& a, std::vector<T> const& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}

// Values of one block: their distribution is drawn once per block, so that blocks differ like layers.
template <class T>
void fill_block(std::span<T> x, std::mt19937_64& random) {
  std::uniform_real_distribution<double> uniform(-1, 1);
  auto const kind = random() % 8;
  int const top = static_cast<int>(random() % 24) - 14;
  for (auto& v : x) {
    double const spread = kind == 0 ? 260 : kind == 1 ? 60 : 12;
    double y =
        uniform(random) * std::ldexp(1.0, top - static_cast<int>(random() % static_cast<unsigned>(spread)));
    if (kind == 2) y *= 1e-30;  // denormal in float
    if (kind == 3) y = 0;       // a layer without gradient
    if (kind == 4 && random() % 2 == 0) y = random() % 2 == 0 ? 0.0 : -0.0;
    if (kind == 5) y = std::round(y * 8);
    v = T(static_cast<float>(y));
  }
}
template <class T>
rows<T> drawn(std::size_t ranks, std::size_t n, std::mt19937_64& random) {
  rows<T> out(ranks, std::vector<T>(n));
  for (auto& row : out)
    for (std::size_t i = 0; i < n; i += 256)
      fill_block(std::span(row).subspan(i, std::min<std::size_t>(256, n - i)), random);
  // A contribution that cancels another one almost.
  if (ranks > 1 && random() % 2 == 0)
    for (std::size_t i = 0; i < n; i += 3)
      out[1][i] = T(-static_cast<float>(out[0][i]) * (random() % 2 == 0 ? 1.0f : 1.0009f));
  return out;
}

/// The nearest value of T, ties to even, by comparing neighbours.
template <class T>
T nearest(long double exact) {
  using word = fp::word<T>;
  auto bits = std::bit_cast<word>(T(static_cast<float>(exact)));
  T best = std::bit_cast<T>(bits);
  for (int const step : {-1, 1}) {
    T const other = std::bit_cast<T>(static_cast<word>(bits + static_cast<word>(step)));
    if (!math::finite(static_cast<float>(other)) || !math::finite(static_cast<float>(best))) continue;
    long double const a = std::fabs(number(best) - exact), b = std::fabs(number(other) - exact);
    if (b < a || (b == a && std::bit_cast<word>(other) % 2 == 0)) best = other;
  }
  return exact == 0 ? T(0.0f) : best;
}

}  // namespace

BOOST_AUTO_TEST_CASE_TEMPLATE(the_order_of_ranks_and_ranks_without_contribution_change_no_bit, T, types) {
  std::mt19937_64 random(11);
  for (int round = 0; round < 25; ++round) {
    auto const n = static_cast<std::size_t>(random() % 1300);
    auto mine = drawn<T>(1 + random() % 5, n, random);
    auto const expected = summed(mine);
    std::ranges::shuffle(mine, random);
    BOOST_REQUIRE(same(summed(mine), expected));
    // Contributions on some ranks of a larger world, whose other ranks contribute zeros of both signs.
    auto const more = 1 + random() % 3;
    for (std::size_t k = 0; k < more; ++k)
      mine.insert(mine.begin() + static_cast<std::ptrdiff_t>(random() % (mine.size() + 1)),
                  std::vector<T>(n, nothing<T>(random() % 2 == 0)));
    BOOST_REQUIRE(same(summed(mine), expected));
    // Elements of one contribution held by two ranks: neither merges anything.
    auto const whole = mine[0];
    mine.emplace_back(n, nothing<T>());
    for (std::size_t i = 0; i < n; ++i)
      if (random() % 2 == 0) mine.back()[i] = whole[i], mine[0][i] = nothing<T>();
    BOOST_REQUIRE(same(summed(mine), expected));
  }
}

// The docstring's formula in other arithmetic.
BOOST_AUTO_TEST_CASE_TEMPLATE(sums_follow_the_formula_and_the_bound, T, types) {
  std::mt19937_64 random(12);
  for (int round = 0; round < 25; ++round) {
    auto const n = static_cast<std::size_t>(1 + random() % 900);
    auto const in = drawn<T>(1 + random() % 6, n, random);
    i64 const most = std::vector<i64>{8, 9, 1024, i64{1} << 31}[random() % 4];
    auto const out = summed(in, {.most_ranks = most});
    int const guard = static_cast<int>(std::ceil(std::log2(static_cast<double>(most))));
    for (std::size_t first = 0; first < n; first += 256) {
      std::size_t const last = std::min(n, first + 256);
      long double largest = 0;
      for (auto const& row : in)
        for (std::size_t i = first; i < last; ++i) largest = std::max(largest, std::fabs(number(row[i])));
      int exponent = 0;
      (void)std::frexp(largest, &exponent);
      int const lowest = std::is_same_v<T, f16> ? -13 : -125;  // of the smallest normal number
      if (largest == 0 || exponent < lowest) exponent = lowest;
      int const unit = exponent - (63 - guard);
      for (std::size_t i = first; i < last; ++i) {
        long double total = 0, exact = 0, sizes = 0;
        for (auto const& row : in) {
          total += std::nearbyint(std::ldexp(number(row[i]), -unit));  // integers below 2^63: exact
          exact += number(row[i]);
          sizes += std::fabs(number(row[i]));
        }
        long double const fixed = std::ldexp(total, unit);
        if (std::fabs(fixed) >= number(std::bit_cast<T>(static_cast<fp::word<T>>(fp::infinity<T> - 1))))
          continue;  // infinities: below
        T const expected = nearest<T>(fixed);
        BOOST_REQUIRE_MESSAGE(std::memcmp(&out[i], &expected, sizeof(T)) == 0,
                              number(out[i]) << " is not " << number(expected) << " at " << i);
        long double const bound =
            std::ldexp(static_cast<long double>(in.size()) * largest, guard - 63) + sizes * 0x1p-60L;
        BOOST_REQUIRE(std::fabs(fixed - exact) <= bound);
      }
    }
  }
}

// Within the span that the docstring names, the exact sum is rounded once: no fp32 sum can be nearer.
BOOST_AUTO_TEST_CASE_TEMPLATE(within_the_span_no_sum_of_floats_is_nearer, T, types) {
  std::mt19937_64 random(13);
  std::uniform_real_distribution<float> uniform(1, 2);
  i64 worse = 0;
  for (i64 const most : {i64{2}, i64{16}, i64{1024}, i64{65536}})
    for (int round = 0; round < 6; ++round) {
      int const guard = static_cast<int>(std::log2(most));
      int const span = std::is_same_v<T, float> ? 39 - guard : std::is_same_v<T, bf16> ? 55 - guard : 20;
      std::size_t const n = 256 + random() % 200, ranks = most == 2 ? 2 : 2 + random() % 5;
      rows<T> in(ranks, std::vector<T>(n));
      int const top = std::is_same_v<T, f16> ? 6 : static_cast<int>(random() % 60) - 30;
      for (auto& row : in)
        for (auto& x : row)
          x = T((random() % 2 == 0 ? 1.0f : -1.0f) *
                std::ldexp(uniform(random), top - static_cast<int>(random() % static_cast<unsigned>(span))));
      // The whole span is used, by neighbours that matter in one sum.
      in[0][0] = T(std::ldexp(1.0f, top)), in[1][0] = T(std::ldexp(-1.0f, top - span + 1));
      auto const out = summed(in, {.most_ranks = most});
      for (std::size_t i = 0; i < n; ++i) {
        long double exact = 0;
        float plain = 0;
        for (auto const& row : in) {
          exact += number(row[i]);
          plain += static_cast<float>(row[i]);
        }
        T const expected = nearest<T>(exact);
        BOOST_REQUIRE(std::memcmp(&out[i], &expected, sizeof(T)) == 0);
        BOOST_REQUIRE(std::fabs(number(out[i]) - exact) <= std::fabs(number(T(plain)) - exact));
        worse += std::fabs(number(out[i]) - exact) < std::fabs(number(T(plain)) - exact) ? 1 : 0;
      }
    }
  if (std::is_same_v<T, float>) BOOST_TEST(worse > 100);  // of a plain sum, somewhere
}

BOOST_AUTO_TEST_CASE(beyond_the_span_bits_are_lost_as_documented) {
  // 1 and 2^−k: the unit of the block is 2^−52 at ten guard bits.
  for (int const k : {23, 29, 40, 52, 53, 54}) {
    float const small = std::ldexp(1.0f, -k);
    rows<float> const in{{1.0f, small}, {-1.0f, small}};
    auto const out = summed(in);
    BOOST_TEST(out[0] == 0);
    BOOST_TEST(out[1] == (k <= 52 ? 2 * small : 0.0f));  // half a unit goes to the even zero
  }
}

BOOST_AUTO_TEST_CASE_TEMPLATE(something_not_finite_makes_its_block_nan_and_no_other, T, types) {
  std::mt19937_64 random(14);
  for (float const bad : {std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity(),
                          std::numeric_limits<float>::quiet_NaN()})
    for (std::size_t const where : {0u, 255u, 256u, 511u, 600u}) {
      rows<T> in(3, std::vector<T>(700, T(1.0f)));
      in[random() % 3][where] = T(bad);
      auto const out = summed(in);
      for (std::size_t i = 0; i < out.size(); ++i)
        if (i / 256 == where / 256)
          BOOST_REQUIRE(std::bit_cast<fp::word<T>>(out[i]) == fp::nan<T>);
        else
          BOOST_REQUIRE(number(out[i]) == 3);
    }
}

BOOST_AUTO_TEST_CASE_TEMPLATE(zeros_are_positive_and_overflow_is_infinite, T, types) {
  auto const largest = std::bit_cast<T>(static_cast<fp::word<T>>(fp::infinity<T> - 1));
  T const least = std::bit_cast<T>(fp::word<T>{1});
  rows<T> const in{{nothing<T>(true), T(1.0f), largest, T(-static_cast<float>(largest))},
                   {nothing<T>(true), T(-1.0f), largest, T(-static_cast<float>(largest))}};
  auto const out = summed(in);
  BOOST_TEST(std::bit_cast<fp::word<T>>(out[0]) == 0);
  BOOST_TEST(std::bit_cast<fp::word<T>>(out[1]) == 0);
  BOOST_TEST(std::isinf(number(out[2])));
  BOOST_TEST(number(out[2]) > 0);
  BOOST_TEST(number(out[3]) == -number(out[2]));
  // The smallest value, alone in its block.
  auto const small = summed(rows<T>{{least}, {least}, {nothing<T>()}});
  BOOST_TEST(std::bit_cast<fp::word<T>>(small[0]) == 2);
}

BOOST_AUTO_TEST_CASE_TEMPLATE(padding_is_neither_read_nor_written, T, types) {
  std::mt19937_64 random(15);
  std::vector<piece> const pieces{{3, 1}, {8, 300}, {310, 0}, {312, 513}};
  std::size_t const n = 830;
  auto clean = drawn<T>(3, n, random), dirty = clean;
  std::vector<char> inside(n);
  for (auto const& p : pieces)
    std::fill_n(inside.begin() + static_cast<std::ptrdiff_t>(p.offset), p.length, char{1});
  for (auto& row : dirty)
    for (std::size_t i = 0; i < n; ++i)
      if (inside[i] == 0) row[i] = T(i % 2 == 0 ? 3e4f : std::numeric_limits<float>::quiet_NaN());
  auto const a = summed_by(clean, pieces), b = summed_by(dirty, pieces);
  BOOST_TEST(same(a, b));
  for (std::size_t i = 0; i < n; ++i)
    if (inside[i] == 0) BOOST_REQUIRE(number(b[i]) == number(T(77.0f)));
  // Each piece equals its separate sum.
  for (auto const& p : pieces) {
    rows<T> alone;
    for (auto const& row : clean)
      alone.emplace_back(row.begin() + p.offset, row.begin() + p.offset + p.length);
    auto const sum = summed(alone);
    for (std::size_t i = 0; i < sum.size(); ++i)
      BOOST_REQUIRE(std::memcmp(&sum[i], &a[i + static_cast<std::size_t>(p.offset)], sizeof(T)) == 0);
  }
}

// Tensors of all sizes in plans of all caps, as a strategy sums them.
BOOST_AUTO_TEST_CASE(the_cap_of_buckets_changes_no_bit) {
  std::mt19937_64 random(16);
  std::vector<i64> const lengths{5, 10'000, 1, 700, 0, 4'097, 256, 255, 33, 20'001, 3};
  std::deque<std::string> names;
  for (auto const& n : lengths) names.push_back(text("t", names.size(), "-", n));
  int const ranks = 3;
  for (std::optional<dtype> const wire : {std::optional<dtype>{}, {dtype::bf16}, {dtype::f16}}) {
    std::vector<std::vector<std::vector<std::byte>>> seen;  // per cap and tensor
    i64 cuts = 0;
    std::vector<rows<float>> values;
    for (i64 const n : lengths) values.push_back(drawn<float>(ranks, static_cast<std::size_t>(n), random));
    for (i64 const cap : {i64{1} << 10, i64{1} << 15, i64{1} << 20}) {
      tensor_list list;
      for (std::size_t k = 0; k < lengths.size(); ++k)
        list.push_back({nullptr, lengths[k], dtype::f32, names[k]});
      bucket_plan const plan = plan_buckets(list, {.first_bytes = cap, .bytes = cap, .wire = wire});
      cuts += static_cast<i64>(plan.buckets.size());
      std::vector<std::vector<std::byte>> result(lengths.size());
      threads::run(ranks, [&](threads::communicator& engine) {
        reproducible comm(engine);
        auto make = [&] {
          return slab_over(
              {new std::byte[static_cast<std::size_t>(plan.where.bytes)], [](auto* p) { delete[] p; }},
              plan.where);
        };
        slab const from = make(), to = make();
        std::memset(from.data(), 0xff, static_cast<std::size_t>(from.bytes));  // padding is NaN
        for (std::size_t k = 0; k < lengths.size(); ++k) {
          auto const& row = values[k][static_cast<std::size_t>(comm.rank())];
          with_type(from.parts[k].type, [&]<class T>() {
            if constexpr (!std::is_integral_v<T>)
              for (std::size_t i = 0; i < row.size(); ++i) from.parts[k].as<T>()[i] = static_cast<T>(row[i]);
          });
        }
        communicator const group(comm);
        std::vector<any_request> open;
        for (auto const& b : plan.buckets)
          open.push_back(
              group.all_reduce(bucket_view(from, b), bucket_view(to, b), std::span<piece const>(b.pieces)));
        for (auto& q : open) q.wait();
        if (comm.rank() == 0)
          for (std::size_t k = 0; k < lengths.size(); ++k)
            result[k].assign(to.parts[k].data, to.parts[k].data + to.parts[k].bytes());
      });
      seen.push_back(result);
    }
    BOOST_TEST(cuts > 15);
    BOOST_TEST((seen[0] == seen[1] && seen[1] == seen[2]));
  }
}

BOOST_AUTO_TEST_CASE_TEMPLATE(reduce_scatter_sums_each_part_as_all_reduce_would_alone, T, types) {
  std::mt19937_64 random(17);
  for (std::size_t const n : {0u, 1u, 256u, 700u})
    for (std::size_t const ranks : {1u, 2u, 4u}) {
      auto const in = drawn<T>(ranks, n * ranks, random);
      rows<T> out(ranks, std::vector<T>(n));
      threads::run(static_cast<int>(ranks), [&](threads::communicator& engine) {
        reproducible comm(engine);
        auto const r = static_cast<std::size_t>(comm.rank());
        comm.reduce_scatter(const_view(in[r], "in"), view(out[r], "out")).wait();
      });
      for (std::size_t r = 0; r < ranks; ++r) {
        rows<T> part;
        for (auto const& row : in)
          part.emplace_back(row.begin() + static_cast<std::ptrdiff_t>(r * n),
                            row.begin() + static_cast<std::ptrdiff_t>((r + 1) * n));
        BOOST_TEST(same(out[r], summed(part)));
      }
    }
}

BOOST_AUTO_TEST_CASE(control_values_in_double_depend_on_the_values_only) {
  std::mt19937_64 random(18);
  std::normal_distribution<double> normal;
  auto const sum = [](std::vector<std::vector<double>> const& in) {
    std::vector<double> out(in[0].size());
    threads::run(static_cast<int>(in.size()), [&](threads::communicator& engine) {
      reproducible comm(engine);
      std::vector<double> mine(in[0].size());
      comm.all_reduce(const_view(in[static_cast<std::size_t>(comm.rank())]), view(mine)).wait();
      if (comm.rank() == 0) out = mine;
    });
    return out;
  };
  for (int round = 0; round < 40; ++round) {
    std::vector<std::vector<double>> in(2 + random() % 5, std::vector<double>(64));
    for (auto& row : in)
      for (auto& x : row) x = normal(random) * std::pow(10.0, static_cast<int>(random() % 30));
    auto const first = sum(in);
    for (std::size_t i = 0; i < 64; ++i) {
      long double exact = 0, sizes = 0;
      for (auto const& row : in) exact += row[i], sizes += std::fabs(row[i]);
      BOOST_TEST(std::fabs(first[i] - exact) <= sizes * 0x1p-52L * static_cast<long double>(in.size()));
    }
    std::ranges::shuffle(in, random);
    in.insert(in.begin() + 1, std::vector<double>(64, round % 2 == 0 ? 0.0 : -0.0));
    BOOST_TEST(same(sum(in), first));
  }
  double const inf = std::numeric_limits<double>::infinity(), nan = std::numeric_limits<double>::quiet_NaN();
  auto const special = sum({{inf, inf, nan, -0.0, -inf}, {1, -inf, inf, -0.0, 1}});
  BOOST_TEST(special[0] == inf);
  BOOST_TEST(std::isnan(special[1]));
  BOOST_TEST(std::isnan(special[2]));
  BOOST_TEST((special[3] == 0 && !std::signbit(special[3])));
  BOOST_TEST(special[4] == -inf);
}

// Of one rank alone: no shortcut, or a world of one would differ.
BOOST_AUTO_TEST_CASE_TEMPLATE(one_rank_gets_what_it_gets_among_idle_ones, T, types) {
  std::mt19937_64 random(19);
  auto const in = drawn<T>(1, 1000, random);
  rows<T> among{std::vector<T>(1000, nothing<T>()), in[0]};
  reproducible alone(self{});
  std::vector<T> out(1000);
  alone.all_reduce(const_view(in[0]), view(out)).wait();
  BOOST_TEST(same(out, summed(among)));
}
