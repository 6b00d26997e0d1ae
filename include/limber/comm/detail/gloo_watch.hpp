// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Finds out whom a `gloo` call that does not end is waiting for.

#include <limber/core/config.hpp>
#include <limber/core/error.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace limber::gloo::detail {

/// Why a group has failed.
struct verdict {
  int rank = -1;  ///< at fault
  std::string reason{};
  bool lost = false;  ///< the connection to it is gone
};

/// How far a rank is.
struct standing {
  i64 started = 0;     ///< calls it has begun
  std::string call{};  ///< the one that was asked about, empty if it has not begun it or it is long past
  bool left = false;
};

[[nodiscard]] inline std::string ranks_text(std::vector<int> const& ranks) {
  std::string out;
  for (int const r : ranks) out += text(out.empty() ? "rank " : ", rank ", r);
  return out;
}

/// Watches that the calls of one rank get on. After 0.8 deadlines without progress all others are to be
/// asked where they are; when they have answered, or have had a tenth of the deadline for it (0.1 s at
/// least), there is a verdict. A rank that does not even answer is stopped or out of reach.
class deadline_watch {
 public:
  enum class advice { wait, ask, judge };

  explicit deadline_watch(int size) : answers_(static_cast<std::size_t>(size)) {}

  /// Nothing runs.
  void rest() noexcept { watching_ = false; }

  /// @param mark  changes whenever there is progress
  /// @param next  the oldest call that has not ended
  advice look(double now, double deadline, std::uint64_t mark, i64 next) {
    if (!watching_ || mark != mark_ || next != next_) {
      watching_ = true;
      asked_ = false;
      mark_ = mark;
      next_ = next;
      since_ = now;
      return advice::wait;
    }
    if (!asked_ && now - since_ > 0.8 * deadline) {
      asked_ = true;
      asked_at_ = now;
      std::ranges::fill(answers_, std::nullopt);
      return advice::ask;
    }
    bool const all = std::ranges::all_of(answers_, [](auto const& a) { return a.has_value(); });
    return asked_ && (all || now - asked_at_ > std::max(0.1, 0.1 * deadline)) ? advice::judge : advice::wait;
  }

  /// The call that is asked about.
  [[nodiscard]] i64 next() const noexcept { return next_; }

  void answer(int rank, i64 asked, standing where) {
    if (asked_ && asked == next_) answers_[static_cast<std::size_t>(rank)] = std::move(where);
  }

  /// @param call  what this rank called
  [[nodiscard]] verdict judge(std::string const& call, double deadline) const {
    std::vector<int> silent, behind, left;
    i64 least = next_;
    for (auto const& a : answers_)
      if (a) least = std::min(least, a->started);
    std::map<std::string, int> votes;
    std::string most = call;
    for (std::size_t r = 0; r < answers_.size(); ++r) {
      auto const& a = answers_[r];
      if (!a) silent.push_back(static_cast<int>(r));
      if (!a || a->started >= next_) continue;
      // Who has come less far waits for nobody who has come further.
      if (a->started == least) (a->left ? left : behind).push_back(static_cast<int>(r));
    }
    if (!silent.empty())
      return {silent[0], text(ranks_text(silent), silent.size() == 1 ? " does" : " do",
                              " not answer, being stopped or out of reach: ", call, " did not end within ",
                              deadline, " s")};
    if (!left.empty()) return {left[0], text(ranks_text(left), " left without calling ", call)};
    if (!behind.empty())
      return {behind[0], text(ranks_text(behind), " did not call ", call, " within ", deadline, " s")};
    for (auto const& a : answers_)
      if (!a->call.empty() && ++votes[a->call] > votes[most]) most = a->call;
    for (std::size_t r = answers_.size(); r-- > 0;)
      if (!answers_[r]->call.empty() && answers_[r]->call != most)
        return {static_cast<int>(r),
                text("rank ", r, " called ", answers_[r]->call, " where others called ", most)};
    return {-1, text("all ranks are in ", call, ", but nothing moved for ", deadline, " s")};
  }

 private:
  std::vector<std::optional<standing>> answers_;
  bool watching_ = false, asked_ = false;
  std::uint64_t mark_ = 0;
  i64 next_ = 0;
  double since_ = 0, asked_at_ = 0;
};

}  // namespace limber::gloo::detail
