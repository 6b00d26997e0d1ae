// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The ranks of a `gloo` group meet: each writes where it listens into the store, and all connect.

#include <limber/comm/detail/gloo_mesh.hpp>
#include <limber/comm/detail/gloo_options.hpp>
#include <limber/comm/detail/gloo_post.hpp>
#include <limber/comm/detail/gloo_store.hpp>
#include <limber/comm/detail/ticket.hpp>

#include <gloo/rendezvous/store.h>
#include <netinet/in.h>
#include <unistd.h>

#include <array>
#include <cstddef>
#include <exception>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace limber::gloo::detail {

/// The connections of one rank to all others of a group; none in a group of one.
struct links {
  std::shared_ptr<mesh> lines{};
  std::unique_ptr<post_office> office{};
};

/// What a rank writes into the store.
struct note {
  std::string machine{};
  std::string office{};
  std::vector<std::string> lines{};  ///< for each rank, where it is to connect
};

[[nodiscard]] inline std::vector<char> packed(note const& n) {
  limber::detail::packer p;
  p.put(std::string_view(n.machine)).put(std::string_view(n.office));
  for (std::string const& s : n.lines) p.put(std::string_view(s));
  auto const* const first = reinterpret_cast<char const*>(p.bytes().data());
  return {first, first + p.bytes().size()};
}

[[nodiscard]] inline note unpacked(std::vector<char> const& bytes, std::size_t ranks, int name) {
  try {
    limber::detail::unpacker u(std::as_bytes(std::span(bytes)));
    note n;
    n.machine = u.get_text();
    n.office = u.get_text();
    for (std::size_t r = 0; r < ranks; ++r) n.lines.push_back(u.get_text());
    return n;
  } catch (std::invalid_argument const&) {
    throw setup_error(text("rank ", name, " wrote a note that is cut short, or for a world of another size"),
                      name);
  }
}

[[nodiscard]] inline std::string machine_name() {
  std::array<char, 256> name{};
  return ::gethostname(name.data(), name.size() - 1) == 0 ? std::string(name.data()) : std::string();
}

[[nodiscard]] inline bool is_loopback(place const& where) noexcept {
  if (where.at.ai_family == AF_INET6)
    return IN6_IS_ADDR_LOOPBACK(&reinterpret_cast<sockaddr_in6 const*>(&where.at.ai_addr)->sin6_addr);
  auto const* const v4 = reinterpret_cast<sockaddr_in const*>(&where.at.ai_addr);
  return (ntohl(v4->sin_addr.s_addr) >> 24) == 127;
}

/// Returns when this rank is connected to all others; a group of one needs no store.
/// @throws limber::error of call "bootstrap" naming the ranks that did not come or cannot be reached
[[nodiscard]] inline links meet(place const& where, ::gloo::rendezvous::Store* store, std::string const& name,
                                int rank, guests const& who, options const& how) {
  std::size_t const n = who.names.size();
  int const size = static_cast<int>(n);
  if (size == 1) return {};
  links made;
  note mine;
  mine.machine = machine_name();
  std::vector<note> notes;
  try {
    made.lines = std::make_shared<mesh>(rank, size, where.device, how.meeting / 4);
    made.office = std::make_unique<post_office>(rank, size, where);
    mine.office = made.office->address();
    for (int r = 0; r < size; ++r)
      mine.lines.push_back(r == rank ? std::string() : made.lines->address_for(r));
    store->set(text(name, "/", rank), packed(mine));
    auto const written = gather_notes(*store, name, how, how.meeting * 3 / 4, who);
    for (std::size_t r = 0; r < n; ++r) notes.push_back(unpacked(written[r], n, who.names[r]));
  } catch (::gloo::Exception const& e) { throw setup_error(e.what()); }

  auto const advice = [&](std::size_t r) {
    return is_loopback(where) && notes[r].machine != mine.machine
               ? text(" (this rank listens at a loopback address of '", mine.machine, "', and rank ",
                      who.names[r], " runs on '", notes[r].machine,
                      "': set gloo::options::host or interface)")
               : std::string();
  };
  auto const failed = [&](int r, char const* why) {
    auto const at = static_cast<std::size_t>(r);
    return setup_error(text("cannot connect to rank ", who.names[at], ": ", why, advice(at)), who.names[at]);
  };
  try {
    std::vector<std::string> offices;
    for (note const& other : notes) offices.push_back(other.office);
    made.office->connect(offices, how, how.meeting / 4);
    for (int r = 0; r < size; ++r)
      if (r != rank)
        on_line(r, [&] {
          made.lines->connect(r, notes[static_cast<std::size_t>(r)].lines[static_cast<std::size_t>(rank)]);
        });
    made.office->await_all(how, how.meeting / 4);
  } catch (unreached const& e) { throw failed(e.peer, e.what()); } catch (line_broken const& e) {
    throw failed(e.peer, e.what());
  }
  return made;
}

}  // namespace limber::gloo::detail
