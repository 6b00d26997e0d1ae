// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The I/O thread of a `gloo` group, with one connection to each rank in addition to Gloo's.
///
/// Gloo cannot wait for a message from any of several senders if one of them may die, cannot report whether a
/// message was sent, and aborts the process on a message that is longer than expected. So messages use
/// separate sockets, which also report the end of a process at once.

#include <limber/comm/detail/gloo_message_format.hpp>
#include <limber/comm/detail/gloo_store.hpp>
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

namespace limber::gloo_engine::detail {

/// A rank that cannot be reached, and why.
struct unreachable : std::runtime_error {
  unreachable(int position, std::string const& why) : std::runtime_error(why), peer(position) {}
  int peer;
};

class io_thread {
 public:
  /// Called in the I/O thread.
  struct callbacks {
    std::function<void(int source, message_header const&, std::vector<std::byte>)> message{};
    std::function<void(int source)> lost{};  ///< the connection has ended
    std::function<void()> tick{};            ///< called at least once per poll interval
  };

  /// Opens the socket to which other ranks connect.
  io_thread(int rank, int size, local_endpoint const& where)
      : rank_(rank), connections_(static_cast<std::size_t>(size)), nonce_(random_nonce()) {
    auto const& at = where.at;
    listener_ = socket_handle(::socket(at.ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    auto const* const address = reinterpret_cast<sockaddr const*>(&at.ai_addr);
    bool const open = listener_ &&
                      ::bind(listener_.get(), address, static_cast<socklen_t>(at.ai_addrlen)) == 0 &&
                      ::listen(listener_.get(), size) == 0;
    if (!open) throw setup_error(text("cannot listen for messages: ", std::strerror(errno)));
    wake_fd_ = socket_handle(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
    if (!wake_fd_) throw setup_error(text("eventfd: ", std::strerror(errno)));
  }
  io_thread(io_thread const&) = delete;
  io_thread& operator=(io_thread const&) = delete;
  ~io_thread() { stop(); }

  /// The address that other ranks need to connect to this one.
  [[nodiscard]] std::string address() const {
    peer_address h;
    socklen_t n = sizeof h.at;
    if (::getsockname(listener_.get(), reinterpret_cast<sockaddr*>(&h.at), &n) != 0)
      throw setup_error(text("getsockname: ", std::strerror(errno)));
    h.length = n;
    h.nonce = nonce_;
    return {reinterpret_cast<char const*>(&h), sizeof h};
  }

  /// Connects to lower ranks, and accepts connections of higher ranks.
  /// @throws unreachable
  void connect(std::vector<std::string> const& addresses, options const& how, double timeout) {
    double const start = how.clock();
    for (int r = 0; r < rank_; ++r) connect_to(r, addresses[static_cast<std::size_t>(r)]);
    int const above = static_cast<int>(connections_.size()) - rank_ - 1;
    for (int accepted = 0; accepted < above;) {
      if (how.clock() - start > timeout) {
        int r = rank_ + 1;
        while (connection(r).open()) ++r;
        throw unreachable(r, text("it did not connect within ", timeout, " s"));
      }
      pollfd p{listener_.get(), POLLIN, 0};
      if (::poll(&p, 1, 20) > 0 && accept_connection()) ++accepted;
    }
    listener_.reset();
  }

  /// Waits until all ranks have reached this call. Otherwise a rank that leaves the group at once would
  /// disturb ranks that still connect to it.
  /// @pre `connect`, and not yet `start`
  /// @throws unreachable
  void await_all(options const& how, double timeout) {
    double const start = how.clock();
    char const here = 1;
    for (message_connection& l : connections_)
      // A failure means that the peer has ended, which recv() below detects.
      if (l.open()) (void)(::send(l.socket.get(), &here, 1, MSG_NOSIGNAL) == 1);
    for (std::size_t r = 0; r < connections_.size(); ++r) {
      if (!connections_[r].open()) continue;
      int const peer = static_cast<int>(r), fd = connections_[r].socket.get();
      for (pollfd p{fd, POLLIN, 0}; ::poll(&p, 1, 20) <= 0;)
        if (how.clock() - start > timeout)
          throw unreachable(peer, text("it did not reach all others within ", timeout, " s"));
      char there = 0;
      if (::recv(fd, &there, 1, 0) != 1) throw unreachable(peer, "it ended while the ranks connected");
    }
  }

  void start(callbacks to, double poll_interval) {
    callbacks_ = std::move(to);
    poll_interval_ = std::max(1, static_cast<int>(poll_interval * 1000));
    thread_ = std::thread([this] { run(); });
  }

  /// Never blocks. Messages to a rank whose connection has ended are dropped.
  void post(int peer, message_header const& head, std::span<std::byte const> bytes) {
    bool unsent = false;
    {
      std::scoped_lock const lock(mutex_);
      message_connection& l = connection(peer);
      if (l.open()) unsent = l.write(head, bytes);
    }
    if (unsent) wake_up();
  }

  /// Waits until all messages are written to their sockets, for at most `seconds`.
  void flush(double seconds) {
    std::unique_lock lock(mutex_);
    sent_.wait_for(lock, std::chrono::duration<double>(seconds), [&] {
      return std::ranges::all_of(connections_,
                                 [](message_connection const& l) { return !l.open() || l.idle(); });
    });
  }

  /// Ends the thread; no callback is called afterwards.
  void stop() noexcept {
    if (!thread_.joinable()) return;
    stopped_ = true;
    wake_up();
    thread_.join();
  }

 private:
  struct peer_address {
    sockaddr_storage at{};
    socklen_t length = 0;
    int rank = 0;
    std::uint64_t nonce = 0;
  };
  struct handshake {
    std::uint64_t nonce;
    i64 rank;
  };

  [[nodiscard]] static std::uint64_t random_nonce() {
    std::random_device source;
    return (std::uint64_t{source()} << 32) | source();
  }
  [[nodiscard]] message_connection& connection(int r) noexcept {
    return connections_[static_cast<std::size_t>(r)];
  }

  void wake_up() noexcept {
    std::uint64_t const one = 1;
    // It can only fail if the counter is at its maximum, which wakes the thread as well.
    [[maybe_unused]] ssize_t const n = ::write(wake_fd_.get(), &one, sizeof one);
  }

  void connect_to(int peer, std::string const& address) {
    peer_address h;
    if (address.size() != sizeof h) throw unreachable(peer, "its record has another format");
    std::memcpy(&h, address.data(), sizeof h);
    handshake const g{h.nonce, rank_};
    socket_handle s(::socket(h.at.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
    // The backlog has room for all ranks, so this does not wait for the other process.
    if (!s || ::connect(s.get(), reinterpret_cast<sockaddr const*>(&h.at), h.length) != 0 ||
        ::send(s.get(), &g, sizeof g, MSG_NOSIGNAL) != sizeof g)
      throw unreachable(peer, std::strerror(errno));
    attach(peer, std::move(s));
  }

  /// True if a rank that knows the nonce has connected.
  bool accept_connection() {
    socket_handle s(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
    if (!s) return false;
    timeval const second{1, 0};
    ::setsockopt(s.get(), SOL_SOCKET, SO_RCVTIMEO, &second, sizeof second);
    handshake g{};
    if (::recv(s.get(), &g, sizeof g, MSG_WAITALL) != sizeof g || g.nonce != nonce_) return false;
    if (g.rank <= rank_ || g.rank >= static_cast<i64>(connections_.size())) return false;
    int const peer = static_cast<int>(g.rank);
    if (connection(peer).open()) return false;
    attach(peer, std::move(s));
    return true;
  }

  void attach(int peer, socket_handle s) {
    int const on = 1;
    ::setsockopt(s.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    connection(peer).socket = std::move(s);
  }

  void run() {
    std::vector<pollfd> fds(connections_.size() + 1);
    while (!stopped_) {
      {
        std::scoped_lock const lock(mutex_);
        for (std::size_t r = 0; r < connections_.size(); ++r)
          fds[r] = {connections_[r].socket.get(),
                    static_cast<short>(connections_[r].idle() ? POLLIN : POLLIN | POLLOUT), 0};
      }
      fds.back() = {wake_fd_.get(), POLLIN, 0};
      ::poll(fds.data(), fds.size(), poll_interval_);
      if (fds.back().revents != 0) {
        std::uint64_t count;
        [[maybe_unused]] ssize_t const n = ::read(wake_fd_.get(), &count, sizeof count);
      }
      for (std::size_t r = 0; r < connections_.size(); ++r) {
        if ((fds[r].revents & POLLOUT) != 0) write(r);
        if ((fds[r].revents & (POLLIN | POLLERR | POLLHUP)) != 0) read(r);
      }
      callbacks_.tick();
    }
  }
  void write(std::size_t r) {
    std::scoped_lock const lock(mutex_);
    connections_[r].flush();
    if (connections_[r].idle()) sent_.notify_all();
  }
  void read(std::size_t r) {
    int const source = static_cast<int>(r);
    bool open = true;
    try {
      open = connections_[r].read([&](message_header const& head, std::vector<std::byte> bytes) {
        callbacks_.message(source, head, std::move(bytes));
      });
    } catch (std::exception const&) {
      // Out of memory for a message: the rest of the stream cannot be parsed.
      open = false;
    }
    if (open) return;
    {
      std::scoped_lock const lock(mutex_);
      connections_[r].socket.reset();
    }
    sent_.notify_all();
    callbacks_.lost(source);
  }

  int rank_;
  std::mutex mutex_;  // guards writes and the end of sockets; only the I/O thread reads
  std::condition_variable sent_;
  std::vector<message_connection> connections_;
  std::uint64_t nonce_;
  socket_handle listener_, wake_fd_;
  callbacks callbacks_;
  int poll_interval_ = 100;
  std::atomic<bool> stopped_{false};
  std::thread thread_;
};

}  // namespace limber::gloo_engine::detail
