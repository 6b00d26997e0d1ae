// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Runs a membership on a store with arbitrary entries: the entry point of the fuzzer and of the test that
/// replays its corpus.

#include <limber/elastic/membership.hpp>
#include <limber/elastic/store.hpp>

#include <elastic/scratch_folder.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>
#include <typeinfo>
#include <utility>
#include <vector>

namespace limber::testing {

/// Whether the worker was admitted.
enum class join_result { refused, admitted };

/// The initial contents of the store.
using entries = std::vector<std::pair<std::string, std::string>>;

namespace detail {

// Per entry: the length of its key, the key, the length of its value in two bytes, the value.
[[nodiscard]] inline entries entries_in(std::string_view in) {
  auto const take = [&](std::size_t n) {
    std::string const out(in.substr(0, n));
    in.remove_prefix(out.size());
    return out;
  };
  auto const number = [&](std::size_t digits) {
    std::size_t out = 0;
    for (char const c : take(digits)) out = out * 256 + static_cast<unsigned char>(c);
    return out;
  };
  entries out;
  while (!in.empty()) {
    std::string key = take(number(1));
    std::string value = take(number(2));
    out.emplace_back(std::move(key), std::move(value));
  }
  return out;
}

/// All operations of a worker on a store, on a clock that only its pauses advance.
template <elastic::store Store>
void take_part(Store& store) {
  double now = 0;
  std::uint64_t word = 0;
  int pauses = 0;
  elastic::membership_options how{.deadline = 2, .grace = 0.5, .suspicion = 0.25};
  how.join_deadline = 20;
  how.poll = {0.25, [&] { return now; },
              [&](double seconds) {
                now += seconds;
                if (++pauses > 2000) {
                  std::fprintf(stderr, "a worker waits for ever\n");
                  std::abort();
                }
              }};
  how.random = [&] { return ++word; };
  elastic::membership<Store> m(store, "me", how);
  elastic::membership_view mine = m.join();
  for (int k = 0; k < 2; ++k) {
    (void)m.joiners();
    (void)m.over(mine);
    (void)m.beat();
    mine = m.next(mine, elastic::ending::deadline);
  }
  m.leave(mine);
}

inline void in_memory(entries const& all) {
  elastic::memory_store store;
  for (auto const& [key, value] : all)
    if (elastic::detail::is_key(key)) store.replace(key, value);
  take_part(store);
}

// In files with arbitrary names.
inline void in_folder(entries const& all) {
  elastic::test::scratch_folder const folder;
  elastic::directory_store store(folder.path / "store");
  for (auto [key, value] : all) {
    std::ranges::replace(key, '/', '+');
    std::ranges::replace(key, '\0', '-');
    if (key.empty() || key == "." || key == "..") continue;
    std::ofstream(folder.path / "store" / key, std::ios::binary) << value;
  }
  take_part(store);
}

}  // namespace detail

/// The first byte selects the kind of store. Aborts on any exception but those of the library.
inline join_result try_store(std::string_view in) {
  if (in.empty()) return join_result::refused;
  auto const all = detail::entries_in(in.substr(1));
  try {
    in[0] % 8 == 7 ? detail::in_folder(all) : detail::in_memory(all);
    return join_result::admitted;
  } catch (error const& e) {
    if (e.where().engine == "membership" || e.where().engine == "store") return join_result::refused;
    std::fprintf(stderr, "an error of another engine: %s\n", e.what());
  } catch (std::exception const& e) { std::fprintf(stderr, "%s: %s\n", typeid(e).name(), e.what()); }
  std::abort();
}

/// Inputs with which the worker is admitted: an empty store, a run that has ended, and a live run that has
/// admitted it, with and without presences for the next generation.
[[nodiscard]] inline std::vector<std::string> good_stores() {
  std::string const me = "me-1000000000000000";  // the first id that `take_part` draws
  std::string const members = "generation 4\nnonce 77\nplanned 0\nmember a-1 0\n";
  std::vector<entries> const all{
      {},
      {{"gen/4/members", members}, {"gen/4/verdict", "begun"}, {"gen/5/left/a-1", "left"}},
      {{"gen/4/members", members + "joiner " + me + "\n"},
       {"gen/4/verdict", "begun"},
       {"gen/4/ready/a-1", "ready"},
       {"alive/a-1", "3"}},
      {{"gen/4/members", members + "joiner " + me + "\n"},
       {"gen/4/ready/a-1", "ready"},
       {"gen/5/here/a-1", "why deadline\nsuspect 1\n"},
       {"gen/6/here/a-1", "why lost_connection\n"},
       {"join/b-2", "1"},
       {"alive/a-1", "3"}}};
  std::vector<std::string> out;
  for (char const where : {'\0', '\7'})
    for (auto const& of : all) {
      std::string one(1, where);
      for (auto const& [key, value] : of)
        one += std::string{static_cast<char>(key.size())} + key +
               std::string{static_cast<char>(value.size() / 256), static_cast<char>(value.size() % 256)} +
               value;
      out.push_back(std::move(one));
    }
  return out;
}

}  // namespace limber::testing
