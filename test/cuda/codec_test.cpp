// SPDX-License-Identifier: Apache-2.0
// labels: kernel property memory
#define BOOST_TEST_MODULE limber.cuda.codec
#include <limber/comm/reproducible.hpp>
#include <limber/comm/threads.hpp>
#include <limber/core/random.hpp>
#include <limber/cuda/codec.hpp>

#include <boost/test/unit_test.hpp>

#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

using namespace limber;

namespace {

using emulated = gpu::basic_executor<gpu::emulator>;
using emulated_codec = gpu::basic_codec<gpu::emulator>;

/// Numbers of all magnitudes, some subnormal, some zero, and in some places what is not finite.
template <class T>
std::vector<T> numbers(std::uint64_t seed, i64 n, bool finite) {
  std::vector<T> out;
  for (i64 i = 0; i < n; ++i) {
    auto const bits = random_bits(seed, 3, static_cast<std::uint64_t>(i));
    auto const exponent = static_cast<int>(bits % 40) - 20;
    double x = std::ldexp(1 + static_cast<double>(bits >> 40) / (1 << 24), exponent);
    if (bits % 11 == 0) x = 0;
    if (bits % 7 == 0) x = -x;
    if (bits % 29 == 0) x = std::ldexp(x, -130);
    if (!finite && bits % 997 == 0) x = std::numeric_limits<double>::infinity();
    if (!finite && bits % 991 == 0) x = std::numeric_limits<double>::quiet_NaN();
    out.push_back(static_cast<T>(static_cast<float>(x)));
  }
  return out;
}

/// Tensors in a view, with gaps, some of them empty.
std::vector<piece> random_pieces(std::uint64_t seed, i64& length) {
  std::vector<piece> out;
  i64 at = 0;
  for (std::uint64_t k = 0; k < 1 + seed % 5; ++k) {
    auto const bits = random_bits(seed, 4, k);
    at += static_cast<i64>(bits % 9);
    i64 const n = bits % 6 == 0 ? 0 : static_cast<i64>((bits >> 8) % 900);
    out.push_back({at, n});
    at += n;
  }
  length = at + 3;
  return out;
}

template <class T>
bool same_bytes(std::vector<T> const& a, std::vector<T> const& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}

template <class T>
void compare_with_host(std::uint64_t seed) {
  emulated exec{gpu::emulator::options{.seed = seed}};
  emulated_codec device{exec};
  host_codec host;
  i64 length = 0;
  auto const pieces = random_pieces(seed, length);
  auto const x = numbers<T>(seed, length, seed % 3 != 0);
  auto const blocks = static_cast<std::size_t>(detail::blocks_of(pieces));
  auto const elements = static_cast<std::size_t>(detail::elements_of(pieces));
  int const guard = 1 + static_cast<int>(seed % 20);

  std::vector<float> a(blocks, -1), b(blocks, -2);
  host.scan(const_view(x), pieces, a.data());
  device.scan(const_view(x), pieces, b.data());
  BOOST_TEST(same_bytes(a, b));
  std::vector<i64> p(elements, -1), q(elements, -2);
  host.encode(const_view(x), pieces, a.data(), guard, p.data());
  device.encode(const_view(x), pieces, b.data(), guard, q.data());
  BOOST_TEST(same_bytes(p, q));
  std::vector<T> y(x.size(), T(7.0f)), z(y);
  host.decode(p.data(), pieces, a.data(), guard, view(y));
  device.decode(q.data(), pieces, b.data(), guard, view(z));
  device.settle();
  BOOST_TEST(same_bytes(y, z));
}

}  // namespace

BOOST_AUTO_TEST_CASE(the_device_has_the_bits_of_the_host) {
  for (std::uint64_t seed = 0; seed < 60; ++seed) {
    compare_with_host<float>(seed);
    compare_with_host<bf16>(seed);
    compare_with_host<f16>(seed);
  }
}

BOOST_AUTO_TEST_CASE(marks_and_short_vectors_cross) {
  emulated exec;
  emulated_codec codec{exec};
  emulated_codec::buffer<float> words;
  codec.put_marks(codec.reserve(words, 2), 17);
  BOOST_TEST((codec.marks(words.data()) == std::pair(17.0f, -17.0f)));
  emulated_codec::buffer<double> memory;
  std::vector<double> const from{1, -2, 3};
  std::vector<double> to(3);
  codec.write(from, codec.reserve(memory, 3));
  codec.read(memory.data(), to);
  BOOST_TEST(to == from);
}

// Sums over ranks, each with an emulated device of its own.
BOOST_AUTO_TEST_CASE(sums_over_ranks_have_the_bits_of_the_host) {
  i64 length = 0;
  auto const pieces = random_pieces(23, length);
  threads::run(3, [&](threads::communicator& engine) {
    emulated exec{gpu::emulator::options{.seed = 5}};
    auto const seed = static_cast<std::uint64_t>(engine.rank()) + 1;
    auto const all = [&](auto& comm) {
      auto const x = numbers<float>(seed, length, true);
      std::vector<float> sum(x.size(), 9), whole(x.size()), part(2);
      std::vector<double> const few{1e17 * static_cast<double>(seed), -1, 1};
      std::vector<double> total(3);
      std::vector<i64> const counts{static_cast<i64>(seed)};
      std::vector<i64> counted(1);
      auto first = comm.all_reduce(const_view(x), view(sum), pieces);
      auto second = comm.all_reduce(const_view(x), view(whole));
      comm.all_reduce(const_view(few), view(total)).wait();
      second.wait();
      first.wait();
      comm.reduce_scatter(const_view(std::span(x).first(6)), view(part)).wait();
      comm.all_reduce(const_view(counts), view(counted)).wait();
      std::vector<double> out(sum.begin(), sum.end());
      out.insert(out.end(), whole.begin(), whole.end());
      out.insert(out.end(), part.begin(), part.end());
      out.insert(out.end(), total.begin(), total.end());
      out.push_back(static_cast<double>(counted[0]));
      return out;
    };
    reproducible on_host(engine);
    auto const expected = all(on_host);
    reproducible on_device(engine, reproducible_options{}, emulated_codec{exec});
    auto const found = all(on_device);
    if (!same_bytes(expected, found)) throw std::runtime_error("other bits than on the host");
    if (found.back() != 6) throw std::runtime_error("integers were not added");
  });
}

BOOST_AUTO_TEST_CASE(nothing_is_allocated_for_what_was_seen) {
  emulated exec;
  emulated_codec codec{exec};
  std::vector<float> const x(1000, 1);
  std::array<piece, 2> const pieces{{{0, 300}, {300, 700}}};
  emulated_codec::buffer<float> exponents;
  emulated_codec::buffer<i64> fixed;
  auto const once = [&] {
    float* const e = codec.reserve(exponents, detail::blocks_of(pieces));
    codec.scan(const_view(x), pieces, e);
    codec.encode(const_view(x), pieces, e, 10, codec.reserve(fixed, 1000));
  };
  once();
  auto const before = exec.device().seen();
  once();
  BOOST_TEST(exec.device().seen().allocations == before.allocations);
  BOOST_TEST(exec.device().seen().uploads == before.uploads);
  BOOST_TEST(exec.device().seen().launches == before.launches + 2);
}
