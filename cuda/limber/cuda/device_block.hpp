// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Memory of a device, and the way of small tables into it.
///
/// A device is a type like gpu::emulator or gpu::cuda_device:
///
///     std::byte* allocate(i64 bytes)               the device's memory, stream-ordered
///     void release(std::byte*) noexcept
///     std::byte* allocate_host(i64 bytes)          the host's, for transfers
///     void release_host(std::byte*) noexcept
///     void upload(device, host, bytes)             asynchronous, like the two that follow
///     void download(host, device, bytes)
///     void clear(device, bytes)
///     void synchronize()                           waits for all that was started
///     marker; void mark(marker&)                   a place in the stream
///     void await(marker const&)                    the host waits for it
///     bool reached(marker const&) const            asks, and does not wait
///     bool capturing() const                       a graph is being captured
///     void launch(body, items)                     body(warp, i) for i in [0, items), in any order
///     void check_memory(tensor_view const&)        throws unless kernels may access it
///     i64 warps()                                  so many fill the chip

#include <limber/core/config.hpp>
#include <limber/core/error.hpp>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

namespace limber::gpu {

/// n values in a device's memory. Owns them; moves, never copies.
template <class Device, class T>
class device_block {
 public:
  device_block() = default;
  /// Does not synchronize.
  device_block(std::shared_ptr<Device> device, i64 n)
      : device_(std::move(device)),
        data_(device_->allocate(std::max<i64>(1, n) * static_cast<i64>(sizeof(T)))),
        n_(n) {}
  device_block(device_block&& other) noexcept
      : device_(std::move(other.device_)),
        data_(std::exchange(other.data_, nullptr)),
        n_(std::exchange(other.n_, 0)) {}
  device_block& operator=(device_block&& other) noexcept {
    std::swap(device_, other.device_);
    std::swap(data_, other.data_);
    std::swap(n_, other.n_);
    return *this;
  }
  ~device_block() {
    if (data_ != nullptr) device_->release(data_);
  }

  [[nodiscard]] T* data() const noexcept { return reinterpret_cast<T*>(data_); }
  [[nodiscard]] i64 size() const noexcept { return n_; }
  [[nodiscard]] i64 bytes() const noexcept { return n_ * static_cast<i64>(sizeof(T)); }

 private:
  std::shared_ptr<Device> device_;
  std::byte* data_ = nullptr;
  i64 n_ = 0;
};

/// Host memory from which transfers start, so that what is sent may change at once.
///
/// Memory   by size: 64 blocks of up to 4 KiB, 16 of up to 64 KiB, 4 of up to 1 MiB, then 2 each; made when
///          first needed. A block is used again when its transfer is done; the host waits for that only
///          if it is a whole round ahead of the device.
template <class Device>
class staging {
 public:
  explicit staging(std::shared_ptr<Device> device) : device_(std::move(device)) {}

  staging(staging const&) = delete;
  staging& operator=(staging const&) = delete;
  /// Synchronizes with transfers that are under way. Errors are not reported.
  ~staging() {
    try {
      for (auto const& r : rings_)
        for (auto const& b : r.blocks) device_->await(b.sent);
    } catch (...) {  // the device's trouble is told by the next call that can
    }
  }

  /// Copies `bytes` from the host's memory to the device's. Does not synchronize.
  void send(void* to, void const* from, i64 bytes) {
    if (bytes == 0) return;
    expects(!device_->capturing(),
            "gpu: facts cannot be sent while a graph is captured: run the same step once before");
    ring& r = ring_for(bytes);
    block& b = r.blocks[r.next];
    r.next = (r.next + 1) % r.blocks.size();
    device_->await(b.sent);
    std::memcpy(b.memory.get(), from, static_cast<std::size_t>(bytes));
    device_->upload(to, b.memory.get(), bytes);
    device_->mark(b.sent);
  }

 private:
  struct release {
    Device* device;
    void operator()(std::byte* p) const noexcept { device->release_host(p); }
  };
  struct block {
    std::unique_ptr<std::byte, release> memory;
    typename Device::marker sent{};
  };
  struct ring {
    i64 bytes;
    std::vector<block> blocks;
    std::size_t next = 0;
  };

  ring& ring_for(i64 bytes) {
    i64 size = 4096;
    int many = 64;
    while (size < bytes) {
      size *= 16;
      many = many > 8 ? many / 4 : 2;
    }
    auto at = std::ranges::find(rings_, size, &ring::bytes);
    if (at != rings_.end()) return *at;
    ring r{size, {}};
    for (int k = 0; k < many; ++k)
      r.blocks.push_back(
          {std::unique_ptr<std::byte, release>(device_->allocate_host(size), {device_.get()})});
    rings_.push_back(std::move(r));
    return rings_.back();
  }

  std::shared_ptr<Device> device_;
  std::vector<ring> rings_;
};

}  // namespace limber::gpu
