// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The virtual cluster: real optimizers and gradients on a deterministic clock.
///
/// Shows which strategy fits a cluster: a program uses the same optimizer, strategies and collectives as on a
/// real cluster, and runs with any number of workers on one core.
///
///     limber::sim::cluster c{.workers = std::vector(16, limber::sim::speed{.seconds_per_sample = 2e-3}),
///                            .network = {.latency = 1e-4, .bandwidth = 1e9}};
///     c.workers[3].seconds_per_sample *= 4;                                       // a slow worker
///     c.slowdowns.push_back({.worker = 5, .from = 10, .until = 20, .factor = 3});  // temporarily slow
///
///     auto const r = limber::sim::run(c, [&](limber::sim::worker& me) {
///       model m;
///       limber::optimizer opt{m.parameters(), limber::sgd{}, 0.1, limber::sync::local{.period = 16},
///       me.comm(),
///                             {.batch = limber::per_worker{32}, .clock = me.clock()}};
///       for (int step = 0; step < 200; ++step) {
///         me.compute(32);                 // virtual seconds pass
///         m.backward(batch(step, me.rank()));  // real gradients, 0 virtual seconds
///         opt.step(32);                   // takes the time of waiting and of the links
///         if (me.rank() == 0) me.note("loss", m.loss());
///       }
///       opt.finish();
///     });
///     // r.seconds, r.utilisation(), r.bytes(), r.time_to("loss", 0.3), …
///
/// Needs Boost.Context: link limber::sim.

#include <limber/sim/cluster.hpp>
#include <limber/sim/communicator.hpp>
#include <limber/sim/cost.hpp>
#include <limber/sim/report.hpp>
#include <limber/sim/run.hpp>
#include <limber/sim/worker.hpp>
