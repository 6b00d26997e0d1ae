// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The library of the compiled form: include this in one unit that is built with LIMBER_COMPILED defined, as
/// limber::compiled does, and link that unit with all others, which are built with LIMBER_COMPILED as well.

#if !defined(LIMBER_COMPILED)
#error \
    "limber: <limber/impl/src.hpp> is for the one unit of the compiled form; define LIMBER_COMPILED there and in all others"
#endif

#define LIMBER_SOURCE
#include <limber/batch/impl/apportion.ipp>
#include <limber/batch/impl/dbs.ipp>
#include <limber/batch/impl/fixed.ipp>
#include <limber/batch/impl/noise_scale.ipp>
#include <limber/batch/impl/plan.ipp>
#include <limber/batch/impl/sampler.ipp>
#include <limber/comm/detail/impl/call_comparison.ipp>
#include <limber/comm/detail/impl/host_collective.ipp>
#include <limber/comm/detail/impl/local_group.ipp>
#include <limber/comm/detail/impl/process_group.ipp>
#include <limber/comm/detail/impl/receive_queue.ipp>
#include <limber/comm/detail/impl/signature.ipp>
#include <limber/comm/impl/any_communicator.ipp>
#include <limber/comm/impl/self.ipp>
#include <limber/comm/impl/threads.ipp>
#include <limber/core/impl/clock.ipp>
#include <limber/core/impl/error.ipp>
#include <limber/core/impl/order.ipp>
#include <limber/core/impl/tensor.ipp>
#include <limber/fuse/compiled_rules.hpp>
#include <limber/fuse/impl/bucket_plan.ipp>
#include <limber/fuse/impl/host.ipp>
#include <limber/fuse/impl/norm_report.ipp>
#include <limber/fuse/impl/parameter_lists.ipp>
#include <limber/fuse/impl/updater.ipp>
#include <limber/limber.hpp>
#include <limber/optimizer/impl/explain.ipp>
#include <limber/optimizer/impl/handshake.ipp>
#include <limber/optimizer/impl/optimizer.ipp>
#include <limber/schedule/impl/elapsed.ipp>
#include <limber/schedule/impl/step_decay.ipp>
#include <limber/sync/impl/abs_sgd.ipp>
#include <limber/sync/impl/agreement.ipp>
#include <limber/sync/impl/asynchronous_gossip.ipp>
#include <limber/sync/impl/elastic_averaging.ipp>
#include <limber/sync/impl/gossip.ipp>
#include <limber/sync/impl/gradients.ipp>
#include <limber/sync/impl/merge.ipp>
#include <limber/sync/impl/parameter_server.ipp>
#include <limber/sync/impl/presets.ipp>
#include <limber/sync/impl/push_sum.ipp>
#include <limber/sync/impl/streaming_diloco.ipp>
#include <limber/sync/strategies.hpp>

extern "C" {
extern char const limber_is_header_only_in_one_unit_and_compiled_in_another;
char const limber_is_header_only_in_one_unit_and_compiled_in_another = 0;
}
