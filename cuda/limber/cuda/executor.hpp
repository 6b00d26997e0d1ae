// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The executor that runs kernel bodies on a device, real or emulated.

#include <limber/cuda/device_block.hpp>
#include <limber/cuda/device_plan.hpp>
#include <limber/cuda/each_body.hpp>
#include <limber/cuda/emulator.hpp>
#include <limber/cuda/list_tables.hpp>
#include <limber/cuda/norm_body.hpp>
#include <limber/fuse/executor.hpp>

#include <array>
#include <memory>
#include <tuple>
#include <utility>
#include <vector>

namespace limber::gpu {

/// Models limber::executor on one stream of a device. `gpu::executor` is the one for CUDA.
///
/// Order    all work is in the order of the stream, and later than the call that asked for it.
/// Cost     `each`: one launch (two where some tensors are f64), `measure` one, and one in double for totals
///          then. Nothing is allocated, and nothing waits, for lists whose content was seen before; new
///          addresses at the same shapes are one small transfer.
/// Memory   `make` and `share` own theirs; plans and tables of up to 256 lists are kept, besides those that
///          a captured graph reads.
/// Graphs   calls can be captured once each list was seen; the graph must be launched in the order of the
///          same stream, because plans hold the sums of the norm under way. What would allocate or send
///          during a capture is an error.
/// Threads  one at a time.
template <class Device>
class basic_executor {
 public:
  /// A place in the stream. Tokens are few and used again: waiting for an old one may wait for more.
  struct event {
    std::size_t slot = 0;
  };

  /// @param arguments  of the device's constructor: gpu::executor{stream}
  template <class... Arguments>
    requires std::constructible_from<Device, Arguments...>
  explicit basic_executor(Arguments&&... arguments)
      : device_(std::make_shared<Device>(std::forward<Arguments>(arguments)...)) {}

  basic_executor(basic_executor&&) = default;
  basic_executor& operator=(basic_executor&&) = default;

  /// Does not synchronize.
  [[nodiscard]] slab make(layout const& where) {
    auto block = std::make_shared<device_block<Device, std::byte>>(device_, where.bytes);
    device_->clear(block->data(), where.bytes);
    return slab_over({block->data(), [block](std::byte*) {}}, where);
  }

  /// Does not synchronize.
  template <class F, access_mode... A>
  void each(F const& f, operand<A>... lists) {
    prepared<sizeof...(A)> const p = prepare(lists...);
    if (p.plan->narrow_elements > 0) launch_each<float, F, A...>(f, p, 0, p.plan->narrow_leaves);
    if (p.plan->wide_elements > 0) launch_each<double, F, A...>(f, p, p.plan->narrow_leaves, p.plan->leaves);
  }

  /// Does not synchronize.
  template <class F, access_mode... A>
  void measure(norm_memory& to, F const& f, operand<A>... lists) {
    prepared<sizeof...(A)> const p = prepare(lists...);
    tensor_list const& list = *std::get<0>(std::tie(lists...)).list;
    expects(to.tensors == p.plan->tensors, "measure: memory for ", to.tensors, " norms, but ",
            p.plan->tensors, " tensors");
    for (std::size_t t = 0; t < list.size(); ++t) to.is_wide[t] = is_wide(t, lists...) ? 1 : 0;
    constexpr int sums = norms_in<result_of<float, F, A...>>;
    norm_tables tables = p.plan->norms(device_);
    tables.sums = to.sums;
    tables.narrow = to.narrow.device;
    tables.wide = to.wide.device;
    if (to.sums > sums || list.empty()) {  // a norm that nothing adds to is zero
      device_->clear(to.narrow.device, to.narrow.bytes());
      device_->clear(to.wide.device, to.wide.bytes());
    }
    if (p.plan->narrow_leaves > 0) launch_norm<float, sums, F, A...>(f, p, tables, 0, p.plan->narrow_leaves);
    if (p.plan->leaves > p.plan->narrow_leaves) {
      launch_norm<double, sums, F, A...>(f, p, tables, p.plan->narrow_leaves, p.plan->leaves);
      device_->launch(total_body<sums>{tables, p.plan->first_over_tensors}, p.plan->level_over_tensors);
    }
  }

