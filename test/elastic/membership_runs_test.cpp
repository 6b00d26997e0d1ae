// SPDX-License-Identifier: Apache-2.0
// labels: unit property
// timeout: 120
#define BOOST_TEST_MODULE limber.elastic.membership_runs
#include <boost/test/unit_test.hpp>

#include <elastic/virtual_workers.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdlib>
#include <limits>
#include <map>
#include <random>
#include <set>
#include <string>
#include <vector>

namespace limber::elastic::test {
namespace {

constexpr double never = std::numeric_limits<double>::infinity();

std::vector<int> workers_of(history const& h, membership_view const& r) {
  std::vector<int> out;
  for (std::string const& id : r.ids) out.push_back(h.worker_of.contains(id) ? h.worker_of.at(id) : -1);
  return out;
}

// Checks the invariants. Returns the first violation, or an empty string.
std::string wrong(history const& h) {
  if (!h.failures.empty()) return h.failures.front();
  std::set<std::string> prefixes;
  membership_view const* before = nullptr;
  for (auto const& [g, seen] : h.seen) {
    std::string const at = text("generation ", g, ": ");
    membership_view const& r = seen.front().second;
    std::set<int> ranks;
    for (auto const& [worker, other] : seen) {
      if (other.ids != r.ids || other.old_ranks != r.old_ranks || other.prefix != r.prefix ||
          other.planned != r.planned || other.generation != g)
        return at + "two views";
      if (!ranks.insert(other.rank).second) return at + "one rank twice";
    }
    if (!prefixes.insert(r.prefix).second) return at + "a prefix again";
    if (std::set(r.ids.begin(), r.ids.end()).size() != r.ids.size()) return at + "one id twice";
    int last = -1;
    bool joining = false;
    for (std::size_t k = 0; k < r.ids.size(); ++k) {
      int const old = r.old_ranks[k];
      if (old < 0) {
        if (joining && r.ids[k] < r.ids[k - 1]) return at + "joiners out of order";
        joining = true;
        continue;
      }
      if (joining || old <= last) return at + "survivors out of order";
      last = old;
      if (before && before->generation == g - 1 &&
          (old >= before->size() || before->ids[static_cast<std::size_t>(old)] != r.ids[k]))
        return at + "a survivor with another's old rank";
    }
    if (r.planned && before && before->generation == g - 1 && g > 1) {
      // A missing worker must have left.
      for (std::string const& id : before->ids)
        if (std::find(r.ids.begin(), r.ids.end(), id) == r.ids.end() &&
            std::find(h.leavers.begin(), h.leavers.end(), id) == h.leavers.end())
          return at + "planned, and yet a worker is missing";
    }
    before = &r;
  }
  for (auto const& [key, times] : h.wins)
    if (key.ends_with("/members") && times != 1) return text(key, " decided ", times, " times");
  std::set<std::string> kept;
  for (std::string const& key : h.keys)
    if (key.starts_with("gen/")) kept.insert(key.substr(0, key.find('/', 4)));
  if (kept.size() > 4) return text(kept.size(), " generations are kept");
  return {};
}

// The first step, or connection, after `from` of a generation without those who are dead by then; infinity if
// there is none.
double first_step_after(history const& h, std::vector<worker_events> const& events, double from) {
  double first = never;
  for (auto const& step : h.steps) {
    if (step.when < from || step.when >= first) continue;
    auto const members = workers_of(h, h.seen.at(step.generation).front().second);
    if (std::none_of(members.begin(), members.end(),
                     [&](int w) { return w < 0 || events[static_cast<std::size_t>(w)].dies <= from; }))
      first = step.when;
  }
  return first;
}

// At the end all live workers that have not left train in one generation. Returns the violation, or an empty
// string.
std::string split_at_end(history const& h, std::vector<worker_events> const& events, double end) {
  std::set<int> expected;
  for (std::size_t w = 0; w < events.size(); ++w)
    if (events[w].dies >= end && events[w].leaves >= end) expected.insert(static_cast<int>(w));
  if (expected.empty()) return {};
  if (h.seen.empty()) return "nobody ever came in";
  i64 const last = h.seen.rbegin()->first;
  auto const members = workers_of(h, h.seen.rbegin()->second.front().second);
  if (std::set(members.begin(), members.end()) != expected)
    return text("the last generation, ", last, ", has ", members.size(), " workers, not ", expected.size());
  std::set<int> trained;
  for (auto const& step : h.steps)
    if (step.generation == last && step.when > end - 3) trained.insert(step.worker);
  return trained == expected ? "" : text("only ", trained.size(), " workers train at the end");
}

struct dice {
  std::mt19937_64 random;
  double operator()(double from, double to) {
    return from + (to - from) * static_cast<double>(random() % 1'000'000) / 1'000'000;
  }
  int below(int n) { return static_cast<int>(random() % static_cast<std::uint64_t>(n)); }
};

int seeds() {
  char const* const given = std::getenv("LIMBER_TEST_SEEDS");
  return given ? std::atoi(given) : 120;
}

std::string about(std::vector<worker_events> const& events) {
  std::string out;
  for (worker_events const& f : events) {
    out += text("\n  starts ", f.starts);
    if (f.dies < never) out += text(" dies ", f.dies);
    if (f.sleeps < never) out += text(" sleeps ", f.sleeps, "-", f.wakes);
    if (f.leaves < never) out += text(" leaves ", f.leaves);
  }
  return out;
}

}  // namespace

// Deaths at any moment, two in close succession, of the lowest rank, during start and join.
BOOST_AUTO_TEST_CASE(after_deaths_the_survivors_continue_in_time) {
  double worst = 0;
  for (int seed = 1; seed <= seeds(); ++seed) {
    dice roll{std::mt19937_64(static_cast<std::uint64_t>(seed))};
    // Workers 1 and 2 start first and never die, so there are always survivors.
    int const workers = 3 + roll.below(4);
    std::vector<worker_events> events(static_cast<std::size_t>(workers));
    for (int w = 0; w < workers; ++w)
      events[static_cast<std::size_t>(w)].starts = w > 2 && roll.below(3) == 0 ? roll(3, 30) : roll(0, 0.5);
    settings const s{.end = 75, .latency = roll(0, 0.03), .seed = static_cast<std::uint64_t>(seed)};
    double const first = roll(0, 30);
    double last = 0;
    for (int w = 0; w < workers; w += w == 0 ? 3 : 1)
      if (roll.below(2) == 0)
        events[static_cast<std::size_t>(w)].dies = first + (roll.below(2) == 0 ? roll(0, 1.5) : roll(0, 10));
    for (worker_events const& f : events)
      if (f.dies < never) last = std::max(last, f.dies);
    auto const h = run(events, s);
    BOOST_TEST(wrong(h) == "", "seed " << seed << ": " << wrong(h) << about(events));
    BOOST_TEST(split_at_end(h, events, s.end) == "",
               "seed " << seed << ": " << split_at_end(h, events, s.end) << about(events));
    BOOST_TEST(h.fenced.empty(),
               "seed " << seed << ": " << h.fenced.size() << " fenced, nobody slept" << about(events));
    // No recovery before the run has begun.
    if (h.steps.empty() || last < h.steps.front().when) continue;
    double const took = first_step_after(h, events, last) - last;
    worst = std::max(worst, took);
    BOOST_TEST(took <= s.deadline + 2, "seed " << seed << ": took " << took << " s" << about(events));
  }
  BOOST_TEST_MESSAGE("worst recovery " << worst << " s");
}

// Sleeping, leaving, joining and dying workers: one that wakes too late is fenced, and all live ones end in
// one generation.
BOOST_AUTO_TEST_CASE(sleepers_are_fenced_and_join_again) {
  int fences = 0;
  for (int seed = 1; seed <= seeds(); ++seed) {
    dice roll{std::mt19937_64(static_cast<std::uint64_t>(seed) + 100'000)};
    std::vector<worker_events> events(static_cast<std::size_t>(2 + roll.below(5)));
    for (worker_events& f : events) {
      f.starts = roll.below(3) == 0 ? roll(3, 40) : roll(0, 0.5);
      if (roll.below(2) == 0) {
        f.sleeps = roll(0, 40);
        f.wakes = f.sleeps + (roll.below(3) == 0 ? roll(0, 2) : roll(0, 25));
      }
      if (roll.below(5) == 0) f.leaves = roll(5, 40);
      if (roll.below(5) == 0) f.dies = roll(0, 40);
    }
    settings const s{.end = 110, .latency = roll(0, 0.03), .seed = static_cast<std::uint64_t>(seed)};
    auto const h = run(events, s);
    fences += static_cast<int>(h.fenced.size());
    BOOST_TEST(wrong(h) == "", "seed " << seed << ": " << wrong(h) << about(events));
    BOOST_TEST(split_at_end(h, events, s.end) == "",
               "seed " << seed << ": " << split_at_end(h, events, s.end) << about(events));
  }
  BOOST_TEST(fences > seeds() / 4);
}

}  // namespace limber::elastic::test
