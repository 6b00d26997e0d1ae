// SPDX-License-Identifier: Apache-2.0
// labels: unit
// needs: Eigen3 ZLIB nlohmann_json
#define BOOST_TEST_MODULE limber.papers.report
#include "../../bench/papers/report.hpp"

#include <boost/test/unit_test.hpp>

#include <limits>
#include <string>
#include <vector>

using namespace limber::papers;

namespace {

[[nodiscard]] task small_task() {
  example::digits d{.features = 1};
  for (int i = 0; i < 600; ++i)
    d.pixels.push_back(.5f), d.labels.push_back(static_cast<std::uint8_t>(i % 10));
  d.trained = 550;
  return task::of_digits(d, 1, 1 << 20);
}

}  // namespace

BOOST_AUTO_TEST_CASE(rows_are_selected_by_how_their_names_begin) {
  auto const data = small_task();
  session const all(data, effort::full, 5, {}), some(data, effort::quick, 5, {"2", "3c"}),
      exact(data, effort::exact, 5, {});
  BOOST_TEST(all.wants("1a", evidence::sampled));
  BOOST_TEST(some.wants("2d-flat", evidence::sampled));
  BOOST_TEST(some.wants("3c-small", evidence::sampled));
  BOOST_TEST(!some.wants("3a", evidence::exact));
  BOOST_TEST(exact.wants("3a", evidence::exact));
  BOOST_TEST(!exact.wants("3c", evidence::sampled));
}

BOOST_AUTO_TEST_CASE(the_report_holds_every_row_and_says_what_does_not_hold) {
  auto const data = small_task();
  session s(data, effort::quick, 5, {});
  s.add({"1a", "A 1.2", "it is so", "3", "> 2", true});
  s.add({"2d", "B 3.4", "it is not", "0.1", "> 0", false, evidence::sampled, std::pair{-.1, .3},
         "nothing helped"});
  s.sweeps["2d"] = {{"eta", .1}};
  auto const out = json_of(s, 12);
  BOOST_REQUIRE_EQUAL(out["rows"].size(), 2u);
  BOOST_TEST(out["rows"][0]["holds"].get<bool>());
  BOOST_TEST(out["rows"][0]["exact"].get<bool>());
  BOOST_TEST(out["rows"][0]["interval"].is_null());
  auto const& second = out["rows"][1];
  for (auto const* field : {"paper", "claim", "measured", "target", "interval", "holds"})
    BOOST_TEST(second.contains(field), field);
  BOOST_TEST(!second["holds"].get<bool>());
  BOOST_TEST(second["interval"][0].get<double>() == -.1);
  BOOST_TEST(second["note"].get<std::string>() == "nothing helped");
  BOOST_TEST(out["sweeps"]["2d"]["eta"].get<double>() == .1);

  auto const table = table_of(s.rows);
  BOOST_TEST(table.find("| 1a | A 1.2 | it is so | 3 |  | > 2 | yes |") != std::string::npos);
  BOOST_TEST(table.find("[-0.1, 0.3] | > 0 | NO |") != std::string::npos);
  BOOST_TEST(table.find("2d: nothing helped") != std::string::npos);
}

BOOST_AUTO_TEST_CASE(what_is_not_finite_is_null_in_json) {
  BOOST_TEST(number(std::numeric_limits<double>::infinity()).is_null());
  BOOST_TEST(number(2.5).get<double>() == 2.5);
}
