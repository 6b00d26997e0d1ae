// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The rendezvous of a `gloo` group: each rank writes its addresses into the store, and all connect.

#include <limber/comm/detail/gloo_mesh.hpp>
#include <limber/comm/detail/gloo_store.hpp>
#include <limber/comm/detail/message_sockets.hpp>
#include <limber/comm/detail/ticket.hpp>

#include <gloo/rendezvous/store.h>
#include <netdb.h>
#include <netinet/in.h>
#include <unistd.h>

#include <array>
#include <cstddef>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

namespace limber::gloo_engine::detail {

using limber::detail::message_kind;
using limber::detail::message_sockets;
using limber::detail::peer_event;
using limber::detail::unreachable;

/// Shared by a world and all groups made from it.
struct shared_setup {
  local_endpoint where{};
  std::shared_ptr<::gloo::rendezvous::Store> store{};
  options how{};
};

/// The connections of one rank to all others of a group; empty in a group of one.
struct connections {
  std::shared_ptr<mesh> collectives{};
  std::unique_ptr<message_sockets> messages{};
};

/// The record that a rank writes into the store.
struct rendezvous_record {
  std::string machine{};
  std::string message_address{};
  std::vector<std::string> mesh_addresses{};  ///< by rank: the address to which it connects
};

[[nodiscard]] inline std::vector<char> serialized(rendezvous_record const& n) {
  limber::detail::packer p;
  p.put(std::string_view(n.machine)).put(std::string_view(n.message_address));
  for (std::string const& s : n.mesh_addresses) p.put(std::string_view(s));
  auto const* const first = reinterpret_cast<char const*>(p.bytes().data());
  return {first, first + p.bytes().size()};
}

[[nodiscard]] inline rendezvous_record parse_record(std::vector<char> const& bytes, std::size_t ranks,
                                                    int rank) {
  try {
    limber::detail::unpacker u(std::as_bytes(std::span(bytes)));
    rendezvous_record n;
    n.machine = u.get_text();
    n.message_address = u.get_text();
    for (std::size_t r = 0; r < ranks; ++r) n.mesh_addresses.push_back(u.get_text());
    return n;
  } catch (std::invalid_argument const&) {
    throw setup_error(
        text("rank ", rank, " wrote a record that is truncated, or for a world of another size"), rank);
  }
}

[[nodiscard]] inline std::string machine_name() {
  std::array<char, 256> name{};
  return ::gethostname(name.data(), name.size() - 1) == 0 ? std::string(name.data()) : std::string();
}

[[nodiscard]] inline bool is_loopback(local_endpoint const& where) noexcept {
  if (where.at.ai_family == AF_INET6)
    return IN6_IS_ADDR_LOOPBACK(&reinterpret_cast<sockaddr_in6 const*>(&where.at.ai_addr)->sin6_addr);
  auto const* const v4 = reinterpret_cast<sockaddr_in const*>(&where.at.ai_addr);
  return (ntohl(v4->sin_addr.s_addr) >> 24) == 127;
}

/// As an address of ZeroMQ: IPv6 in brackets.
[[nodiscard]] inline std::string numeric_host(local_endpoint const& where) {
  std::array<char, NI_MAXHOST> host{};
  auto const* const address = reinterpret_cast<sockaddr const*>(&where.at.ai_addr);
  if (int const code = ::getnameinfo(address, static_cast<socklen_t>(where.at.ai_addrlen), host.data(),
                                     host.size(), nullptr, 0, NI_NUMERICHOST);
      code != 0)
    throw setup_error(text("cannot listen for messages: ", ::gai_strerror(code)));
  return where.at.ai_family == AF_INET6 ? text("[", host.data(), "]") : std::string(host.data());
}

/// Returns when this rank is connected to all others. A group of one needs no store.
/// @throws limber::error of call "bootstrap" naming the ranks that are missing or cannot be reached
[[nodiscard]] inline connections run_rendezvous(local_endpoint const& where, ::gloo::rendezvous::Store* store,
                                                std::string const& name, int rank, participants const& who,
                                                options const& how) {
  std::size_t const n = who.ranks.size();
  int const size = static_cast<int>(n);
  if (size == 1) return {};
  connections made;
  rendezvous_record mine;
  mine.machine = machine_name();
  std::vector<rendezvous_record> records;
  try {
    made.collectives = std::make_shared<mesh>(rank, size, where.device, how.rendezvous_deadline / 4);
    made.messages = std::make_unique<message_sockets>(rank, size, numeric_host(where));
    mine.message_address = made.messages->address();
    for (int r = 0; r < size; ++r)
      mine.mesh_addresses.push_back(r == rank ? std::string() : made.collectives->address_for(r));
    store->set(text(name, "/", rank), serialized(mine));
    auto const written = gather_records(*store, name, how, how.rendezvous_deadline * 3 / 4, who);
    for (std::size_t r = 0; r < n; ++r) records.push_back(parse_record(written[r], n, who.ranks[r]));
  } catch (::gloo::Exception const& e) { throw setup_error(e.what()); } catch (zmq::error_t const& e) {
    throw setup_error(text("cannot listen for messages: ", e.what()));
  }

  auto const hint = [&](std::size_t r) {
    return is_loopback(where) && records[r].machine != mine.machine
               ? text(" (this rank listens at a loopback address of '", mine.machine, "', and rank ",
                      who.ranks[r], " runs on '", records[r].machine,
                      "': set gloo_engine::options::host or interface)")
               : std::string();
  };
  auto const failed = [&](int r, char const* why) {
    auto const at = static_cast<std::size_t>(r);
    return setup_error(text("cannot connect to rank ", who.ranks[at], ": ", why, hint(at)), who.ranks[at]);
  };
  try {
    std::vector<std::string> message_addresses;
    for (rendezvous_record const& other : records) message_addresses.push_back(other.message_address);
    made.messages->connect(message_addresses, how.clock, how.rendezvous_deadline / 4);
    for (int r = 0; r < size; ++r)
      if (r != rank)
        with_peer(r, [&] {
          made.collectives->connect(
              r, records[static_cast<std::size_t>(r)].mesh_addresses[static_cast<std::size_t>(rank)]);
        });
    made.messages->await_all(how.clock, how.rendezvous_deadline / 4);
  } catch (unreachable const& e) { throw failed(e.peer, e.what()); } catch (connection_broken const& e) {
    throw failed(e.peer, e.what());
  }
  return made;
}

}  // namespace limber::gloo_engine::detail
