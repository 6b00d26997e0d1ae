// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Options of a `gloo` communicator: deadlines, and its network interface.

#include <limber/core/clock.hpp>
#include <limber/core/error.hpp>

#include <gloo/transport/tcp/attr.h>
#include <gloo/transport/tcp/device.h>

#include <exception>
#include <memory>
#include <string>
#include <utility>

namespace limber::gloo {

/// Deadlines of a `gloo` communicator, and where its ranks listen.
struct options {
  double deadline = 60;  ///< seconds without progress until a call fails, > 0
  double rendezvous_deadline =
      60;  ///< seconds until all ranks must have met: at construction, split, shrink; > 0
  std::string prefix = "limber";  ///< of all keys in the store; unique to each world or generation
  /// The network interface ("eth0") or, without one, the host name or address to listen at. By default
  /// the machine's host name, and 127.0.0.1 where that is no address of this machine.
  std::string interface {};
  std::string host{};  ///< see `interface`; ranks on several machines must reach one another there
  int lanes = 2;       ///< operations that run at the same time, > 0; they complete in order all the same
  clock_function clock = steady_seconds;  ///< called from all threads at once; must not throw
};

namespace detail {

inline void check(options const& how) {
  expects(how.deadline > 0, "gloo: deadline must be > 0 s, got ", how.deadline);
  expects(how.rendezvous_deadline > 0, "gloo: rendezvous_deadline must be > 0 s, got ",
          how.rendezvous_deadline);
  expects(how.lanes > 0, "gloo: lanes must be > 0, got ", how.lanes);
  expects(!how.prefix.empty(), "gloo: prefix is empty");
  expects(how.interface.empty() || how.host.empty(), "gloo: both interface '", how.interface, "' and host '",
          how.host, "' are given");
  expects(how.clock != nullptr, "gloo: clock is empty");
}

[[nodiscard]] inline error setup_error(std::string const& reason, int rank = -1) {
  return error({"gloo", "bootstrap", 0, rank, {}, reason});
}

/// The local address, and the Gloo device (one thread) that serves all groups of a communicator.
struct local_endpoint {
  ::gloo::transport::tcp::attr at{};
  std::shared_ptr<::gloo::transport::Device> device{};
};

[[nodiscard]] inline local_endpoint make_local_endpoint(options const& how) {
  namespace tcp = ::gloo::transport::tcp;
  auto const open = [](tcp::attr const& wanted) {
    local_endpoint p;
    p.at = tcp::CreateDeviceAttr(wanted);
    p.device = tcp::CreateDevice(wanted);
    return p;
  };
  tcp::attr wanted;
  wanted.iface = how.interface;
  wanted.hostname = how.host;
  try {
    return open(wanted);
  } catch (std::exception const& e) {
    if (!how.interface.empty() || !how.host.empty())
      throw setup_error(
          text("cannot listen at '", how.interface.empty() ? how.host : how.interface, "': ", e.what()));
  }
  wanted.hostname = "127.0.0.1";
  try {
    return open(wanted);
  } catch (std::exception const& e) { throw setup_error(text("cannot listen at 127.0.0.1: ", e.what())); }
}

}  // namespace detail
}  // namespace limber::gloo
