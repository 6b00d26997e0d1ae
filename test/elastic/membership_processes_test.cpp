// SPDX-License-Identifier: Apache-2.0
// labels: unit sanitize memory
// timeout: 120
#define BOOST_TEST_MODULE limber.elastic.membership_processes
#include <limber/elastic/membership.hpp>

#include <boost/test/unit_test.hpp>

#include <elastic/scratch_folder.hpp>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <csignal>
#include <cstddef>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace limber::elastic::test {
namespace {

// Timeouts that allow for busy machines.
membership_options quick() {
  return {.deadline = 4,
          .grace = 4,
          .suspicion = 1,
          .min_workers = 3,
          .settle = 0.3,
          .beat_every = 0.2,
          .dead_after = 20,
          .join_deadline = 40};
}

// Calls beat() in a thread while it exists.
class heartbeat_thread {
 public:
  explicit heartbeat_thread(std::function<bool()> beat)
      : thread_([this, beat = std::move(beat)] {
          while (!stop_) {
            beat();
            sleep_seconds(0.03);
          }
        }) {}
  heartbeat_thread(heartbeat_thread const&) = delete;
  heartbeat_thread& operator=(heartbeat_thread const&) = delete;
  ~heartbeat_thread() {
    stop_ = true;
    thread_.join();
  }

 private:
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

// A child process, killed at the end if it is still there.
struct child {
  explicit child(std::function<void()> const& f) : pid(::fork()) {
    if (pid != 0) return;
    try {
      f();
      ::_exit(0);
    } catch (std::exception const& e) {
      std::fprintf(stderr, "child: %s\n", e.what());
      ::_exit(1);
    }
  }
  child(child&& other) noexcept : pid(std::exchange(other.pid, -1)) {}
  child(child const&) = delete;
  child& operator=(child const&) = delete;
  ~child() {
    if (pid <= 0) return;
    ::kill(pid, SIGKILL);
    ::waitpid(pid, nullptr, 0);
  }
  int result() {
    int status = 0;
    ::waitpid(std::exchange(pid, -1), &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }
  pid_t pid;
};

std::string joined(membership_view const& r) {
  std::string out = text(r.prefix, r.planned ? " planned" : "");
  for (std::size_t k = 0; k < r.ids.size(); ++k) out += text(" ", r.ids[k], ":", r.old_ranks[k]);
  return out;
}

// Takes part until "stop" is set: writes the views that it got, and ends a generation when the test asks for
// it, with the suspects that the test names.
void take_part(std::filesystem::path const& folder, int number) {
  directory_store results(folder / "results");
  directory_store store(folder / "run");
  membership m(store, text("w", number), quick());
  heartbeat_thread const heartbeat([&m] { return m.beat(); });
  auto mine = m.join();
  for (;;) {
    results.replace(text("seen/", mine.generation, "/", number), joined(mine));
    std::optional<std::string> end;
    while (!end) {
      if (results.get("stop")) return;
      sleep_seconds(0.02);
      end = results.get(text("end/", mine.generation));
    }
    try {
      // "w2 w0": whose connections broke, or nothing for a planned end
      std::vector<int> suspects;
      for (int r = 0; r < mine.size(); ++r)
        if (r != mine.rank &&
            end->find(mine.ids[static_cast<std::size_t>(r)].substr(0, 2)) != std::string::npos)
          suspects.push_back(r);
      mine = m.next(mine, suspects.empty() ? ending::planned : ending::lost_connection, suspects);
    } catch (fenced const&) {
      results.replace(text("fenced/", number), "");
      mine = m.join();
    }
  }
}

void wait_for_joiner(directory_store& run) {
  double const start = steady_seconds();
  while (run.list("join/").empty()) {
    if (steady_seconds() - start > 30) throw std::runtime_error("no joiner is waiting");
    sleep_seconds(0.01);
  }
}

// The view that exactly these workers got for generation g.
std::string view_of(directory_store& results, i64 g, std::vector<int> const& workers) {
  std::string first;
  for (int const w : workers) {
    std::string const got = wait(results, text("seen/", g, "/", w), 30);
    if (first.empty()) first = got;
    if (got != first) return text("worker ", w, " got ", got, ", not ", first);
  }
  if (results.list(text("seen/", g, "/")).size() != workers.size())
    return "other workers were admitted: " + first;
  return first;
}

}  // namespace

// Three workers start; the lowest rank is killed and another stopped; a fourth joins; the stopped one joins
// again.
BOOST_AUTO_TEST_CASE(real_processes_agree_through_a_folder) {
  scratch_folder const folder;
  directory_store results(folder.path / "results");
  std::vector<child> workers;
  for (int k = 0; k < 3; ++k) workers.emplace_back([&, k] { take_part(folder.path, k); });
  std::string const one = view_of(results, 1, {0, 1, 2});
  BOOST_TEST(one.substr(0, 6) == "gen-1-");

  ::kill(workers[0].pid, SIGKILL);
  ::kill(workers[2].pid, SIGSTOP);
  results.replace("end/1", "w0");
  std::string const two = view_of(results, 2, {1});
  BOOST_TEST(two.substr(0, 6) == "gen-2-");
  BOOST_TEST(two.find(" planned") == std::string::npos);
  BOOST_TEST(two.ends_with(":1"));

  workers.emplace_back([&] { take_part(folder.path, 3); });
  directory_store run(folder.path / "run");
  wait_for_joiner(run);
  results.replace("end/2", "planned");
  std::string const three = view_of(results, 3, {1, 3});
  BOOST_TEST(three.find(" planned") != std::string::npos);
  BOOST_TEST(three.ends_with(":-1"));

  ::kill(workers[2].pid, SIGCONT);
  (void)wait(results, "fenced/2", 30);
  wait_for_joiner(run);
  results.replace("end/3", "planned");
  std::string const four = view_of(results, 4, {1, 2, 3});
  BOOST_TEST(four.substr(0, 6) == "gen-4-");
  results.replace("stop", "");
  for (std::size_t k = 1; k < 4; ++k) BOOST_TEST(workers[k].result() == 0);
}

// For ThreadSanitizer: heartbeats are sent while their workers wait, regroup and leave.
BOOST_AUTO_TEST_CASE(heartbeats_run_concurrently_with_all_calls) {
  memory_store store;
  std::atomic<int> sum{0}, wrong{0};
  std::vector<std::thread> workers;
  for (int k = 0; k < 3; ++k)
    workers.emplace_back([&, k] {
      try {
        membership m(store, text("t", k), quick());
        heartbeat_thread const heartbeat([&m] { return m.beat(); });
        auto mine = m.join();
        for (int round = 0; round < 3; ++round) mine = m.next(mine, ending::planned);
        sum += mine.rank;
        if (mine.size() != 3 || mine.generation != 4) ++wrong;
        m.leave(mine);
      } catch (std::exception const& e) {
        std::fprintf(stderr, "%s\n", e.what());
        ++wrong;
      }
    });
  for (auto& w : workers) w.join();
  BOOST_TEST(sum == 3);
  BOOST_TEST(wrong == 0);
}

}  // namespace limber::elastic::test
