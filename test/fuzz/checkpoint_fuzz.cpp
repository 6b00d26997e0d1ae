// SPDX-License-Identifier: Apache-2.0
// Built by test/fuzz/run alone: libFuzzer calls this with whatever finds new paths.
#include <fuzz/checkpoint_input.hpp>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>

extern "C" int LLVMFuzzerInitialize(int*, char***) {
  if (char const* const folder = std::getenv("LIMBER_FUZZ_SEEDS")) {
    int k = 0;
    for (auto const& input : limber::testing::good_inputs())
      limber::testing::write_text(std::string(folder) + "/good-" + std::to_string(k++),
                                  {reinterpret_cast<char const*>(input.data()), input.size()});
  }
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
  (void)limber::testing::try_checkpoint({reinterpret_cast<std::byte const*>(data), size});
  return 0;
}
