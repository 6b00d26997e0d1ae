// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Where the tensors of a list lie in one flat piece of memory, and the memory itself.

#include <limber/core/box.hpp>
#include <limber/core/tensor.hpp>

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace limber {

/// The widest access: memory of our own is laid out so that every tensor allows it.
inline constexpr i64 slot_alignment = 16;

[[nodiscard]] constexpr i64 round_up(i64 bytes, i64 to) noexcept { return (bytes + to - 1) / to * to; }

/// Offsets of a list's tensors in flat memory, in the order of the list.
struct layout {
  struct place {
    i64 offset = 0;  ///< bytes from the start
    i64 length = 0;  ///< elements
    dtype type = dtype::f32;
    std::string_view name{};  ///< not owned: the list's
  };
  std::vector<place> places;
  i64 bytes = 0;  ///< size of the whole, slots padded to 16 bytes
};

/// Elements of a view in front of its first 16-byte boundary; 0 if no element lies on one.
[[nodiscard]] inline i64 elements_before_boundary(tensor_view const& t) noexcept {
  i64 const past = static_cast<i64>(reinterpret_cast<std::uintptr_t>(t.data) % slot_alignment);
  i64 const missing = past == 0 ? 0 : slot_alignment - past;
  return missing % size_of(t.type) == 0 ? missing / size_of(t.type) : 0;
}

/// The plain layout: one tensor after the other, each in its compute type and congruent to the view it
/// is like: where that one reaches a 16-byte boundary, so does this, and both can be read 16 bytes at a
/// time from the same element on.
[[nodiscard]] LIMBER_COLD inline layout layout_of(tensor_list const& like) {
  layout out;
  out.places.reserve(like.size());
  for (auto const& t : like) {
    dtype const type = compute_type(t.type);
    i64 const head = elements_before_boundary(t) * size_of(type);
    i64 const offset = out.bytes + round_up(head, slot_alignment) - head;
    out.places.push_back({offset, t.length, type, t.name});
    out.bytes = round_up(offset + t.length * size_of(type), slot_alignment);
  }
  return out;
}

/// Memory that an executor allocated; `release(pointer)` is called once, with the last use of it. Moves,
/// never copies.
class flat_memory {
 public:
  flat_memory() noexcept = default;
  template <class Release>
  flat_memory(std::byte* p, Release release) : p_(p), owner_(new releaser<Release>(p, std::move(release))) {}

  [[nodiscard]] std::byte* get() const noexcept { return p_; }

 private:
  struct resource {
    virtual ~resource() = default;
  };
  template <class Release>
  struct releaser final : resource {
    std::byte* p;
    Release release;
    releaser(std::byte* q, Release r) : p(q), release(std::move(r)) {}
    ~releaser() override { release(p); }
  };
  std::byte* p_ = nullptr;
  detail::owner<resource> owner_;
};

/// Flat memory with a view of each tensor in it. Owns the memory; moves, never copies.
struct slab {
  flat_memory flat{};
  i64 bytes = 0;
  tensor_list parts{};

  [[nodiscard]] std::byte* data() const noexcept { return flat.get(); }
};

/// Lays the views of `where` over `flat`.
[[nodiscard]] LIMBER_COLD inline slab slab_over(flat_memory flat, layout const& where) {
  slab out{std::move(flat), where.bytes, {}};
  out.parts.reserve(where.places.size());
  for (auto const& p : where.places) out.parts.push_back({out.data() + p.offset, p.length, p.type, p.name});
  return out;
}

}  // namespace limber
