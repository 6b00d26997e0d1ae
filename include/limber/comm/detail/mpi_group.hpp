// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// One rank's part of an MPI communicator: what is in flight, how long it is waited for, how it ends.

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

/// One operation in flight, as one call of MPI or, cut into pieces, as several.
template <engine E>
struct flight {
  using request_type = typename E::request_type;

  std::string_view call{}, bucket{};
  request_type first = E::no_request();
  std::vector<request_type> more{};
  std::optional<double> since{};  ///< when somebody first waited in vain

  /// Where the next call puts its request.
  [[nodiscard]] request_type& next() {
    return first == E::no_request() ? first : more.emplace_back(E::no_request());
  }
};

/// Ends with its first failure. An operation that misses its deadline cannot be taken back: its memory is
/// MPI's for good, and so are the communicator and this object, which then is never destroyed.
///
/// When a communicator is freed, MPI gives its place to a later one; a message of the first that nobody has
/// received confuses the second (Open MPI 4.1 then loses messages of it). So a communicator that has carried
/// messages is kept until MPI ends, and every group has a number, different from those of all others that
/// share a rank with it, which its messages carry.
template <engine E>
class group : public std::enable_shared_from_this<group<E>> {
 public:
  using flight = detail::flight<E>;

  explicit group(options o, E e = {}) : engine(std::move(e)), how(std::move(o)) {}
  group(group const&) = delete;
  group& operator=(group const&) = delete;
  ~group() {
    if (native != E::no_comm() && !carried && engine.is_running()) (void)engine.free(native);
  }

  /// `native` is there: asks who we are, and agrees on a number.
  void open(std::string_view call) {
    bool between_two = false;
    must(engine.adopt(native), call);
    must(engine.examine(native, between_two, rank, size), call);
    static std::atomic<i64> latest = 0;
    own_number_ = latest + 1;
    flight f{call};
    must(engine.all_reduce(native, &own_number_, &number_, 1, dtype::int64, reduction::max, f.next()), f);
    wait(f);
    for (i64 seen = latest; seen < number_ && !latest.compare_exchange_weak(seen, number_);) {}
  }

  /// MPI promises no more than 32768 tags: numbers come again after many communicators.
  [[nodiscard]] int mail_tag() const noexcept { return static_cast<int>(number_ % 16384) * 2; }
  [[nodiscard]] int letter_tag() const noexcept { return mail_tag() + 1; }

  /// Every call of MPI is checked here; one that fails ends the group.
  void must(answer a, std::string_view call, std::string_view bucket = {}) {
    if (!a.failed()) return;
    try {
      check(engine, a, call, bucket);
    } catch (error const& e) {
      if (!ended_) ended_ = e.where();
      throw;
    }
  }
  void must(answer a, flight const& f) { must(a, f.call, f.bucket); }
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

  [[nodiscard]] bool done(flight& f) {
    if (test(f)) return true;
    if (late(f.since)) expire(f);
    return false;
  }
  void wait(flight& f) {
    if (!until([&] { return test(f); }, f.since)) expire(f);
  }
  /// Somebody's memory is about to go: there is no way but to let the operation end. The group ends too.
  void drop(flight& f) noexcept {
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

  /// False at the deadline. Looks are cheap; the clock, and what others need of the core, come at times.
  template <class Ready>
  [[nodiscard]] bool until(Ready ready, std::optional<double>& since) const {
    for (unsigned look = 1; !ready(); ++look)
      if (look % looks == 0) {
        if (late(since)) return false;
        how.pause();
      }
    return true;
  }

  E engine;
  options how;
  typename E::comm_type native = E::no_comm();
  int rank = 0, size = 1;
  bool carried = false;             ///< a message, between two ranks, sent or seen
  std::vector<i64> gathered{};      ///< what split gathers: lives as long as an operation may
  std::vector<std::byte> misfit{};  ///< a letter of another size than expected, likewise

 private:
  static constexpr unsigned looks = 32;

  [[nodiscard]] bool test(flight& f) {
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
  [[noreturn]] void expire(flight const& f) {
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
  std::shared_ptr<group> stuck_;  ///< itself, once MPI may write to it at any time
  i64 own_number_ = 0, number_ = 0;
};

}  // namespace limber::mpi::detail
