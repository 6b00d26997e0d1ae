// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Workers that die at a given moment, and survivors that find each other: threads in one process.

#include <limber/comm/collective.hpp>
#include <limber/comm/threads.hpp>
#include <limber/core/error.hpp>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace limber::testing {

/// What a worker dies of: no std::exception, so that nothing on its way takes it for an error.
struct death {};

/// How many events a worker has left: starting an operation is one, waiting for it another.
struct lifeline {
  i64 left = -1;  ///< −1: lives on
  i64 seen = 0;
  i64 faint = -1;  ///< −1: never
  void tick() {
    ++seen;
    if (left > 0 && --left == 0) throw death{};
  }
  /// An operation has come to its end for all: at event `faint` this rank alone is told that it failed, as
  /// engines may whose ranks do not end together.
  void told() {
    if (faint < 0 || seen < faint) return;
    faint = -1;
    throw error({"mortal", "wait", 0, -1, {}, "the connection was lost in the last moment"});
  }
};

template <request Q>
struct mortal_request {
  Q inner;
  lifeline* life;
  void wait() {
    life->tick();
    inner.wait();
    life->told();
  }
  bool done() { return inner.done(); }
};

/// Any collective, for a worker that may die in each of its operations.
template <collective C>
class mortal {
 public:
  mortal(C inner, lifeline* life) : inner_(std::move(inner)), life_(life) {}

  int rank() const { return inner_.rank(); }
  int size() const { return inner_.size(); }
  auto all_reduce(const_tensor_view in, tensor_view out, reduction how = reduction::sum) {
    life_->tick();
    return request_of(inner_.all_reduce(in, out, how));
  }
  auto reduce_scatter(const_tensor_view in, tensor_view out) {
    life_->tick();
    return request_of(inner_.reduce_scatter(in, out));
  }
  auto all_gather(const_tensor_view in, tensor_view out) {
    life_->tick();
    return request_of(inner_.all_gather(in, out));
  }
  auto broadcast(tensor_view data, int root) {
    life_->tick();
    return request_of(inner_.broadcast(data, root));
  }
  void barrier() {
    life_->tick();
    inner_.barrier();
    life_->told();
  }
  void send(const_tensor_view in, int peer) {
    life_->tick();
    inner_.send(in, peer);
    life_->told();
  }
  void recv(tensor_view out, int peer) {
    life_->tick();
    inner_.recv(out, peer);
    life_->told();
  }
  void post(int peer, i64 tag, std::span<std::byte const> bytes) {
    life_->tick();
    inner_.post(peer, tag, bytes);
    life_->told();
  }
  auto poll(i64 tag) { return inner_.poll(tag); }
  void revoke(std::string const& reason) { inner_.revoke(reason); }
  void listen() {
    life_->tick();
    inner_.listen();
  }
  /// The collective itself: nobody dies of what is done with it.
  C& inner() noexcept { return inner_; }
  mortal split(int color) {
    life_->tick();
    return {inner_.split(color), life_};
  }
  mortal shrink(std::span<int const> lost) {
    life_->tick();
    return {inner_.shrink(lost), life_};
  }

 private:
  template <class Q>
  mortal_request<Q> request_of(Q q) {
    return {std::move(q), life_};
  }

  C inner_;
  lifeline* life_;
};

using mortal_threads = mortal<threads::communicator>;

/// Where survivors of a group meet, and newcomers wait: a new group is made when all who live are there.
class hall {
 public:
  explicit hall(double deadline = 20) : deadline_(deadline) {}

  /// Joins the first group that is made when `n` are there, or later ones.
  [[nodiscard]] threads::communicator enter(int id, int n) {
    std::unique_lock lock(door_);
    first_ = n;
    newcomers_.insert(id);
    return wait(lock, id);
  }
  /// Waits until a group that has begun is replaced. @throws death if the run ends before
  [[nodiscard]] threads::communicator join(int id) {
    std::unique_lock lock(door_);
    if (!opened_.wait_for(lock, std::chrono::duration<double>(2 * deadline_), [&] { return begun_; }))
      throw std::runtime_error("hall: " + std::to_string(id) + " waited in vain for the others to begin");
    newcomers_.insert(id);
    return wait(lock, id);
  }
  /// Goes on after the group that `id` was in has failed, or is given up by all.
  [[nodiscard]] threads::communicator next(int id) {
    std::unique_lock lock(door_);
    members_.erase(id);
    returning_.insert(id);
    return wait(lock, id);
  }
  /// `id` has died, or has nothing left to do.
  void leave(int id) {
    std::scoped_lock const lock(door_);
    members_.erase(id);
    newcomers_.erase(id);
    open();
    opened_.notify_all();
  }

 private:
  // A new group: those who were in the last one in the order of their ids, then newcomers.
  void open() {
    bool const begins =
        !begun_ && returning_.empty() && members_.empty() && static_cast<int>(newcomers_.size()) >= first_;
    if (!begins && (returning_.empty() || !members_.empty())) return;
    std::vector<int> all(returning_.begin(), returning_.end());
    all.insert(all.end(), newcomers_.begin(), newcomers_.end());
    threads::world w(static_cast<int>(all.size()), {.deadline = deadline_});
    for (std::size_t r = 0; r < all.size(); ++r)
      seats_.emplace(all[r], std::make_unique<threads::communicator>(w.communicator(static_cast<int>(r))));
    members_.insert(all.begin(), all.end());
    begun_ = true;
    returning_.clear();
    newcomers_.clear();
    opened_.notify_all();
  }
  threads::communicator wait(std::unique_lock<std::mutex>& lock, int id) {
    open();
    auto const over = [&] { return begun_ && members_.empty() && returning_.empty(); };
    if (!opened_.wait_for(lock, std::chrono::duration<double>(2 * deadline_),
                          [&] { return seats_.contains(id) || over(); }))
      throw std::runtime_error("hall: " + std::to_string(id) + " waited in vain");
    if (!seats_.contains(id)) throw death{};
    auto seat = std::move(seats_.at(id));
    seats_.erase(id);
    return std::move(*seat);
  }

  std::mutex door_;
  std::condition_variable opened_;
  double deadline_;
  int first_ = 1;
  bool begun_ = false;
  std::set<int> members_, returning_, newcomers_;  // members: of a group, and not known to be out of it
  std::map<int, std::unique_ptr<threads::communicator>> seats_;
};

}  // namespace limber::testing
