// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The records that a store holds about generations: their keys and their text format.

#include <limber/core/config.hpp>
#include <limber/core/error.hpp>
#include <limber/elastic/detail/store_key.hpp>
#include <limber/state/errors.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <locale>
#include <map>
#include <optional>
#include <set>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

namespace limber::elastic {

/// Why a generation ended for a worker.
enum class ending : std::uint8_t {
  planned,          ///< agreed by all workers: a joiner is admitted, or a worker leaves
  lost_connection,  ///< the connection to a peer broke
  deadline          ///< a peer did not arrive within the deadline
};

inline constexpr std::array<std::string_view, 3> ending_names{"planned", "lost_connection", "deadline"};

[[nodiscard]] constexpr std::string_view name_of(ending why) noexcept {
  return ending_names[static_cast<std::size_t>(why)];
}

/// The members of one generation; equal on all of them but for `rank`.
struct membership_view {
  i64 generation = 0;            ///< 1, 2, …
  int rank = -1;                 ///< this worker's
  std::vector<std::string> ids;  ///< of all members, by rank
  std::vector<int> old_ranks;    ///< their ranks in the last generation that began; −1 for joiners
  std::string prefix;            ///< of this generation's rendezvous; unique to it
  bool planned = false;          ///< no member was lost when the last generation ended

  [[nodiscard]] int size() const noexcept { return static_cast<int>(ids.size()); }
};

namespace detail {

inline constexpr std::size_t id_limit = 96;
inline constexpr i64 generation_limit = i64{1} << 60;

[[nodiscard]] inline bool is_id(std::string_view s) noexcept {
  return s.size() <= id_limit && is_safe_name(s);
}

[[nodiscard]] inline std::string members_key(i64 generation) { return text("gen/", generation, "/members"); }
[[nodiscard]] inline std::string state_key(i64 generation) { return text("gen/", generation, "/verdict"); }
/// What a worker says of a generation: "here", "left" or "ready".
[[nodiscard]] inline std::string worker_key(i64 generation, std::string_view what, std::string const& id) {
  return text("gen/", generation, "/", what, "/", id);
}
[[nodiscard]] inline std::string join_key(std::string const& id) { return "join/" + id; }
[[nodiscard]] inline std::string alive_key(std::string const& id) { return "alive/" + id; }

/// All keys of a store by their meaning. Unknown keys are ignored.
struct overview {
  struct generation {
    std::set<std::string> here;   ///< registered for the decision
    std::set<std::string> left;   ///< left before the decision
    bool decided = false;         ///< the members are decided
    std::set<std::string> ready;  ///< members that have read the decision
    bool has_state = false;       ///< its generation_state is decided
  };

  std::map<i64, generation> generations;
  std::set<std::string> joining;
  std::set<std::string> alive;

