// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// What `reproducible` does to tensors in the memory of a device.

#include <limber/core/dtype.hpp>
#include <limber/core/exponent_block.hpp>
#include <limber/core/fixed_point.hpp>
#include <limber/core/piece.hpp>
#include <limber/core/tensor.hpp>
#include <limber/cuda/codec_body.hpp>
#include <limber/cuda/executor.hpp>

#include <algorithm>
#include <cstddef>
#include <map>
#include <memory>
#include <span>
#include <utility>
#include <vector>

namespace limber::gpu {

/// The codec of a `reproducible` whose engine works in a device's memory. `gpu::codec` is the one for CUDA.
///
///     gpu::executor exec{stream};
///     reproducible comm(nccl_communicator, {}, gpu::codec{exec});
///     optimizer opt{parameters, rule, lr, sync::allreduce{}, comm, o, exec};
///
/// Bits     those of the host's codec.
/// Order    on the executor's stream, which is waited for before the engine reads and before a sum is done:
///          a sum costs three waits of the host, and the exponents' marks a fourth.
/// Memory   tables of up to 64 lists of pieces are kept; nothing is allocated for those that were seen.
/// Threads  one at a time; the executor outlives it.
template <class Device>
class basic_codec {
  using executor_type = basic_executor<Device>;

 public:
  explicit basic_codec(executor_type& exec) : exec_(&exec), tables_(std::make_shared<tables>()) {}

  /// Memory of the device that grows and is kept.
  template <class T>
  class buffer {
   public:
    [[nodiscard]] T* data() noexcept { return reinterpret_cast<T*>(memory_.data()); }

   private:
    friend class basic_codec;
    slab memory_{};
  };

  /// At least n elements, of no particular values.
  template <class T>
  [[nodiscard]] T* reserve(buffer<T>& b, i64 n) {
    i64 const bytes = std::max<i64>(1, n) * static_cast<i64>(sizeof(T));
    if (b.memory_.bytes < bytes) b.memory_ = exec_->make({{}, bytes});
    return b.data();
  }
  /// Synchronizes the stream.
  void settle() { exec_->device().synchronize(); }

  /// Does not synchronize.
  void put_marks(float* words, float mark) { exec_->run(2, put_two{words, mark}); }
  /// Synchronizes the stream.
  [[nodiscard]] std::pair<float, float> marks(float const* words) {
    float out[2] = {};
    exec_->device().download(out, words, sizeof out);
    settle();
    return {out[0], out[1]};
  }
  /// Synchronizes the stream.
  void read(double const* from, std::span<double> to) {
    if (!to.empty()) exec_->device().download(to.data(), from, static_cast<i64>(to.size_bytes()));
    settle();
  }
  /// Synchronizes the stream.
  void write(std::span<double const> from, double* to) {
    if (!from.empty()) exec_->device().upload(to, from.data(), static_cast<i64>(from.size_bytes()));
    settle();
  }

  /// Does not synchronize, like the two that follow.
  void scan(const_tensor_view in, std::span<piece const> pieces, float* exponents) {
    auto const& t = table_of(pieces);
    limber::detail::with_fixed_point_type(in.type, [&]<class T>() {
      launch(t, scan_body<T>{reinterpret_cast<fixed_point::word<T> const*>(in.data), t.device, exponents});
    });
  }
  void encode(const_tensor_view in, std::span<piece const> pieces, float const* exponents, int guard,
              i64* fixed) {
    auto const& t = table_of(pieces);
    limber::detail::with_fixed_point_type(in.type, [&]<class T>() {
      launch(t, encode_body<T>{reinterpret_cast<fixed_point::word<T> const*>(in.data), t.device, exponents,
                               guard, fixed});
    });
  }
  void decode(i64 const* fixed, std::span<piece const> pieces, float const* exponents, int guard,
              tensor_view out) {
    auto const& t = table_of(pieces);
    limber::detail::with_fixed_point_type(out.type, [&]<class T>() {
      launch(t, decode_body<T>{fixed, t.device, exponents, guard,
                               reinterpret_cast<fixed_point::word<T>*>(out.data)});
    });
  }

 private:
  static constexpr std::size_t most_tables = 64;
  using table = shared_array<exponent_run>;
  using tables = std::map<std::vector<std::pair<i64, i64>>, table>;

  template <class Body>
  void launch(table const& t, Body const& body) {
    if (t.n > 0) exec_->device().launch(body, t.n);
  }

  // Where the runs of these pieces lie, on the device.
  [[nodiscard]] table const& table_of(std::span<piece const> pieces) {
    std::vector<std::pair<i64, i64>> key;
    for (auto const& p : pieces) key.emplace_back(p.offset, p.length);
    if (auto const known = tables_->find(key); known != tables_->end()) return known->second;
    if (tables_->size() == most_tables) {
      settle();
      tables_->clear();
    }
    std::vector<exponent_run> runs;
    limber::detail::for_each_exponent(pieces, [&](i64, i64 from, i64 fixed, i64 n) {
      runs.push_back({from, fixed, n});
    });
    table t = exec_->template share<exponent_run>(static_cast<i64>(runs.size()));
    std::ranges::copy(runs, t.host);
    exec_->publish(t);
    return tables_->emplace(std::move(key), std::move(t)).first->second;
  }

  executor_type* exec_;
  std::shared_ptr<tables> tables_;  // copies of a codec are for groups of one process
};

}  // namespace limber::gpu
