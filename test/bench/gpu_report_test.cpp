// SPDX-License-Identifier: Apache-2.0
// labels: unit
#define BOOST_TEST_MODULE limber.bench.gpu_report

#include "../../bench/gpu/goals.hpp"
#include "../../bench/support/json.hpp"

#include <boost/test/unit_test.hpp>

#include <sstream>
#include <string>

namespace {

using namespace limber;
using bench::role;
using bench::row;

// A copy at 100 GB/s, and tasks of 20,000 bytes beside it: `subject` took `mine` microseconds.
struct made_up : bench::results {
  made_up() { put({"gpu/copy", "gpu/copy", "", role::ceiling, 10'000, 10'000}, {0.2}); }

  void put(row r, std::vector<double> const& microseconds) {
    for (double const t : microseconds) add(r.name, t * 1e-6);
    rows.push_back(std::move(r));
  }
  void subject(std::string const& name, double mine) {
    put({name, name, "", role::subject, 12'000, 8'000, "gpu/copy"}, {mine});
  }
  void peer(std::string const& task, std::string const& label, double theirs, role as = role::peer) {
    row r{task + "/" + label, task, label, as, 12'000, 8'000, "gpu/copy"};
    r.elsewhere = label.starts_with("torch");
    put(r, {theirs});
  }
};

std::string goals_of(bench::results const& r) {
  std::ostringstream out;
  bench::write_goals(out, r);
  return out.str();
}

bool says(std::string const& all, std::string const& part) { return all.find(part) != std::string::npos; }

}  // namespace

BOOST_AUTO_TEST_CASE(the_quickest_of_each_family_stands_beside_the_subject) {
  made_up r;
  r.subject("gpu/sgd/gpt2/f32", 0.25);
  r.peer("gpu/sgd/gpt2/f32", "thrust", 0.5);
  r.peer("gpu/sgd/gpt2/f32", "torch-foreach", 1);
  r.peer("gpu/sgd/gpt2/f32", "torch-fused", 0.3);
  r.peer("gpu/sgd/gpt2/f32", "torch-other", 0.1, role::part);
  auto const beside = r.beside(*r.find("gpu/sgd/gpt2/f32"));
  BOOST_REQUIRE(beside.size() == 2u);
  BOOST_TEST(beside[0].peer->label == "thrust");
  BOOST_TEST(beside[0].value == 2.0, boost::test_tools::tolerance(1e-9));
  BOOST_TEST(beside[1].peer->label == "torch-fused");
  BOOST_TEST(beside[1].value == 1.2, boost::test_tools::tolerance(1e-9));
  BOOST_TEST(r.of_copy(*r.find("gpu/sgd/gpt2/f32")) == 0.8, boost::test_tools::tolerance(1e-9));
}

BOOST_AUTO_TEST_CASE(median_and_deviation_are_of_the_repetitions) {
  made_up r;
  r.put({"x", "x", "", role::subject, 1, 1}, {3, 1, 2});
  BOOST_TEST(r.median("x") == 2e-6, boost::test_tools::tolerance(1e-9));
  BOOST_TEST(r.cv("x") == 0.5, boost::test_tools::tolerance(1e-9));
  BOOST_TEST(r.median("y") == 0);
}

BOOST_AUTO_TEST_CASE(rows_from_elsewhere_show_only_beside_a_subject_that_was_measured) {
  made_up r;
  r.peer("gpu/sgd/gpt2/f32", "torch-fused", 0.3);
  std::ostringstream without, with;
  bench::write_table(without, r);
  BOOST_TEST(!says(without.str(), "torch-fused"));
  r.subject("gpu/sgd/gpt2/f32", 0.25);
  bench::write_table(with, r);
  BOOST_TEST(says(with.str(), "| gpu/sgd/gpt2/f32/torch-fused | "));
  BOOST_TEST(says(with.str(), "| gpu/sgd/gpt2/f32 | 250 ns | – | 80.0 | 0.80 | 1.20 torch-fused |"));
}

