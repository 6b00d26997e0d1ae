// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// How the ranks of a new NCCL communicator agree on its id, and name those that do not come.

#include <limber/comm/detail/nccl_board.hpp>
#include <limber/comm/detail/nccl_engine.hpp>
#include <limber/core/error.hpp>

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace limber::nccl::detail {

/// "rank 1, rank 4"
[[nodiscard]] inline std::string ranks_text(std::vector<int> const& ranks) {
  std::string out;
  for (int const r : ranks) out += text(out.empty() ? "rank " : ", rank ", r);
  return out;
}

[[nodiscard]] inline std::string hex(unique_id const& id) {
  static constexpr char digits[] = "0123456789abcdef";
  std::string out;
  for (std::byte const b : id) {
    out += digits[std::to_integer<unsigned>(b) >> 4];
    out += digits[std::to_integer<unsigned>(b) & 15u];
  }
  return out;
}
[[nodiscard]] inline std::optional<unique_id> from_hex(std::string_view s) {
  unique_id id;
  if (s.size() != 2 * id.size()) return std::nullopt;
  for (std::size_t i = 0; i < id.size(); ++i) {
    unsigned value = 0;
    auto const* const at = s.data() + 2 * i;
    if (auto const [end, failed] = std::from_chars(at, at + 2, value, 16);
        failed != std::errc() || end != at + 2)
      return std::nullopt;
    id[i] = static_cast<std::byte>(value);
  }
  return id;
}

/// What all ranks name the communicator on the board: ids differ from start to start.
[[nodiscard]] inline std::string name_of(unique_id const& id) {
  std::uint64_t h = 0xcbf29ce484222325u;
  for (std::byte const b : id) h = (h ^ std::to_integer<std::uint64_t>(b)) * 0x100000001b3u;
  return text(h);
}

/// The meeting before `init`: each rank leaves a note with its GPU; rank 0 waits for all notes, and then
/// posts the id, or what is wrong.
///
/// Cost     n notes written, 2 n read.
class meeting {
 public:
  meeting(board const& b, int rank, int size, double deadline, clock_function const& clock,
          std::function<void()> const& pause)
      : board_(b), rank_(rank), size_(size), deadline_(deadline), clock_(clock), pause_(pause) {}
  meeting(meeting const&) = delete;
  meeting& operator=(meeting const&) = delete;
  /// The notes have served when the communicator is there, and mislead others when it is not.
  ~meeting() {
    try {
      if (here_) board_.remove(note(rank_));
      if (posted_ && came_to_be_) board_.remove(id_note);
    } catch (...) {  // nobody reads them again but the next start, which reports what is left
    }
  }

  /// @param make  called on rank 0 alone, when all have come
  /// @throws limber::error naming those who did not come, or who share a GPU
  template <class Make>
  [[nodiscard]] unique_id agree(std::string const& gpu, Make make) {
    double const start = clock_();
    if (rank_ == 0 && board_.get(id_note)) throw failed(-1, left_over(id_note));
    if (!board_.put(note(rank_), gpu))
      throw failed(rank_, text("there are two processes of rank ", rank_, ", or ", left_over(note(rank_))));
    here_ = true;
    return rank_ == 0 ? invite(gpu, start, make) : answer_of_rank_0(start);
  }

  /// All ranks have joined.
  void came_to_be() noexcept { came_to_be_ = true; }

 private:
  static constexpr char const* id_note = "id";

  [[nodiscard]] static std::string note(int rank) { return text("here.", rank); }
  [[nodiscard]] static error failed(int rank, std::string reason) {
    return error({"nccl", "bootstrap", 0, rank, {}, std::move(reason)});
  }
  [[nodiscard]] std::string left_over(std::string const& name) const {
    return text("an earlier start of the same job left its notes: remove ", board_.where, " (found '", name,
                "'), or give every start its own job name");
  }

  template <class Make>
  unique_id invite(std::string const& gpu, double start, Make make) {
    std::map<int, std::string> gpus{{0, gpu}};
    // Rank 0 answers early enough for the others to have the answer in time.
    while (static_cast<int>(gpus.size()) < size_ && clock_() - start <= 0.8 * deadline_) {
      for (int r = 1; r < size_; ++r)
        if (!gpus.contains(r))
          if (auto found = board_.get(note(r))) gpus.emplace(r, std::move(*found));
      if (static_cast<int>(gpus.size()) < size_) pause_();
    }
    std::vector<int> missing;
    for (int r = 0; r < size_; ++r)
      if (!gpus.contains(r)) missing.push_back(r);
    if (!missing.empty())
      refuse(missing[0],
             text(ranks_text(missing), " of ", size_, " did not come within ", 0.8 * deadline_, " s"));
    std::map<std::string, int> owners;
    for (auto const& [r, name] : gpus)
      if (auto const [at, first] = owners.try_emplace(name, r); !first)
        refuse(r, text("rank ", at->second, " and rank ", r, " share the GPU ", name,
                       ", which NCCL refuses: start as many ranks on a machine as it has GPUs, and give each "
                       "its own (options::device, or the local rank)"));
    unique_id const id = make();
    if (!board_.put(id_note, text("+", hex(id)))) throw failed(-1, left_over(id_note));
    posted_ = true;
    return id;
  }

  [[noreturn]] void refuse(int rank, std::string const& reason) {
    (void)board_.put(id_note, text("-", rank, " ", reason));
    throw failed(rank, reason);
  }

  unique_id answer_of_rank_0(double start) {
    for (;;) {
      if (auto const said = board_.get(id_note)) {
        if (said->starts_with('-')) {
          std::size_t const space = std::min(said->find(' '), said->size() - 1);
          int culprit = -1;
          std::from_chars(said->data() + 1, said->data() + space, culprit);
          throw failed(culprit, said->substr(space + 1));
        }
        auto const id = from_hex(std::string_view(*said).substr(1));
        if (!id) throw failed(0, text("the note '", id_note, "' of ", board_.where, " holds no id"));
        return *id;
      }
      if (clock_() - start > deadline_)
        throw failed(0, text("rank 0 of ", size_, " did not come within ", deadline_, " s"));
      pause_();
    }
  }

  board const& board_;
  int rank_, size_;
  double deadline_;
  clock_function const& clock_;
  std::function<void()> const& pause_;
  bool here_ = false, posted_ = false, came_to_be_ = false;
};

}  // namespace limber::nccl::detail
