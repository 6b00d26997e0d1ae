// SPDX-License-Identifier: Apache-2.0
// labels: unit
// needs: Eigen3 CLI11 ZLIB
#define BOOST_TEST_MODULE limber.examples.options
#include "../../examples/language_model/options.hpp"

#include "core/says.hpp"
#include "files.hpp"

#include <boost/test/unit_test.hpp>

#include <optional>
#include <string>
#include <utility>
#include <vector>

using example::bad_input;
using example::options;
using limber::i64;
using limber::test::says;

namespace {

std::optional<options> parse(std::vector<char const*> arguments) {
  arguments.insert(arguments.begin(), "language_model");
  return example::parse(static_cast<int>(arguments.size()), arguments.data());
}

}  // namespace

BOOST_AUTO_TEST_CASE(every_bad_value_is_named_with_its_option) {
  std::vector<std::pair<std::vector<char const*>, std::vector<char const*>>> const cases{
      {{"--eta", "-1"}, {"--eta", "-1"}},
      {{"--eta", "0"}, {"--eta", "above 0"}},
      {{"--eta", "nan"}, {"--eta", "nan"}},
      {{"--eta", "inf"}, {"--eta", "inf"}},
      {{"--eta", "fast"}, {"--eta", "fast"}},
      {{"--momentum", "1"}, {"--momentum", "[0, 1)", "1"}},
      {{"--momentum", "-0.1"}, {"--momentum", "-0.1"}},
      {{"--momentum", "nan"}, {"--momentum", "nan"}},
      {{"--workers", "4,0,16"}, {"--workers", "1..256", "0"}},
      {{"--workers", "257"}, {"--workers", "257"}},
      {{"--workers", "4,x"}, {"--workers", "x"}},
      {{"--steps", "1,2"}, {"--steps", "2 numbers for the 3"}},
      {{"--steps", "5,0,5"}, {"--steps", "0"}},
      {{"--per-worker", "0"}, {"--per-worker", "1..4096", "0"}},
      {{"--per-worker", "99999"}, {"--per-worker", "99999"}},
      {{"--hidden", "0"}, {"--hidden", "0"}},
      {{"--seed", "-1"}, {"--seed", "-1"}},
      {{"--text", "a", "--data", "b"}, {"--text", "--data", "exclude"}},
      {{"--sweep", "--workers", "16,2"}, {"--sweep", "16 workers"}},
      {{"--nonsense"}, {"--nonsense"}},
      {{"stray"}, {"stray"}},
      {{"--text"}, {"--text"}},
  };
  for (auto const& [arguments, words] : cases) {
    try {
      (void)parse(arguments);
      BOOST_ERROR("accepted " << arguments[0]);
    } catch (bad_input const& e) {
      for (auto const* word : words) BOOST_TEST(says(word)(e), e.what() << " lacks " << word);
      BOOST_TEST(!says("\n")(e));
    }
  }
}

BOOST_AUTO_TEST_CASE(the_default_is_sixteen_fold_growth_at_the_papers_settings) {
  auto const o = *parse({});
  auto const run = o.plan(100'000);
  BOOST_TEST_REQUIRE(run.generations.size() == 3u);
  BOOST_TEST(run.generations[0].workers == 4);
  BOOST_TEST(run.generations[1].workers == 64);
  BOOST_TEST(run.generations[2].workers == 16);
  BOOST_TEST(run.base_batch == 64);
  BOOST_TEST(run.base_lr == 0.1);
  BOOST_TEST(run.momentum == 0.9);
  BOOST_TEST(run.epoch_size == 100'000);
}

BOOST_AUTO_TEST_CASE(generations_end_where_their_updates_do) {
  auto const run = parse({"--workers", "2,3", "--steps", "10,20", "--per-worker", "5"})->plan(1000);
  BOOST_TEST(run.generations[0].end == 100);
  BOOST_TEST(run.generations[1].end == 400);
  BOOST_TEST(run.samples() == 400);
}

BOOST_AUTO_TEST_CASE(other_workers_need_no_word_about_steps) {
  BOOST_TEST(parse({"--workers", "2,4,8,2"})->steps.size() == 4u);
  BOOST_TEST(parse({"--workers", "2", "--smoke"})->steps.size() == 1u);
}

BOOST_AUTO_TEST_CASE(options_that_were_given_win_over_those_of_the_mode) {
  BOOST_TEST(parse({"--data", "x"})->hidden == 64);
  BOOST_TEST(parse({"--data", "x", "--hidden", "100"})->hidden == 100);
  BOOST_TEST(parse({"--smoke", "--steps", "7,8,9"})->steps == (std::vector<i64>{7, 8, 9}),
             boost::test_tools::per_element());
}

BOOST_AUTO_TEST_CASE(places_that_cannot_be_written_are_known_before_training) {
  limber::test::temporary_folder const folder;
  auto o = *parse({});
  o.out = folder.path() / "a" / "b";
  o.json = folder.path() / "out.json";
  example::prepare(o);
  BOOST_TEST(std::filesystem::is_directory(o.out));

  o.json = folder.path() / "no" / "such" / "folder.json";
  BOOST_CHECK_EXCEPTION(example::prepare(o), bad_input, says("--json", "folder.json", "cannot be opened"));
  o.json.reset();
  o.out = folder.write("file", "x") / "below";
  BOOST_CHECK_EXCEPTION(example::prepare(o), bad_input, says("--out", "below", "cannot be made"));
  o.out = folder.path() / "file";
  BOOST_CHECK_EXCEPTION(example::prepare(o), bad_input, says("--out", "file"));
}
