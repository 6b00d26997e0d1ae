// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Whether all ranks still make the same update: that of one optimizer, rate and frozen tensors alike.

#include <limber/sync/stage.hpp>

namespace limber::sync {

/// Three numbers of every rank that are summed with what an exchange reduces anyway, in fp64.
///
///     n Σ hᵣ² = (Σ hᵣ)²  if and only if all hᵣ are equal
///
/// where h is a hash of optimizer, rate and frozen tensors.
/// Bits     h has so few bits that all sums are exact; two different states have the same h once in 2 million
///          times (more often beyond 2,000 ranks).
/// Errors   `expect` throws limber::error on every rank, naming the rank whose optimizer is another one, both
///          rates, or the tensor that is frozen on some ranks only; the update is not made.
struct agreement {
  static constexpr int fields = 3;  ///< Σ 1, Σ h, Σ h²

  /// This rank's numbers. @param ranks  of the group that sums them
  static void write(double* to, training_context const& at, int ranks);
  /// A collective call, if and only if the sums say that ranks differ.
  static void expect(double const* sums, training_context const& at, communicator group);
};

}  // namespace limber::sync

#if !defined(LIMBER_COMPILED)
#include <limber/sync/impl/agreement.ipp>
#endif