  /// Synchronizes the stream.
  template <class F, access_mode... A>
  norm_report const& norm(F const& f, operand<A>... lists) {
    auto const n = static_cast<i64>(std::get<0>(std::tie(lists...)).list->size());
    auto own = std::ranges::find(own_, n, &norm_memory::tensors);
    if (own == own_.end()) own = own_.insert(own_.end(), make_norms(*this, n));
    measure(*own, f, lists...);
    return report(*own);
  }

  /// Synchronizes the stream.
  norm_report const& report(norm_memory const& m) {
    device_->download(m.narrow.host, m.narrow.device, m.narrow.bytes());
    device_->download(m.wide.host, m.wide.device, m.wide.bytes());
    device_->synchronize();
    read_norms(m, report_);
    return report_;
  }

  /// f(i) for i in [0, n), each by a thread of its own. Does not synchronize.
  template <class F>
  void run(i64 n, F const& f) {
    if (n > 0) device_->launch(run_body<F>{f, n}, (n + warp_lanes - 1) / warp_lanes);
  }

  /// The host side is pinned. Does not synchronize.
  template <class T>
  [[nodiscard]] shared_array<T> share(i64 n) {
    auto memory = std::make_shared<sides<T>>(device_, n);
    T *const host = memory->host(), *const device = memory->device.data();
    return {host, device, n, limber::detail::shared_owner(std::in_place, std::move(memory))};
  }
  /// Does not synchronize.
  template <class T>
  void publish(shared_array<T> const& a) {
    up_->send(a.device, a.host, a.bytes());
  }
  /// Synchronizes the stream.
  template <class T>
  void collect(shared_array<T> const& a) {
    if (a.n > 0) device_->download(a.host, a.device, a.bytes());
    device_->synchronize();
  }

  /// Sends the executor's side to the host side; it is there once a later event is `done`. Does not
  /// synchronize.
  template <class T>
  void fetch(shared_array<T> const& a) {
    if (a.n > 0) device_->download(a.host, a.device, a.bytes());
  }

  /// Does not synchronize.
  [[nodiscard]] event record() {
    event const e{next_event_++ % events_.size()};
    device_->mark(events_[e.slot]);
    return e;
  }
  /// Synchronizes with what was started before `e`.
  void wait(event e) { device_->await(events_[e.slot]); }
  /// Whether all that was started before `e` has finished. Does not synchronize.
  [[nodiscard]] bool done(event e) const { return device_->reached(events_[e.slot]); }
  /// What another stream can wait for: `cudaStreamWaitEvent` takes the marker of a CUDA device.
  [[nodiscard]] typename Device::marker const& marker_of(event e) const noexcept { return events_[e.slot]; }

  [[nodiscard]] Device& device() noexcept { return *device_; }
  [[nodiscard]] Device const& device() const noexcept { return *device_; }

 private:
  // What a call needs of its lists: their tables, and the plan for their shapes.
  template <std::size_t K>
  struct prepared {
    operand_binding list[K];
    device_plan<Device>* plan;
  };

  // Both sides of a shared array.
  template <class T>
  struct sides {
    device_block<Device, T> device;
    std::shared_ptr<Device> owner;
    std::byte* memory;

    sides(std::shared_ptr<Device> const& d, i64 n)
        : device(d, n), owner(d), memory(d->allocate_host(room(n))) {
      std::memset(memory, 0, static_cast<std::size_t>(room(n)));
      owner->clear(device.data(), device.bytes());
    }
    sides(sides const&) = delete;
    sides& operator=(sides const&) = delete;
    ~sides() { owner->release_host(memory); }
    [[nodiscard]] static i64 room(i64 n) noexcept {
      return std::max<i64>(1, n) * static_cast<i64>(sizeof(T));
    }
    [[nodiscard]] T* host() const noexcept { return reinterpret_cast<T*>(memory); }
  };

