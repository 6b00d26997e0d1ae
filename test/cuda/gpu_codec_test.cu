// SPDX-License-Identifier: Apache-2.0
// labels: gpu
// timeout: 300
// needs: NCCL CUDA
#define BOOST_TEST_MODULE limber.cuda.gpu_codec
#include <limber/comm/nccl.hpp>
#include <limber/comm/reproducible.hpp>
#include <limber/core/random.hpp>
#include <limber/cuda/codec.cuh>

#include <boost/test/unit_test.hpp>

#include <support/gpu_main.hpp>

#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

using namespace limber;

namespace {

/// Floats of all magnitudes; one in a thousand is not finite.
std::vector<float> numbers(i64 n) {
  std::vector<float> out;
  for (i64 i = 0; i < n; ++i) {
    auto const bits = random_bits(11, 3, static_cast<std::uint64_t>(i));
    double const x =
        std::ldexp(1 + static_cast<double>(bits >> 40) / (1 << 24), static_cast<int>(bits % 60) - 30);
    out.push_back(bits % 997 == 0 ? std::numeric_limits<float>::infinity()
                                  : static_cast<float>(bits % 3 == 0 ? -x : x));
  }
  return out;
}

}  // namespace

// One rank: the sum is what encoding and decoding make of the numbers, on the device and on the host.
BOOST_AUTO_TEST_CASE(a_sum_on_the_device_has_the_bits_of_the_host) {
  i64 const n = 100'003;
  std::vector<piece> const pieces{{0, 1}, {5, 4096}, {4200, n - 4200}};
  auto const x = numbers(n);
  std::vector<float> expected(x.size(), 9), found(x.size(), 9);
  host_codec host;
  std::vector<float> exponents(static_cast<std::size_t>(detail::blocks_of(pieces)));
  std::vector<i64> fixed(static_cast<std::size_t>(detail::elements_of(pieces)));
  host.scan(const_view(x), pieces, exponents.data());
  host.encode(const_view(x), pieces, exponents.data(), 10, fixed.data());
  host.decode(fixed.data(), pieces, exponents.data(), 10, view(expected));

  gpu::stream stream;
  gpu::executor exec{stream};
  auto const make = [&](std::vector<float> const& values) {
    auto a = exec.share<float>(static_cast<i64>(values.size()));
    std::ranges::copy(values, a.host);
    exec.publish(a);
    return a;
  };
  auto const in = make(x);
  auto out = make(found);
  exec.wait(exec.record());
  nccl::communicator engine;
  reproducible comm(engine, reproducible_options{}, gpu::codec{exec});
  comm.all_reduce(const_tensor_view{reinterpret_cast<std::byte const*>(in.device), n, dtype::f32, "in"},
                  tensor_view{reinterpret_cast<std::byte*>(out.device), n, dtype::f32, "out"}, pieces)
      .wait();
  exec.collect(out);
  BOOST_TEST(std::memcmp(out.host, expected.data(), expected.size() * sizeof(float)) == 0);
}
