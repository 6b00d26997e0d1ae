// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The connections for collectives of a `gloo` group: Gloo's, with cancellable waits.
///
/// Gloo 0.5 ends a wait only by its timeout, and not always by the end of a connection: a buffer that is
/// partly sent or received when the connection breaks waits until its timeout. Here every buffer of a
/// collective is registered. It waits without Gloo's timeout (which would close all connections, also those
/// of healthy operations), and `cancel` ends the wait.

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

namespace limber::gloo_engine::detail {

/// Thrown by a wait that `cancel` ended.
struct wait_cancelled : std::runtime_error {
  wait_cancelled() : std::runtime_error("cancelled") {}
};

/// A connection broke.
struct connection_broken : std::runtime_error {
  connection_broken(int other, std::string const& why) : std::runtime_error(why), peer(other) {}
  int peer;
};

/// Calls f(); its exceptions become connection_broken for `peer`.
template <class F>
auto with_peer(int peer, F f) {
  try {
    return f();
  } catch (std::exception const& e) { throw connection_broken(peer, e.what()); }
}

class cancellable_buffer;

/// All buffers that operations of one group wait for.
struct buffer_registry {
  std::mutex mutex;
  bool cancelled = false;
  std::list<cancellable_buffer*> buffers;
  std::atomic<std::uint64_t> progress{0};  ///< number of finished waits
};

class cancellable_buffer final : public ::gloo::transport::UnboundBuffer {
 public:
  cancellable_buffer(std::shared_ptr<buffer_registry> registry,
                     std::unique_ptr<::gloo::transport::UnboundBuffer> inner)
      : ::gloo::transport::UnboundBuffer(inner->ptr, inner->size),
        registry_(std::move(registry)),
        inner_(std::move(inner)) {
    std::scoped_lock const lock(registry_->mutex);
    if (registry_->cancelled) throw wait_cancelled();
    place_ = registry_->buffers.insert(registry_->buffers.end(), this);
  }
  ~cancellable_buffer() override {
    std::scoped_lock const lock(registry_->mutex);
    registry_->buffers.erase(place_);
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
    with_peer(to, [&] { inner_->send(to, slot, offset, bytes); });
  }
  void recv(int from, std::uint64_t slot, std::size_t offset, std::size_t bytes) override {
    source_ = from;
    with_peer(from, [&] { inner_->recv(from, slot, offset, bytes); });
  }
  void recv(std::vector<int> from, std::uint64_t slot, std::size_t offset, std::size_t bytes) override {
    with_peer(-1, [&] { inner_->recv(std::move(from), slot, offset, bytes); });
  }

 private:
  // Gloo adds it to the current time, so it must not be the largest value.
  static constexpr std::chrono::milliseconds forever = std::chrono::hours(24 * 365);

  template <class F>
  bool waited(int peer, F f) {
    bool const ended = with_peer(peer, f);
    registry_->progress.fetch_add(1, std::memory_order_relaxed);
    if (!ended) throw wait_cancelled();
    return true;
  }

  std::shared_ptr<buffer_registry> registry_;
  std::unique_ptr<::gloo::transport::UnboundBuffer> inner_;
  std::list<cancellable_buffer*>::iterator place_{};
  int source_ = -1, target_ = -1;
};

/// Gloo's transport, with cancellable buffers.
class cancellable_transport final : public ::gloo::transport::Context {
 public:
  cancellable_transport(std::shared_ptr<::gloo::transport::Context> inner,
                        std::shared_ptr<buffer_registry> registry)
      : ::gloo::transport::Context(inner->rank, inner->size),
        registry_(std::move(registry)),
        inner_(std::move(inner)) {}

  std::unique_ptr<::gloo::transport::Pair>& getPair(int peer) override { return inner_->getPair(peer); }
  std::unique_ptr<::gloo::transport::Pair>& createPair(int peer) override { return inner_->createPair(peer); }
  std::unique_ptr<::gloo::transport::UnboundBuffer> createUnboundBuffer(void* p, std::size_t n) override {
    return std::make_unique<cancellable_buffer>(registry_, inner_->createUnboundBuffer(p, n));
  }

 private:
  std::shared_ptr<buffer_registry> registry_;
  std::shared_ptr<::gloo::transport::Context> inner_;
};

/// The context of Gloo's collectives: a full mesh of connections.
class mesh final : public ::gloo::Context {
 public:
  /// Opens the sockets to which other ranks connect.
  mesh(int own_rank, int ranks, std::shared_ptr<::gloo::transport::Device> device, double seconds)
      : ::gloo::Context(own_rank, ranks), registry_(std::make_shared<buffer_registry>()) {
    inner_ = device->createContext(own_rank, ranks);
    // Gloo waits five times as long for each connection.
    inner_->setTimeout(
        std::chrono::milliseconds(std::max<std::int64_t>(1, static_cast<std::int64_t>(seconds * 200))));
    for (int r = 0; r < ranks; ++r)
      if (r != own_rank) inner_->createPair(r);
    device_ = std::move(device);
    transportContext_ = std::make_shared<cancellable_transport>(inner_, registry_);
  }

  /// The address that `peer` needs to connect to this rank.
  [[nodiscard]] std::string address_for(int peer) {
    auto const bytes = inner_->getPair(peer)->address().bytes();
    return {bytes.begin(), bytes.end()};
  }
  /// Returns when `peer` is connected. @throws the exceptions of Gloo
  void connect(int peer, std::string const& address) {
    inner_->getPair(peer)->connect({address.begin(), address.end()});
  }

  [[nodiscard]] std::uint64_t progress() const noexcept {
    return registry_->progress.load(std::memory_order_relaxed);
  }

  /// Cancels all waits, including those of buffers that are created later. Returns at once.
  void cancel() {
    std::scoped_lock const lock(registry_->mutex);
    registry_->cancelled = true;
    for (cancellable_buffer* const b : registry_->buffers) {
      b->abortWaitRecv();
      b->abortWaitSend();
    }
  }

  /// Closes the connections, which takes Gloo up to 10 ms each. Before that, Gloo's thread may spin on data
  /// for a destroyed buffer.
  /// @pre cancel() was called, and no operation runs
  void close() noexcept {
    // A timeout is the only event on which Gloo closes all connections and notifies all waits.
    try {
      char nothing = 0;
      inner_->createUnboundBuffer(&nothing, 1)->waitRecv(nullptr, std::chrono::milliseconds(1));
    } catch (std::exception const&) {
      // Expected.
    }
  }

 private:
  std::shared_ptr<buffer_registry> registry_;
  std::shared_ptr<::gloo::transport::Context> inner_;
};

}  // namespace limber::gloo_engine::detail
