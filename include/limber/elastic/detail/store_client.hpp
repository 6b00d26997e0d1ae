// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Reads and writes the membership records in a store, heartbeats among them.

#include <limber/core/clock.hpp>
#include <limber/core/config.hpp>
#include <limber/core/error.hpp>
#include <limber/elastic/detail/membership_records.hpp>
#include <limber/elastic/detail/store_key.hpp>
#include <limber/elastic/store.hpp>

#include <algorithm>
#include <cstdint>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

namespace limber::elastic::detail {

[[nodiscard]] inline error membership_error(std::string_view call, int code, std::string reason) {
  return error({"membership", std::string(call), code, -1, {}, std::move(reason)});
}

template <store Store>
class store_client {
 public:
  explicit store_client(Store& in) : store_(in) {}

  /// Lists the store once.
  [[nodiscard]] overview read_overview() { return overview_of(store_.list({})); }

  /// An entry that a single worker writes; empty if it is absent or unreadable: a worker that writes a bad
  /// entry harms only itself.
  [[nodiscard]] std::optional<std::string> worker_entry(std::string const& key) {
    try {
      return store_.get(key);
    } catch (error const& e) {
      if (e.where().code != foreign_entry) throw;
      return std::nullopt;
    }
  }

  /// The decision on generation g, with the rank of worker `id`; empty if there is none, or not any more.
  [[nodiscard]] std::optional<membership_view> view_of(i64 g, std::string const& id) {
    auto decided = record(members_key(g), "membership view", [g](auto& text) { return parse_view(text, g); });
    if (!decided) return decided;
    auto const at = std::ranges::find(decided->ids, id);
    if (at != decided->ids.end()) decided->rank = static_cast<int>(at - decided->ids.begin());
    return decided;
  }
  [[nodiscard]] std::optional<generation_state> state_of(i64 g) {
    return record(state_key(g), "generation state", parse_state);
  }
  [[nodiscard]] std::optional<presence> presence_of(std::string const& id, membership_view const& ended) {
    auto const entry = worker_entry(worker_key(ended.generation + 1, "here", id));
    return entry ? parse_presence(*entry, ended.size()) : std::nullopt;
  }

  /// Decides unless there is a decision already.
  void decide(membership_view const& r, std::uint64_t nonce) {
    store_.put_if_absent(members_key(r.generation), text_of(r, nonce));
  }
  void decide(i64 g, generation_state s) { store_.put_if_absent(state_key(g), text_of(s)); }

  /// Registers worker `id` for the decision on generation g.
  void put_presence(i64 g, std::string const& id, presence const& p) {
    store_.replace(worker_key(g, "here", id), text_of(p));
  }

  /// Removes all entries of generations before the last two, and the heartbeats of workers not in `r`.
  void clean_up(membership_view const& r, overview const& o) {
    try {
      for (auto const& [g, what] : o.generations) {
        if (g > r.generation - 2) break;
        for (std::string const& key : store_.list(text("gen/", g, "/"))) store_.remove(key);
      }
      for (std::string const& id : o.alive)
        if (std::ranges::find(r.ids, id) == r.ids.end()) store_.remove(alive_key(id));
    } catch (error const&) {  // old entries are harmless
    }
  }

 private:
  /// An entry that all workers follow, parsed. @throws limber::error if it is malformed
  template <class Parse>
  [[nodiscard]] std::invoke_result_t<Parse, std::string&> record(std::string const& key,
                                                                 std::string_view what, Parse const& parse) {
    auto value = store_.get(key);
    if (!value) return std::nullopt;
    auto out = parse(*value);
    if (!out) throw membership_error("next", foreign_entry, text("\"", key, "\" is no ", what));
    return out;
  }

  Store& store_;
};

/// Writes one worker's heartbeat. Every member may be called from any thread.
template <store Store>
class heartbeat {
 public:
  heartbeat(Store& in, double every, clock_function clock)
      : store_(in), every_(every), clock_(std::move(clock)) {}

  /// From now on this worker is a member of generation `g`.
  void start(i64 g, std::string const& id) {
    std::scoped_lock const lock(guard_);
    generation_ = g;
    id_ = id;
    regrouping_ = fenced_ = false;
    write();
  }

  /// From now on this worker regroups: a decision on the next generation does not mean that it is fenced.
  void begin_regroup() {
    std::scoped_lock const lock(guard_);
    regrouping_ = true;
  }

  void stop() {
    std::scoped_lock const lock(guard_);
    generation_ = 0;
    fenced_ = false;
  }

  /// False if a newer generation was decided without this worker.
  bool beat() {
    std::scoped_lock const lock(guard_);
    if (generation_ == 0 || fenced_) return !fenced_;
    if (clock_() - last_ < every_) return true;
    write();
    // The record of a newer generation may be removed already, but then so is that of this one.
    fenced_ =
        !regrouping_ && (store_.get(members_key(generation_ + 1)) || !store_.get(members_key(generation_)));
    return !fenced_;
  }

 private:
  void write() {
    last_ = clock_();
    store_.replace(alive_key(id_), text(++count_));
  }

  Store& store_;
  double every_;
  clock_function clock_;
  std::mutex guard_;
  i64 generation_ = 0;
  std::string id_;
  bool regrouping_ = false, fenced_ = false;
  double last_ = 0;
  unsigned long long count_ = 0;
};

}  // namespace limber::elastic::detail
