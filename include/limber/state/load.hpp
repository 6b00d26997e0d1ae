// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Loads checkpoints, on the same or another number of workers.

#include <limber/core/error.hpp>
#include <limber/state/folder.hpp>
#include <limber/state/save.hpp>
#include <limber/state/tensor_file.hpp>

#include <algorithm>
#include <functional>
#include <map>
#include <numeric>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace limber::state {

/// Pieces named `from` in the checkpoint are named `to` here; the text that matches '*' is kept.
struct renaming {
  std::string from;
  std::string to;
};

namespace detail {

/// The text that matches the '*' of the pattern; empty optional if the name does not match.
[[nodiscard]] inline std::optional<std::string_view> matched(std::string_view pattern,
                                                             std::string_view name) {
  auto const star = pattern.find('*');
  if (star == pattern.npos) return pattern == name ? std::optional(std::string_view()) : std::nullopt;
  std::string_view const head = pattern.substr(0, star), tail = pattern.substr(star + 1);
  if (name.size() < head.size() + tail.size() || !name.starts_with(head) || !name.ends_with(tail)) return {};
  return name.substr(head.size(), name.size() - head.size() - tail.size());
}

[[nodiscard]] inline bool matches_any(std::vector<std::string> const& patterns, std::string_view name) {
  return std::ranges::any_of(patterns, [&](auto const& p) { return matched(p, name).has_value(); });
}

/// The name of a piece here: by the first renaming that matches, or unchanged.
[[nodiscard]] inline std::string renamed(std::vector<renaming> const& all, std::string_view name) {
  for (auto const& r : all)
    if (auto const middle = matched(r.from, name)) {
      std::string out = r.to;
      if (auto const star = out.find('*'); star != out.npos) out.replace(star, 1, *middle);
      return out;
    }
  return std::string(name);
}

inline void check(std::vector<renaming> const& all) {
  for (auto const& r : all) {
    auto const from = std::ranges::count(r.from, '*'), to = std::ranges::count(r.to, '*');
    expects(from <= 1 && from == to, "load: rename {\"", r.from, "\", \"", r.to,
            "\"} must have one '*' on both sides, or none");
  }
}

}  // namespace detail

/// Patterns are names of pieces in which one '*' matches any text: "*/head" matches all pieces of a tensor.
struct load_options {
  int rank = 0;
  int world = 1;
  std::vector<renaming> rename{};  ///< names in the checkpoint → names here
  std::vector<std::string>
      allow_missing{};                ///< patterns of pieces here that stay unchanged if they are missing
  std::vector<std::string> ignore{};  ///< patterns of pieces, by their new names, that are not loaded
  copier copy{};                      ///< copies bytes to the pieces; std::memcpy when empty
};

/// The pieces that were not loaded one to one.
struct loaded {
  std::vector<std::string> missing;       ///< not in the checkpoint: unchanged
  std::vector<std::string> ignored;       ///< in the checkpoint, not loaded
  std::vector<std::string> averaged;      ///< the mean over the workers that saved
  std::vector<std::string> partial_sums;  ///< this rank's part of the sum over the workers
  std::vector<std::string> zeroed;        ///< parts of an unfinished round of another set of workers
};

namespace detail {

/// Opens the file of a worker, or of the model for rank −1.
using opener = std::function<tensor_file(int rank)>;

/// Loads one rank's state from the files of a checkpoint. Files of other workers are opened only if needed.
class loading {
 public:
  loading(opener open, int saved_world, load_options const& o, bool verified)
      : open_(std::move(open)),
        workers_(static_cast<std::size_t>(saved_world)),
        model_(open_(-1)),
        options_(o),
        same_(saved_world == o.world),
        verified_(verified) {
    detail::check(o.rename);
    expects(o.world >= 1 && o.rank >= 0 && o.rank < o.world, "load: rank ", o.rank, " of a world of ",
            o.world);
    index(model_);
    for (int r = 0; r < saved_world; ++r)
      if (!same_ || r == o.rank) index(worker(r));
  }

