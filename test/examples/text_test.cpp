// SPDX-License-Identifier: Apache-2.0
// labels: unit
// needs: ZLIB
#define BOOST_TEST_MODULE limber.examples.text
#include "../../examples/language_model/text.hpp"

#include "core/says.hpp"
#include "files.hpp"

#include <boost/test/unit_test.hpp>

#include <filesystem>
#include <string>

using example::bad_input;
using limber::test::says;

namespace {
std::string const long_enough(3000, 'x');
}

BOOST_AUTO_TEST_CASE(a_missing_text_is_named) {
  BOOST_CHECK_EXCEPTION((void)example::load_text("missing"), bad_input,
                        says("--text missing: ", "No such file"));
}

BOOST_AUTO_TEST_CASE(a_folder_is_no_text) {
  limber::test::temporary_folder const folder;
  BOOST_CHECK_EXCEPTION((void)example::load_text(folder.path()), bad_input,
                        says("--text", folder.path().c_str(), "is a folder"));
}

BOOST_AUTO_TEST_CASE(an_empty_text_is_named) {
  limber::test::temporary_folder const folder;
  auto const path = folder.write("empty.txt", "");
  BOOST_CHECK_EXCEPTION((void)example::load_text(path), bad_input, says("--text", "empty.txt", "is empty"));
}

BOOST_AUTO_TEST_CASE(a_short_text_is_named_with_its_length) {
  limber::test::temporary_folder const folder;
  auto const path = folder.write("short.txt", std::string(2047, 'x'));
  BOOST_CHECK_EXCEPTION((void)example::load_text(path), bad_input,
                        says("--text", "short.txt", "has 2047 bytes", "at least 2048"));
  BOOST_TEST(example::load_text(folder.write("enough.txt", std::string(2048, 'x'))).bytes.size() == 2048u);
}

BOOST_AUTO_TEST_CASE(a_text_that_may_not_be_read_is_named) {
  limber::test::temporary_folder const folder;
  auto const path = folder.write("secret.txt", long_enough);
  std::filesystem::permissions(path, std::filesystem::perms::none);
  // Root may read everything.
  if (access(path.c_str(), R_OK) == 0) {
    BOOST_TEST(example::load_text(path).bytes == long_enough);
  } else {
    BOOST_CHECK_EXCEPTION((void)example::load_text(path), bad_input,
                          says("--text", "secret.txt", "cannot be opened", "Permission denied"));
  }
}

BOOST_AUTO_TEST_CASE(every_byte_is_kept) {
  limber::test::temporary_folder const folder;
  auto const bytes = limber::test::pattern(4096);
  BOOST_TEST(example::load_text(folder.write("binary", bytes)).bytes == bytes);
}

BOOST_AUTO_TEST_CASE(a_sample_is_a_byte_and_the_twelve_before_it) {
  example::corpus const text{limber::test::pattern(3000), "pattern"};
  for (limber::i64 const i : {limber::i64{0}, limber::i64{17}, text.size() - 1}) {
    auto const at = static_cast<std::size_t>(i);
    BOOST_TEST(text.before(i) == std::string_view(text.bytes).substr(at, 12));
    BOOST_TEST(int{text.target(i)} == int{static_cast<unsigned char>(text.bytes[at + 12])});
  }
  BOOST_TEST(text.size() == 3000 - 12);
}

BOOST_AUTO_TEST_CASE(the_last_tenth_is_held_out) {
  example::corpus const text{std::string(10'012, 'x'), ""};
  BOOST_TEST(text.size() == 10'000);
  BOOST_TEST(text.train_size() == 9'000);
}

BOOST_AUTO_TEST_CASE(the_project_text_is_the_readme_then_the_headers_in_order) {
  limber::test::temporary_folder const folder;
  std::filesystem::create_directories(folder.path() / "include" / "b");
  std::filesystem::create_directories(folder.path() / "cuda");
  folder.write("README.md", "readme " + long_enough);
  folder.write("include/b/two.hpp", "two ");
  folder.write("include/a.hpp", "one ");
  folder.write("include/notes.txt", "not a header ");
  folder.write("cuda/three.cuh", "zero ");
  BOOST_TEST(example::project_text(folder.path()).bytes == "readme " + long_enough + "zero one two ");
}

BOOST_AUTO_TEST_CASE(a_project_without_text_is_named) {
  limber::test::temporary_folder const folder;
  BOOST_CHECK_EXCEPTION((void)example::project_text(folder.path()), bad_input,
                        says(folder.path().c_str(), "has 0 bytes", "--text"));
}

BOOST_AUTO_TEST_CASE(what_cannot_be_shown_is_escaped) {
  BOOST_TEST(example::printable(std::string("a\n\t\\\0\xff~", 7)) == "a\\n\\x09\\\\\\x00\\xff~");
}
