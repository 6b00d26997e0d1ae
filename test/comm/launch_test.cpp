// SPDX-License-Identifier: Apache-2.0
// labels: unit
#define BOOST_TEST_MODULE limber.comm.launch
#include <limber/comm/launch.hpp>

#include <boost/test/unit_test.hpp>

#include <map>
#include <optional>
#include <stdexcept>
#include <string>

namespace limber::test {

using variables = std::map<std::string, std::string>;

launch_facts facts_in(variables const& set) {
  return facts_from_environment([&](std::string const& name) -> std::optional<std::string> {
    auto const found = set.find(name);
    return found == set.end() ? std::nullopt : std::optional(found->second);
  });
}
std::string refused(variables const& set) {
  try {
    (void)facts_in(set);
  } catch (std::invalid_argument const& e) { return e.what(); }
  return "nothing was thrown";
}

variables const torchrun{{"RANK", "5"},
                         {"WORLD_SIZE", "8"},
                         {"LOCAL_RANK", "1"},
                         {"MASTER_ADDR", "n0"},
                         {"MASTER_PORT", "29500"},
                         {"TORCHELASTIC_RUN_ID", "r7"},
                         {"TORCHELASTIC_RESTART_COUNT", "2"}};
variables const open_mpi{{"OMPI_COMM_WORLD_RANK", "3"},
                         {"OMPI_COMM_WORLD_SIZE", "4"},
                         {"OMPI_COMM_WORLD_LOCAL_RANK", "1"},
                         {"PMIX_RANK", "3"},
                         {"PMIX_NAMESPACE", "prterun-n0-12@1"}};
variables const mpich{{"PMI_RANK", "2"}, {"PMI_SIZE", "6"}, {"MPI_LOCALRANKID", "0"}};
variables const srun{{"SLURM_PROCID", "7"},
                     {"SLURM_NTASKS", "16"},
                     {"SLURM_LOCALID", "3"},
                     {"SLURM_JOB_ID", "91"},
                     {"SLURM_STEP_ID", "0"}};

void expect(variables const& set, std::string const& launcher, int rank, int size, int local,
            std::string const& job) {
  launch_facts const f = facts_in(set);
  BOOST_TEST(f.launcher == launcher);
  BOOST_TEST(f.rank == rank);
  BOOST_TEST(f.size == size);
  BOOST_TEST(f.local_rank == local);
  BOOST_TEST(f.job == job);
}

variables joined(std::initializer_list<variables> all) {
  variables out;
  for (auto const& v : all) out.insert(v.begin(), v.end());
  return out;
}

BOOST_AUTO_TEST_CASE(each_launcher_is_read) {
  expect(torchrun, "torchrun", 5, 8, 1, "torchrun-r7.2.29500");
  expect(open_mpi, "Open MPI", 3, 4, 1, "mpi-prterun-n0-12@1");
  expect(mpich, "PMI", 2, 6, 0, "");
  expect(srun, "srun", 7, 16, 3, "slurm-91.0");
  BOOST_TEST(facts_in(torchrun).main_address == "n0");
  BOOST_TEST(facts_in(torchrun).main_port == 29500);
}

BOOST_AUTO_TEST_CASE(a_single_process_when_nothing_is_set) {
  expect({}, "none", 0, 1, 0, "");
  // A world size alone does not identify a launcher.
  expect({{"WORLD_SIZE", "8"}, {"SLURM_NTASKS", "8"}}, "none", 0, 1, 0, "");
}

BOOST_AUTO_TEST_CASE(the_inner_launcher_has_precedence) {
  expect(joined({torchrun, open_mpi, mpich, srun}), "torchrun", 5, 8, 1, "torchrun-r7.2.29500");
  expect(joined({open_mpi, mpich, srun}), "Open MPI", 3, 4, 1, "mpi-prterun-n0-12@1.91");
  expect(joined({mpich, srun}), "PMI", 2, 6, 0, "slurm-91.0");
}

BOOST_AUTO_TEST_CASE(a_batch_script_is_no_step_and_a_step_may_be_smaller_than_its_allocation) {
  variables batch = srun;
  batch.erase("SLURM_STEP_ID");
  batch["SLURM_PROCID"] = "0";
  expect(batch, "none", 0, 1, 0, "");
  expect(joined({srun, {{"SLURM_STEP_NUM_TASKS", "8"}}}), "srun", 7, 8, 3, "slurm-91.0");
}

BOOST_AUTO_TEST_CASE(an_unknown_local_rank_is_not_guessed) {
  variables set = mpich;
  set.erase("MPI_LOCALRANKID");
  BOOST_TEST(facts_in(set).local_rank == -1);
  BOOST_CHECK_EXCEPTION((void)device_for(facts_in(set), 4), std::invalid_argument,
                        [](std::exception const& e) {
                          return std::string(e.what()) ==
                                 "limber: launch: PMI does not say the local rank of rank 2, and 4 GPUs are "
                                 "visible; name the device";
                        });
  BOOST_TEST(device_for(facts_in(set), 1) == 0);
}

BOOST_AUTO_TEST_CASE(errors_name_variable_and_value) {
  auto const with = [](variables set, std::string const& name, std::string const& value) {
    set[name] = value;
    return refused(set);
  };
  BOOST_TEST(with(torchrun, "RANK", "x") == "limber: launch: RANK must be a whole number >= 0, got 'x'");
  BOOST_TEST(with(torchrun, "RANK", "") == "limber: launch: RANK must be a whole number >= 0, got ''");
  BOOST_TEST(with(torchrun, "RANK", "1.5") == "limber: launch: RANK must be a whole number >= 0, got '1.5'");
  BOOST_TEST(with(torchrun, "RANK", "-1") == "limber: launch: RANK must be a whole number >= 0, got '-1'");
  BOOST_TEST(with(torchrun, "RANK", "8") == "limber: launch: RANK must lie in [0, WORLD_SIZE = 8), got '8'");
  BOOST_TEST(with(torchrun, "WORLD_SIZE", "0") ==
             "limber: launch: WORLD_SIZE must be a whole number >= 1, got '0'");
  BOOST_TEST(with(torchrun, "WORLD_SIZE", "99999999999") ==
             "limber: launch: WORLD_SIZE must be a whole number >= 1, got '99999999999'");
  BOOST_TEST(with(torchrun, "MASTER_PORT", "70000") ==
             "limber: launch: MASTER_PORT must lie in [1, 65535], got '70000'");
  BOOST_TEST(with(open_mpi, "OMPI_COMM_WORLD_LOCAL_RANK", "4") ==
             "limber: launch: OMPI_COMM_WORLD_LOCAL_RANK must lie in [0, OMPI_COMM_WORLD_SIZE = 4), got '4'");
  variables half = srun;
  half.erase("SLURM_NTASKS");
  BOOST_TEST(refused(half) == "limber: launch: SLURM_PROCID is '7' but SLURM_NTASKS is not set");
  BOOST_TEST(
      refused({{"PMIX_RANK", "3"}}) ==
      "limber: launch: PMIX_RANK is '3' but no variable says how many ranks there are; start with mpirun, "
      "srun or torchrun");
}

BOOST_AUTO_TEST_CASE(the_local_rank_chooses_the_gpu) {
  launch_facts f;
  f.size = 8;
  f.rank = 6;
  f.local_rank = 2;
  BOOST_TEST(device_for(f, 4) == 2);
  BOOST_TEST(device_for(f, 1) == 0);
  auto const says = [](std::string const& what) {
    return [what](std::exception const& e) { return std::string(e.what()) == "limber: launch: " + what; };
  };
  BOOST_CHECK_EXCEPTION(
      (void)device_for(f, 2), std::invalid_argument,
      says("local rank 2 but only 2 GPUs are visible; start as many ranks on a machine as it has "
           "GPUs"));
  BOOST_CHECK_EXCEPTION((void)device_for(f, 0), std::invalid_argument, says("no GPU is visible to rank 6"));
}

BOOST_AUTO_TEST_CASE(the_process_environment_is_the_default) {
  BOOST_TEST(process_environment("PATH").has_value());
  BOOST_TEST(!process_environment("LIMBER_NOBODY_SETS_THIS").has_value());
}

}  // namespace limber::test