  /// Integers are read at once, since the other pieces of `what` may depend on them; floats are read after
  /// all pieces have been found and checked. If the checkpoint is invalid, `what` is unchanged.
  template <visitable V>
  [[nodiscard]] loaded run(V& what) {
    std::vector<std::pair<tensor_view, std::vector<std::byte>>> before;
    std::vector<task> tasks;
    try {
      what.visit([&](auto const& piece) {
        if (auto const t = find({piece.name, piece.how, piece.data})) {
          if (!is_floating(t->to.type)) {
            std::vector<std::byte> old(static_cast<std::size_t>(t->to.bytes()));
            copy_bytes(options_.copy, old.data(), t->to.data, old.size());
            before.emplace_back(t->to, std::move(old));
            verify(*t);
            fill(*t);
          } else {
            tasks.push_back(*t);
          }
        }
      });
      expect_all_taken();
      for (auto const& t : tasks) verify(t);
    } catch (...) {
      for (auto const& [to, old] : before) copy_bytes(options_.copy, to.data, old.data(), old.size());
      throw;
    }
    for (auto const& t : tasks) fill(t);
    return std::move(report_);
  }

 private:
  struct task {
    std::string source;  // the name in the checkpoint
    tensor_view to;
    std::vector<tensor_file const*> from{};  // none: zeros
    std::vector<double> weights{};           // of the files in a sum; none: the bytes of the only file
    double divisor = 1;                      // of the sum
  };

  // Two pieces that get the same name are an error of the options.
  void index(tensor_file const& f) {
    expect_hashes(f);
    for (auto const& t : f.tensors()) {
      std::string const here = renamed(options_.rename, t.name);
      auto const [at, added] = sources_.emplace(here, t.name);
      expects(added || at->second == t.name, "load: rename makes '", printable(here), "' of both '",
              printable(at->second), "' and '", printable(t.name), "'");
    }
  }

  [[nodiscard]] static error mismatch(std::string const& path, std::string const& name,
                                      std::string const& reason) {
    return error({"state", "load", 0, -1, printable(name), text(path, ": '", printable(name), "' ", reason)});
  }

  [[nodiscard]] std::optional<task> find(state_piece const& piece) {
    expects(wanted_.insert(piece.name).second, "load: two pieces are named '", printable(piece.name), "'");
    if (matches_any(options_.ignore, piece.name)) return {};
    auto const source = sources_.find(piece.name);
    if (source == sources_.end()) {
      if (!matches_any(options_.allow_missing, piece.name))
        throw mismatch(model_.path(), piece.name, "is not in the checkpoint (see `allow_missing`)");
      report_.missing.push_back(piece.name);
      return {};
    }
    task t{source->second, piece.data};
    if (tensor_entry const* const entry = model_.find(t.source)) {
      expect_fit(model_, *entry, piece);
      t.from = {&model_};
      return t;
    }
    tensor_file const& mine = worker(same_ ? options_.rank : 0);
    kept const saved = *mine.how(*mine.find(t.source));
    expect_fit(mine, *mine.find(t.source), piece);
    if (same_ && saved == piece.how) {
      t.from = {&mine};
      return t;
    }
    for (std::size_t r = 0; r < workers_.size(); ++r) {
      tensor_file const& w = worker(static_cast<int>(r));
      tensor_entry const* const theirs = w.find(t.source);
      if (theirs == nullptr)
        throw mismatch(w.path(), piece.name,
                       "is missing in the file of this worker, but not in that of another");
      expect_fit(w, *theirs, piece);
      if (w.how(*theirs) != saved)
        throw mismatch(w.path(), piece.name, "has another kind than in the files of other workers");
      t.from.push_back(&w);
    }
    combine(t, piece, saved);
    return t;
  }

  static void expect_fit(tensor_file const& f, tensor_entry const& e, state_piece const& p) {
    if (e.type != p.data.type || e.length() != p.data.length)
      throw mismatch(
          f.path(), p.name,
          text("has ", e.length(), " elements of ", limber::name_of(e.type), " in the checkpoint, but ",
               p.data.length, " of ", limber::name_of(p.data.type), " here"));
  }

