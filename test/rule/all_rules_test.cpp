// SPDX-License-Identifier: Apache-2.0
// labels: unit
#define BOOST_TEST_MODULE limber.rule.all_rules
#include <boost/test/unit_test.hpp>

#include <support/all_rules.hpp>

#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>
#include <string>
#include <type_traits>

using namespace limber;
using namespace limber::testing;

namespace {

std::filesystem::path const room = std::filesystem::path(LIMBER_SOURCE_DIR) / "include" / "limber" / "rule";

/// Headers of the room that are not a rule: the contract, what rules share, and the umbrella.
std::set<std::string> const helpers{"rule", "rules", "statistics", "wrapper"};

std::set<std::string> headers() {
  std::set<std::string> names;
  for (auto const& file : std::filesystem::directory_iterator(room))
    if (file.path().extension() == ".hpp") names.insert(file.path().stem().string());
  return names;
}

}  // namespace

BOOST_AUTO_TEST_CASE(every_rule_of_the_room_is_in_the_list) {
  std::set<std::string> listed = helpers;
  for_each_rule([&](auto const& rule) {
    for (auto const& name : layers_of(rule)) listed.insert(name);
  });
  for (auto const& name : headers())
    BOOST_TEST(listed.contains(name),
               "include/limber/rule/" << name << ".hpp is not in test/support/all_rules.hpp");
  for (auto const& name : listed)
    BOOST_TEST(headers().contains(name), "include/limber/rule/" << name << ".hpp does not exist");
}

BOOST_AUTO_TEST_CASE(every_rule_of_the_room_is_in_the_umbrella) {
  std::ifstream file(room / "rules.hpp");
  std::stringstream text;
  text << file.rdbuf();
  for (auto const& name : headers()) {
    if (helpers.contains(name)) continue;
    std::string const line = "#include <limber/rule/" + name + ".hpp>";
    BOOST_TEST(text.str().find(line) != std::string::npos, "rules.hpp does not include " << name << ".hpp");
  }
}

BOOST_AUTO_TEST_CASE(every_rule_of_the_list_is_in_range) {
  for_each_rule([](auto const& rule) { BOOST_CHECK_NO_THROW(check(rule)); });
}

BOOST_AUTO_TEST_CASE(every_rule_and_its_coefficients_can_be_copied_to_a_device) {
  for_each_rule([]<class R>(R const&) {
    static_assert(std::is_trivially_copyable_v<R>);
    static_assert(std::is_trivially_copyable_v<coefficients_of<R, float>>);
    static_assert(std::is_trivially_copyable_v<coefficients_of<R, double>>);
  });
}
