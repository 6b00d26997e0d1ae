// SPDX-License-Identifier: Apache-2.0
// labels: unit
// needs: nlohmann_json ZLIB context
#define BOOST_TEST_MODULE limber.examples.cluster_file
#include "../../examples/which_strategy/cluster_file.hpp"

#include "files.hpp"

#include <boost/test/unit_test.hpp>

#include <support/checks.hpp>

#include <cmath>
#include <string>

using namespace example;
using limber::test::temporary_folder;
using limber::testing::has;
using limber::testing::message_of;

namespace {

std::string refused(std::string const& content) {
  temporary_folder const folder;
  auto const file = folder.path() / "cluster.json";
  folder.write("cluster.json", content);
  return message_of([&] { (void)read_cluster(file); });
}

}  // namespace

BOOST_AUTO_TEST_CASE(a_description_keeps_defaults_for_what_it_leaves_out) {
  temporary_folder const folder;
  folder.write("cluster.json", R"({"speeds": [100, 400], "block_size": 1, "topology": "tree",
                                   "slowdowns": [{"worker": 1, "from": 2, "factor": 3}]})");
  auto const c = read_cluster(folder.path() / "cluster.json");
  BOOST_TEST(c.speeds == (std::vector<double>{100, 400}), boost::test_tools::per_element());
  BOOST_TEST(c.bandwidth == cluster_description{}.bandwidth);
  auto const v = virtual_cluster(c, 1e6);
  v.validate();
  BOOST_TEST(v.workers[1].seconds_per_sample == 1. / 400);
  BOOST_TEST(v.byte_scale == c.model_bytes / 1e6);
  BOOST_TEST((v.reduce == limber::sim::topology::tree));
  BOOST_TEST(v.slowdowns.at(0).factor == 3);
  BOOST_TEST(std::isinf(v.slowdowns.at(0).until));
}

BOOST_AUTO_TEST_CASE(what_cannot_be_used_is_named_with_the_file) {
  BOOST_TEST(
      has(message_of([] { (void)read_cluster("no/such/file.json"); }), "--cluster", "no/such/file.json"));
  BOOST_TEST(has(refused("{"), "cluster.json"));
  BOOST_TEST(has(refused("[]"), "object"));
  BOOST_TEST(has(refused(R"({"speed": [1]})"), "'speed'"));
  BOOST_TEST(has(refused(R"({"speeds": []})"), "speeds", "got 0"));
  BOOST_TEST(has(refused(R"({"speeds": [1, 0]})"), "speeds", "got 0"));
  BOOST_TEST(has(refused(R"({"speeds": "fast"})"), "cluster.json"));
  BOOST_TEST(has(refused(R"({"latency": -1})"), "latency", "-1"));
  BOOST_TEST(has(refused(R"({"bandwidth": 0})"), "bandwidth", "0"));
  BOOST_TEST(has(refused(R"({"topology": "mesh"})"), "topology", "mesh"));
  BOOST_TEST(has(refused(R"({"model_bytes": 0})"), "model_bytes"));
  BOOST_TEST(has(refused(R"({"slowdowns": [{"worker": 9, "from": 0, "factor": 2}]})"), "slowdowns", "0..3"));
  BOOST_TEST(has(refused(R"({"slowdowns": [{"from": 0}]})"), "worker"));
}
