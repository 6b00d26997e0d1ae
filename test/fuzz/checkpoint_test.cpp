// SPDX-License-Identifier: Apache-2.0
// labels: unit state fault memory
// needs: state
#define BOOST_TEST_MODULE limber.fuzz.checkpoint
#include <boost/test/unit_test.hpp>

#include <fuzz/checkpoint_input.hpp>

#include <algorithm>

using namespace limber;
using namespace limber::testing;

// What the fuzzer (test/fuzz/run) has found to take different paths.
BOOST_AUTO_TEST_CASE(the_corpus_does_no_harm) {
  int files = 0, accepted = 0;
  for (auto const& e : fs::directory_iterator(LIMBER_SOURCE_DIR "/test/fuzz/corpus/checkpoint")) {
    auto const s = read_text(e.path());
    accepted += try_checkpoint(std::as_bytes(std::span(s))) == parse_result::accepted ? 1 : 0;
    ++files;
  }
  BOOST_TEST(files >= 10);
  BOOST_TEST(accepted >= 1);
}

// Good inputs reach the end of every path, so the mutations below start from there.
BOOST_AUTO_TEST_CASE(good_inputs_are_accepted) {
  for (auto const& input : good_inputs()) BOOST_TEST((try_checkpoint(input) == parse_result::accepted));
}

BOOST_AUTO_TEST_CASE(good_inputs_with_a_few_bytes_changed_do_no_harm) {
  auto const inputs = good_inputs();
  int refused = 0;
  for (std::uint64_t run = 0; run < 4000; ++run) {
    auto input = inputs[run % inputs.size()];
    std::uint64_t k = 0;
    auto random = [&](std::size_t below) {
      return static_cast<std::size_t>(random_bits(31, run, k++) % below);
    };
    for (std::size_t changes = 1 + random(3); changes-- > 0;) {
      std::size_t const at = 1 + random(input.size() - 1);
      auto const place = input.begin() + static_cast<std::ptrdiff_t>(at);
      switch (random(5)) {
        case 0: *place = static_cast<std::byte>(random(256)); break;
        case 1: *place ^= static_cast<std::byte>(1u << random(8)); break;
        case 2:
          input.erase(place, place + static_cast<std::ptrdiff_t>(
                                         random(std::min<std::size_t>(40, input.size() - at))));
          break;
        case 3: input.insert(place, 1 + random(20), static_cast<std::byte>(random(256))); break;
        case 4: std::swap(*place, input[1 + random(input.size() - 1)]); break;
      }
    }
    refused += try_checkpoint(input) == parse_result::refused ? 1 : 0;
  }
  BOOST_TEST(refused > 3000);
}
