// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The postman of a `gloo` group: one connection to each rank beside Gloo's, and the thread that reads.
///
/// Gloo has no way to wait for any of several senders that survives the death of one of them, none to
/// ask whether a message has been sent, and a message that is longer than expected ends the process.
/// So letters have sockets of their own. They also tell at once when a process ends.

#include <limber/comm/detail/gloo_letters.hpp>
#include <limber/comm/detail/gloo_options.hpp>
#include <limber/core/error.hpp>

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstring>
#include <exception>
#include <functional>
#include <mutex>
#include <random>
#include <span>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace limber::gloo::detail {

/// A rank that cannot be connected to, and why.
struct unreached : std::runtime_error {
  unreached(int position, std::string const& why) : std::runtime_error(why), peer(position) {}
  int peer;
};

class post_office {
 public:
  /// What the postman calls, in its thread.
  struct receiver {
    std::function<void(int source, letter_head const&, std::vector<std::byte>)> letter{};
    std::function<void(int source)> lost{};  ///< the connection has ended
    std::function<void()> tick{};            ///< every now and then
  };

  /// Opens the socket at which the others will connect.
  post_office(int rank, int size, place const& where)
      : rank_(rank), lines_(static_cast<std::size_t>(size)), nonce_(draw()) {
    auto const& at = where.at;
    listener_ = socket_handle(::socket(at.ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    auto const* const address = reinterpret_cast<sockaddr const*>(&at.ai_addr);
    bool const open = listener_ &&
                      ::bind(listener_.get(), address, static_cast<socklen_t>(at.ai_addrlen)) == 0 &&
                      ::listen(listener_.get(), size) == 0;
    if (!open) throw setup_error(text("cannot listen for letters: ", std::strerror(errno)));
    wake_ = socket_handle(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
    if (!wake_) throw setup_error(text("eventfd: ", std::strerror(errno)));
  }
  post_office(post_office const&) = delete;
  post_office& operator=(post_office const&) = delete;
  ~post_office() { stop(); }

  /// What others need to connect to this rank.
  [[nodiscard]] std::string address() const {
    hello h;
    socklen_t n = sizeof h.at;
    if (::getsockname(listener_.get(), reinterpret_cast<sockaddr*>(&h.at), &n) != 0)
      throw setup_error(text("getsockname: ", std::strerror(errno)));
    h.length = n;
    h.nonce = nonce_;
    return {reinterpret_cast<char const*>(&h), sizeof h};
  }

  /// Connects to the ranks below, and is connected to by those above.
  /// @throws unreached
  void connect(std::vector<std::string> const& addresses, options const& how, double patience) {
    double const start = how.clock();
    for (int r = 0; r < rank_; ++r) call(r, addresses[static_cast<std::size_t>(r)]);
    int const above = static_cast<int>(lines_.size()) - rank_ - 1;
    for (int accepted = 0; accepted < above;) {
      if (how.clock() - start > patience) {
        int r = rank_ + 1;
        while (line(r).open()) ++r;
        throw unreached(r, text("it did not call within ", patience, " s"));
      }
      pollfd p{listener_.get(), POLLIN, 0};
      if (::poll(&p, 1, 20) > 0 && answer_call()) ++accepted;
    }
    listener_.reset();
  }

  /// Returns when all ranks have come to this call. Before it, one that ends again at once (its program
  /// needs no more of the group) would disturb those that still connect to it.
  /// @pre `connect`, and not yet `start`
  /// @throws unreached
  void await_all(options const& how, double patience) {
    double const start = how.clock();
    char const here = 1;
    for (letter_line& l : lines_)
      // If it fails, the other end is gone, and reading will tell.
      if (l.open()) (void)(::send(l.socket.get(), &here, 1, MSG_NOSIGNAL) == 1);
    for (std::size_t r = 0; r < lines_.size(); ++r) {
      if (!lines_[r].open()) continue;
      int const peer = static_cast<int>(r), fd = lines_[r].socket.get();
      for (pollfd p{fd, POLLIN, 0}; ::poll(&p, 1, 20) <= 0;)
        if (how.clock() - start > patience)
          throw unreached(peer, text("it did not reach all others within ", patience, " s"));
      char there = 0;
      if (::recv(fd, &there, 1, 0) != 1) throw unreached(peer, "it ended while the ranks connected");
    }
  }

  void start(receiver to, double nap) {
    to_ = std::move(to);
    nap_ = std::max(1, static_cast<int>(nap * 1000));
    postman_ = std::thread([this] { work(); });
  }

  /// Never blocks. Letters to a rank whose connection has ended are thrown away.
  void post(int peer, letter_head const& head, std::span<std::byte const> bytes) {
    bool rest = false;
    {
      std::scoped_lock const lock(door_);
      letter_line& l = line(peer);
      if (l.open()) rest = l.write(head, bytes);
    }
    if (rest) ring();
  }

  /// Waits until all letters are on their way, for at most so many seconds.
  void flush(double seconds) {
    std::unique_lock lock(door_);
    sent_.wait_for(lock, std::chrono::duration<double>(seconds), [&] {
      return std::ranges::all_of(lines_, [](letter_line const& l) { return !l.open() || l.idle(); });
    });
  }

  /// Ends the thread; no call of the receiver begins afterwards.
  void stop() noexcept {
    if (!postman_.joinable()) return;
    stopped_ = true;
    ring();
    postman_.join();
  }

 private:
  struct hello {
    sockaddr_storage at{};
    socklen_t length = 0;
    int rank = 0;
    std::uint64_t nonce = 0;
  };
  struct greeting {
    std::uint64_t nonce;
    i64 rank;
  };

  [[nodiscard]] static std::uint64_t draw() {
    std::random_device source;
    return (std::uint64_t{source()} << 32) | source();
  }
  [[nodiscard]] letter_line& line(int r) noexcept { return lines_[static_cast<std::size_t>(r)]; }

  void ring() noexcept {
    std::uint64_t const one = 1;
    // It can only fail because it has rung often enough.
    [[maybe_unused]] ssize_t const n = ::write(wake_.get(), &one, sizeof one);
  }

  void call(int peer, std::string const& address) {
    hello h;
    if (address.size() != sizeof h) throw unreached(peer, "its note is of another kind");
    std::memcpy(&h, address.data(), sizeof h);
    greeting const g{h.nonce, rank_};
    socket_handle s(::socket(h.at.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
    // Its queue has room for all ranks: this does not wait for the other process.
    if (!s || ::connect(s.get(), reinterpret_cast<sockaddr const*>(&h.at), h.length) != 0 ||
        ::send(s.get(), &g, sizeof g, MSG_NOSIGNAL) != sizeof g)
      throw unreached(peer, std::strerror(errno));
    adopt(peer, std::move(s));
  }

  /// True if somebody who knows the nonce has called.
  bool answer_call() {
    socket_handle s(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
    if (!s) return false;
    timeval const second{1, 0};
    ::setsockopt(s.get(), SOL_SOCKET, SO_RCVTIMEO, &second, sizeof second);
    greeting g{};
    if (::recv(s.get(), &g, sizeof g, MSG_WAITALL) != sizeof g || g.nonce != nonce_) return false;
    if (g.rank <= rank_ || g.rank >= static_cast<i64>(lines_.size())) return false;
    int const peer = static_cast<int>(g.rank);
    if (line(peer).open()) return false;
    adopt(peer, std::move(s));
    return true;
  }

  void adopt(int peer, socket_handle s) {
    int const on = 1;
    ::setsockopt(s.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    line(peer).socket = std::move(s);
  }

  void work() {
    std::vector<pollfd> fds(lines_.size() + 1);
    while (!stopped_) {
      {
        std::scoped_lock const lock(door_);
        for (std::size_t r = 0; r < lines_.size(); ++r)
          fds[r] = {lines_[r].socket.get(), static_cast<short>(lines_[r].idle() ? POLLIN : POLLIN | POLLOUT),
                    0};
      }
      fds.back() = {wake_.get(), POLLIN, 0};
      ::poll(fds.data(), fds.size(), nap_);
      if (fds.back().revents != 0) {
        std::uint64_t count;
        [[maybe_unused]] ssize_t const n = ::read(wake_.get(), &count, sizeof count);
      }
      for (std::size_t r = 0; r < lines_.size(); ++r) {
        if ((fds[r].revents & POLLOUT) != 0) write(r);
        if ((fds[r].revents & (POLLIN | POLLERR | POLLHUP)) != 0) read(r);
      }
      to_.tick();
    }
  }
  void write(std::size_t r) {
    std::scoped_lock const lock(door_);
    lines_[r].flush();
    if (lines_[r].idle()) sent_.notify_all();
  }
  void read(std::size_t r) {
    int const source = static_cast<int>(r);
    bool open = true;
    try {
      open = lines_[r].read([&](letter_head const& head, std::vector<std::byte> bytes) {
        to_.letter(source, head, std::move(bytes));
      });
    } catch (std::exception const&) {
      // No memory for a letter: as good as lost, and the stream cannot be read on.
      open = false;
    }
    if (open) return;
    {
      std::scoped_lock const lock(door_);
      lines_[r].socket.reset();
    }
    sent_.notify_all();
    to_.lost(source);
  }

  int rank_;
  std::mutex door_;  // of what is written and of sockets that end; only the postman reads
  std::condition_variable sent_;
  std::vector<letter_line> lines_;
  std::uint64_t nonce_;
  socket_handle listener_, wake_;
  receiver to_;
  int nap_ = 100;
  std::atomic<bool> stopped_{false};
  std::thread postman_;
};

}  // namespace limber::gloo::detail