  // How a piece that differs between workers is made of those in all their files.
  void combine(task& t, state_piece const& piece, kept saved) {
    bool const number = is_floating(piece.data.type);
    if (saved != piece.how && !(saved == kept::per_rank && piece.how == kept::replicated))
      throw mismatch(model_.path(), piece.name,
                     text("was saved as ", name_of(saved), ", but is ", name_of(piece.how), " here"));
    if (saved == kept::round) {
      report_.zeroed.push_back(piece.name);
      t.from.clear();
    } else if (saved == kept::partial) {
      if (!number)
        throw mismatch(model_.path(), piece.name,
                       text("is a sum of ", limber::name_of(piece.data.type),
                            ", which cannot be divided among another number of workers"));
      report_.partial_sums.push_back(piece.name);
      t.weights.assign(t.from.size(), 1.0);
      t.divisor = options_.world;
    } else if (number) {
      report_.averaged.push_back(piece.name);
      for (tensor_file const* const w : t.from) t.weights.push_back(weight_of(*w));
      t.divisor = std::accumulate(t.weights.begin(), t.weights.end(), 0.0);
      if (t.divisor != 0) return;
      t.weights.assign(t.from.size(), 1.0);
      t.divisor = static_cast<double>(t.from.size());
    } else {
      t.from.resize(1);
    }
  }

  void expect_all_taken() {
    for (auto const& [here, there] : sources_) {
      bool const ignored = matches_any(options_.ignore, here);
      if (ignored) report_.ignored.push_back(there);
      if (!ignored && !wanted_.contains(here))
        throw mismatch(model_.path(), there, "is in the checkpoint, but not used here (see `ignore`)");
    }
  }

  [[nodiscard]] tensor_file const& worker(int rank) {
    auto& w = workers_[static_cast<std::size_t>(rank)];
    if (!w) w.emplace(open_(rank));
    return *w;
  }

  void verify(task const& t) {
    if (verified_) return;
    for (tensor_file const* const w : t.from) w->verify(*w->find(t.source));
  }

  void fill(task const& t) {
    auto put = [&](i64 at, std::span<std::byte const> bytes) {
      copy_bytes(options_.copy, t.to.data + at, bytes.data(), bytes.size());
    };
    if (t.from.empty()) return each_chunk(t.to.bytes(), put);
    if (!t.weights.empty()) return each_sum(t.from, t.source, t.weights, t.divisor, put);
    t.from[0]->each_portion(*t.from[0]->find(t.source), put);
  }

  opener open_;
  std::vector<std::optional<tensor_file>> workers_;
  tensor_file model_;
  load_options const& options_;
  bool same_;  // as many workers as saved
  bool verified_;
  std::map<std::string, std::string> sources_;  // name here → name in the checkpoint
  std::set<std::string> wanted_;
  loaded report_;
};

}  // namespace detail
}  // namespace limber::state

namespace limber {

/// Loads all state of `what` from a checkpoint of any number of workers.
///
///     state::found const f = state::latest("checkpoints");
///     if (f) load(opt, f, {.rank = comm.rank(), .world = comm.size()});
///
/// Strict       each piece must exist with its dtype and length, and all pieces of the checkpoint must be
///              used, except as the options say.
/// World        `replicated` pieces come from the model's file. Of other pieces, each rank loads its own if
///              the number of workers is the same. Another number of workers gets the weighted mean of
///              `per_rank` pieces (of counters rank 0's), the sum divided by the number of ranks of `partial`
///              ones, and zero for `round` ones: call finish() before the save to lose nothing. A piece that
///              was per_rank and is replicated now gets the mean, too.
/// Cost         reads the pieces of this rank, through 1 MB of memory; with another number of workers every
///              rank reads all files. Data that `latest` has not verified are read twice, first to compare
///              the hashes.
/// Order        before the first step(), on every rank. Does not communicate.
/// Bits         means and sums are computed in double, in rank order: equal on every rank.
/// Choices      pieces with one element per tensor ("rule0/seen") are in the order of the tensors' names; a
///              renaming that changes that order mixes them up.
/// @throws limber::error naming file and tensor, if a piece is missing, unused, of another type or length, or
///         damaged; `what` is then unchanged, unless a file changed after `latest` had compared its hashes
/// @throws std::invalid_argument for invalid options, or a checkpoint that was not found
template <state::visitable V>
state::loaded load(V& what, state::found const& from, state::load_options const& options = {}) {
  expects(static_cast<bool>(from), "load: no checkpoint was found",
          from.rejected.empty() ? std::string() : "; the newest is damaged: " + from.rejected.front().reason);
  auto open = [&](int rank) { return state::detail::open_checked(from.path, from.contents, rank); };
  return state::detail::loading(open, from.world(), options, from.verified).run(what);
}

}  // namespace limber
