// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// One rank's part of an MPI communicator: operations in flight, deadlines, and failures.

#include <limber/comm/detail/mpi_engine.hpp>
#include <limber/comm/detail/mpi_options.hpp>
#include <limber/core/error.hpp>

#include <atomic>
#include <cstddef>
#include <cstdio>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace limber::mpi::detail {

/// One operation in flight: one call of MPI, or several if it is divided into pieces.
template <engine E>
struct in_flight_op {
  using request_type = typename E::request_type;

  std::string_view call{}, bucket{};
  request_type first = E::no_request();
  std::vector<request_type> more{};
  std::optional<double> since{};  ///< when waiting began

  /// Where the next call stores its request.
  [[nodiscard]] request_type& next() {
    return first == E::no_request() ? first : more.emplace_back(E::no_request());
  }
};

/// Fails with its first error. An operation that misses its deadline cannot be cancelled: MPI may use its
/// memory at any time, so the communicator and this object are then never destroyed.
///
/// MPI reuses the context id of a freed communicator; an unreceived message of the old one disturbs the new
/// one (Open MPI 4.1 then loses messages). So a communicator that has carried messages is kept until MPI
/// ends, and every group has a number, unique among the groups that share a rank with it, from which its
/// message tags are derived.
template <engine E>
class process_group : public std::enable_shared_from_this<process_group<E>> {
 public:
  using in_flight_op = detail::in_flight_op<E>;

  explicit process_group(options o, E e = {}) : engine(std::move(e)), how(std::move(o)) {}
  process_group(process_group const&) = delete;
  process_group& operator=(process_group const&) = delete;
  ~process_group() {
    if (native != E::no_comm() && !carried_messages && engine.is_running()) (void)engine.free(native);
  }

  /// Reads rank and size of `native`, and agrees on the number of the group.
  void open(std::string_view call) {
    bool between_two = false;
    must(engine.adopt(native), call);
    must(engine.examine(native, between_two, rank, size), call);
    static std::atomic<i64> latest = 0;
    own_number_ = latest + 1;
    in_flight_op f{call};
    must(engine.all_reduce(native, &own_number_, &number_, 1, dtype::int64, reduction::max, f.next()), f);
    wait(f);
    for (i64 seen = latest; seen < number_ && !latest.compare_exchange_weak(seen, number_);) {}
  }

  /// MPI guarantees only 32768 tags, so numbers repeat after many communicators.
  [[nodiscard]] int mailbox_tag() const noexcept { return static_cast<int>(number_ % 16384) * 2; }
  [[nodiscard]] int tensor_tag() const noexcept { return mailbox_tag() + 1; }

  /// Checks the result of a call of MPI; a failure ends the group.
  void must(answer a, std::string_view call, std::string_view bucket = {}) {
    if (!a.failed()) return;
    try {
      check(engine, a, call, bucket);
    } catch (error const& e) {
      if (!ended_) ended_ = e.where();
      throw;
    }
  }
  void must(answer a, in_flight_op const& f) { must(a, f.call, f.bucket); }
  void must_be_alive(std::string_view call, std::string_view bucket = {}) const {
    if (!ended_) return;
    failure f = *ended_;
    f.call = call;
    f.bucket = bucket;
    throw error(std::move(f));
  }
  [[nodiscard]] bool alive() const noexcept { return !ended_; }
  [[nodiscard]] bool stuck() const noexcept { return stuck_ != nullptr; }
  [[noreturn]] void end(failure f) {
    error const e(std::move(f));
    if (!ended_) ended_ = e.where();
    throw e;
  }

  [[nodiscard]] bool done(in_flight_op& f) {
    if (test(f)) return true;
    if (late(f.since)) expire(f);
    return false;
  }
  void wait(in_flight_op& f) {
    if (!until([&] { return test(f); }, f.since)) expire(f);
  }
  /// The request is destroyed, and MPI cannot cancel the operation: waits for it, and ends the group.
  void drop(in_flight_op& f) noexcept {
    if (stuck_) return;  // `fatal` was called, and did not end the program: nothing better is left
    try {
      if (!ended_)
        ended_ =
            failure{"mpi",
                    std::string(f.call),
                    0,
                    rank,
                    std::string(f.bucket),
                    text("rank ", rank, " destroyed a request of ", f.call, " before it was waited for")};
      wait(f);
    } catch (...) {}
  }

  /// Polls until ready(), and returns false at the deadline. Checks the clock and yields only every few
  /// polls.
  template <class Ready>
  [[nodiscard]] bool until(Ready ready, std::optional<double>& since) const {
    for (unsigned polls = 1; !ready(); ++polls)
      if (polls % polls_per_check == 0) {
        if (late(since)) return false;
        how.pause();
      }
    return true;
  }

  E engine;
  options how;
  typename E::comm_type native = E::no_comm();
  int rank = 0, size = 1;
  bool carried_messages = false;       ///< a message between two ranks was sent or seen
  std::vector<i64> gathered{};         ///< buffer of split; must outlive its operation
  std::vector<std::byte> discarded{};  ///< buffer of messages of unexpected size; must outlive its operation

 private:
  static constexpr unsigned polls_per_check = 32;

  [[nodiscard]] bool test(in_flight_op& f) {
    for (;;) {
      bool done = false;
      must(engine.test(f.more.empty() ? f.first : f.more.back(), done), f);
      if (!done) return false;
      if (f.more.empty()) return true;
      f.more.pop_back();
    }
  }
  [[nodiscard]] bool late(std::optional<double>& since) const {
    double const now = how.clock();
    if (!since) since = now;
    return now - *since > how.deadline;
  }
  [[noreturn]] void expire(in_flight_op const& f) {
    stuck_ = this->shared_from_this();
    ended_ = failure{
        "mpi",
        std::string(f.call),
        0,
        -1,
        std::string(f.bucket),
        text("rank ", rank, " of ", size, " waited ", how.deadline,
             " s: another rank did not come to this call, or died. MPI cannot take the call back, so the "
             "program ends here; limber::checked names the rank that is missing")};
    error const e(*ended_);
    if (how.fatal) {
      how.fatal(e.what());
    } else {
      std::fprintf(stderr, "%s\n", e.what());
      std::fflush(stderr);
      engine.abort();
    }
    throw e;
  }

  std::optional<failure> ended_;
  std::shared_ptr<process_group> stuck_;  ///< this object, once MPI may write to it at any time
  i64 own_number_ = 0, number_ = 0;
};

}  // namespace limber::mpi::detail