  /// The latest generation that was decided, 0 if none.
  [[nodiscard]] i64 latest() const noexcept {
    for (auto at = generations.rbegin(); at != generations.rend(); ++at)
      if (at->second.decided) return at->first;
    return 0;
  }
  [[nodiscard]] generation const& of(i64 g) const {
    static generation const none{};
    auto const at = generations.find(g);
    return at == generations.end() ? none : at->second;
  }
};

[[nodiscard]] inline overview overview_of(std::vector<std::string> const& keys) {
  overview out;
  for (std::string const& key : keys) {
    std::string_view rest = key;
    auto const part = [&rest] {
      std::size_t const slash = rest.find('/');
      std::string_view const head = rest.substr(0, slash);
      rest.remove_prefix(slash == std::string_view::npos ? rest.size() : slash + 1);
      return head;
    };
    std::string_view const section = part();
    if (section == "join" || section == "alive") {
      if (is_id(rest)) (section == "join" ? out.joining : out.alive).emplace(rest);
      continue;
    }
    auto const g = section == "gen" ? state::detail::read_count(part()) : std::nullopt;
    if (!g || *g < 1 || *g > generation_limit) continue;
    std::string_view const what = part();
    if (what == "members" && rest.empty()) out.generations[*g].decided = true;
    if (what == "verdict" && rest.empty()) out.generations[*g].has_state = true;
    if (what == "ready" && is_id(rest)) out.generations[*g].ready.emplace(rest);
    if (what == "here" && is_id(rest)) out.generations[*g].here.emplace(rest);
    if (what == "left" && is_id(rest)) out.generations[*g].left.emplace(rest);
  }
  return out;
}

/// The record by which a worker registers for the decision after a generation.
struct presence {
  ending why = ending::planned;
  std::vector<int> suspects;  ///< ranks of the generation that ended
};

[[nodiscard]] inline std::string text_of(presence const& p) {
  std::string out = text("why ", name_of(p.why), "\n");
  for (int const r : p.suspects) out += text("suspect ", r, "\n");
  return out;
}

/// Empty if the text is malformed, or suspects a rank that is not below `size`.
[[nodiscard]] inline std::optional<presence> parse_presence(std::string const& from, int size) {
  std::istringstream in(from);
  in.imbue(std::locale::classic());
  std::string word, why;
  in >> word >> why;
  auto const known = std::ranges::find(ending_names, why);
  if (known == ending_names.end()) return std::nullopt;
  presence out{static_cast<ending>(known - ending_names.begin()), {}};
  for (int rank = 0; in >> word >> rank;) {
    if (rank < 0 || rank >= size || std::ssize(out.suspects) >= size) return std::nullopt;
    out.suspects.push_back(rank);
  }
  return text_of(out) == from ? std::optional(out) : std::nullopt;
}

/// Whether a generation began, or is void because not all of its members read the decision in time.
enum class generation_state : std::uint8_t { begun, is_void };

[[nodiscard]] inline std::string text_of(generation_state v) {
  return v == generation_state::begun ? "begun" : "void";
}

[[nodiscard]] inline std::optional<generation_state> parse_state(std::string_view from) {
  for (generation_state const v : {generation_state::begun, generation_state::is_void})
    if (from == text_of(v)) return v;
  return std::nullopt;
}

/// The text of the decision on a generation.
[[nodiscard]] inline std::string text_of(membership_view const& r, std::uint64_t nonce) {
  std::string out = text("generation ", r.generation, "\nnonce ", nonce % 1'000'000'000'000'000'000u,
                         "\nplanned ", r.planned ? 1 : 0, "\n");
  for (std::size_t k = 0; k < r.ids.size(); ++k) {
    if (r.old_ranks[k] < 0)
      out += text("joiner ", r.ids[k], "\n");
    else
      out += text("member ", r.ids[k], " ", r.old_ranks[k], "\n");
  }
  return out;
}

/// Empty unless the text is a well-formed decision on `generation`. The rank is −1.
[[nodiscard]] inline std::optional<membership_view> parse_view(std::string const& from, i64 generation) {
  std::istringstream in(from);
  in.imbue(std::locale::classic());
  std::string word, id;
  i64 said = 0;
  std::uint64_t nonce = 0, planned = 0;
  in >> word >> said >> word >> nonce >> word >> planned;
  membership_view out;
  out.generation = generation;
  out.planned = planned == 1;
  std::set<std::string> distinct;
  while (in >> word >> id) {
    int old_rank = -1;
    if (word == "member") in >> old_rank;
    // Old ranks increase, and joiners follow.
    bool const follows =
        old_rank < 0 || out.ids.empty() || (out.old_ranks.back() >= 0 && old_rank > out.old_ranks.back());
    if (!follows || !is_id(id) || !distinct.insert(id).second) return std::nullopt;
    out.ids.push_back(id);
    out.old_ranks.push_back(old_rank);
  }
  if (out.ids.empty() || text_of(out, nonce) != from) return std::nullopt;
  out.prefix = text("gen-", generation, "-", nonce);
  return out;
}

}  // namespace detail
}  // namespace limber::elastic
