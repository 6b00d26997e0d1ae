// SPDX-License-Identifier: Apache-2.0
// labels: unit state fault memory
#define BOOST_TEST_MODULE limber.fuzz.store
#include <limber/core/random.hpp>

#include <boost/test/unit_test.hpp>

#include <fuzz/store_input.hpp>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>

using namespace limber;
using namespace limber::testing;

// What the fuzzer (test/fuzz/run store) has found to take different paths.
BOOST_AUTO_TEST_CASE(the_corpus_does_no_harm) {
  int files = 0, admitted = 0;
  for (auto const& e : std::filesystem::directory_iterator(LIMBER_SOURCE_DIR "/test/fuzz/corpus/store")) {
    std::ifstream in(e.path(), std::ios::binary);
    std::string const bytes{std::istreambuf_iterator<char>(in), {}};
    admitted += try_store(bytes) == join_result::admitted ? 1 : 0;
    ++files;
  }
  BOOST_TEST(files >= 10);
  BOOST_TEST(admitted >= 1);
  BOOST_TEST(admitted < files);
}

// A worker reaches the end of every path, so the mutations below start from there.
BOOST_AUTO_TEST_CASE(with_good_entries_a_worker_is_admitted) {
  for (auto const& input : good_stores()) BOOST_TEST((try_store(input) == join_result::admitted));
}

BOOST_AUTO_TEST_CASE(good_entries_with_a_few_bytes_changed_do_no_harm) {
  auto const inputs = good_stores();
  int refused = 0;
  for (std::uint64_t run = 0; run < 1000; ++run) {
    auto input = inputs[run % inputs.size()];
    std::uint64_t k = 0;
    auto random = [&](std::size_t below) {
      return static_cast<std::size_t>(random_bits(31, run, k++) % below);
    };
    for (std::size_t changes = 1 + random(3); changes-- > 0 && input.size() > 1;) {
      std::size_t const at = 1 + random(input.size() - 1);
      switch (random(4)) {
        case 0: input[at] = static_cast<char>(random(256)); break;
        case 1: input[at] = static_cast<char>(input[at] ^ (1 << random(7))); break;
        case 2: input.erase(at, random(20)); break;
        case 3: input.insert(at, 1 + random(20), static_cast<char>('0' + random(10))); break;
      }
    }
    refused += try_store(input) == join_result::refused ? 1 : 0;
  }
  BOOST_TEST(refused > 100);
}
