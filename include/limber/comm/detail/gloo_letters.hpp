// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// What the ranks of a `gloo` group write to each other outside of collectives, and the state of one
/// connection that carries it.

#include <limber/core/config.hpp>
#include <limber/core/dtype.hpp>

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <deque>
#include <span>
#include <utility>
#include <vector>

namespace limber::gloo::detail {

enum class letter_kind : std::uint8_t {
  mail,     ///< of the user's mailbox
  tensor,   ///< what `send` was given
  verdict,  ///< the group has failed, and why
  goodbye,  ///< this rank leaves; an end of the connection is no loss from now on
  inquiry,  ///< at which operation are you?
  answer
};

/// In front of the bytes of each letter, in the machine's byte order.
struct letter_head {
  std::uint64_t bytes = 0;
  i64 tag = 0;
  letter_kind kind = letter_kind::mail;
  dtype type = dtype::uint8;
  std::array<std::byte, 6> unused{};
};
static_assert(sizeof(letter_head) == 24);

/// A file descriptor of its own.
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

/// One connection: letters that wait to be written, and the one that is being read. Never blocks.
class letter_line {
 public:
  socket_handle socket{};

  [[nodiscard]] bool open() const noexcept { return static_cast<bool>(socket); }
  [[nodiscard]] bool idle() const noexcept { return unsent_.empty(); }

  /// Writes what the socket takes now, and keeps a copy of the rest. True if there is a rest.
  bool write(letter_head head, std::span<std::byte const> bytes) {
    head.bytes = bytes.size();
    std::size_t sent = 0;
    if (unsent_.empty()) sent = write_some(head, bytes);
    if (sent == sizeof head + bytes.size()) return false;
    std::vector<std::byte> rest(sizeof head + bytes.size());
    std::memcpy(rest.data(), &head, sizeof head);
    if (!bytes.empty()) std::memcpy(rest.data() + sizeof head, bytes.data(), bytes.size());
    if (unsent_.empty()) sent_ = sent;
    unsent_.push_back(std::move(rest));
    return true;
  }

  /// Writes what is waiting, as far as the socket takes it.
  void flush() {
    while (!unsent_.empty()) {
      auto const& first = unsent_.front();
      ssize_t const n =
          ::send(socket.get(), first.data() + sent_, first.size() - sent_, MSG_DONTWAIT | MSG_NOSIGNAL);
      if (n < 0) return;  // full, or broken: reading will tell
      sent_ += static_cast<std::size_t>(n);
      if (sent_ < first.size()) return;
      unsent_.pop_front();
      sent_ = 0;
    }
  }

  /// Reads what is there: f(head, bytes) for each letter that is complete, but not for ever. False at
  /// the end of the connection.
  template <class F>
  bool read(F f) {
    for (int letters = 0; letters < 64;) {
      bool const in_head = got_ < sizeof head_;
      std::byte* const to =
          in_head ? reinterpret_cast<std::byte*>(&head_) + got_ : body_.data() + (got_ - sizeof head_);
      std::size_t const wanted = in_head ? sizeof head_ - got_ : body_.size() - (got_ - sizeof head_);
      if (wanted > 0) {
        ssize_t const n = ::recv(socket.get(), to, wanted, MSG_DONTWAIT);
        if (n == 0) return false;
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return errno == EAGAIN || errno == EWOULDBLOCK;
        got_ += static_cast<std::size_t>(n);
      }
      if (in_head && got_ == sizeof head_) body_.resize(head_.bytes);
      if (got_ < sizeof head_ || got_ < sizeof head_ + head_.bytes) continue;
      got_ = 0;
      f(head_, std::exchange(body_, {}));
      ++letters;
    }
    return true;
  }

 private:
  std::size_t write_some(letter_head const& head, std::span<std::byte const> bytes) {
    letter_head copy = head;
    std::array<iovec, 2> parts{{{&copy, sizeof copy}, {const_cast<std::byte*>(bytes.data()), bytes.size()}}};
    msghdr m{};
    m.msg_iov = parts.data();
    m.msg_iovlen = bytes.empty() ? 1 : 2;
    ssize_t const n = ::sendmsg(socket.get(), &m, MSG_DONTWAIT | MSG_NOSIGNAL);
    return n < 0 ? 0 : static_cast<std::size_t>(n);
  }

  std::deque<std::vector<std::byte>> unsent_;
  std::size_t sent_ = 0;  ///< of the first of them
  letter_head head_{};
  std::vector<std::byte> body_;
  std::size_t got_ = 0;  ///< of head and body
};

}  // namespace limber::gloo::detail
