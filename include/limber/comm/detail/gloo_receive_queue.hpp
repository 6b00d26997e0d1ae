// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Messages that have arrived at a rank of a `gloo` group and were not read yet.

#include <limber/comm/collective.hpp>
#include <limber/core/dtype.hpp>

#include <cstddef>
#include <deque>
#include <map>
#include <optional>
#include <utility>
#include <vector>

namespace limber::gloo::detail {

/// A tensor received from `send`.
struct received_tensor {
  dtype type = dtype::f32;
  std::vector<std::byte> bytes{};
};

/// Removes and returns the first message of a queue; removes the queue if it is empty.
template <class Queues>
[[nodiscard]] auto pop(Queues& queues, typename Queues::iterator queue) {
  std::optional first(std::move(queue->second.front()));
  queue->second.pop_front();
  if (queue->second.empty()) queues.erase(queue);
  return first;
}

class receive_queue {
 public:
  void put(int source, i64 tag, std::vector<std::byte> bytes) {
    mailbox_[tag].push_back({source, std::move(bytes)});
    ++arrived_;
  }
  void put_tensor(int source, received_tensor p) { tensors_[source].push_back(std::move(p)); }

  [[nodiscard]] std::optional<message> take(i64 tag) {
    auto const queue = mailbox_.find(tag);
    return queue == mailbox_.end() ? std::nullopt : pop(mailbox_, queue);
  }
  [[nodiscard]] std::optional<received_tensor> take_tensor(int source) {
    auto const queue = tensors_.find(source);
    return queue == tensors_.end() ? std::nullopt : pop(tensors_, queue);
  }

  /// Whether a mailbox message has arrived since mark_seen().
  [[nodiscard]] bool has_new() const noexcept { return arrived_ != seen_; }
  void mark_seen() noexcept { seen_ = arrived_; }

 private:
  std::map<i64, std::deque<message>> mailbox_;
  std::map<int, std::deque<received_tensor>> tensors_;
  i64 arrived_ = 0, seen_ = 0;
};

}  // namespace limber::gloo::detail
