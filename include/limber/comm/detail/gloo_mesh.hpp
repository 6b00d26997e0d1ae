// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The connections that a `gloo` group's collectives use: Gloo's own, but they can be let go of.
///
/// Gloo 0.5 gives up in one way only, on a timeout, and leaves some of those who wait out: a buffer that
/// is half sent or half received when the connection breaks sleeps until its own timeout. Here every
/// buffer that a collective makes is registered. It waits without a timeout of Gloo's (whose passing
/// would close all connections, also those of operations that are well), and is called off by `cut`.

#include <gloo/context.h>
#include <gloo/transport/context.h>
#include <gloo/transport/device.h>
#include <gloo/transport/unbound_buffer.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <list>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace limber::gloo::detail {

/// A wait that `cut` called off.
struct called_off : std::runtime_error {
  called_off() : std::runtime_error("called off") {}
};

/// A connection broke.
struct line_broken : std::runtime_error {
  line_broken(int other, std::string const& why) : std::runtime_error(why), peer(other) {}
  int peer;
};

/// f(), whose exceptions are those of the connection to `peer`.
template <class F>
auto on_line(int peer, F f) {
  try {
    return f();
  } catch (std::exception const& e) { throw line_broken(peer, e.what()); }
}

class watched_buffer;

/// All buffers that operations of one group wait in.
struct switchboard {
  std::mutex door;
  bool cut = false;
  std::list<watched_buffer*> buffers;
  std::atomic<std::uint64_t> progress{0};  ///< waits that have ended
};

class watched_buffer final : public ::gloo::transport::UnboundBuffer {
 public:
  watched_buffer(std::shared_ptr<switchboard> board, std::unique_ptr<::gloo::transport::UnboundBuffer> inner)
      : ::gloo::transport::UnboundBuffer(inner->ptr, inner->size),
        board_(std::move(board)),
        inner_(std::move(inner)) {
    std::scoped_lock const lock(board_->door);
    if (board_->cut) throw called_off();
    place_ = board_->buffers.insert(board_->buffers.end(), this);
  }
  ~watched_buffer() override {
    std::scoped_lock const lock(board_->door);
    board_->buffers.erase(place_);
  }

  bool waitRecv(int* rank, std::chrono::milliseconds) override {
    return waited(source_, [&] { return inner_->waitRecv(rank, forever); });
  }
  bool waitSend(int* rank, std::chrono::milliseconds) override {
    return waited(target_, [&] { return inner_->waitSend(rank, forever); });
  }
  void abortWaitRecv() override { inner_->abortWaitRecv(); }
  void abortWaitSend() override { inner_->abortWaitSend(); }

  void send(int to, std::uint64_t slot, std::size_t offset, std::size_t bytes) override {
    target_ = to;
    on_line(to, [&] { inner_->send(to, slot, offset, bytes); });
  }
  void recv(int from, std::uint64_t slot, std::size_t offset, std::size_t bytes) override {
    source_ = from;
    on_line(from, [&] { inner_->recv(from, slot, offset, bytes); });
  }
  void recv(std::vector<int> from, std::uint64_t slot, std::size_t offset, std::size_t bytes) override {
    on_line(-1, [&] { inner_->recv(std::move(from), slot, offset, bytes); });
  }

 private:
  // Gloo adds it to the time, so not the largest number there is.
  static constexpr std::chrono::milliseconds forever = std::chrono::hours(24 * 365);

  template <class F>
  bool waited(int peer, F f) {
    bool const ended = on_line(peer, f);
    board_->progress.fetch_add(1, std::memory_order_relaxed);
    if (!ended) throw called_off();
    return true;
  }

  std::shared_ptr<switchboard> board_;
  std::unique_ptr<::gloo::transport::UnboundBuffer> inner_;
  std::list<watched_buffer*>::iterator place_{};
  int source_ = -1, target_ = -1;
};

/// Gloo's transport, with watched buffers.
class watched_transport final : public ::gloo::transport::Context {
 public:
  watched_transport(std::shared_ptr<::gloo::transport::Context> inner, std::shared_ptr<switchboard> board)
      : ::gloo::transport::Context(inner->rank, inner->size),
        board_(std::move(board)),
        inner_(std::move(inner)) {}

  std::unique_ptr<::gloo::transport::Pair>& getPair(int peer) override { return inner_->getPair(peer); }
  std::unique_ptr<::gloo::transport::Pair>& createPair(int peer) override { return inner_->createPair(peer); }
  std::unique_ptr<::gloo::transport::UnboundBuffer> createUnboundBuffer(void* p, std::size_t n) override {
    return std::make_unique<watched_buffer>(board_, inner_->createUnboundBuffer(p, n));
  }

 private:
  std::shared_ptr<switchboard> board_;
  std::shared_ptr<::gloo::transport::Context> inner_;
};

/// The context that Gloo's collectives are given: a full mesh of connections.
class mesh final : public ::gloo::Context {
 public:
  /// Opens the sockets at which the others will connect.
  mesh(int own_rank, int ranks, std::shared_ptr<::gloo::transport::Device> device, double seconds)
      : ::gloo::Context(own_rank, ranks), board_(std::make_shared<switchboard>()) {
    inner_ = device->createContext(own_rank, ranks);
    // Gloo waits five times as long for each connection.
    inner_->setTimeout(
        std::chrono::milliseconds(std::max<std::int64_t>(1, static_cast<std::int64_t>(seconds * 200))));
    for (int r = 0; r < ranks; ++r)
      if (r != own_rank) inner_->createPair(r);
    device_ = std::move(device);
    transportContext_ = std::make_shared<watched_transport>(inner_, board_);
  }

  /// What `peer` needs to connect to this rank.
  [[nodiscard]] std::string address_for(int peer) {
    auto const bytes = inner_->getPair(peer)->address().bytes();
    return {bytes.begin(), bytes.end()};
  }
  /// Returns when the connection to `peer` is there. @throws what Gloo throws
  void connect(int peer, std::string const& address) {
    inner_->getPair(peer)->connect({address.begin(), address.end()});
  }

  [[nodiscard]] std::uint64_t progress() const noexcept {
    return board_->progress.load(std::memory_order_relaxed);
  }

  /// Calls off all waits, and those of buffers that are made later. Returns at once.
  void cut() {
    std::scoped_lock const lock(board_->door);
    board_->cut = true;
    for (watched_buffer* const b : board_->buffers) {
      b->abortWaitRecv();
      b->abortWaitSend();
    }
  }

  /// Closes the connections, which takes Gloo up to 10 ms each. Until then Gloo's thread may spin over
  /// data for a buffer that is no more.
  /// @pre `cut`, and no operation runs
  void close() noexcept {
    // A timeout is the one thing that Gloo closes all of them upon without forgetting those who wait.
    try {
      char nothing = 0;
      inner_->createUnboundBuffer(&nothing, 1)->waitRecv(nullptr, std::chrono::milliseconds(1));
    } catch (std::exception const&) {
      // As was intended.
    }
  }

 private:
  std::shared_ptr<switchboard> board_;
  std::shared_ptr<::gloo::transport::Context> inner_;
};

}  // namespace limber::gloo::detail
