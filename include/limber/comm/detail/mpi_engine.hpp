// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The calls of MPI that the backend uses, as a concept: implemented in mpi.hpp, and in tests by a fake that
/// fails on request.

#include <limber/comm/collective.hpp>
#include <limber/core/dtype.hpp>
#include <limber/core/error.hpp>

#include <concepts>
#include <string>
#include <string_view>

namespace limber::mpi::detail {

/// The result of a call.
struct answer {
  int code = 0;  ///< MPI's code; 0 is success
  char const* function = "";

  [[nodiscard]] bool failed() const noexcept { return code != 0; }
};

/// A message that has arrived and was not received yet.
struct arrival {
  bool there = false;
  int source = 0;
  int bytes = 0;
};

/// All calls but `split` and `free` are non-blocking. Handles are values; no_request() and no_comm() are the
/// null handles. Source −1 matches any rank.
///
///     test(q, done)           sets done, and q to no_request(), when the operation has ended
///     probe(c, s, tag, m, a)  takes a message of s with that tag, if there is one, out of MPI's queue
///     take(m, p, n, t, q)     receives it
///     reason(code)            MPI's text
template <class E>
concept engine = std::default_initializable<E> &&
    requires(E& e, E const& k, typename E::comm_type& c, typename E::request_type& q,
             typename E::message_type& m, arrival& a, void const* in, void* out, int n, bool& done, dtype t,
             reduction how) {
  { E::no_request() } -> std::same_as<typename E::request_type>;
  { E::no_comm() } -> std::same_as<typename E::comm_type>;
  { k.is_running() } -> std::same_as<bool>;
  { k.reason(n) } -> std::same_as<std::string>;
  e.abort();
  { e.examine(c, done, n, n) } -> std::same_as<answer>;  // between two groups?, rank, size
  { e.duplicate(c, c, q) } -> std::same_as<answer>;
  { e.adopt(c) } -> std::same_as<answer>;  // codes are returned from now on
  { e.split(c, n, n, c) } -> std::same_as<answer>;
  { e.free(c) } -> std::same_as<answer>;
  { e.test(q, done) } -> std::same_as<answer>;
  { e.all_reduce(c, in, out, n, t, how, q) } -> std::same_as<answer>;
  { e.reduce(c, in, out, n, t, how, n, q) } -> std::same_as<answer>;
  { e.reduce_scatter(c, in, out, n, t, how, q) } -> std::same_as<answer>;
  { e.all_gather(c, in, out, n, t, q) } -> std::same_as<answer>;
  { e.broadcast(c, out, n, t, n, q) } -> std::same_as<answer>;
  { e.barrier(c, q) } -> std::same_as<answer>;
  { e.send(c, in, n, t, n, n, q) } -> std::same_as<answer>;
  { e.probe(c, n, n, m, a) } -> std::same_as<answer>;
  { e.take(m, out, n, t, q) } -> std::same_as<answer>;
};

/// @throws limber::error of engine "mpi" with MPI's code and text, if the call failed
template <class E>
void check(E const& e, answer a, std::string_view call, std::string_view bucket = {}) {
  if (a.failed())
    throw error({"mpi", std::string(call), a.code, -1, std::string(bucket),
                 text(a.function, ": ", e.reason(a.code))});
}

}  // namespace limber::mpi::detail
