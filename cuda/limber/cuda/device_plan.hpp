// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The launch plans of the shapes that an executor has seen, in the device's memory.

#include <limber/cuda/completion.hpp>
#include <limber/cuda/device_block.hpp>
#include <limber/cuda/launch_plan.hpp>

#include <algorithm>
#include <array>
#include <memory>
#include <vector>

namespace limber::gpu {

/// A launch plan where kernels can read it, and working memory for norms once they are asked for.
///
/// Launches that share a plan follow each other on one stream; the working memory is theirs in turn.
template <class Device>
struct device_plan {
  std::vector<i64> lengths;
  std::vector<char> wide;  ///< per tensor: computed in double
  i64 tensors = 0;
  i64 leaves = 0, narrow_leaves = 0, slots = 0;
  i64 narrow_elements = 0, wide_elements = 0;
  i64 first_over_tensors = 0, level_over_tensors = 0;
  device_block<Device, leaf> leaf_table;
  device_block<Device, node> nodes;
  device_block<Device, unsigned> counters;
  device_block<Device, square_sum<float>> narrow_slots;
  device_block<Device, square_sum<double>> wide_slots;

  /// Does not synchronize, unless the tables are larger than what staging holds.
  device_plan(std::shared_ptr<Device> const& device, staging<Device>& up, std::vector<i64> of_length,
              std::vector<char> is_wide)
      : lengths(std::move(of_length)), wide(std::move(is_wide)) {
    launch_plan const plan = make_plan(lengths, wide);
    tensors = plan.tensors;
    leaves = static_cast<i64>(plan.leaves.size());
    narrow_leaves = plan.narrow_leaves;
    slots = plan.slots();
    narrow_elements = plan.narrow_elements;
    wide_elements = plan.wide_elements;
    first_over_tensors = plan.first_over_tensors;
    level_over_tensors = plan.level_over_tensors;
    leaf_table = {device, leaves};
    nodes = {device, static_cast<i64>(plan.nodes.size())};
    up.send(leaf_table.data(), plan.leaves.data(), leaf_table.bytes());
    up.send(nodes.data(), plan.nodes.data(), nodes.bytes());
  }

  /// Memory for `measure`, allocated the first time. Does not synchronize.
  [[nodiscard]] norm_tables norms(std::shared_ptr<Device> const& device) {
    if (counters.data() == nullptr) {
      counters = {device, nodes.size()};
      device->clear(counters.data(), counters.bytes());
      narrow_slots = {device, 2 * slots};
      if (leaves > narrow_leaves) wide_slots = {device, 2 * slots};
    }
    norm_tables out;
    out.nodes = nodes.data();
    out.counters = counters.data();
    out.narrow_slots = narrow_slots.data();
    out.wide_slots = wide_slots.data();
    out.slots = slots;
    out.leaves = leaves;
    out.tensors = tensors;
    return out;
  }
};

/// Finds the plan of a call: by the shapes of its tables, where they came together before; else by content.
template <class Device>
class device_plans {
 public:
  static constexpr std::size_t most_operands = 16;
  static constexpr std::size_t capacity = 256;  ///< combinations kept
  using key = std::array<i64, most_operands>;
  using plan = device_plan<Device>;

  /// The plan for tables of these shapes, or null if they have not met yet.
  /// @param pin  a graph is being captured: keep it for good
  [[nodiscard]] plan* find(key const& shapes, bool pin) noexcept {
    for (auto& m : meetings_)
      if (m.shapes == shapes) {
        m.used = ++clock_;
        m.pinned = m.pinned || pin;
        return m.where.get();
      }
    return nullptr;
  }

  /// Remembers the plan of these shapes; makes it unless there is one for these lengths.
  plan& insert(std::shared_ptr<Device> const& device, staging<Device>& up, key const& shapes,
               std::vector<i64> lengths, std::vector<char> wide) {
    std::shared_ptr<plan> where;
    for (auto const& m : meetings_)
      if (m.where->lengths == lengths && m.where->wide == wide) where = m.where;
    if (!where) where = std::make_shared<plan>(device, up, std::move(lengths), std::move(wide));
    if (meetings_.size() >= capacity) {
      auto const oldest = std::ranges::min_element(
          meetings_, {}, [](meeting const& m) { return std::pair(m.pinned, m.used); });
      if (!oldest->pinned) meetings_.erase(oldest);
    }
    meetings_.push_back({shapes, where, ++clock_});
    return *where;
  }

 private:
  struct meeting {
    key shapes;
    std::shared_ptr<plan> where;
    i64 used;
    bool pinned = false;
  };
  std::vector<meeting> meetings_;
  i64 clock_ = 0;
};

}  // namespace limber::gpu
