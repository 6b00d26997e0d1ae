// SPDX-License-Identifier: Apache-2.0
// labels: unit memory
// timeout: 120
#define BOOST_TEST_MODULE limber.elastic.membership
#include <limber/elastic/membership.hpp>

#include <boost/test/unit_test.hpp>

#include <core/says.hpp>
#include <elastic/virtual_workers.hpp>

#include <algorithm>
#include <cstddef>
#include <limits>
#include <optional>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

namespace limber::elastic::test {
namespace {

using limber::test::says;
using ranks = std::vector<int>;

// A store and a clock that a single worker advances by waiting. `on_pause` simulates the other workers.
struct alone {
  memory_store store;
  double now = 0;
  std::function<void()> on_pause = [] {};
  std::uint64_t word = 0;

  membership_options options(double deadline = 4) {
    membership_options how{.deadline = deadline};
    how.poll = {0.05, [this] { return now; },
                [this](double seconds) {
                  now += seconds;
                  on_pause();
                }};
    how.random = [this] { return ++word; };
    return how;
  }
};

// Entries of other workers.
void put_presence(memory_store& s, i64 g, std::string const& id, ending why, ranks const& suspects = {}) {
  s.replace(detail::worker_key(g, "here", id), detail::text_of(detail::presence{why, suspects}));
}
void put_ready(memory_store& s, i64 g, std::string const& id) {
  s.replace(detail::worker_key(g, "ready", id), "ready");
}
void decide(memory_store& s, i64 g, std::vector<std::string> const& ids, ranks const& old_ranks) {
  membership_view r;
  r.generation = g;
  r.ids = ids;
  r.old_ranks = old_ranks;
  s.put_if_absent(detail::members_key(g), detail::text_of(r, 7));
  s.put_if_absent(detail::state_key(g), detail::text_of(detail::generation_state::begun));
}

// A worker "a" that is in generation 2 with b, c, …, whose entries the test writes.
struct among : alone {
  explicit among(std::vector<std::string> const& others, double deadline = 4)
      : m(store, "a", options(deadline)) {
    // The run starts with "a" alone; the others are admitted in generation 2, which they acknowledge.
    first = m.join();
    for (auto const& id : others) {
      store.replace(detail::join_key(id), "1");
      put_presence(store, 2, id, ending::planned);
    }
    on_pause = [&, this] {
      for (auto const& id : others) put_ready(store, 2, id);
    };
    now_in = others.empty() ? first : m.next(first, ending::planned);
    for (auto const& id : others) store.remove(detail::join_key(id));
    on_pause = [] {};
    began = now;
  }

