// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Memory registered with an NCCL communicator, or allocated by NCCL.

#include <limber/comm/detail/nccl_process_group.hpp>
#include <limber/core/error.hpp>
#include <limber/core/tensor.hpp>

#include <cstddef>
#include <memory>
#include <string>
#include <utility>

namespace limber {

/// Can register memory that operations reuse, until the result is destroyed.
template <class C>
concept registers_memory = requires(C& c, tensor_view memory) {
  { c.register_memory(memory) } -> std::movable;
};

namespace nccl {

namespace detail {

/// Keeps the first failure of several results.
struct first_failure {
  answer kept{};
  void operator()(answer const& a) {
    if (!kept.failed()) kept = a;
  }
};

}  // namespace detail

/// Memory registered with a communicator until this object is destroyed. May outlive the communicator.
template <detail::engine E>
class registration {
 public:
  registration(detail::process_group<E>& g, tensor_view memory) : where_(&g) {
    if (memory.length == 0) return;
    answer const a =
        g.engine.register_buffer(g.native, memory.data, static_cast<std::size_t>(memory.bytes()), handle_);
    if (a.failed()) throw error({"nccl", "register_memory", a.code, -1, std::string(memory.name), a.reason});
  }
  registration(registration&& other) noexcept
      : where_(std::move(other.where_)), handle_(std::exchange(other.handle_, nullptr)) {}
  registration& operator=(registration&& other) noexcept {
    std::swap(where_, other.where_);
    std::swap(handle_, other.handle_);
    return *this;
  }
  ~registration() {
    // A destroyed communicator has no registrations.
    if (!where_ || !handle_) return;
    auto& g = static_cast<detail::process_group<E>&>(*where_.get());
    if (g.native) (void)g.engine.deregister_buffer(g.native, handle_);
  }

 private:
  detail::shared_group where_;
  void* handle_ = nullptr;
};

/// Device memory of NCCL's allocator, which all of its transports can use without copies.
///
///     nccl::memory buffer(1 << 20);
///     auto known = comm.register_memory({buffer.data(), n, dtype::f32, "bucket"});
template <detail::engine E>
class basic_memory {
 public:
  /// On the current device. @throws std::invalid_argument unless bytes ≥ 0; limber::error if there is none
  explicit basic_memory(i64 bytes, E engine = {}) : engine_(std::move(engine)), bytes_(bytes) {
    expects(bytes >= 0, "nccl: memory: bytes must be >= 0, got ", bytes);
    if (bytes > 0)
      detail::process_group<E>::must("memory",
                                     engine_.allocate_shared(data_, static_cast<std::size_t>(bytes)));
  }
  basic_memory(basic_memory&& other) noexcept
      : engine_(other.engine_),
        data_(std::exchange(other.data_, nullptr)),
        bytes_(std::exchange(other.bytes_, 0)) {}
  basic_memory& operator=(basic_memory&& other) noexcept {
    std::swap(engine_, other.engine_);
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  ~basic_memory() {
    if (data_) (void)engine_.release_shared(data_);
  }

  [[nodiscard]] std::byte* data() const noexcept { return static_cast<std::byte*>(data_); }
  [[nodiscard]] i64 bytes() const noexcept { return bytes_; }

 private:
  E engine_;
  void* data_ = nullptr;
  i64 bytes_ = 0;
};

}  // namespace nccl
}  // namespace limber
