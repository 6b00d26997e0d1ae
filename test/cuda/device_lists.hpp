// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The same tensors twice: in the host's memory and, at equally misaligned places, on a GPU.

#include <limber/core/dtype.hpp>
#include <limber/core/tensor.hpp>
#include <limber/cuda/error.hpp>

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <deque>
#include <random>
#include <string>
#include <vector>

namespace limber::testing {

/// One tensor on both sides.
class twin {
 public:
  /// @param shift  elements that the data starts behind a 256-byte boundary
  twin(std::string name, i64 length, dtype type, i64 shift)
      : name_(std::move(name)), length_(length), type_(type) {
    bytes_ = (length + shift) * size_of(type) + 256;
    host_.resize(static_cast<std::size_t>(bytes_) + 256);
    auto const past = reinterpret_cast<std::uintptr_t>(host_.data()) % 256;
    first_ = (past == 0 ? 0 : 256 - past) + static_cast<std::size_t>(shift * size_of(type));
    gpu::check(cudaMalloc(&device_, static_cast<std::size_t>(bytes_)), "cudaMalloc");
    device_first_ = static_cast<std::byte*>(device_) + shift * size_of(type);
  }
  twin(twin const&) = delete;
  twin& operator=(twin const&) = delete;
  ~twin() { (void)cudaFree(device_); }

  [[nodiscard]] tensor_view on_host() noexcept { return {host_.data() + first_, length_, type_, name_}; }
  [[nodiscard]] tensor_view on_device() noexcept { return {device_first_, length_, type_, name_}; }
  [[nodiscard]] std::string const& name() const noexcept { return name_; }
  [[nodiscard]] i64 length() const noexcept { return length_; }

  /// Writes values of a normal distribution to both sides. Synchronizes the device.
  void fill(std::mt19937& random, double spread = 1) {
    std::normal_distribution<double> normal(0, spread);
    for (i64 i = 0; i < length_; ++i) put(i, normal(random));
    upload();
  }
  void put(i64 i, double x) {
    with_type(type_, [&]<class S>() {
      if constexpr (std::is_same_v<S, bf16> || std::is_same_v<S, f16>)
        reinterpret_cast<S*>(host_.data() + first_)[i] = S(static_cast<float>(x));
      else
        reinterpret_cast<S*>(host_.data() + first_)[i] = static_cast<S>(x);
    });
  }
  void upload() {
    gpu::check(cudaMemcpy(device_first_, host_.data() + first_, size(), cudaMemcpyHostToDevice),
               "cudaMemcpy");
  }
  /// True if both sides hold the same bits. Synchronizes the device.
  [[nodiscard]] bool same() {
    std::vector<std::byte> there(size());
    gpu::check(cudaMemcpy(there.data(), device_first_, size(), cudaMemcpyDeviceToHost), "cudaMemcpy");
    return std::memcmp(there.data(), host_.data() + first_, size()) == 0;
  }

 private:
  [[nodiscard]] std::size_t size() const noexcept {
    return static_cast<std::size_t>(length_ * size_of(type_));
  }

  std::string name_;
  i64 length_, bytes_ = 0;
  dtype type_;
  std::vector<std::byte> host_;
  std::size_t first_ = 0;
  void* device_ = nullptr;
  std::byte* device_first_ = nullptr;
};

}  // namespace limber::testing
