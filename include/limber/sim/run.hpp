// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Runs a program on a virtual cluster.

#include <limber/sim/cluster.hpp>
#include <limber/sim/detail/driver.hpp>
#include <limber/sim/report.hpp>
#include <limber/sim/worker.hpp>

#include <algorithm>
#include <exception>
#include <memory>
#include <optional>
#include <vector>

namespace limber::sim {

/// Calls f(sim::worker&) for every worker, in turns, and returns when all have ended.
///
/// Order    events are ordered by (time, rank, order of planning); at equal times, events of links precede
///          those of workers. The same cluster and program give the same trace with any scheduler.
/// Cost     on fibers a turn takes well below a microsecond, and a worker its stack: 1,024 of them run
///          on one core.
/// Errors   the first exception of a worker is rethrown after all have ended; the other workers get a
///          limber::error that quotes it. A scheduled death is not an error of the run.
/// @throws std::invalid_argument as cluster::validate
template <class F>
report run(cluster const& what, F f) {
  what.validate();
  auto const e = std::make_shared<detail::engine>(what);
  std::vector<int> founders;
  for (int w = 0; w < what.size(); ++w)
    if (std::ranges::find(what.joins, w, &join::worker) == what.joins.end()) founders.push_back(w);
  auto const all = limber::detail::shared_group(new detail::group(e, founders));
  detail::driver* drives = nullptr;
  detail::driver drive(e, [&](int w) {
    auto const place = std::ranges::lower_bound(founders, w);
    bool const founder = place != founders.end() && *place == w;
    worker me(e, w,
              founder ? std::optional(limber::detail::place{all, static_cast<int>(place - founders.begin())})
                      : std::nullopt);
    try {
      f(me);
    } catch (detail::killed const&) {
    } catch (std::exception const& x) { drives->failed(w, text("threw: ", x.what())); } catch (...) {
      drives->failed(w, "threw something that is no std::exception");
    }
  });
  drives = &drive;
  return drive.run();
}

}  // namespace limber::sim