BOOST_AUTO_TEST_CASE(json_has_the_ratios_as_counters_and_says_nothing_of_the_host) {
  made_up r;
  r.subject("gpu/sgd/gpt2/f32", 0.25);
  r.peer("gpu/sgd/gpt2/f32", "thrust", 0.5);
  r.peer("gpu/sgd/gpt2/f32", "torch-fused", 0.3);
  r.count("gpu/sgd/gpt2/f32", "launches", 2);
  std::ostringstream out;
  bench::write_json(out, r, "device     a \"big\" one\n\n");
  std::string const all = out.str();
  BOOST_TEST(says(all, R"("name": "gpu/sgd/gpt2/f32_median", "run_name": "gpu/sgd/gpt2/f32")"));
  BOOST_TEST(says(
      all, R"("bytes_per_second": 8e+10, "of_copy": 0.8, "vs_thrust": 2, "vs_torch": 1.2, "launches": 2})"));
  BOOST_TEST(says(all, R"("device     a \"big\" one")"));
  BOOST_TEST(!says(all, "host_name"));
}

BOOST_AUTO_TEST_CASE(goals_name_the_worst_row_and_what_was_not_measured) {
  made_up r;
  r.subject("gpu/sgd/gpt2/f32", 0.25);
  r.subject("gpu/adamw/flat1e9/f32", 0.2);
  r.subject("gpu/adamw/resnet50/f32", 0.22);
  std::string const all = goals_of(r);
  BOOST_TEST(says(all, "over 100 million parameters | 0.95 | 0.80 | gpu/sgd/gpt2/f32 | missed |"));
  BOOST_TEST(says(all, "ResNet-50 | 0.85 | 0.91 | gpu/adamw/resnet50/f32 | reached |"));
  BOOST_TEST(says(all, "everywhere | 1.00 | – | – | not measured |"));
}

BOOST_AUTO_TEST_CASE(sgd_must_beat_fused_by_a_fifth_only_where_fused_is_far_from_the_copy) {
  made_up r;
  r.subject("gpu/sgd/gpt2/f32", 0.2);
  r.peer("gpu/sgd/gpt2/f32", "torch-fused", 0.22);
  BOOST_TEST(says(goals_of(r), "below 0.79 of copy | 1.20 | – | – | not measured |"));
  r.subject("gpu/sgd/resnet50/f32", 0.25);
  r.peer("gpu/sgd/resnet50/f32", "torch-fused", 0.275);
  BOOST_TEST(says(goals_of(r), "below 0.79 of copy | 1.20 | 1.10 | gpu/sgd/resnet50/f32 | missed |"));
}

BOOST_AUTO_TEST_CASE(both_forms_of_the_masters_step_and_small_tensors_have_goals_of_their_own) {
  made_up r;
  r.subject("gpu/master-sgd-step/gpt2/bf16", 0.2);
  r.peer("gpu/master-sgd-step/gpt2/bf16", "torch-stepwise", 0.32);
  r.peer("gpu/master-sgd-step/gpt2/bf16", "torch-folded", 0.22);
  r.count("gpu/master-sgd-step/gpt2/bf16", "launches", 2);
  r.subject("gpu/adamw/small10000/f32", 0.2);
  r.peer("gpu/adamw/small10000/f32", "torch-foreach", 0.9);
  std::string const all = goals_of(r);
  BOOST_TEST(says(all, "50 B | 1.50 | 1.60 | gpu/master-sgd-step/gpt2/bf16 | reached |"));
  BOOST_TEST(says(all, "38 B | 1.14 | 1.10 | gpu/master-sgd-step/gpt2/bf16 | missed |"));
  BOOST_TEST(says(all, "foreach | 5.00 | 4.50 | gpu/adamw/small10000/f32 | missed |"));
  BOOST_TEST(says(all, "over launches | 1.00 | 1.00 | gpu/master-sgd-step/gpt2/bf16 | reached |"));
}
