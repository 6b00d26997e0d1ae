// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// What has arrived for one rank of a `gloo` group and was not read yet.

#include <limber/comm/collective.hpp>
#include <limber/core/dtype.hpp>

#include <cstddef>
#include <deque>
#include <map>
#include <optional>
#include <utility>
#include <vector>

namespace limber::gloo::detail {

/// What `send` was given on the other side.
struct parcel {
  dtype type = dtype::f32;
  std::vector<std::byte> bytes{};
};

/// The first of the letters in a box, which goes when it is empty.
template <class Boxes>
[[nodiscard]] auto pop(Boxes& boxes, typename Boxes::iterator box) {
  std::optional first(std::move(box->second.front()));
  box->second.pop_front();
  if (box->second.empty()) boxes.erase(box);
  return first;
}

class letter_shelf {
 public:
  void put(int source, i64 tag, std::vector<std::byte> bytes) {
    mail_[tag].push_back({source, std::move(bytes)});
    ++arrived_;
  }
  void put_parcel(int source, parcel p) { parcels_[source].push_back(std::move(p)); }

  [[nodiscard]] std::optional<message> take(i64 tag) {
    auto const box = mail_.find(tag);
    return box == mail_.end() ? std::nullopt : pop(mail_, box);
  }
  [[nodiscard]] std::optional<parcel> take_parcel(int source) {
    auto const box = parcels_.find(source);
    return box == parcels_.end() ? std::nullopt : pop(parcels_, box);
  }

  /// Whether mail has arrived since `hear`.
  [[nodiscard]] bool news() const noexcept { return arrived_ != heard_; }
  void hear() noexcept { heard_ = arrived_; }

 private:
  std::map<i64, std::deque<message>> mail_;
  std::map<int, std::deque<parcel>> parcels_;
  i64 arrived_ = 0, heard_ = 0;
};

}  // namespace limber::gloo::detail
