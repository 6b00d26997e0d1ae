// SPDX-License-Identifier: Apache-2.0
// Built by test/fuzz/run alone: libFuzzer calls this with whatever finds new paths.
#include <fuzz/store_input.hpp>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <string>

extern "C" int LLVMFuzzerInitialize(int*, char***) {
  if (char const* const folder = std::getenv("LIMBER_FUZZ_SEEDS")) {
    int k = 0;
    for (auto const& input : limber::testing::good_stores())
      std::ofstream(std::string(folder) + "/good-" + std::to_string(k++), std::ios::binary) << input;
  }
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
  (void)limber::testing::try_store({reinterpret_cast<char const*>(data), size});
  return 0;
}
