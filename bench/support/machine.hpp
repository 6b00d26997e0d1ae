// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// What a table of times is worth nothing without: the machine, the compiler and how it was called.

#include <limber/core/version.hpp>

#include <benchmark/benchmark.h>

#include <fstream>
#include <iomanip>
#include <ostream>
#include <string>

namespace limber::bench {

namespace detail {

inline std::string processor() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);)
    if (line.starts_with("model name")) {
      auto const at = line.find_first_not_of(" \t", line.find(':') + 1);
      if (at != std::string::npos) return line.substr(at);
    }
  return "unknown";
}

inline std::string compiler() {
#if defined(__clang__)
  return __VERSION__;
#elif defined(__GNUC__)
  return "GCC " __VERSION__;
#else
  return "unknown";
#endif
}

}  // namespace detail

/// Writes the machine block, `device` last. Nothing in it says whose machine it is.
inline void describe_machine(std::ostream& out, benchmark::CPUInfo const& cpu, std::string const& device) {
  out << "processor  " << detail::processor() << ", " << cpu.num_cpus << " cores";
  for (auto const& c : cpu.caches)
    if (c.type != "Instruction") out << ", L" << c.level << ' ' << (c.size >> 10) << " KiB";
  out << "\ncompiler   " << detail::compiler() << "\nflags      " << LIMBER_BENCH_FLAGS << "\nlimber     "
      << LIMBER_VERSION_MAJOR << '.' << LIMBER_VERSION_MINOR << '.' << LIMBER_VERSION_PATCH;
  if (!cpu.load_avg.empty())
    out << "\nload       " << std::fixed << std::setprecision(1) << cpu.load_avg[0]
        << " (runnable threads over the last minute, before the start)";
  out << '\n' << device;
}

}  // namespace limber::bench
