// SPDX-License-Identifier: Apache-2.0
// labels: unit
#define BOOST_TEST_MODULE limber.examples.cuda_drop_in
#include <boost/test/unit_test.hpp>

#include <cstddef>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

namespace {

std::filesystem::path const folder = std::filesystem::path(LIMBER_SOURCE_DIR) / "examples" / "drop_in";

std::vector<std::string> lines_of(char const* name) {
  std::ifstream in(folder / name);
  BOOST_REQUIRE_MESSAGE(in.is_open(), "cannot read " << name);
  std::vector<std::string> out;
  for (std::string line; std::getline(in, line);) out.push_back(line);
  return out;
}

struct difference {
  std::size_t gone = 0, came = 0;
};

// As `diff` counts.
difference compare(char const* before, char const* after) {
  auto const command = "diff '" + (folder / before).string() + "' '" + (folder / after).string() + "'";
  std::FILE* const in = popen(command.c_str(), "r");
  BOOST_REQUIRE(in != nullptr);
  difference out;
  bool starts = true;
  for (int c = std::fgetc(in); c != EOF; c = std::fgetc(in)) {
    if (starts && c == '<') ++out.gone;
    if (starts && c == '>') ++out.came;
    starts = c == '\n';
  }
  int const status = pclose(in);
  BOOST_REQUIRE_MESSAGE(status == 0 || status == 256, "diff failed with status " << status);
  return out;
}

}  // namespace

BOOST_AUTO_TEST_CASE(adopting_the_fused_step_changes_at_most_15_lines) {
  auto const changed = compare("before.cu", "after.cu");
  BOOST_TEST(changed.gone <= 15u);
  BOOST_TEST(changed.came <= 15u);
  BOOST_TEST(changed.came >= 5u);  // not two copies of one program
}

BOOST_AUTO_TEST_CASE(both_programs_are_shorter_than_120_lines) {
  BOOST_TEST(lines_of("before.cu").size() < 120u);
  BOOST_TEST(lines_of("after.cu").size() < 120u);
}

BOOST_AUTO_TEST_CASE(only_the_program_after_knows_limber) {
  auto const mentions = [](char const* name) {
    bool found = false;
    for (auto const& line : lines_of(name)) found |= line.find("limber::") != std::string::npos;
    return found;
  };
  BOOST_TEST(!mentions("before.cu"));
  BOOST_TEST(mentions("after.cu"));
}
