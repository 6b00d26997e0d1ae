// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// What strategies post to mailboxes: lists of tensors as host bytes, requests to a server and its replies.

#include <limber/comm/any_communicator.hpp>
#include <limber/core/config.hpp>
#include <limber/core/error.hpp>
#include <limber/core/tensor.hpp>
#include <limber/fuse/any_executor.hpp>
#include <limber/fuse/layout.hpp>
#include <limber/fuse/shared_array.hpp>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace limber::sync {

/// A message that consists of a header alone. The bytes are those of `h`.
template <class Header>
[[nodiscard]] std::span<std::byte const> header_bytes(Header const& h) noexcept {
  static_assert(std::is_trivially_copyable_v<Header>);
  return std::as_bytes(std::span(&h, 1));
}

/// A list in memory that an executor works on; sent and received as host bytes behind a header.
///
///     at.exec.each(copy{}, out(m.parts()), in(model));
///     comm.post(peer, tag, m.pack(at.exec, header{…}));             // the sender
///     auto const h = tensor_message::header_of<header>(received.bytes);
///     m.unpack(at.exec, received.bytes);                            // the receiver; parts() hold the list
///
/// Memory   one copy on the executor's side and one on the host's (the same where the executor is the
///          host), and the bytes of the last message; allocated once.
/// Cost     one copy of the list on the host each way, besides the engine's.
class tensor_message {
 public:
  tensor_message(any_executor& e, layout const& where) : memory_(e.share<std::byte>(where.bytes)) {
    for (auto const& p : where.places)
      parts_.push_back({memory_.device + p.offset, p.length, p.type, p.name});
    message_.resize(header_room + static_cast<std::size_t>(where.bytes));
  }

  /// The list, on the executor's side.
  [[nodiscard]] tensor_list const& parts() const noexcept { return parts_; }

  /// The bytes of the header and the list; valid until the next call. Synchronizes.
  template <class Header>
  [[nodiscard]] std::span<std::byte const> pack(any_executor& e, Header const& h) {
    static_assert(sizeof(Header) <= header_room);
    e.collect(memory_);
    std::memcpy(message_.data(), &h, sizeof h);
    if (memory_.n > 0)
      std::memcpy(message_.data() + header_room, memory_.host, message_.size() - header_room);
    return message_;
  }

  /// Copies the list of a received message to parts().
  /// @throws std::invalid_argument if the message is of another length
  void unpack(any_executor& e, std::span<std::byte const> bytes) {
    expects(bytes.size() == message_.size(), "parcel: a message of ", bytes.size(), " bytes instead of ",
            message_.size());
    if (memory_.n > 0) std::memcpy(memory_.host, bytes.data() + header_room, bytes.size() - header_room);
    e.publish(memory_);
  }

  /// The header alone; also of a message that has nothing else.
  /// @throws std::invalid_argument if the message is shorter
  template <class Header>
  [[nodiscard]] static Header header_of(std::span<std::byte const> bytes) {
    static_assert(std::is_trivially_copyable_v<Header>);
    Header h;
    expects(bytes.size() >= sizeof h, "parcel: a message of only ", bytes.size(), " bytes");
    std::memcpy(&h, bytes.data(), sizeof h);
    return h;
  }

  [[nodiscard]] i64 bytes() const noexcept { return memory_.bytes() + static_cast<i64>(message_.size()); }

 private:
  static constexpr std::size_t header_room = 64;

  shared_array<std::byte> memory_;
  tensor_list parts_;
  std::vector<std::byte> message_;
};

/// Tags of requests to a server and of its replies. One strategy with a server at a time can use a
/// collective.
inline constexpr i64 request_tag = 0x5e72'7665;
inline constexpr i64 reply_tag = request_tag + 1;

/// What a worker requests; the first field of the header of every request.
enum class server_request : i64 {
  exchange,  ///< an update by what the message holds
  read,      ///< the server's model alone
  leave,     ///< nothing any more: it has called finish()
};

/// The next message with this tag, however long it takes.
/// @throws limber::error at the collective's deadline, or when nobody is left to write
[[nodiscard]] inline message next_message(communicator comm, i64 tag) {
  for (;;) {
    if (auto m = comm.poll(tag)) return std::move(*m);
    comm.listen();
  }
}

/// The link of a rank to the server: as a worker its requests; as the server which workers still train, and
/// how many requests each has made.
class active_workers {
  struct worker {
    i64 requests = 0;
    bool trains = true;
  };

 public:
  /// All ranks but the server train, and none has made a request.
  void start(communicator comm, int server) {
    comm_ = comm;
    server_ = server;
    workers_.assign(static_cast<std::size_t>(comm.size()), {});
    workers_[static_cast<std::size_t>(server)].trains = false;
  }
  /// True on the server.
  [[nodiscard]] bool serves() const { return comm_.rank() == server_; }

  /// A worker's request. @return the server's reply
  [[nodiscard]] message request(std::span<std::byte const> bytes) {
    comm_.post(server_, request_tag, bytes);
    return next_message(comm_, reply_tag);
  }
  void reply(int rank, std::span<std::byte const> bytes) { comm_.post(rank, reply_tag, bytes); }

  /// Calls f(message, leaves) for every request, until no worker trains any more.
  template <class F>
  void serve(F const& f) {
    while (any()) {
      message const m = next_message(comm_, request_tag);
      worker& from = workers_[static_cast<std::size_t>(m.source)];
      from.trains = tensor_message::header_of<server_request>(m.bytes) != server_request::leave;
      if (from.trains) ++from.requests;
      f(m, !from.trains);
    }
  }

  /// True while a worker trains.
  [[nodiscard]] bool any() const noexcept { return std::ranges::any_of(workers_, &worker::trains); }
  /// Requests by which `rank` is ahead of the slowest worker that still trains.
  [[nodiscard]] i64 lead(int rank) const noexcept {
    i64 const own = workers_[static_cast<std::size_t>(rank)].requests;
    i64 least = own;
    for (worker const& w : workers_)
      if (w.trains) least = std::min(least, w.requests);
    return own - least;
  }

  /// At finish(): a worker leaves; the server receives that of every worker from which `serve` has not
  /// received it, so that none is left for a later one. Then all start again.
  /// @throws limber::error if a worker requests anything else
  void finish() {
    server_request const leave = server_request::leave;
    if (!serves())
      comm_.post(server_, request_tag, header_bytes(leave));
    else
      serve([](message const& m, bool leaves) {
        if (leaves) return;
        std::string reason = text("the server has called finish() but rank ", m.source,
                                  " still trains; call serve(), which returns when all have finished");
        throw error({"sync", "finish", 0, m.source, {}, std::move(reason)});
      });
    start(comm_, server_);
  }

 private:
  communicator comm_;
  int server_ = 0;
  std::vector<worker> workers_;  // by rank
};

}  // namespace limber::sync