  template <access_mode... A>
  [[nodiscard]] prepared<sizeof...(A)> prepare(operand<A> const&... lists) {
    static_assert(sizeof...(A) >= 1 && sizeof...(A) <= device_plans<Device>::most_operands);
    typename device_plans<Device>::key shapes{};
    std::size_t k = 0;
    prepared<sizeof...(A)> out{};
    auto bind = [&](auto const& o) {
      auto const& table = tables_->of(*o.list);
      shapes[k] = table.shape;
      out.list[k++] = {table.entries.data(), o.round, o.origin};
    };
    check_shapes_once(lists...);
    (bind(lists), ...);
    out.plan = plans_.find(shapes, device_->capturing());
    if (out.plan == nullptr) out.plan = &meet(shapes, lists...);
    return out;
  }

  // Which lists hold matching shapes is checked where they meet for the first time; the number of
  // tensors before that, because tables know nothing of each other.
  template <access_mode... A>
  void check_shapes_once(operand<A> const&... lists) const {
    std::size_t const n = std::get<0>(std::tie(lists...)).list->size();
    (expects(lists.list->size() == n, "executor: lists of ", n, " and ", lists.list->size(), " tensors"),
     ...);
  }

  template <access_mode... A>
  device_plan<Device>& meet(typename device_plans<Device>::key const& shapes, operand<A> const&... lists) {
    tensor_list const& first = *std::get<0>(std::tie(lists...)).list;
    auto same = [&](tensor_list const& l) {
      for (std::size_t t = 0; t < l.size(); ++t) {
        expects(l[t].length == first[t].length, "executor: '", first[t].name, "' has ", first[t].length,
                " elements in one list and ", l[t].length, " in another");
        expects(l[t].length >= 0, "executor: '", l[t].name, "' has ", l[t].length, " elements");
        expects(is_floating(l[t].type), "executor: '", l[t].name, "' is ", name_of(l[t].type));
      }
    };
    (same(*lists.list), ...);
    std::vector<i64> lengths;
    std::vector<char> wide;
    for (std::size_t t = 0; t < first.size(); ++t) {
      lengths.push_back(first[t].length);
      wide.push_back(is_wide(t, lists...) ? 1 : 0);
    }
    return plans_.insert(device_, *up_, shapes, std::move(lengths), std::move(wide));
  }

  template <access_mode... A>
  [[nodiscard]] static bool is_wide(std::size_t t, operand<A> const&... lists) noexcept {
    return (((*lists.list)[t].type == dtype::f64) || ...);
  }

  template <class T, class F, access_mode... A>
  void launch_each(F const& f, prepared<sizeof...(A)> const& p, i64 first, i64 last) {
    int const log_parts = launch_plan::log_parts(last - first, device_->warps());
    each_body<T, F, A...> body{f, {}, p.plan->leaf_table.data() + first, log_parts};
    std::copy_n(p.list, sizeof...(A), body.list);
    device_->launch(body, (last - first) << log_parts);
  }

  template <class T, int Sums, class F, access_mode... A>
  void launch_norm(F const& f, prepared<sizeof...(A)> const& p, norm_tables const& to, i64 first, i64 last) {
    norm_body<T, Sums, F, A...> body{f, {}, p.plan->leaf_table.data() + first, first, to};
    std::copy_n(p.list, sizeof...(A), body.list);
    device_->launch(body, last - first);
  }

  std::shared_ptr<Device> device_;
  std::unique_ptr<staging<Device>> up_ = std::make_unique<staging<Device>>(device_);
  std::unique_ptr<list_tables<Device>> tables_ = std::make_unique<list_tables<Device>>(device_, *up_);
  device_plans<Device> plans_;
  std::array<typename Device::marker, 64> events_{};
  std::size_t next_event_ = 0;
  std::vector<norm_memory> own_;
  norm_report report_;
};

static_assert(executor<basic_executor<emulator>>);

}  // namespace limber::gpu
