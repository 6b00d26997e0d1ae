// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// What all engines have in common: the interface of a process group, and the handles that programs hold.

#include <limber/comm/collective.hpp>
#include <limber/comm/detail/signature.hpp>
#include <limber/core/clock.hpp>
#include <limber/core/config.hpp>
#include <limber/core/error.hpp>
#include <limber/core/tensor.hpp>

#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace limber::detail {

class process_group;

/// Shares a group; as std::shared_ptr, without what <memory> costs a unit. The last owner destroys it.
class shared_group {
 public:
  shared_group() noexcept = default;
  explicit shared_group(process_group* of) noexcept;
  shared_group(shared_group const& other) noexcept : shared_group(other.group_) {}
  shared_group(shared_group&& other) noexcept : group_(std::exchange(other.group_, nullptr)) {}
  shared_group& operator=(shared_group other) noexcept {
    std::swap(group_, other.group_);
    return *this;
  }
  ~shared_group();

  [[nodiscard]] process_group* get() const noexcept { return group_; }
  [[nodiscard]] process_group* operator->() const noexcept { return group_; }
  [[nodiscard]] explicit operator bool() const noexcept { return group_ != nullptr; }

 private:
  process_group* group_ = nullptr;
};

/// A rank of a group.
struct place {
  shared_group where{};
  int rank = 0;
};

/// Measures one wait; restarted whenever an operation completes.
struct wait_timer {
  double since = 0;
  bool running = false;
  i64 seen = 0;
};

/// One rank's call, as its request keeps it.
struct group_call {
  i64 sequence = 0;  ///< its number in the group
  int rank = 0;
  operation what{};
  std::string_view bucket{};
  wait_timer timer{};
};

/// Why a group has failed.
struct group_failure {
  int rank = -1;  ///< the rank at fault, −1 if unknown
  std::string reason{};
  int code = 0;       ///< the engine's
  bool lost = false;  ///< its connection was lost
};

/// One group of ranks, of any engine. A rank uses it through one handle and its requests.
class process_group {
 public:
  explicit process_group(char const* engine) noexcept : engine_name_(engine) {}
  process_group(process_group const&) = delete;
  process_group& operator=(process_group const&) = delete;
  virtual ~process_group() = default;

  [[nodiscard]] virtual int size() const noexcept = 0;

  /// Waits for an operation. @throws limber::error if the group failed before
  virtual void finish(group_call& c) = 0;
  /// True if finish() would return or throw without waiting.
  [[nodiscard]] virtual bool done(group_call& c) = 0;
  /// A request was destroyed before finish() returned. When this returns, its memory is no longer used.
  virtual void drop(group_call& c, bool unwinding) noexcept = 0;
  /// The handle of `rank` was destroyed.
  virtual void leave(int /*rank*/, bool /*unwinding*/) noexcept {}

  // Refused unless it is overridden.

  /// Begins the rank's next operation, whose arguments are valid. Returns its number.
  LIMBER_FN virtual i64 start(int rank, signature const& s, const_tensor_view in, tensor_view out);
  LIMBER_FN virtual void send(int rank, int peer, const_tensor_view in);
  LIMBER_FN virtual void recv(int rank, int peer, tensor_view out);
  [[nodiscard]] LIMBER_FN virtual place split(int rank, int color);
  LIMBER_FN virtual void post(int rank, int peer, i64 tag, std::span<std::byte const> bytes);
  [[nodiscard]] LIMBER_FN virtual std::optional<message> poll(int rank, i64 tag);
  LIMBER_FN virtual void listen(int rank);
  LIMBER_FN virtual void revoke(std::string const& reason);
  /// @pre `lost` is sorted, without repetition, within the ranks and without the caller
  [[nodiscard]] LIMBER_FN virtual place shrink(int rank, std::span<int const> lost);

 protected:
  [[nodiscard]] error failure_error(std::string_view call, std::string_view bucket) const;
  void check_alive(std::string_view call, std::string_view bucket = {}) const {
    if (failed_) throw failure_error(call, bucket);
  }

