// SPDX-License-Identifier: Apache-2.0
// labels: unit
// needs: Eigen3 CLI11 ZLIB
#define BOOST_TEST_MODULE limber.examples.cuda_options
#include "../../examples/cuda_trainer/options.hpp"

#include <boost/test/unit_test.hpp>

#include <optional>
#include <string>
#include <utility>
#include <vector>

using example::bad_input;

namespace {

std::optional<example::gpu_options> parse(std::vector<char const*> arguments) {
  arguments.insert(arguments.begin(), "cuda_trainer");
  return example::parse_gpu(static_cast<int>(arguments.size()), arguments.data());
}
std::optional<example::options> parse_main_job(std::vector<char const*> arguments) {
  arguments.insert(arguments.begin(), "language_model");
  return example::parse(static_cast<int>(arguments.size()), arguments.data());
}

}  // namespace

BOOST_AUTO_TEST_CASE(every_bad_value_is_named_with_its_option) {
  std::vector<std::pair<std::vector<char const*>, std::vector<char const*>>> const cases{
      {{"--eta", "-1"}, {"--eta", "-1"}},
      {{"--momentum", "1"}, {"--momentum", "[0, 1)"}},
      {{"--workers", "4,0,16"}, {"--workers", "0"}},
      {{"--steps", "1,2"}, {"--steps", "2 numbers for the 3"}},
      {{"--per-worker", "0"}, {"--per-worker", "0"}},
      {{"--text", "a", "--data", "b"}, {"--text", "--data", "exclude"}},
      {{"--sweep"}, {"--sweep"}},
      {{"--meet"}, {"--meet"}},
  };
  for (auto const& [arguments, words] : cases) {
    try {
      (void)parse(arguments);
      BOOST_ERROR("accepted " << arguments[0]);
    } catch (bad_input const& e) {
      for (auto const* word : words)
        BOOST_TEST(std::string(e.what()).find(word) != std::string::npos, e.what() << " lacks " << word);
    }
  }
}

// The same words ask both programs for the same training.
BOOST_AUTO_TEST_CASE(defaults_are_those_of_the_main_job) {
  for (auto const& arguments :
       std::vector<std::vector<char const*>>{{},
                                             {"--smoke"},
                                             {"--data", "x"},
                                             {"--workers", "2,8"},
                                             {"--data", "x", "--hidden", "7"},
                                             {"--seed", "4", "--constant", "--per-worker", "3"}}) {
    auto const ours = parse(arguments).value();
    auto const theirs = parse_main_job(arguments).value();
    auto const a = ours.plan(1000), b = theirs.plan(1000);
    BOOST_TEST(ours.steps == theirs.steps, boost::test_tools::per_element());
    BOOST_TEST(ours.workers == theirs.workers, boost::test_tools::per_element());
    BOOST_TEST(ours.hidden == theirs.hidden);
    BOOST_TEST(ours.seed == theirs.seed);
    BOOST_TEST(a.samples() == b.samples());
    BOOST_TEST(a.per_worker == b.per_worker);
    BOOST_TEST(a.base_lr == b.base_lr);
    BOOST_TEST(a.momentum == b.momentum);
    BOOST_TEST(a.anneal == b.anneal);
  }
}

BOOST_AUTO_TEST_CASE(the_meeting_place_can_be_named) {
  BOOST_TEST(parse({"--meet", "/a/b"}).value().meet == "/a/b");
  BOOST_TEST(!parse({}).value().meet.empty());
}
