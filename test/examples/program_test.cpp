// SPDX-License-Identifier: Apache-2.0
// labels: unit
// optimize: 1
// sanitizers: no
// needs: Eigen3 CLI11 nlohmann_json ZLIB
#define BOOST_TEST_MODULE limber.examples.program
#include "../../examples/language_model/program.hpp"

#include "files.hpp"

#include <boost/test/unit_test.hpp>

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <limits>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

using limber::test::temporary_folder;
using nlohmann::json;

namespace {

struct outcome {
  int status = 0;
  std::string errors;
};

outcome run(std::vector<std::string> const& arguments) {
  std::vector<char const*> argv{"language_model"};
  for (auto const& a : arguments) argv.push_back(a.c_str());
  std::ostringstream errors;
  int const status = example::run(static_cast<int>(argv.size()), argv.data(), errors);
  return {status, errors.str()};
}

// A small training whose reports go to `folder`; returns its JSON.
json trained(temporary_folder const& folder, std::vector<std::string> arguments) {
  auto const file = (folder.path() / "out.json").string();
  for (auto const* a : {"--smoke", "--workers", "2,6,3", "--steps", "60,70,30", "--hidden", "12", "--json"}) {
    arguments.emplace_back(a);
  }
  arguments.push_back(file);
  arguments.emplace_back("--out");
  arguments.push_back((folder.path() / "reports").string());
  auto const done = run(arguments);
  BOOST_TEST_REQUIRE(done.status == 0, done.errors);
  BOOST_TEST(done.errors.empty());
  return json::parse(std::ifstream(file));
}

std::filesystem::path small_text(temporary_folder const& folder) {
  return folder.write("text", limber::test::pattern(40'000));
}

}  // namespace

BOOST_AUTO_TEST_CASE(what_cannot_be_used_is_one_line_and_status_2) {
  temporary_folder const folder;
  auto const corrupt = folder.write("train-images-idx3-ubyte", "rubbish");
  folder.write("train-labels-idx1-ubyte", "rubbish");
  std::vector<std::pair<std::vector<std::string>, std::string>> const cases{
      {{"--text", "missing"}, "--text missing"},
      {{"--text", folder.write("empty", "").string()}, "is empty"},
      {{"--data", "missing"}, "--data missing"},
      {{"--data", folder.path().string()}, corrupt.string()},
      {{"--eta", "-1"}, "--eta"},
      {{"--workers", "none"}, "--workers"},
  };
  for (auto const& [arguments, words] : cases) {
    auto const done = run(arguments);
    BOOST_TEST(done.status == 2);
    BOOST_TEST(done.errors.find(words) != std::string::npos, done.errors);
    BOOST_TEST(std::ranges::count(done.errors, '\n') == 1, done.errors);
    BOOST_TEST(done.errors.ends_with('\n'));
  }
}

BOOST_AUTO_TEST_CASE(help_is_no_failure) {
  auto const done = run({"--help"});
  BOOST_TEST(done.status == 0);
  BOOST_TEST(done.errors.empty());
}

BOOST_AUTO_TEST_CASE(a_text_is_trained_on_by_three_variants_and_all_of_it_is_written) {
  temporary_folder const folder;
  auto const all = trained(folder, {"--text", small_text(folder).string()});

  BOOST_TEST_REQUIRE(all.at("resizes").size() == 2u);
  BOOST_TEST(all["resizes"][0].at("from") == 2);
  BOOST_TEST(all["resizes"][0].at("to") == 6);
  BOOST_TEST(all["resizes"][0].at("steps") == 60);
  BOOST_TEST(all["resizes"][0].at("samples") == 60 * 2 * 16);
  BOOST_TEST(all["resizes"][1].at("from") == 6);
  BOOST_TEST(all["resizes"][1].at("to") == 3);
  BOOST_TEST(all.at("settings").at("eta") == 0.1);

  BOOST_TEST_REQUIRE(all.at("variants").size() == 3u);
  std::vector<std::string> names;
  for (auto const& v : all["variants"]) {
    names.push_back(v.at("name"));
    BOOST_TEST(v.at("final_bits_per_byte").get<double>() > 0);
    BOOST_TEST(v["final_bits_per_byte"].get<double>() < 8.5);
    BOOST_TEST(v.at("seconds").get<double>() > 0);
    BOOST_TEST(v.at("samples_per_second").get<double>() > 0);
    BOOST_TEST(v.at("samples").get<int>() >= (60 * 2 + 70 * 6 + 30 * 3) * 16);
    BOOST_TEST(!v.at("diverged").get<bool>());

    // The numbers again from the trace, without the code that made them.
    double worst_of_all = 0;
    for (auto const& s : v.at("spikes")) {
      double level = 0, worst = 0;
      int counted = 0;
      for (auto const& p : v.at("trace")) {
        int const since = p.at("steps").get<int>() - s.at("steps").get<int>();
        double const bits = p.at("probe_bits");
        if (since > -20 && since <= 0) level += bits, ++counted;
        if (since > 0 && since <= 60) worst = std::max(worst, bits);
      }
      BOOST_TEST(counted == 20);
      BOOST_TEST(s.at("spike").get<double>() == worst / (level / 20), boost::test_tools::tolerance(1e-9));
      worst_of_all = std::max(worst_of_all, worst / (level / 20));
    }
    BOOST_TEST(v["spikes"].size() == 2u);
    BOOST_TEST(v.at("worst_spike").get<double>() == worst_of_all, boost::test_tools::tolerance(1e-9));
  }
  BOOST_TEST(names == (std::vector<std::string>{"fixed", "immediate", "dynamic_sgd"}),
             boost::test_tools::per_element());

  // Until the first resize the variants are one and the same; after it they are not.
  auto const bits_at = [&](int variant, int samples) -> double {
    for (auto const& p : all["variants"][static_cast<std::size_t>(variant)]["trace"]) {
      if (p["samples"] == samples) return p["probe_bits"];
    }
    BOOST_FAIL("no evaluation at " << samples << " samples");
    return 0;
  };
  int const resized = 60 * 2 * 16, next = resized + 6 * 16;
  BOOST_TEST(bits_at(0, resized) == bits_at(1, resized));
  BOOST_TEST(bits_at(0, resized) == bits_at(2, resized));
  BOOST_TEST(bits_at(1, next) != bits_at(2, next));
  BOOST_TEST(std::filesystem::file_size(folder.path() / "reports" / "language_model.dat") > 0u);
}

BOOST_AUTO_TEST_CASE(the_same_seed_gives_the_same_results) {
  temporary_folder const folder;
  auto const text = small_text(folder).string();
  auto const timeless = [](json all) {
    for (auto& v : all["variants"]) {
      v.erase("seconds");
      v.erase("samples_per_second");
    }
    return all;
  };
  auto const first = timeless(trained(folder, {"--text", text})),
             again = timeless(trained(folder, {"--text", text}));
  BOOST_TEST(first == again);
  BOOST_TEST(first != timeless(trained(folder, {"--text", text, "--seed", "2"})));
}

BOOST_AUTO_TEST_CASE(digits_are_judged_by_accuracy_too) {
  temporary_folder const folder;
  std::string rows;
  for (int r = 0; r < 100; ++r) rows += limber::test::csv_row(r);
  folder.write("a.tra", rows + rows + rows);
  folder.write("a.tes", rows);
  auto const all = trained(folder, {"--data", folder.path().string()});
  for (auto const& v : all.at("variants")) {
    BOOST_TEST(v.at("final_accuracy").get<double>() > 0.1);
    BOOST_TEST(v.at("final_accuracy").get<double>() <= 1.0);
    BOOST_TEST(v.contains("final_bits_per_sample"));
    BOOST_TEST(!v.contains("final_bits_per_byte"));
  }
  BOOST_TEST(std::filesystem::exists(folder.path() / "reports" / "digits.dat"));
}

BOOST_AUTO_TEST_CASE(a_variant_that_diverges_is_reported_not_hidden) {
  temporary_folder const folder;
  auto const all = trained(folder, {"--text", small_text(folder).string(), "--eta", "1e30"});
  BOOST_TEST(!std::filesystem::exists(folder.path() / "reports" / "language_model.png"));
  for (auto const& v : all.at("variants")) {
    BOOST_TEST(v.at("diverged").get<bool>());
    BOOST_TEST(v.at("final_bits_per_byte").is_null());
    BOOST_TEST(v.at("worst_spike").is_null());
    BOOST_TEST(v.at("failure").get<std::string>().find("not finite") != std::string::npos);
  }
}

BOOST_AUTO_TEST_CASE(the_sweep_has_a_row_for_every_rate_growth_and_variant) {
  temporary_folder const folder;
  auto const rows = trained(folder, {"--text", small_text(folder).string(), "--sweep"}).at("sweep");
  BOOST_TEST(rows.size() == 4u * 3 * 2);
  for (int const growth : {4, 16, 32}) {
    BOOST_TEST(std::ranges::count_if(rows, [&](auto const& r) { return r.at("growth") == growth; }) == 8);
  }
  for (auto const& r : rows) BOOST_TEST((r.at("name") == "immediate" || r.at("name") == "dynamic_sgd"));
}

BOOST_AUTO_TEST_CASE(without_gnuplot_the_data_is_kept_and_one_line_says_so) {
  temporary_folder const folder;
  std::string const path = std::getenv("PATH");
  setenv("PATH", folder.path().c_str(), 1);
  std::vector<example::variant_result> const results{
      {.name = "one",
       .points = {{10, 1, 2, 0.5, 3.25}, {20, 2, 2, 0.5, std::numeric_limits<double>::infinity()}}}};
  auto const line = example::plot(folder.path(), "stem", results, {}, "bits");
  setenv("PATH", path.c_str(), 1);
  BOOST_TEST(line == "No plot: gnuplot is not installed. Its data: " + (folder.path() / "stem.dat").string());
  BOOST_TEST(example::read_file(folder.path() / "stem.dat", "test") ==
             "# samples steps workers rate probe_bits\n\"one\"\n10 1 2 0.5 3.25\n20 2 2 0.5 NaN\n\n\n");
}

BOOST_AUTO_TEST_CASE(with_gnuplot_there_is_a_picture) {
  if (!example::installed("gnuplot")) {
    BOOST_TEST_MESSAGE("gnuplot is not installed");
    return;
  }
  temporary_folder const folder;
  auto const odd = folder.path() / "it's here";
  std::filesystem::create_directory(odd);
  std::vector<example::variant_result> const results{
      {.name = "one", .points = {{10, 1, 2, 0.5, 3.25}, {20, 2, 2, 0.5, 3}}}};
  std::vector<example::resize_record> const resizes{{.samples = 10, .steps = 1, .from = 2, .to = 4}};
  auto const line = example::plot(odd, "stem", results, resizes, "bits");
  BOOST_TEST(line.find("stem.png") != std::string::npos, line);
  BOOST_TEST(example::read_file(odd / "stem.png", "test").substr(1, 3) == "PNG");
}