  /// Waits for an operation as its request does.
  void wait_for(group_call const& c);

  char const* engine_name_;
  std::optional<group_failure> failed_;

 private:
  friend class shared_group;
  [[noreturn]] void lacks(char const* call) const;

  long owners_ = 0;  // by the compiler's atomics, as in core/box.hpp
};

/// @throws std::invalid_argument unless deadline > 0, and clock and pause (if there is one) are not empty
void check_waiting(char const* engine, double deadline, clock_function const& clock,
                   pause_function const* pause = nullptr);
/// "rank 1, rank 4"
[[nodiscard]] std::string ranks_text(std::vector<int> const& ranks);
/// Why a group fails whose rank destroyed a request of `call` that it had not waited for.
[[nodiscard]] std::string dropped_text(std::string_view rank, std::string_view call, std::string_view bucket,
                                       bool unwinding);
/// " without rank 1, rank 4" as the reason of a group that was shrunk.
[[nodiscard]] std::string shrunk_text(std::string_view lost);
/// The ranks of `size` that are not in `lost`.
[[nodiscard]] std::vector<int> survivors_of(std::span<int const> lost, int size);
/// The ranks whose entry is `color`.
[[nodiscard]] std::vector<int> ranks_of_color(std::span<i64 const> colors, i64 color);
/// The position of `color` among the different ones, in ascending order.
[[nodiscard]] int index_of_color(std::vector<i64> colors, i64 color);
/// The position of `rank` in `members`, which are sorted.
[[nodiscard]] int rank_among(std::vector<int> const& members, int rank) noexcept;

/// An operation in flight.
class group_request {
 public:
  group_request(shared_group where, group_call c) noexcept;
  group_request(group_request&& other) noexcept;
  group_request& operator=(group_request&& other) noexcept;
  ~group_request() { drop(); }

  /// @throws limber::error if the group failed before the operation was complete
  void wait();
  [[nodiscard]] bool done();

 private:
  void drop() noexcept;

  shared_group where_;
  group_call call_;
  int exceptions_;  ///< those in flight when it was made
};

/// One rank's handle to a group: the part of an engine's communicator that all engines share.
class group_handle {
 public:
  using request = group_request;

  [[nodiscard]] int rank() const noexcept { return rank_; }
  [[nodiscard]] int size() const { return group().size(); }

  [[nodiscard]] request all_reduce(const_tensor_view in, tensor_view out, reduction how = reduction::sum);
  [[nodiscard]] request reduce_scatter(const_tensor_view in, tensor_view out);
  [[nodiscard]] request all_gather(const_tensor_view in, tensor_view out);
  [[nodiscard]] request broadcast(tensor_view data, int root);
  void barrier();

  void send(const_tensor_view in, int peer);
  void recv(tensor_view out, int peer);

 protected:
  group_handle(char const* engine, place at) noexcept;
  group_handle(group_handle&& other) noexcept;
  group_handle& operator=(group_handle&& other) noexcept;
  ~group_handle() { leave(); }

  // The members of communicators whose engine has them.
  void post(int peer, i64 tag, std::span<std::byte const> bytes);
  [[nodiscard]] std::optional<message> poll(i64 tag) { return group().poll(rank_, tag); }
  void listen() { group().listen(rank_); }
  void revoke(std::string const& reason) { group().revoke(reason); }
  [[nodiscard]] place split_place(int color) { return group().split(rank_, color); }
  [[nodiscard]] place shrink_place(std::span<int const> lost);

  [[nodiscard]] process_group& group() const;
  [[nodiscard]] request start(signature const& s, const_tensor_view in, tensor_view out);

 private:
  void leave() noexcept;

  char const* engine_;
  shared_group where_;
  int rank_;
  int exceptions_;  ///< those in flight when it was made
};

}  // namespace limber::detail

#if !defined(LIMBER_COMPILED)
#include <limber/comm/detail/impl/process_group.ipp>
#endif
