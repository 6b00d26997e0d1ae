// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Rank and size of this process, from the environment of its launcher.

#include <limber/core/error.hpp>

#include <array>
#include <charconv>
#include <cstdlib>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>

namespace limber {

/// The values that a launcher provides.
struct launch_facts {
  int rank = 0;                ///< in [0, size)
  int size = 1;                ///< processes of the job
  int local_rank = 0;          ///< among the processes on this machine; −1 if unknown
  std::string launcher{};      ///< "torchrun", "Open MPI", "PMI", "srun"; "none" for a single process
  std::string job{};           ///< equal on all ranks and different for every start; empty if unknown
  std::string main_address{};  ///< where rank 0 listens (torchrun), empty when unknown
  int main_port = 0;           ///< its port, 0 when unknown
};

/// Returns the value of an environment variable, if it is set.
using environment = std::function<std::optional<std::string>(std::string const& name)>;

[[nodiscard]] inline std::optional<std::string> process_environment(std::string const& name) {
  char const* const value = std::getenv(name.c_str());
  return value ? std::optional<std::string>(value) : std::nullopt;
}

namespace detail {

/// A launcher, and the variables that it sets.
struct launcher_variables {
  char const *name, *rank, *size, *local_rank;
};

// Tested in this order. Launchers inside an allocation precede the variables of the allocation: mpirun and
// torchrun run within srun, not the other way round.
inline constexpr std::array<launcher_variables, 4> launchers{{
    {"torchrun", "RANK", "WORLD_SIZE", "LOCAL_RANK"},
    {"Open MPI", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"},
    {"PMI", "PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID"},
    {"srun", "SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID"},
}};

[[nodiscard]] inline int launch_number(std::string_view name, std::string const& value, int least) {
  int number = 0;
  auto const [end, failed] = std::from_chars(value.data(), value.data() + value.size(), number);
  expects(failed == std::errc() && end == value.data() + value.size() && number >= least, "launch: ", name,
          " must be a whole number >= ", least, ", got '", value, "'");
  return number;
}

/// Joins the variables that are set by "."; empty if the first is not set.
template <class... Names>
[[nodiscard]] std::string launch_job(environment const& lookup, std::string_view prefix, char const* first,
                                     Names... rest) {
  auto const start = lookup(first);
  if (!start || start->empty()) return {};
  std::string out = text(prefix, *start);
  for (char const* const name : {rest...})
    if (auto const part = lookup(name); part && !part->empty()) out += text(".", *part);
  return out;
}

[[nodiscard]] inline std::string launch_job(environment const& lookup, std::string_view launcher) {
  if (launcher == "torchrun") {
    auto name =
        launch_job(lookup, "torchrun-", "TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT", "MASTER_PORT");
    return name.empty() ? launch_job(lookup, "torchrun-", "MASTER_ADDR", "MASTER_PORT") : name;
  }
  if (launcher == "Open MPI") {
    auto name = launch_job(lookup, "mpi-", "PMIX_NAMESPACE", "SLURM_JOB_ID");
    return name.empty() ? launch_job(lookup, "mpi-", "OMPI_MCA_ess_base_jobid", "SLURM_JOB_ID") : name;
  }
  auto name = launch_job(lookup, "slurm-", "SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT");
  return name.empty() ? launch_job(lookup, "pmi-", "PMI_JOBID", "PMI_ID_SPACE") : name;
}

}  // namespace detail

/// Reads rank, size and local rank from the first launcher whose rank variable is set:
///
///     torchrun   RANK, WORLD_SIZE, LOCAL_RANK; MASTER_ADDR, MASTER_PORT
///     Open MPI   OMPI_COMM_WORLD_RANK, _SIZE, _LOCAL_RANK              (mpirun, prterun)
///     PMI        PMI_RANK, PMI_SIZE, MPI_LOCALRANKID                   (MPICH, Intel MPI, srun --mpi=pmi2)
///     srun       SLURM_PROCID, SLURM_NTASKS, SLURM_LOCALID, within a step
///
/// A single process if none is set. A batch script runs outside of any step, with SLURM_PROCID=0 and the
/// SLURM_NTASKS of its allocation: without SLURM_STEP_ID these are ignored.
///
/// @throws std::invalid_argument naming variable and value: not a number, out of range, a rank without a
///         size, or PMIX_RANK alone (PMIx does not put the size into the environment)
[[nodiscard]] inline launch_facts facts_from_environment(environment const& lookup = process_environment) {
  launch_facts facts;
  facts.launcher = "none";
  for (auto const& l : detail::launchers) {
    auto const rank = lookup(l.rank);
    bool const slurm = l.name == std::string_view("srun");
    if (!rank || (slurm && !lookup("SLURM_STEP_ID"))) continue;
    // A step may have fewer tasks than its allocation.
    char const* const size_name = slurm && lookup("SLURM_STEP_NUM_TASKS") ? "SLURM_STEP_NUM_TASKS" : l.size;
    auto const size = lookup(size_name);
    expects(size.has_value(), "launch: ", l.rank, " is '", *rank, "' but ", size_name, " is not set");
    auto const local = lookup(l.local_rank);
    facts.launcher = l.name;
    facts.size = detail::launch_number(size_name, *size, 1);
    facts.rank = detail::launch_number(l.rank, *rank, 0);
    expects(facts.rank < facts.size, "launch: ", l.rank, " must lie in [0, ", size_name, " = ", facts.size,
            "), got '", *rank, "'");
    facts.local_rank = local ? detail::launch_number(l.local_rank, *local, 0) : facts.size == 1 ? 0 : -1;
    expects(facts.local_rank < facts.size, "launch: ", l.local_rank, " must lie in [0, ", size_name, " = ",
            facts.size, "), got '", local.value_or(""), "'");
    facts.job = detail::launch_job(lookup, l.name);
    if (facts.launcher == "torchrun") {
      facts.main_address = lookup("MASTER_ADDR").value_or("");
      if (auto const port = lookup("MASTER_PORT"); port && !port->empty()) {
        facts.main_port = detail::launch_number("MASTER_PORT", *port, 1);
        expects(facts.main_port <= 65535, "launch: MASTER_PORT must lie in [1, 65535], got '", *port, "'");
      }
    }
    return facts;
  }
  auto const pmix = lookup("PMIX_RANK");
  expects(!pmix, "launch: PMIX_RANK is '", pmix.value_or(""),
          "' but no variable says how many ranks there are; start with mpirun, srun or torchrun");
  return facts;
}

/// The GPU of a process that sees `devices` GPUs: the one of its local rank, or the only one (launchers may
/// restrict each process to one GPU).
/// @throws std::invalid_argument if there are fewer GPUs than processes, or the local rank is not known
[[nodiscard]] inline int device_for(launch_facts const& facts, int devices) {
  expects(devices >= 1, "launch: no GPU is visible to rank ", facts.rank);
  if (devices == 1) return 0;
  expects(facts.local_rank >= 0, "launch: ", facts.launcher, " does not say the local rank of rank ",
          facts.rank, ", and ", devices, " GPUs are visible; name the device");
  expects(facts.local_rank < devices, "launch: local rank ", facts.local_rank, " but only ", devices,
          " GPUs are visible; start as many ranks on a machine as it has GPUs");
  return facts.local_rank;
}

}  // namespace limber
