// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Messages between the ranks of a group of processes, by ZeroMQ: one connection for each pair of ranks,
/// which also reports the end of a process at once. The only header that includes zmq.hpp.

#include <limber/core/clock.hpp>
#include <limber/core/dtype.hpp>
#include <limber/core/error.hpp>

#include <zmq.hpp>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <limits>
#include <mutex>
#include <random>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

namespace limber::detail {

enum class message_kind : std::uint8_t {
  mailbox,  ///< a message of `post`
  tensor,   ///< a message of `send`
  failure,  ///< the group has failed, and why
  leave,    ///< this rank leaves; the end of its connection is not a failure
  query,    ///< asks which calls the receiver has begun
  reply,    ///< the reply to a query
  // Of message_sockets itself:
  flush,    ///< asks for the next
  flushed,  ///< all earlier messages have arrived
  hello,    ///< the first one of a connection
  ready,    ///< the sender is connected to all
};

/// Precedes the bytes of each message; in the machine's byte order.
struct message_header {
  i64 tag = 0;
  message_kind kind = message_kind::mailbox;
  dtype type = dtype::uint8;
  std::array<std::byte, 6> unused{};
};
static_assert(sizeof(message_header) == 16);

/// What has arrived from a rank: a message, or the end of its connection.
struct peer_event {
  int peer = 0;
  bool lost = false;
  message_header head{};
  std::vector<std::byte> bytes{};
};

/// A rank that cannot be reached, and why.
struct unreachable : std::runtime_error {
  unreachable(int rank, std::string const& why) : std::runtime_error(why), peer(rank) {}
  int peer;
};

/// The sockets of one rank: a ROUTER that higher ranks connect to, and a DEALER for each lower rank. Who does
/// not know the number that is part of the address is not listened to.
///
/// Order    messages of one rank arrive in the order in which they were posted, before the end of its
///          connection. A connection that has ended is not made again.
/// Threads  post and flush may be called by any thread; one thread calls the rest, then those of `start`.
class message_sockets {
 public:
  /// Called in the thread of `start`.
  struct callbacks {
    std::function<void(peer_event)> event{};
    std::function<void()> tick{};  ///< called at least once per poll interval
  };

  /// @param host  the numeric address to listen at; IPv6 in brackets
  /// @throws zmq::error_t
  message_sockets(int rank, int size, std::string const& host)
      : rank_(rank),
        peers_(static_cast<std::size_t>(size)),
        nonce_(random_nonce()),
        posted_(make_socket(zmq::socket_type::pair)),
        outbox_(make_socket(zmq::socket_type::pair)),
        router_(make_socket(zmq::socket_type::router)) {
    outbox_.bind("inproc://outbox");
    posted_.connect("inproc://outbox");
    router_.bind(text("tcp://", host, ":*"));
    router_ends_ = ends_of(router_, ZMQ_EVENT_DISCONNECTED);
  }
  message_sockets(message_sockets const&) = delete;
  message_sockets& operator=(message_sockets const&) = delete;
  ~message_sockets() {
    stop();
    stop_reports(router_);
    for (link& l : peers_) stop_reports(l.dealer);
  }

  /// What other ranks need to connect to this one.
  [[nodiscard]] std::string address() const {
    return text(router_.get(zmq::sockopt::last_endpoint), " ", nonce_);
  }

  /// Connects to all ranks. @throws unreachable
  void connect(std::vector<std::string> const& addresses, clock_function const& clock, double timeout) {
    for (int r = 0; r < rank_; ++r) connect_to(r, addresses[static_cast<std::size_t>(r)]);
    at(rank_).met = message_kind::ready;
    meet(message_kind::hello, clock, timeout, "it did not connect within ");
  }
  /// Waits until all ranks have reached this call: one that leaves at once would otherwise disturb those that
  /// still connect to it.
  /// @pre `connect`, and not yet `start`
  /// @throws unreachable
  void await_all(clock_function const& clock, double timeout) {
    for (int r = 0; r < size(); ++r)
      if (r != rank_) put(r, message_kind::ready);
    meet(message_kind::ready, clock, timeout, "it did not reach all others within ");
  }

