// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Elastic averaging SGD by name.

#include <limber/sync/elastic_force.hpp>
#include <limber/sync/exchange.hpp>

namespace limber::sync {

/// Elastic averaging SGD: every worker explores on its own, tied to a centre by an elastic force. With
/// `sgd{.momentum, .nesterov = true}` as the rule it is EAMSGD.
///
/// Units        `moving_rate` is β = workers · α, the share of the way that the centre goes to the mean of
///              the models; 0.9 per worker instead of over all is unstable.
/// Choices      the synchronous form: every worker meets the centre at the same call. `evaluate` shows the
///              centre; models stay apart, also after `finish`. A joiner starts from the workers' mean.
/// Collectives  one all-reduce of the model every `period` calls; one more of the history to average it.
/// Paper        Zhang, Choromanska and LeCun, Deep Learning with Elastic Averaging SGD, NIPS 2015,
///              arXiv:1412.6651, equations 2 and 3.
struct elastic_averaging {
  i64 period = 10;                   ///< τ
  double moving_rate = 0.9;          ///< β, in [0, 1]
  moments at_merge = moments::keep;  ///< each worker's history at an exchange; the paper keeps it

  [[nodiscard]] exchange parts() const;
};

}  // namespace limber::sync

#if !defined(LIMBER_COMPILED)
#include <limber/sync/impl/elastic_averaging.ipp>
#endif
