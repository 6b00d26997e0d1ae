// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The messages between ranks of a `gloo` group outside of collectives, and the connection that carries them.

#include <limber/core/config.hpp>
#include <limber/core/dtype.hpp>

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <deque>
#include <span>
#include <utility>
#include <vector>

namespace limber::gloo_engine::detail {

enum class message_kind : std::uint8_t {
  mailbox,  ///< a message of `post`
  tensor,   ///< a message of `send`
  failure,  ///< the group has failed, and why
  leave,    ///< this rank leaves; the end of its connection is not a failure
  query,    ///< asks which calls the receiver has begun
  reply     ///< the reply to a query
};

/// Precedes the bytes of each message; in the machine's byte order.
struct message_header {
  std::uint64_t bytes = 0;
  i64 tag = 0;
  message_kind kind = message_kind::mailbox;
  dtype type = dtype::uint8;
  std::array<std::byte, 6> unused{};
};
static_assert(sizeof(message_header) == 24);

/// Owns a file descriptor.
class socket_handle {
 public:
  explicit socket_handle(int fd = -1) noexcept : fd_(fd) {}
  socket_handle(socket_handle&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  socket_handle& operator=(socket_handle&& other) noexcept {
    if (this != &other) reset(std::exchange(other.fd_, -1));
    return *this;
  }
  ~socket_handle() { reset(); }

  void reset(int fd = -1) noexcept {
    if (fd_ >= 0) ::close(fd_);
    fd_ = fd;
  }
  [[nodiscard]] int get() const noexcept { return fd_; }
  [[nodiscard]] explicit operator bool() const noexcept { return fd_ >= 0; }

 private:
  int fd_;
};

/// A non-blocking connection: queues unsent messages, and reads incoming ones.
class message_connection {
 public:
  socket_handle socket{};

  [[nodiscard]] bool open() const noexcept { return static_cast<bool>(socket); }
  [[nodiscard]] bool idle() const noexcept { return unsent_.empty(); }

  /// Writes as much as the socket accepts, and queues a copy of the rest. True if there is a rest.
  bool write(message_header head, std::span<std::byte const> bytes) {
    head.bytes = bytes.size();
    std::size_t sent = 0;
    if (unsent_.empty()) sent = write_some(head, bytes);
    if (sent == sizeof head + bytes.size()) return false;
    std::vector<std::byte> reset(sizeof head + bytes.size());
    std::memcpy(reset.data(), &head, sizeof head);
    if (!bytes.empty()) std::memcpy(reset.data() + sizeof head, bytes.data(), bytes.size());
    if (unsent_.empty()) sent_ = sent;
    unsent_.push_back(std::move(reset));
    return true;
  }

  /// Writes queued messages, as much as the socket accepts.
  void flush() {
    while (!unsent_.empty()) {
      auto const& first = unsent_.front();
      ssize_t const n =
          ::send(socket.get(), first.data() + sent_, first.size() - sent_, MSG_DONTWAIT | MSG_NOSIGNAL);
      if (n < 0) return;  // full, or broken: read() detects that
      sent_ += static_cast<std::size_t>(n);
      if (sent_ < first.size()) return;
      unsent_.pop_front();
      sent_ = 0;
    }
  }

  /// Reads available bytes, and calls f(head, bytes) for at most 64 complete messages. False at the end of
  /// the connection.
  template <class F>
  bool read(F f) {
    for (int messages = 0; messages < 64;) {
      bool const in_head = received_ < sizeof head_;
      std::byte* const to = in_head ? reinterpret_cast<std::byte*>(&head_) + received_
                                    : body_.data() + (received_ - sizeof head_);
      std::size_t const wanted =
          in_head ? sizeof head_ - received_ : body_.size() - (received_ - sizeof head_);
      if (wanted > 0) {
        ssize_t const n = ::recv(socket.get(), to, wanted, MSG_DONTWAIT);
        if (n == 0) return false;
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return errno == EAGAIN || errno == EWOULDBLOCK;
        received_ += static_cast<std::size_t>(n);
      }
      if (in_head && received_ == sizeof head_) body_.resize(head_.bytes);
      if (received_ < sizeof head_ || received_ < sizeof head_ + head_.bytes) continue;
      received_ = 0;
      f(head_, std::exchange(body_, {}));
      ++messages;
    }
    return true;
  }

 private:
  std::size_t write_some(message_header const& head, std::span<std::byte const> bytes) {
    message_header copy = head;
    std::array<iovec, 2> parts{{{&copy, sizeof copy}, {const_cast<std::byte*>(bytes.data()), bytes.size()}}};
    msghdr m{};
    m.msg_iov = parts.data();
    m.msg_iovlen = bytes.empty() ? 1 : 2;
    ssize_t const n = ::sendmsg(socket.get(), &m, MSG_DONTWAIT | MSG_NOSIGNAL);
    return n < 0 ? 0 : static_cast<std::size_t>(n);
  }

  std::deque<std::vector<std::byte>> unsent_;
  std::size_t sent_ = 0;  ///< bytes of the first unsent message
  message_header head_{};
  std::vector<std::byte> body_;
  std::size_t received_ = 0;  ///< bytes of head and body
};

}  // namespace limber::gloo_engine::detail