  void start(callbacks to, double poll_interval) {
    callbacks_ = std::move(to);
    auto const interval = std::chrono::milliseconds(std::max(1, static_cast<int>(poll_interval * 1000)));
    thread_ = std::thread([this, interval] { run(interval); });
  }

  /// Never blocks. Messages to a rank whose connection has ended are dropped.
  void post(int peer, message_header const& head, std::span<std::byte const> bytes) {
    zmq::message_t frame = frame_of(head, bytes);
    std::scoped_lock const lock(mutex_);
    if (at(peer).lost) return;
    send(posted_, zmq::message_t(&peer, sizeof peer), zmq::send_flags::sndmore);
    send(posted_, std::move(frame));
  }

  /// Waits until all messages have arrived, for at most `seconds`.
  void flush(double seconds) {
    for (int r = 0; r < size(); ++r)
      if (r != rank_) post(r, {.kind = message_kind::flush}, {});
    std::unique_lock lock(mutex_);
    flushed_.wait_for(lock, std::chrono::duration<double>(seconds), [this] {
      return std::ranges::count_if(peers_, [](link const& l) { return l.lost || l.flushed; }) >= size() - 1;
    });
  }

  /// Ends the thread; no callback is called afterwards.
  void stop() noexcept {
    if (!thread_.joinable()) return;
    {
      std::scoped_lock const lock(mutex_);
      stopped_ = true;
      send(posted_, {});
    }
    thread_.join();
  }

 private:
  struct link {
    zmq::socket_t dealer{}, ends{};  ///< of a lower rank
    int fd = -1;                     ///< the connection of a higher rank
    message_kind met{};              ///< hello, then ready, where it has sent them
    bool lost = false, flushed = false;
  };

  [[nodiscard]] static std::uint64_t random_nonce() {
    std::random_device source;
    return (std::uint64_t{source()} << 32) | source();
  }
  [[nodiscard]] int size() const noexcept { return static_cast<int>(peers_.size()); }
  [[nodiscard]] link& at(int r) noexcept { return peers_[static_cast<std::size_t>(r)]; }

  [[nodiscard]] zmq::socket_t make_socket(zmq::socket_type type) {
    zmq::socket_t s(context_, type);
    s.set(zmq::sockopt::linger, 0);
    s.set(zmq::sockopt::sndhwm, 0);
    s.set(zmq::sockopt::rcvhwm, 0);
    s.set(zmq::sockopt::ipv6, true);
    // Never: what was sent before would be lost.
    s.set(zmq::sockopt::reconnect_ivl, std::numeric_limits<int>::max());
    return s;
  }
  /// A socket that receives the named events of `s`.
  [[nodiscard]] zmq::socket_t ends_of(zmq::socket_t& s, int events) {
    std::string const name = text("inproc://", ++reports_);
    if (zmq_socket_monitor(s.handle(), name.c_str(), events) != 0) throw zmq::error_t();
    zmq::socket_t out(context_, zmq::socket_type::pair);
    out.set(zmq::sockopt::rcvhwm, 0);
    out.connect(name);
    return out;
  }
  /// Before the receiver of reports is closed: ZeroMQ would wait for it.
  static void stop_reports(zmq::socket_t& s) noexcept {
    if (s) (void)zmq_socket_monitor(s.handle(), nullptr, 0);
  }

  void connect_to(int peer, std::string const& address) {
    std::size_t const space = address.find(' ');
    if (space == std::string::npos) throw unreachable(peer, "its record has another format");
    link& l = at(peer);
    try {
      l.dealer = make_socket(zmq::socket_type::dealer);
      l.dealer.set(zmq::sockopt::routing_id, text(address.substr(space + 1), "-", rank_));
      // CLOSED: the connection could not be made.
      l.ends = ends_of(l.dealer, ZMQ_EVENT_DISCONNECTED | ZMQ_EVENT_CLOSED);
      l.dealer.connect(address.substr(0, space));
    } catch (zmq::error_t const& e) { throw unreachable(peer, e.what()); }
    put(peer, message_kind::hello);
  }

