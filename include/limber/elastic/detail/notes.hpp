// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// What workers write about generations and read of each other.

#include <limber/core/config.hpp>
#include <limber/core/error.hpp>
#include <limber/elastic/detail/ballot.hpp>
#include <limber/elastic/detail/store_key.hpp>
#include <limber/elastic/store.hpp>

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace limber::elastic::detail {

[[nodiscard]] inline error membership_error(std::string_view call, int code, std::string reason) {
  return error({"membership", std::string(call), code, -1, {}, std::move(reason)});
}

/// The store as memberships use it.
template <store Store>
class notes {
 public:
  explicit notes(Store& in) : store_(in) {}

  [[nodiscard]] overview look() { return overview_of(store_.list({})); }

  /// What one worker has put, if anybody can read it: a worker that puts nonsense harms only itself.
  [[nodiscard]] std::optional<std::string> individual(std::string const& key) {
    try {
      return store_.get(key);
    } catch (error const& e) {
      if (e.where().code != foreign_entry) throw;
      return std::nullopt;
    }
  }

  /// The decision about generation g as worker `id` sees it; nothing if it is cleaned up by now.
  [[nodiscard]] std::optional<roster> decision_on(i64 g, std::string const& id) {
    auto const value = store_.get(members_key(g));
    if (!value) return std::nullopt;
    auto decided = roster_in(*value, g);
    if (!decided) throw nonsense(members_key(g), "roster");
    auto const at = std::find(decided->ids.begin(), decided->ids.end(), id);
    if (at != decided->ids.end()) decided->rank = static_cast<int>(at - decided->ids.begin());
    return decided;
  }
  [[nodiscard]] std::optional<verdict> verdict_on(i64 g) {
    auto const value = store_.get(verdict_key(g));
    if (!value) return std::nullopt;
    auto const what = verdict_in(*value);
    if (!what) throw nonsense(verdict_key(g), "verdict");
    return what;
  }
  [[nodiscard]] std::optional<presence> presence_of(std::string const& id, roster const& ended) {
    auto const said = individual(here_key(ended.generation + 1, id));
    return said ? presence_in(*said, ended.size()) : std::nullopt;
  }

  /// What stands there already stays.
  void decide(roster const& r, std::uint64_t nonce) {
    store_.put_if_absent(members_key(r.generation), text_of(r, nonce));
  }
  void decide(i64 g, verdict v) { store_.put_if_absent(verdict_key(g), text_of(v)); }

  void come(i64 g, std::string const& id, presence const& said) {
    store_.replace(here_key(g, id), text_of(said));
  }

  /// True if generation g is not the newest. A newer one may have been cleaned up, but then g was, too.
  [[nodiscard]] bool passed(i64 g) { return store_.get(members_key(g + 1)) || !store_.get(members_key(g)); }

  /// Forgets all generations before the last two, and who is no longer in.
  void clean_up(roster const& r, overview const& o) {
    try {
      for (auto const& [g, what] : o.generations) {
        if (g > r.generation - 2) break;
        for (std::string const& id : what.here) store_.remove(here_key(g, id));
        for (std::string const& id : what.left) store_.remove(left_key(g, id));
        for (std::string const& id : what.ready) store_.remove(ready_key(g, id));
        if (what.judged) store_.remove(verdict_key(g));
        if (what.decided) store_.remove(members_key(g));
      }
      for (std::string const& id : o.alive)
        if (std::find(r.ids.begin(), r.ids.end(), id) == r.ids.end()) store_.remove(alive_key(id));
    } catch (error const&) {  // old entries harm nobody
    }
  }

 private:
  [[nodiscard]] static error nonsense(std::string const& key, std::string_view what) {
    return membership_error("next", foreign_entry, text("\"", key, "\" is no ", what));
  }

  Store& store_;
};

}  // namespace limber::elastic::detail