  membership<memory_store> m;
  membership_view first, now_in;
  double began = 0;
};

double when_first(history const& h, i64 generation) {
  for (auto const& s : h.steps)
    if (s.generation == generation) return s.when;
  return std::numeric_limits<double>::infinity();
}

membership_view const& view_of(history const& h, i64 g) { return h.seen.at(g).front().second; }

}  // namespace

BOOST_AUTO_TEST_SUITE(beginning)

BOOST_AUTO_TEST_CASE(waits_for_min_workers_and_agrees) {
  auto const h = run({{.starts = 0}, {.starts = 3}, {.starts = 6}}, {.min_workers = 3, .end = 20});
  BOOST_TEST(h.failures.empty());
  BOOST_TEST(h.seen.size() == 1u);
  BOOST_TEST(h.seen.at(1).size() == 3u);
  membership_view const& r = view_of(h, 1);
  BOOST_TEST(r.old_ranks == ranks({-1, -1, -1}), boost::test_tools::per_element());
  BOOST_TEST(std::is_sorted(r.ids.begin(), r.ids.end()));
  BOOST_TEST(r.planned);
  BOOST_TEST(r.prefix.substr(0, 6) == "gen-1-");
  BOOST_TEST(when_first(h, 1) > 7);
  BOOST_TEST(when_first(h, 1) < 9);
}

BOOST_AUTO_TEST_CASE(too_few_workers_are_reported) {
  alone a;
  auto how = a.options();
  how.min_workers = 3;
  how.join_deadline = 20;
  a.store.replace(detail::join_key("dead"), "1");
  put_presence(a.store, 1, "dead", ending::planned);
  int beat = 0;
  a.on_pause = [&] {
    a.store.replace(detail::join_key("other"), text(++beat));
    put_presence(a.store, 1, "other", ending::planned);
  };
  membership m(a.store, "me", how);
  BOOST_CHECK_EXCEPTION((void)m.join(), error, says("not admitted within 20 s", "2 of the 3 workers", "me-"));
  BOOST_TEST(a.now >= 20);
  BOOST_TEST(a.now < 20.2);
  for (std::string const& key : a.store.list("")) BOOST_TEST(key.find("me-") == std::string::npos);
}

BOOST_AUTO_TEST_CASE(dead_joiners_are_not_counted) {
  alone a;
  for (char const* id : {"dead-1", "dead-2"}) {
    a.store.replace(detail::join_key(id), "17");
    put_presence(a.store, 1, id, ending::planned);
  }
  membership m(a.store, "me", a.options());
  auto const r = m.join();
  BOOST_TEST(r.size() == 1);
  BOOST_TEST(r.ids.front() == m.id());
  BOOST_TEST(r.rank == 0);
  BOOST_TEST(a.now >= 2);  // four heartbeat intervals without one of theirs
  BOOST_TEST(a.now < 2.7);
}

BOOST_AUTO_TEST_CASE(settling_restarts_when_a_joiner_comes) {
  alone a;
  int beat = 0;
  a.on_pause = [&] {
    if (a.now < 0.8) return;
    a.store.replace(detail::join_key("late"), text(++beat));
    put_presence(a.store, 1, "late", ending::planned);
    put_ready(a.store, 1, "late");
  };
  membership m(a.store, "me", a.options());
  auto const r = m.join();
  BOOST_TEST(r.size() == 2);
  BOOST_TEST(a.now >= 1.8);
}

BOOST_AUTO_TEST_CASE(a_generation_whose_worker_vanished_is_void) {
  // "gone" sends heartbeats until the decision, then no more: it does not acknowledge the decision.
  alone a;
  int beat = 0;
  a.on_pause = [&] {
    if (a.store.get(detail::members_key(1))) return;
    a.store.replace(detail::join_key("gone"), text(++beat));
    put_presence(a.store, 1, "gone", ending::planned);
  };
  membership m(a.store, "me", a.options());
  auto const r = m.join();
  BOOST_TEST(r.generation == 2);
  BOOST_TEST(r.size() == 1);
  BOOST_TEST(r.old_ranks == ranks({-1}), boost::test_tools::per_element());
  BOOST_TEST(a.store.get(detail::state_key(1)).value() == "void");
  BOOST_TEST(a.store.get(detail::state_key(2)).value() == "begun");
}

BOOST_AUTO_TEST_CASE(a_void_beginning_still_needs_min_workers) {
  alone a;
  auto how = a.options();
  how.min_workers = 2;
  how.join_deadline = 30;
  int beat = 0;
  a.on_pause = [&] {
    if (a.store.get(detail::members_key(1))) return;
    a.store.replace(detail::join_key("gone"), text(++beat));
    put_presence(a.store, 1, "gone", ending::planned);
  };
  membership m(a.store, "me", how);
  BOOST_CHECK_EXCEPTION((void)m.join(), error, says("1 of the 2 workers"));
}

BOOST_AUTO_TEST_SUITE_END()

BOOST_AUTO_TEST_SUITE(joining)

BOOST_AUTO_TEST_CASE(joiners_come_in_by_a_planned_change) {
  auto const h = run({{.starts = 0}, {.starts = 0.1}, {.starts = 8}, {.starts = 8.05}}, {.end = 25});
  BOOST_TEST(h.failures.empty());
  BOOST_TEST(h.fenced.empty());
  i64 const last = h.seen.rbegin()->first;
  BOOST_TEST(last <= 3);
  membership_view const& r = view_of(h, 2);
  BOOST_TEST(r.planned);
  BOOST_TEST(r.ids[0] == view_of(h, 1).ids[0]);
  BOOST_TEST(r.old_ranks[0] == 0);
  BOOST_TEST(r.old_ranks[1] == 1);
  BOOST_TEST(r.old_ranks.back() == -1);
  BOOST_TEST(h.seen.at(last).size() == 4u);
  // One heartbeat to be seen alive, rank 0 checks once a second, a step, and the regroup.
  BOOST_TEST(when_first(h, 2) < 8 + 5);
}

BOOST_AUTO_TEST_CASE(a_live_run_is_not_taken_over) {
  alone a;
  auto how = a.options();
  how.join_deadline = 60;
  decide(a.store, 4, {"boss-1", "boss-2"}, {0, 1});
  int beat = 0;
  a.on_pause = [&] { a.store.replace(detail::alive_key(a.now < 30 ? "boss-1" : "boss-2"), text(++beat)); };
  membership m(a.store, "me", how);
  BOOST_CHECK_EXCEPTION((void)m.join(), error,
                        says("generation 4 continues and admitted none of the 1 joiners"));
  BOOST_TEST(!a.store.get(detail::members_key(5)));
  BOOST_TEST(a.store.list("gen/5/").empty());
}

BOOST_AUTO_TEST_CASE(a_dead_run_begins_again_but_not_early) {
  alone a;
  decide(a.store, 4, {"boss-1", "boss-2"}, {0, 1});
  int beat = 0;
  a.on_pause = [&] {
    if (a.now < 5) a.store.replace(detail::alive_key("boss-1"), text(++beat));
  };
  membership m(a.store, "me", a.options());
  auto const r = m.join();
  BOOST_TEST(r.generation == 5);
  BOOST_TEST(r.old_ranks == ranks({-1}), boost::test_tools::per_element());
  BOOST_TEST(!r.planned);
  BOOST_TEST(a.now >= 4.5 + 8);
  BOOST_TEST(a.now < 5 + 8 + 2.5);
}

BOOST_AUTO_TEST_CASE(a_run_that_all_have_left_begins_again_at_once) {
  alone a;
  membership before(a.store, "old", a.options());
  auto const r = before.join();
  before.leave(r);
  double const left = a.now;
  membership m(a.store, "me", a.options());
  auto const again = m.join();
  BOOST_TEST(again.generation == 2);
  BOOST_TEST(again.planned);
  BOOST_TEST(a.now - left < 2.5);
  BOOST_CHECK_EXCEPTION(before.announce(again, ending::planned), std::invalid_argument,
                        says("does not belong to old-"));
}

BOOST_AUTO_TEST_CASE(several_start_a_dead_run_over_together) {
  auto const h =
      run({{.starts = 0, .dies = 6}, {.starts = 0.1, .dies = 6.1}, {.starts = 20}, {.starts = 20.3}},
          {.min_workers = 2, .end = 50});
  BOOST_TEST(h.failures.empty());
  BOOST_TEST(h.seen.rbegin()->first == 2);
  BOOST_TEST(view_of(h, 2).old_ranks == ranks({-1, -1}), boost::test_tools::per_element());
  BOOST_TEST(when_first(h, 2) < 20 + 8 + 4);
  BOOST_TEST(when_first(h, 2) > 20 + 7);
}

BOOST_AUTO_TEST_CASE(rank_0_lists_live_joiners_and_removes_dead_ones) {
  among a({});
  BOOST_TEST(a.m.joiners().empty());
  a.store.replace(detail::join_key("dead"), "5");
  a.store.replace(detail::join_key("live"), "1");
  BOOST_TEST(a.m.joiners().empty());  // no change of its heartbeat was seen yet
  a.now += 1;
  a.store.replace(detail::join_key("live"), "2");
  BOOST_TEST((a.m.joiners() == std::vector<std::string>{"live"}));
  a.now += 1;
  BOOST_TEST((a.m.joiners() == std::vector<std::string>{"live"}));
  a.now += 1.5;
  BOOST_TEST(a.m.joiners().empty());  // 2.5 s without heartbeat
  BOOST_TEST((a.store.list("join/") == std::vector<std::string>{"join/dead", "join/live"}));
  a.now += 5;
  BOOST_TEST(a.m.joiners().empty());
  BOOST_TEST((a.store.list("join/") == std::vector<std::string>{"join/live"}));
  a.store.replace(detail::join_key("live"), "3");
  BOOST_TEST((a.m.joiners() == std::vector<std::string>{"live"}));
}

BOOST_AUTO_TEST_SUITE_END()

BOOST_AUTO_TEST_SUITE(surviving)

BOOST_AUTO_TEST_CASE(all_here_decide_at_once) {
  among a({"b", "c"});
  BOOST_TEST(a.now_in.size() == 3);
  BOOST_TEST(a.now_in.generation == 2);
  put_presence(a.store, 3, "b", ending::lost_connection);
  put_presence(a.store, 3, "c", ending::planned);
  for (char const* id : {"b", "c"}) put_ready(a.store, 3, id);
  auto const r = a.m.next(a.now_in, ending::planned);
  BOOST_TEST(r.old_ranks == ranks({0, 1, 2}), boost::test_tools::per_element());
  BOOST_TEST(!r.planned);
  BOOST_TEST(r.rank == 0);
  BOOST_TEST(a.now - a.began < 0.2);
}

BOOST_AUTO_TEST_CASE(suspected_workers_get_the_suspicion_time) {
  among a({"b", "c"});
  put_presence(a.store, 3, "c", ending::lost_connection, {1});
  put_ready(a.store, 3, "c");
  auto const r = a.m.next(a.now_in, ending::lost_connection);
  BOOST_TEST(r.old_ranks == ranks({0, 2}), boost::test_tools::per_element());
  BOOST_TEST(!r.planned);
  BOOST_TEST(a.now - a.began >= 0.5);
  BOOST_TEST(a.now - a.began < 0.7);
}

BOOST_AUTO_TEST_CASE(presence_overrides_suspicion) {
  among a({"b", "c"});
  a.on_pause = [&] {
    if (a.now - a.began > 0.3) put_presence(a.store, 3, "b", ending::lost_connection, {0});
    for (char const* id : {"b", "c"}) put_ready(a.store, 3, id);
  };
  put_presence(a.store, 3, "c", ending::lost_connection, {1});
  auto const r = a.m.next(a.now_in, ending::lost_connection, ranks{1, 2});
  BOOST_TEST(r.size() == 3);
  BOOST_TEST(a.now - a.began < 0.5);
}

BOOST_AUTO_TEST_CASE(silent_workers_are_waited_for_until_the_deadline) {
  for (ending const why : {ending::planned, ending::lost_connection}) {
    among a({"b", "c"});
    put_presence(a.store, 3, "c", why);
    put_ready(a.store, 3, "c");
    auto const r = a.m.next(a.now_in, why);
    BOOST_TEST(r.old_ranks == ranks({0, 2}), boost::test_tools::per_element());
    BOOST_TEST(!r.planned);
    BOOST_TEST(a.now - a.began >= 4);
    BOOST_TEST(a.now - a.began < 4.2);
  }
}

BOOST_AUTO_TEST_CASE(after_a_deadline_only_the_grace_is_waited) {
  among a({"b", "c"});
  a.on_pause = [&] {
    if (a.now - a.began < 2) return;
    put_presence(a.store, 3, "c", ending::deadline);
    put_ready(a.store, 3, "c");
  };
  auto const r = a.m.next(a.now_in, ending::lost_connection);
  BOOST_TEST(r.old_ranks == ranks({0, 2}), boost::test_tools::per_element());
  BOOST_TEST(a.now - a.began >= 3);
  BOOST_TEST(a.now - a.began < 3.3);
}

BOOST_AUTO_TEST_CASE(those_who_left_are_not_waited_for) {
  among a({"b", "c"});
  a.store.replace(detail::worker_key(3, "left", "b"), "left");
  put_presence(a.store, 3, "b", ending::planned);
  put_presence(a.store, 3, "c", ending::planned);
  put_ready(a.store, 3, "c");
  auto const r = a.m.next(a.now_in, ending::planned);
  BOOST_TEST(r.old_ranks == ranks({0, 2}), boost::test_tools::per_element());
  BOOST_TEST(r.planned);
  BOOST_TEST(a.now - a.began < 0.2);
}

BOOST_AUTO_TEST_CASE(a_single_survivor_continues) {
  among a({"b", "c"});
  auto const r = a.m.next(a.now_in, ending::lost_connection, ranks{1, 2});
  BOOST_TEST(r.old_ranks == ranks({0}), boost::test_tools::per_element());
  BOOST_TEST(r.generation == 3);
}

BOOST_AUTO_TEST_CASE(waiting_joiners_get_the_grace) {
  among a({"b"});
  a.store.replace(detail::join_key("dead"), "1");
  a.store.replace(detail::join_key("new"), "1");
  a.on_pause = [&] {
    if (a.now - a.began > 0.4) put_presence(a.store, 3, "new", ending::planned);
    for (char const* id : {"b", "new"}) put_ready(a.store, 3, id);
  };
  put_presence(a.store, 3, "b", ending::planned);
  auto const r = a.m.next(a.now_in, ending::planned);
  BOOST_TEST((r.ids == std::vector<std::string>{a.m.id(), "b", "new"}));
  BOOST_TEST(r.old_ranks == ranks({0, 1, -1}), boost::test_tools::per_element());
  BOOST_TEST(r.planned);
  BOOST_TEST(a.now - a.began >= 1);
  BOOST_TEST(a.now - a.began < 1.2);
}

// b registers and dies: generation 3 is void, 4 is decided, all within about grace + suspicion.
BOOST_AUTO_TEST_CASE(a_death_while_regrouping_makes_the_generation_void) {
  among a({"b", "c"});
  put_presence(a.store, 3, "b", ending::planned);
  put_presence(a.store, 3, "c", ending::planned);
  put_presence(a.store, 3, "new", ending::planned);
  a.on_pause = [&] {
    for (char const* id : {"c", "new"}) put_ready(a.store, 3, id);
    if (a.store.get(detail::state_key(3))) {
      put_presence(a.store, 4, "c", ending::deadline, {1});
      put_presence(a.store, 4, "new", ending::planned);
      for (char const* id : {"c", "new"}) put_ready(a.store, 4, id);
    }
  };
  auto const r = a.m.next(a.now_in, ending::planned);
  BOOST_TEST(r.generation == 4);
  BOOST_TEST((r.ids == std::vector<std::string>{a.m.id(), "c", "new"}));
  BOOST_TEST(r.old_ranks == ranks({0, 2, -1}), boost::test_tools::per_element());  // as of generation 2
  BOOST_TEST(!r.planned);
  BOOST_TEST(a.store.get(detail::state_key(3)).value() == "void");
  BOOST_TEST(a.now - a.began >= 1);
  BOOST_TEST(a.now - a.began < 2);
}

BOOST_AUTO_TEST_CASE(a_joiner_that_dies_while_regrouping_leaves_the_end_planned) {
  among a({"b"});
  put_presence(a.store, 3, "b", ending::planned);
  put_presence(a.store, 3, "new", ending::planned);
  a.on_pause = [&] {
    put_ready(a.store, 3, "b");
    if (a.store.get(detail::state_key(3))) {
      put_presence(a.store, 4, "b", ending::deadline, {2});
      put_ready(a.store, 4, "b");
    }
  };
  auto const r = a.m.next(a.now_in, ending::planned);
  BOOST_TEST(r.generation == 4);
  BOOST_TEST(r.old_ranks == ranks({0, 1}), boost::test_tools::per_element());
  BOOST_TEST(r.planned);
}

BOOST_AUTO_TEST_CASE(only_the_last_two_generations_are_kept) {
  among a({});
  membership_view r = a.now_in;
  for (int k = 0; k < 5; ++k) r = a.m.next(r, ending::planned);
  BOOST_TEST(r.generation == 6);
  std::set<std::string> kept;
  for (std::string const& key : a.store.list("gen/")) kept.insert(key.substr(0, key.find('/', 4)));
  BOOST_TEST((kept == std::set<std::string>{"gen/5", "gen/6"}));
  a.store.replace(detail::alive_key("fenced-long-ago"), "1");
  r = a.m.next(r, ending::planned);
  BOOST_TEST((a.store.list("alive/") == std::vector<std::string>{detail::alive_key(a.m.id())}));
}

BOOST_AUTO_TEST_CASE(the_end_of_a_generation_can_be_seen) {
  among a({"b"});
  BOOST_TEST(!a.m.over(a.now_in));
  BOOST_TEST(a.m.over(a.first));
  put_presence(a.store, 3, "b", ending::lost_connection);
  BOOST_TEST(a.m.over(a.now_in));
}

BOOST_AUTO_TEST_SUITE_END()

BOOST_AUTO_TEST_SUITE(fencing)

BOOST_AUTO_TEST_CASE(a_late_worker_is_fenced_and_may_join) {
  among a({"b", "c"});
  decide(a.store, 3, {"b", "c"}, {1, 2});
  try {
    (void)a.m.next(a.now_in, ending::deadline);
    BOOST_ERROR("must throw");
  } catch (fenced const& e) {
    BOOST_TEST(e.generation() == 3);
    BOOST_TEST(e.where().engine == "membership");
    BOOST_TEST(e.where().rank == 0);
    BOOST_TEST(says("generation 3 was decided without this worker", a.m.id().c_str(), "join again")(e));
  }
  std::string const before = a.m.id();
  int beat = 0;
  a.on_pause = [&] {
    for (char const* id : {"b", "c"}) {
      a.store.replace(detail::alive_key(id), text(++beat));
      if (a.now > a.began + 2) put_presence(a.store, 4, id, ending::planned);
    }
    if (a.store.get(detail::worker_key(4, "here", a.m.id())))
      decide(a.store, 4, {"b", "c", a.m.id()}, {0, 1, -1});
  };
  auto const r = a.m.join();
  BOOST_TEST(r.generation == 4);
  BOOST_TEST(r.rank == 2);
  BOOST_TEST(a.m.id() != before);
}

BOOST_AUTO_TEST_CASE(beat_reports_that_a_worker_is_fenced) {
  among a({"b", "c"});
  a.now += 1;
  BOOST_TEST(a.m.beat());
  decide(a.store, 3, {"b", "c"}, {1, 2});
  BOOST_TEST(a.m.beat());  // not due yet
  a.now += 1;
  BOOST_TEST(!a.m.beat());
  BOOST_TEST(!a.m.beat());
  BOOST_CHECK_THROW((void)a.m.next(a.now_in, ending::planned), fenced);

  // The records of the newer generation are removed, and those of this one too.
  among d({"b", "c"});
  for (std::string const& key : d.store.list("gen/")) d.store.remove(key);
  decide(d.store, 9, {"b", "c"}, {1, 2});
  d.now += 1;
  BOOST_TEST(!d.m.beat());
}

BOOST_AUTO_TEST_CASE(a_worker_that_slept_through_several_generations_is_fenced) {
  among a({"b", "c"});
  for (std::string const& key : a.store.list("gen/")) a.store.remove(key);
  decide(a.store, 9, {"b", "c"}, {0, 1});
  BOOST_CHECK_THROW((void)a.m.next(a.now_in, ending::deadline), fenced);
}

// Worker 0 is stopped just before it puts its decision on generation 2, in which it is alone. Meanwhile
// others begin that generation and two more, and remove the old records: when it wakes, its put succeeds.
BOOST_AUTO_TEST_CASE(a_late_decision_has_no_effect) {
  settings s{.end = 120};
  bool slept = false;
  s.before = [&](virtual_time& t, std::string const& call, std::string const& key) {
    if (virtual_time::own() != 0 || call != "put_if_absent" || key != "gen/2/members" || slept) return;
    slept = true;
    t.pause(60);
  };
  auto const h = run({{.starts = 0},
                      {.starts = 0.1, .dies = 6},
                      {.starts = 10},
                      {.starts = 35},
                      {.starts = 42},
                      {.starts = 47}},
                     s);
  BOOST_TEST(h.failures.empty());
  BOOST_TEST(slept);
  BOOST_TEST(h.wins.at("gen/2/members") == 2);  // worker 0 put its decision
  BOOST_TEST((h.fenced == ranks{0}));
  for (auto const& [worker, r] : h.seen.at(2)) BOOST_TEST(worker != 0);
  BOOST_TEST(h.seen.rbegin()->second.size() == 5u);
}

BOOST_AUTO_TEST_CASE(a_single_worker_detects_fencing_by_beat) {
  // Worker 0 trains alone, sleeps, and is taken for dead by worker 1.
  auto const h = run({{.starts = 0, .sleeps = 5, .wakes = 25}, {.starts = 8}}, {.end = 60});
  BOOST_TEST(h.failures.empty());
  BOOST_TEST((h.fenced == ranks{0}));
  BOOST_TEST(h.seen.rbegin()->second.size() == 2u);
}

BOOST_AUTO_TEST_SUITE_END()

BOOST_AUTO_TEST_SUITE(errors)

BOOST_AUTO_TEST_CASE(malformed_entries_of_a_worker_harm_only_itself) {
  among a({"b", "c"});
  for (char const* said :
       {"", "why\n", "why not\n", "why planned", "why planned\nsuspect 3\n", "why planned\nsuspect -1\n",
        "why planned\nsuspect 0\nsuspect 1\nsuspect 2\nsuspect 0\n", "why planned\nx\n"})
    BOOST_TEST(!detail::parse_presence(said, 3));
  a.store.replace(detail::worker_key(3, "here", "b"), "why not");
  put_presence(a.store, 3, "c", ending::lost_connection);
  put_ready(a.store, 3, "c");
  for (char const* key :
       {"gen/3/here", "gen/03/members", "gen/-1/members", "gen/9999999999999999999/members", "gen/x/here/y",
        "gen/0/members", "gen/3/members/x", "join/a/b", "alive/x/y", "other/3"})
    a.store.replace(key, "nonsense");
  auto const r = a.m.next(a.now_in, ending::lost_connection);
  BOOST_TEST(r.old_ranks == ranks({0, 2}), boost::test_tools::per_element());
}

BOOST_AUTO_TEST_CASE(a_malformed_decision_is_an_error) {
  among a({"b"});
  a.store.put_if_absent(detail::members_key(3), "whoever");
  BOOST_CHECK_EXCEPTION((void)a.m.next(a.now_in, ending::planned), error,
                        says("\"gen/3/members\" is no membership view"));
  BOOST_CHECK_EXCEPTION((void)a.m.join(), error, says("\"gen/3/members\" is no membership view"));
  among d({"b"});
  put_presence(d.store, 3, "b", ending::planned);
  d.store.put_if_absent(detail::state_key(3), "perhaps");
  BOOST_CHECK_EXCEPTION((void)d.m.next(d.now_in, ending::planned), error,
                        says("\"gen/3/verdict\" is no generation state"));
}

BOOST_AUTO_TEST_CASE(a_store_that_lost_the_run_is_an_error) {
  among a({"b"});
  for (std::string const& key : a.store.list("")) a.store.remove(key);
  BOOST_CHECK_EXCEPTION((void)a.m.next(a.now_in, ending::planned), error, says("generation 2 has vanished"));
}

// Every operation of a start, a death and a join fails in turn: that worker gets the error at once.
BOOST_AUTO_TEST_CASE(a_store_that_fails_is_an_error_and_not_a_hang) {
  int completed = 0, failed = 0;
  for (int k = 0;; ++k) {
    settings s{.end = 45};
    int operations = 0;
    std::optional<double> when;
    s.before = [&](virtual_time& t, std::string const&, std::string const& key) {
      if (virtual_time::own() != 1 || operations++ != k) return;
      when = t.now();
      throw error({"store", "test", 28, -1, {}, text("no space left for ", key)});
    };
    auto const h = run({{.starts = 0}, {.starts = 0.1}, {.starts = 0.2, .dies = 6}, {.starts = 12}}, s);
    if (!when) break;
    BOOST_TEST(h.failures.size() <= 1u);
    for (auto const& f : h.failures) BOOST_TEST(f.find("no space left") != std::string::npos);
    (h.failures.empty() ? completed : failed) += 1;
    // The others continue without worker 1.
    if (*when < 35) BOOST_TEST(h.steps.back().when > 43);
  }
  BOOST_TEST_MESSAGE(failed << " runs failed, " << completed << " cleaned up a little less");
  BOOST_TEST(failed > 150);
}

BOOST_AUTO_TEST_CASE(misuse_is_refused) {
  among a({"b"});
  membership_view const mine = a.now_in;
  BOOST_CHECK_EXCEPTION((void)a.m.next(mine), std::invalid_argument,
                        says("announce the end of generation 2 first"));
  membership_view other = mine;
  other.rank = 1;
  BOOST_CHECK_EXCEPTION(a.m.announce(other, ending::planned), std::invalid_argument,
                        says("does not belong to a-"));
  BOOST_CHECK_EXCEPTION(a.m.leave(membership_view{}), std::invalid_argument,
                        says("generation 0 does not belong to a-"));
  for (int const r : {-1, 0, 2})
    BOOST_CHECK_EXCEPTION(a.m.announce(mine, ending::lost_connection, ranks{r}), std::invalid_argument,
                          says(text("rank ", r, " of 2 cannot be suspected")));
  membership fresh(a.store, "f", a.options());
  BOOST_CHECK_EXCEPTION(fresh.announce(mine, ending::planned), std::invalid_argument, says("has not joined"));
  BOOST_TEST(fresh.id() == "");
  BOOST_TEST(fresh.beat());

  auto const refused = [&](char const* word, auto const& change) {
    auto how = a.options();
    change(how);
    BOOST_CHECK_EXCEPTION(membership(a.store, "x", how), std::invalid_argument, says(word));
  };
  refused("deadline must be positive, got 0", [](auto& o) { o.deadline = 0; });
  refused("grace must lie in [0, deadline = 4], got 5", [](auto& o) { o.grace = 5; });
  refused("grace", [](auto& o) { o.grace = -1; });
  refused("suspicion must lie in [0, deadline = 4], got 4.5", [](auto& o) { o.suspicion = 4.5; });
  refused("min_workers must be at least 1, got 0", [](auto& o) { o.min_workers = 0; });
  refused("settle must not be negative, got -1", [](auto& o) { o.settle = -1; });
  refused("beat_every must be positive", [](auto& o) { o.beat_every = 0; });
  refused("dead_after must be at least deadline = 4", [](auto& o) { o.dead_after = 3; });
  refused("4 times beat_every = 3, got 8", [](auto& o) { o.beat_every = 3; });
  refused("join_deadline must be positive", [](auto& o) { o.join_deadline = 0; });
  refused("poll.every must be positive", [](auto& o) { o.poll.every = 0; });
  for (std::string const& name : {std::string(), std::string("a/b"), std::string(".a"), std::string(65, 'a')})
    BOOST_CHECK_EXCEPTION(membership(a.store, name, a.options()), std::invalid_argument, says("the name"));
  BOOST_TEST(detail::is_safe_name(default_worker_name()));
}

BOOST_AUTO_TEST_SUITE_END()

BOOST_AUTO_TEST_SUITE(texts)

BOOST_AUTO_TEST_CASE(a_view_survives_its_text) {
  membership_view r;
  r.generation = 123456789012345678;
  r.ids = {"a-1", "B_2", "c.3"};
  r.old_ranks = {0, 7, -1};
  r.planned = true;
  auto const back = detail::parse_view(detail::text_of(r, 42), r.generation);
  BOOST_TEST_REQUIRE(back.has_value());
  BOOST_TEST((back->ids == r.ids));
  BOOST_TEST((back->old_ranks == r.old_ranks));
  BOOST_TEST(back->planned);
  BOOST_TEST(back->prefix == "gen-123456789012345678-42");
  BOOST_TEST(back->rank == -1);
  BOOST_TEST(!detail::parse_view(detail::text_of(r, 42), 5));
}

BOOST_AUTO_TEST_CASE(wrong_views_are_refused) {
  std::string const head = "generation 3\nnonce 1\nplanned 0\n";
  BOOST_TEST(detail::parse_view(head + "member a 0\njoiner b\n", 3).has_value());
  for (char const* rest :
       {"", "member a 0", "member a\n", "member a -1\n", "member a 01\n", "member a 0 \n", "member  0\n",
        "member a 0\nmember a 1\n", "member a 1\nmember b 1\n", "member a 1\nmember b 0\n",
        "joiner b\nmember a 0\n", "joiner \n", "joiner a/b\n", "joiner .a\n", "joiner a\n\n", "joiner a\nx",
        "member a 99999999999\n", "joinera\n"})
    BOOST_TEST_CONTEXT(rest) BOOST_TEST(!detail::parse_view(head + rest, 3));
  for (char const* wrong :
       {"generation 03\nnonce 1\nplanned 0\n", "generation 3\nnonce x\nplanned 0\n",
        "generation 3\nplanned 0\n", "generation 3\nnonce 1\nplanned 2\n", "\n", "generation 3"})
    BOOST_TEST_CONTEXT(wrong) BOOST_TEST(!detail::parse_view(std::string(wrong) + "joiner a\n", 3));
}

// A text that is accepted is printed back unchanged.
BOOST_AUTO_TEST_CASE(mutated_texts_are_refused_or_mean_something) {
  std::mt19937_64 random(3);
  std::string const given = "generation 3\nnonce 17\nplanned 1\nmember a 0\nmember b 2\njoiner c\n";
  std::string const said = "why lost_connection\nsuspect 1\nsuspect 2\n";
  int understood = 0;
  for (int k = 0; k < 40'000; ++k) {
    std::string t = k % 2 == 0 ? given : said;
    for (std::uint64_t n = 1 + random() % 3; n > 0 && !t.empty(); --n) {
      std::size_t const at = random() % t.size();
      switch (random() % 4) {
        case 0: t[at] = static_cast<char>(random()); break;
        case 1: t.erase(at, 1 + random() % 8); break;
        case 2: t.insert(at, t.substr(random() % t.size(), random() % 8)); break;
        default: t[at] = "0123456789 \nab"[random() % 14];
      }
    }
    if (auto const r = detail::parse_view(t, 3)) {
      std::uint64_t const nonce = std::stoull(r->prefix.substr(6));
      BOOST_TEST((detail::text_of(*r, nonce) == t));
      ++understood;
    }
    if (auto const p = detail::parse_presence(t, 3)) {
      BOOST_TEST((detail::text_of(*p) == t));
      ++understood;
    }
  }
  BOOST_TEST(understood > 100);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace limber::elastic::test