  /// Waits until all ranks have sent `what`.
  void meet(message_kind what, clock_function const& clock, double timeout, char const* late) {
    double const start = clock();
    for (;;) {
      auto const missing = std::ranges::find_if(peers_, [what](link const& l) { return l.met < what; });
      if (missing == peers_.end()) return;
      if (clock() - start > timeout)
        throw unreachable(static_cast<int>(missing - peers_.begin()), text(late, timeout, " s"));
      receive(std::chrono::milliseconds(20), [this](peer_event e) {
        message_kind& met = at(e.peer).met;
        if (met == message_kind::ready)  // it has begun to use the group
          return early_.push_back(std::move(e));
        if (e.lost) throw unreachable(e.peer, "it ended while the ranks connected");
        met = e.head.kind;
        if (met == message_kind::hello && e.peer > rank_) put(e.peer, message_kind::hello);
      });
    }
  }

  /// Calls f again while a signal interrupts it.
  template <class F>
  static auto uninterrupted(F f) {
    for (;;) {
      try {
        return f();
      } catch (zmq::error_t const& e) {
        if (e.num() != EINTR) throw;
      }
    }
  }

  // No socket blocks: none has a limit, and parts of a message arrive together.
  static void send(zmq::socket_t& to, zmq::message_t m, zmq::send_flags flags = zmq::send_flags::none) {
    (void)uninterrupted([&] { return to.send(m, flags | zmq::send_flags::dontwait); });
  }
  /// False if there is nothing.
  static bool receive_from(zmq::socket_t& from, zmq::message_t& m) {
    return uninterrupted([&] { return from.recv(m, zmq::recv_flags::dontwait); }).has_value();
  }
  [[nodiscard]] static zmq::message_t frame_of(message_header const& head, std::span<std::byte const> bytes) {
    zmq::message_t frame(sizeof head + bytes.size());
    std::memcpy(frame.data(), &head, sizeof head);
    if (!bytes.empty()) std::memcpy(frame.data<std::byte>() + sizeof head, bytes.data(), bytes.size());
    return frame;
  }
  void put(int peer, message_kind kind) { put(peer, frame_of({.kind = kind}, {})); }
  void put(int peer, zmq::message_t frame) {
    // A ROUTER drops what it sends to ranks that are not connected.
    if (peer > rank_) {
      send(router_, zmq::message_t(text(nonce_, "-", peer)), zmq::send_flags::sndmore);
      send(router_, std::move(frame));
    } else {
      send(at(peer).dealer, std::move(frame));
    }
  }

  void run(std::chrono::milliseconds interval) {
    for (peer_event& e : std::exchange(early_, {})) handle(std::move(e));
    while (!stopped_) {
      receive(interval, [this](peer_event e) { handle(std::move(e)); });
      callbacks_.tick();
    }
  }
  void handle(peer_event e) {
    switch (e.lost ? message_kind::leave : e.head.kind) {
      case message_kind::flush: return put(e.peer, message_kind::flushed);
      case message_kind::flushed: {
        std::scoped_lock const lock(mutex_);
        at(e.peer).flushed = true;
        return flushed_.notify_all();
      }
      default: return callbacks_.event(std::move(e));
    }
  }

