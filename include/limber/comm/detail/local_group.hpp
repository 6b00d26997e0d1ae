// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// A group whose ranks share an address space: the rules that `threads` and the virtual cluster have in
/// common.
///
/// Operations are numbered from 1 and stored in a ring of records until they are complete. An engine derives
/// from this class and says how a rank waits, what is done when all ranks have arrived, and what time it
/// takes.

#include <limber/comm/detail/host_collective.hpp>
#include <limber/comm/detail/process_group.hpp>
#include <limber/comm/detail/receive_queue.hpp>
#include <limber/core/box.hpp>

#include <cstddef>
#include <initializer_list>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace limber::detail {

class local_group;

/// What the groups of one world have in common.
struct local_world {
  char const* engine;
  char const* gone;                    ///< what ranks may have: "left", or "left or died"
  char const *before, *after;          ///< around a rank of the world: " (rank " and " of the world)"
  std::size_t most_named;              ///< ranks that one error names
  double deadline;                     ///< seconds that a call waits for the others
  local_group* first_group = nullptr;  ///< of all that exist
  std::vector<int>
      unwinding{};  ///< by rank: an exception has unwound its requests or handles; the reason follows
};

/// One collective operation, from the first arrival to its completion.
struct record {
  i64 sequence = 0;
  signature what{};
  int first = 0;  ///< the rank that arrived first
  int arrived = 0;
  i64 piece = 0, pieces = 0, claimed = 0, finished = 0;  ///< of work that ranks share: elements, and numbers
  double end = 0;                                        ///< when it is complete, where time is modelled
  std::vector<rank_buffers> ranks{};

  void reset(i64 number, std::size_t size) {
    sequence = number;
    arrived = 0;
    piece = pieces = claimed = finished = 0;
    end = std::numeric_limits<double>::infinity();
    ranks.assign(size, {});
  }
};

/// Records by number, reused, so that a steady state allocates nothing.
class record_ring {
 public:
  record_ring() : slots_(4) {
    for (auto& s : slots_) s = owner<record>(new record);
  }
  /// The record of an operation; of another one if nobody has begun it.
  [[nodiscard]] record& operator[](i64 sequence) noexcept { return *slot(sequence); }
  /// Resets it on first access. Grows when more operations are in flight than before; records are not moved,
  /// since ranks may be working on them.
  record& fetch(i64 sequence, i64 completed, std::size_t ranks) {
    if (sequence - completed > static_cast<i64>(slots_.size())) {
      auto old = std::exchange(slots_, std::vector<owner<record>>(2 * slots_.size()));
      for (auto& s : slots_) s = owner<record>(new record);
      for (auto& r : old)
        if (r->sequence > completed) slot(r->sequence) = std::move(r);
    }
    record& r = *slot(sequence);
    if (r.sequence != sequence) r.reset(sequence, ranks);
    return r;
  }

 private:
  [[nodiscard]] owner<record>& slot(i64 sequence) noexcept {
    return slots_[static_cast<std::size_t>(sequence) % slots_.size()];
  }

  std::vector<owner<record>> slots_;
};

/// What a rank waits for. @pre the texts outlive the wait
struct awaited_event {
  std::string_view call{}, bucket{};
  i64 sequence = 0;  ///< of the operation, 0: none
  int peer = -1;     ///< the sender whose message is awaited
};

class local_group : public process_group {
 public:
  ~local_group() override = default;

  local_group* next_group = nullptr;  ///< of the same world, in the order in which they were made

  [[nodiscard]] int size() const noexcept override { return static_cast<int>(members_.size()); }
  i64 start(int rank, signature const& s, const_tensor_view in, tensor_view out) override {
    return start(rank, s, in, out, 0);
  }
  LIMBER_FN void finish(group_call& c) override;
  LIMBER_FN bool done(group_call& c) override;
  LIMBER_FN void drop(group_call& c, bool unwinding) noexcept override;
  LIMBER_FN void leave(int rank, bool unwinding) noexcept override;
  LIMBER_FN void send(int rank, int peer, const_tensor_view in) override;
  LIMBER_FN void recv(int rank, int peer, tensor_view out) override;
  [[nodiscard]] LIMBER_FN place split(int rank, int color) override;
  LIMBER_FN void post(int rank, int peer, i64 tag, std::span<std::byte const> bytes) override;
  LIMBER_FN std::optional<message> poll(int rank, i64 tag) override;
  LIMBER_FN void listen(int rank) override;
  LIMBER_FN void revoke(std::string const& reason) override;
  [[nodiscard]] LIMBER_FN place shrink(int rank, std::span<int const> lost) override;

  /// A rank of the world has failed: fails every group that it had not left before, or only those that its
  /// exception has halted. @pre locked
  static void fail_with_rank(local_world& w, int world_rank, std::string const& reason, bool only_halted);
  /// A rank continued after an exception had unwound open requests: others must not wait for it, nor use its
  /// memory. @pre locked
  static void fail_unwound(local_world& w, int world_rank);

 protected:
  struct member {
    int world_rank = 0;
    bool left = false;
    i64 started = 0;
    place next{};  ///< its place after a split
    receive_queue messages{};
  };

  /// @pre locked, or the world is not shared yet
  local_group(local_world& w, std::vector<int> const& world_ranks);
  /// The world knows this group no more. Every engine's destructor calls it. @pre locked
  void forget() noexcept;

  // The engine ------------------------------------------------------------------------------------

