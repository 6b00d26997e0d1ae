// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The operand tables of the lists that an executor has seen.

#include <limber/core/tensor.hpp>
#include <limber/cuda/device_block.hpp>
#include <limber/cuda/operand_table.hpp>

#include <algorithm>
#include <memory>
#include <vector>

namespace limber::gpu {

/// Keeps a list's operand table on the device, and a shadow of the list to see when it changed.
///
/// A list is looked for by its address and compared by content, at every call: lists change, and
/// temporaries come and go. Content that was seen before costs nothing; the same shapes at other
/// addresses are a refresh of the table, in the order of the stream; anything else is a new table.
template <class Device>
class list_tables {
 public:
  static constexpr std::size_t capacity = 256;  ///< tables kept; the one not used for longest makes room

  struct table {
    struct seen {
      std::byte* data;
      i64 length;
      dtype type;
    };
    tensor_list const* list;  ///< where a list with this content was seen last; never read through
    std::vector<seen> shadow;
    device_block<Device, operand_entry> entries;
    i64 shape;  ///< equal only for equal lengths and types, and tables of one origin
    i64 used;
    bool pinned = false;  ///< a captured graph reads it: neither refreshed nor given up
  };

  list_tables(std::shared_ptr<Device> device, staging<Device>& up) : device_(std::move(device)), up_(&up) {}

  /// The table of a list as it is now. Does not synchronize; the first time, and where shapes changed, it
  /// allocates. @throws std::invalid_argument naming a tensor that kernels cannot access
  table const& of(tensor_list const& list) {
    ++clock_;
    table* known = nullptr;  // the same list, with the same shapes but other memory
    for (auto& t : tables_) {
      if (t->list != &list || t->shadow.size() != list.size()) continue;
      if (alike<true>(*t, list)) return touched(*t, list);
      if (known == nullptr && !t->pinned && alike<false>(*t, list)) known = t.get();
    }
    for (auto& t : tables_)
      if ((t->list != &list || t->pinned) && alike<true>(*t, list)) return touched(*t, list);
    if (known == nullptr) return made(list);
    write(*known, list);
    return touched(*known, list);
  }

 private:
  template <bool Data>
  [[nodiscard]] static bool alike(table const& t, tensor_list const& list) noexcept {
    return std::ranges::equal(t.shadow, list, [](auto const& a, tensor_view const& b) {
      // Where an empty tensor lies says nothing.
      return a.length == b.length && a.type == b.type && (!Data || a.data == b.data || a.length == 0);
    });
  }

  table const& touched(table& t, tensor_list const& list) {
    if (device_->capturing()) t.pinned = true;
    if (!t.pinned) t.list = &list;
    t.used = clock_;
    return t;
  }

  table const& made(tensor_list const& list) {
    auto t = std::make_unique<table>(
        table{&list,
              {},
              device_block<Device, operand_entry>(device_, static_cast<i64>(list.size())),
              ++shapes_,
              clock_});
    write(*t, list);
    if (tables_.size() >= capacity) {
      auto const oldest =
          std::ranges::min_element(tables_, {}, [](auto const& x) { return std::pair(x->pinned, x->used); });
      if (!(*oldest)->pinned) tables_.erase(oldest);
    }
    tables_.push_back(std::move(t));
    return *tables_.back();
  }

  // Kernels that were launched before still see the old entries: the copy is in the order of the stream.
  void write(table& t, tensor_list const& list) {
    entries_.clear();
    for (std::size_t k = 0; k < list.size(); ++k) {
      entries_.push_back(entry_of(list[k]));
      bool const known = k < t.shadow.size() && t.shadow[k].data == list[k].data;
      if (list[k].length != 0 && !known) device_->check_memory(list[k]);
    }
    t.shadow.clear();  // an error below leaves a table that matches nothing
    up_->send(t.entries.data(), entries_.data(), t.entries.bytes());
    for (auto const& x : list) t.shadow.push_back({x.data, x.length, x.type});
  }

  std::shared_ptr<Device> device_;
  staging<Device>* up_;
  std::vector<std::unique_ptr<table>> tables_;
  std::vector<operand_entry> entries_;
  i64 clock_ = 0, shapes_ = 0;
};

}  // namespace limber::gpu