  /// Waits for at most `timeout`, and calls on_event for all that has arrived.
  template <class F>
  void receive(std::chrono::milliseconds timeout, F on_event) {
    items_.assign({item_of(outbox_), item_of(router_), item_of(router_ends_)});
    for (link& l : peers_)
      if (l.dealer) items_.insert(items_.end(), {item_of(l.dealer), item_of(l.ends)});
    uninterrupted([&] { return zmq::poll(items_, timeout); });
    for (zmq::message_t to, frame; receive_from(outbox_, to) && to.more();) {
      receive_from(outbox_, frame);
      if (int const peer = *to.data<int>(); !at(peer).lost) put(peer, std::move(frame));
    }
    // All that arrived before a connection ended can be read once its end was reported.
    std::vector<int> ended;
    for (int fd; read_end(router_ends_, fd);)
      for (int r = 0; r < size(); ++r)
        if (at(r).fd == fd) ended.push_back(r);
    for (int r = 0, fd = 0; r < rank_; ++r)
      while (at(r).dealer && read_end(at(r).ends, fd)) ended.push_back(r);
    read_router(on_event);
    for (int r = 0; r < rank_; ++r)
      for (zmq::message_t frame; at(r).dealer && receive_from(at(r).dealer, frame);)
        deliver(r, frame, on_event);
    for (int const r : ended) {
      {
        std::scoped_lock const lock(mutex_);
        if (std::exchange(at(r).lost, true)) continue;
      }
      flushed_.notify_all();
      at(r).fd = -1;
      stop_reports(at(r).dealer);
      at(r).dealer.close();
      at(r).ends.close();
      on_event(peer_event{r, true});
    }
  }
  [[nodiscard]] static zmq::pollitem_t item_of(zmq::socket_t& s) noexcept {
    return {s.handle(), 0, ZMQ_POLLIN, 0};
  }
  /// Reads a report that a connection has ended: two frames, of which the first is event (16 bits) and
  /// socket.
  [[nodiscard]] static bool read_end(zmq::socket_t& ends, int& fd) {
    zmq::message_t report, where;
    if (!receive_from(ends, report)) return false;
    receive_from(ends, where);
    std::int32_t value = -1;
    if (report.size() >= 6) std::memcpy(&value, report.data<std::byte>() + 2, sizeof value);
    fd = value;
    return true;
  }
  template <class F>
  void read_router(F& on_event) {
    for (zmq::message_t id, frame, more; receive_from(router_, id);) {
      bool const is_pair = id.more() && receive_from(router_, frame) && !frame.more();
      for (bool rest = frame.more(); rest; rest = more.more()) receive_from(router_, more);
      int const r = is_pair ? rank_of(id.to_string_view()) : -1;
      if (r <= rank_ || r >= size() || at(r).lost) continue;
      at(r).fd = zmq_msg_get(frame.handle(), ZMQ_SRCFD);
      deliver(r, frame, on_event);
    }
  }
  /// −1 unless the sender knows the number of this rank's address.
  [[nodiscard]] int rank_of(std::string_view id) const {
    int rank = -1;
    if (std::string const start = text(nonce_, "-"); id.starts_with(start))
      std::from_chars(id.data() + start.size(), id.data() + id.size(), rank);
    return rank;
  }
  template <class F>
  static void deliver(int peer, zmq::message_t const& frame, F& on_event) {
    peer_event e{peer};
    if (frame.size() < sizeof e.head) return;
    std::memcpy(&e.head, frame.data(), sizeof e.head);
    auto const* const bytes = frame.data<std::byte>();
    e.bytes.assign(bytes + sizeof e.head, bytes + frame.size());
    on_event(std::move(e));
  }

  int rank_;
  std::mutex mutex_;  // guards posted_, and writes to lost and flushed of the links
  std::condition_variable flushed_;
  zmq::context_t context_;
  std::vector<link> peers_;
  std::uint64_t nonce_;
  int reports_ = 0;
  zmq::socket_t posted_, outbox_;  ///< what is to be sent: rank and frame
  zmq::socket_t router_, router_ends_;
  std::vector<peer_event> early_;
  std::vector<zmq::pollitem_t> items_;
  callbacks callbacks_;
  std::atomic<bool> stopped_{false};
  std::thread thread_;
};

}  // namespace limber::detail