  virtual void lock() noexcept {}
  virtual void unlock() noexcept {}
  [[nodiscard]] virtual double now() const = 0;
  /// @throws unless the caller may use `rank`, and for a call that begins something also if it has died
  virtual void check_caller(int /*rank*/, std::string_view /*call*/, bool /*begins*/) {}
  /// Waits for an event; may return early. True if the deadline has passed since `t` began.
  virtual bool wait(int rank, awaited_event const& e, wait_timer& t) = 0;
  virtual void wake(int rank) = 0;
  /// Called after a poll without success. True if it has waited.
  virtual bool empty_poll(int /*rank*/, awaited_event const& /*e*/) { return false; }
  /// The exception that unwinds requests of `rank` will be reported by fail_with_rank or fail_unwound.
  [[nodiscard]] virtual bool supervised(int rank) const = 0;

  /// All ranks have arrived.
  virtual void perform(record& r) = 0;
  /// Does a part of an operation, if there is one to do.
  virtual bool work() { return false; }
  /// Ranks read or write tensors now.
  [[nodiscard]] virtual bool working() const { return false; }
  /// @pre all ranks have arrived
  [[nodiscard]] virtual bool is_complete(record const& r) const = 0;

  [[nodiscard]] virtual shared_group make(std::vector<int> const& world_ranks) = 0;
  /// When a new group may be used, and whether that time has come.
  virtual double usable_from(local_group& /*made*/, int /*rank*/) { return 0; }
  [[nodiscard]] virtual bool has_come(double /*time*/) const { return true; }

  virtual void deliver(int to, stored_message m) { arrive(to, std::move(m)); }
  /// A message is in transit: a tensor of `from`, or to the mailbox where that is −1.
  [[nodiscard]] virtual bool in_transit(int /*rank*/, int /*from*/) const { return false; }
  [[nodiscard]] virtual bool has_news(member const& m) const { return m.messages.has_new(); }

  [[nodiscard]] virtual bool is_dead(int /*rank*/) const { return false; }
  [[nodiscard]] virtual bool death_known(int /*rank*/) const { return false; }
  [[nodiscard]] virtual std::string death_text(int /*rank*/) const { return {}; }

  // The rules -------------------------------------------------------------------------------------

  [[nodiscard]] member& at(int rank) noexcept { return members_[static_cast<std::size_t>(rank)]; }
  [[nodiscard]] member const& at(int rank) const noexcept { return members_[static_cast<std::size_t>(rank)]; }
  /// A part of an error's reason: words, seconds, a call, or ranks, which are named.
  struct part {
    enum class kind : unsigned char { words, seconds, call, ranks };
    part(std::string_view s) noexcept : data(s.data()), size(static_cast<unsigned>(s.size())) {}
    part(char const* s) noexcept : part(std::string_view(s)) {}
    part(std::string const& s) noexcept : part(std::string_view(s)) {}
    part(double const& t) noexcept : data(&t), what(kind::seconds) {}
    part(signature const& s) noexcept : data(&s), what(kind::call) {}
    part(int const& rank) noexcept : data(&rank), size(1), what(kind::ranks) {}
    part(std::span<int const> all) noexcept
        : data(all.data()), size(static_cast<unsigned>(all.size())), what(kind::ranks) {}
    part(std::vector<int> const& all) noexcept : part(std::span(all)) {}

    void const* data;
    unsigned size = 0;
    kind what = kind::words;
  };
  using parts = std::initializer_list<part>;
  [[nodiscard]] std::string say(parts all) const;

  void arrive(int to, stored_message m);
  /// Completes all operations that can be.
  void advance();
  void wake_all();
  LIMBER_FN virtual void fail(int rank, std::string reason);
  [[gnu::cold]] void fail_with(int rank, parts reason) { fail(rank, say(reason)); }

  local_world& world_;
  std::vector<member> members_;
  record_ring records_;
  i64 completed_ = 0;  ///< operations whose results are complete
  int left_count_ = 0, known_deaths_ = 0;
  bool halted_ = false;  ///< no work until the exception of failed_rank_ is known
  int failed_rank_ = -1;

 private:
  struct scope;
  struct shrinking {
    std::vector<int> lost;
    std::vector<int> here;
    shared_group made{};
    double usable_from = 0;
    std::optional<group_failure> failed{};
    bool open = true;  ///< ranks may join it
    int taken = 0;     ///< ranks that have their place
    owner<shrinking> next{};
  };

  i64 start(int rank, signature const& s, const_tensor_view in, tensor_view out, int color);
  void check_in(int rank, std::string_view call, std::string_view bucket = {});
  void halt_or_fail(int rank, bool unwinding, parts reason);
  void fail_halted();
  /// Operation `sequence` is complete, or the group has failed and no rank's memory is in use.
  bool is_over(i64 sequence, bool timed_out);
  /// Fails the group if operation `sequence` or an earlier one cannot complete any more.
  void check_completable(i64 sequence, bool timed_out);
  /// Fails the group if nothing can come to `rank`: from `peer`, or to its mailbox where that is −1.
  void check_deliverable(int rank, int peer, bool timed_out);
  void make_split_groups(record const& r);
  /// Why `rank` cannot call shrink; empty if it may.
  [[nodiscard]] std::string absence_text(int rank) const;
  void close(shrinking& s, int culprit, std::string reason);
  [[noreturn, gnu::cold]] void end(shrinking& s, int culprit, parts reason);
  [[nodiscard]] shrinking& join(int rank, std::span<int const> lost, std::vector<int> const& survivors);

  owner<shrinking> shrinkings_;
};

}  // namespace limber::detail

#if !defined(LIMBER_COMPILED)
#include <limber/comm/detail/impl/local_group.ipp>
#endif
