// SPDX-License-Identifier: Apache-2.0
// labels: unit state fault
// needs: state
// sanitizers: address
#define BOOST_TEST_MODULE limber.state.crash
#include <limber/state/state.hpp>

#include <boost/test/unit_test.hpp>

#include <state/fake_worker.hpp>
#include <support/checks.hpp>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <barrier>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <thread>

using namespace limber;
using namespace limber::testing;
using state::latest;

namespace {

struct disk_call {
  std::string what;
  std::string path;
};

fake_worker worker_at(i64 step, i64 length = 50) {
  return small_worker(static_cast<std::uint64_t>(step), 0, length);
}

// The newest checkpoint is complete and holds what was saved at its step.
void expect_complete(fs::path const& folder, i64 at_least, i64 length = 50) {
  auto const f = latest(folder);
  BOOST_REQUIRE(f);
  BOOST_TEST(f.rejected.empty());
  BOOST_TEST(f.step() >= at_least);
  auto fresh = worker_at(0, length);
  load(fresh, f);
  BOOST_TEST((fresh == worker_at(f.step(), length)));
}

i64 unfinished(fs::path const& folder) {
  i64 n = 0;
  for (auto const& e : fs::directory_iterator(folder)) n += e.path().extension() == ".partial" ? 1 : 0;
  return n;
}

// The disk calls of the third of three saves.
std::vector<disk_call> calls_of_a_save() {
  scratch dir;
  for (i64 const step : {1, 2}) {
    auto w = worker_at(step);
    save(w, dir.path, {0, step});
  }
  std::vector<disk_call> out;
  auto w = worker_at(3);
  save(w, dir.path, {0, 3}, {.before = [&](std::string_view call, std::string const& path) {
         out.push_back({std::string(call), fs::path(path).lexically_relative(dir.path).string()});
         return 0;
       }});
  return out;
}

// Runs f in a child process and returns its exit status.
template <class F>
int status_of_child(F const& f) {
  pid_t const child = ::fork();
  BOOST_REQUIRE(child >= 0);
  if (child == 0) {
    f();
    ::_exit(0);
  }
  int status = 0;
  BOOST_REQUIRE(::waitpid(child, &status, 0) == child);
  return status;
}

}  // namespace

// All data are synced before the rename, and the rename is synced before anything is removed.
BOOST_AUTO_TEST_CASE(everything_is_synced_in_its_order) {
  auto const calls = calls_of_a_save();
  auto place = [&](std::string const& what, std::string const& path) {
    for (std::size_t k = calls.size(); k-- > 0;)
      if (calls[k].what == what && calls[k].path == path) return static_cast<int>(k);
    BOOST_ERROR("no " << what << " of " << path);
    return -1;
  };
  int const appears = place("rename", "0-3");
  for (std::string const file : {"model.safetensors", "worker-0.safetensors", "manifest.json"}) {
    std::string const path = "0-3.partial/" + file;
    BOOST_TEST(place("create", path) < place("write", path));
    BOOST_TEST(place("write", path) < place("sync", path));
    BOOST_TEST(place("sync", path) < place("sync", "0-3.partial"));
  }
  BOOST_TEST(place("sync", "0-3.partial/model.safetensors") < place("create", "0-3.partial/manifest.json"));
  BOOST_TEST(place("sync", "0-3.partial/worker-0.safetensors") <
             place("create", "0-3.partial/manifest.json"));
  BOOST_TEST(place("sync", "0-3.partial") < appears);
  BOOST_TEST(appears < place("sync", "."));
  BOOST_TEST(place("sync", ".") < place("remove", "0-1"));
  BOOST_TEST(calls.back().what == "remove");
}

// The disk fails at any call: the error names the path and the reason, and older checkpoints are unchanged.
BOOST_AUTO_TEST_CASE(a_disk_that_fails_at_any_call_costs_only_that_save) {
  auto const calls = calls_of_a_save();
  auto const appears =
      std::find_if(calls.begin(), calls.end(), [](auto const& c) { return c.what == "rename"; });
  for (std::size_t n = 0; n < calls.size(); ++n) {
    scratch dir;
    for (i64 const step : {1, 2}) {
      auto w = worker_at(step);
      save(w, dir.path, {0, step});
    }
    std::size_t made = 0;
    auto w = worker_at(3);
    std::string left;
    auto const message = message_of([&] {
      auto const out =
          save(w, dir.path, {0, 3},
               {.before = [&](std::string_view, std::string const&) { return made++ == n ? ENOSPC : 0; }});
      if (!out.left.empty()) left = out.left[0].reason;
    });
    bool const removing = calls[n].what == "remove";  // the new checkpoint is complete then
    BOOST_TEST(has(removing ? left : message,
                   (dir.path / calls[n].path).lexically_normal().string().substr(0, dir.path.string().size()),
                   calls[n].what, "No space left on device"),
               calls[n].what << " " << calls[n].path << ": " << message << left);
    BOOST_TEST(message.empty() == removing);
    expect_complete(dir.path, calls.begin() + static_cast<std::ptrdiff_t>(n) > appears ? 3 : 2);
    BOOST_TEST(unfinished(dir.path) == 0);
    save(w, dir.path, {0, 3});  // there is space again
    expect_complete(dir.path, 3);
    BOOST_TEST(!fs::exists(dir.path / "0-1"));
  }
}

BOOST_AUTO_TEST_CASE(a_process_that_dies_at_any_call_leaves_a_checkpoint) {
  auto const calls = calls_of_a_save();
  auto const appears =
      std::find_if(calls.begin(), calls.end(), [](auto const& c) { return c.what == "rename"; });
  for (bool const again : {false, true})  // the third save replaces an existing third checkpoint
    for (std::size_t n = 0; n < calls.size(); ++n) {
      scratch dir;
      for (i64 const step : {1, 2, 3})
        if (step < 3 || again) {
          auto w = worker_at(step);
          save(w, dir.path, {0, step});
        }
      std::size_t made = 0;
      int const status = status_of_child([&] {
        auto w = worker_at(3);
        save(w, dir.path, {0, 3}, {.before = [&](std::string_view, std::string const&) -> int {
               if (made++ == n) ::_exit(9);
               return 0;
             }});
      });
      BOOST_TEST(WIFEXITED(status));
      expect_complete(dir.path, again || calls.begin() + static_cast<std::ptrdiff_t>(n) > appears ? 3 : 2);
      auto w = worker_at(4);
      save(w, dir.path, {0, 4});
      expect_complete(dir.path, 4);
      BOOST_TEST(unfinished(dir.path) == 0);
    }
}

// A process that saves in a loop is killed at random; another continues from the newest checkpoint.
BOOST_AUTO_TEST_CASE(a_process_that_is_killed_at_random_leaves_a_checkpoint) {
  scratch dir;
  i64 const length = 40'000;
  auto w = worker_at(0, length);
  save(w, dir.path, {0, 0});
  i64 reached = 0;
  for (std::uint64_t run = 0; run < 20; ++run) {
    pid_t const child = ::fork();
    BOOST_REQUIRE(child >= 0);
    if (child == 0) {
      for (i64 step = reached + 1;; ++step) {
        auto v = worker_at(step, length);
        save(v, dir.path, {0, step});
      }
    }
    std::this_thread::sleep_for(std::chrono::microseconds(random_bits(12, run, 0) % 60'000));
    BOOST_REQUIRE(::kill(child, SIGKILL) == 0);
    int status = 0;
    BOOST_REQUIRE(::waitpid(child, &status, 0) == child);
    BOOST_TEST(WIFSIGNALED(status));
    expect_complete(dir.path, reached, length);
    reached = latest(dir.path).step();
    BOOST_TEST(unfinished(dir.path) <= 1);
  }
  BOOST_TEST(reached > 0);
}

// A limit on the size of files simulates a full disk without privileges.
BOOST_AUTO_TEST_CASE(a_file_that_cannot_grow_is_an_error_with_its_path) {
  scratch dir;
  auto w = worker_at(1);
  save(w, dir.path, {0, 1});
  int const status = status_of_child([&] {
    ::signal(SIGXFSZ, SIG_IGN);
    rlimit const limit{100'000, 100'000};
    if (::setrlimit(RLIMIT_FSIZE, &limit) != 0) ::_exit(3);
    auto large = worker_at(2, 200'000);
    auto const message = message_of([&] { save(large, dir.path, {0, 2}); });
    ::_exit(has(message, "0-2.partial/worker-0.safetensors", "File too large") ? 0 : 4);
  });
  BOOST_TEST(WIFEXITED(status));
  BOOST_TEST(WEXITSTATUS(status) == 0);
  expect_complete(dir.path, 1);
  BOOST_TEST(unfinished(dir.path) == 0);
}

BOOST_AUTO_TEST_CASE(a_folder_that_cannot_be_written_is_an_error_with_its_path) {
  scratch dir;
  auto w = worker_at(1);
  write_text(dir.path / "file", "");
  auto const message = message_of([&] { save(w, dir.path / "file" / "checkpoints", {0, 1}); });
  BOOST_TEST(has(message, (dir.path / "file").string(), "Not a directory"), message);
  BOOST_TEST(has(message_of([&] { save(w, "", {0, 1}); }), "empty path"));
  if (::geteuid() != 0) {
    save(w, dir.path / "own", {0, 1});
    fs::permissions(dir.path / "own", fs::perms::owner_read | fs::perms::owner_exec);
    auto const refused = message_of([&] { save(w, dir.path / "own", {0, 2}); });
    BOOST_TEST(has(refused, "0-2.partial", "Permission denied"), refused);
    expect_complete(dir.path / "own", 1);
    fs::permissions(dir.path / "own", fs::perms::owner_all);
  }
  // Missing folders are created.
  std::vector<std::string> synced;
  save(w, dir.path / "a" / "b" / "", {0, 1}, {.before = [&](std::string_view call, std::string const& path) {
         if (call == "sync") synced.push_back(path);
         return 0;
       }});
  expect_complete(dir.path / "a" / "b", 1);
  BOOST_TEST(std::ranges::count(synced, dir.path.string()) == 1);
  BOOST_TEST(std::ranges::count(synced, (dir.path / "a").string()) == 1);
}

// Links in place of the temporary folder are not followed.
BOOST_AUTO_TEST_CASE(nothing_is_written_through_links) {
  scratch dir, other;
  write_text(other.path / "precious", "text");
  fs::create_directory_symlink(other.path, dir.path / "0-1.partial");
  fs::create_directory_symlink(other.path, dir.path / "0-2");
  auto w = worker_at(1);
  save(w, dir.path, {0, 1});
  auto v = worker_at(2);
  save(v, dir.path, {0, 2});
  auto u = worker_at(3);
  save(u, dir.path, {0, 3}, {.keep = 1});
  BOOST_TEST(read_text(other.path / "precious") == "text");
  BOOST_TEST(std::distance(fs::directory_iterator(other.path), {}) == 1);
  expect_complete(dir.path, 3);
}

// One of three workers fails at any of its calls: no rank hangs, all get an error, the older checkpoint
// stays.
BOOST_AUTO_TEST_CASE(a_failure_of_one_rank_is_an_error_on_all) {
  for (int culprit = 0; culprit < 3; ++culprit) {
    bool done = false;
    int n = 0;
    for (; !done; ++n) {
      scratch dir;
      auto first = worker_at(1);
      save(first, dir.path, {0, 1});
      std::barrier all_ranks(3);
      std::vector<std::string> said(3);
      std::vector<std::thread> threads;
      int made = 0;
      bool removing = false;
      for (int r = 0; r < 3; ++r)
        threads.emplace_back([&, r] {
          auto w = small_worker(2, r);
          auto fail = [&](std::string_view call, std::string const&) {
            if (made++ != n) return 0;
            removing = call == "remove";
            return ENOSPC;
          };
          said[static_cast<std::size_t>(r)] = message_of([&] {
            save(w, dir.path, {0, 2, r, 3},
                 {.barrier = [&] { all_ranks.arrive_and_wait(); },
                  .before = r == culprit ? state::disk_hook(fail) : state::disk_hook()});
          });
        });
      for (auto& t : threads) t.join();
      done = made <= n;
      bool const appeared = latest(dir.path).step() == 2;
      for (int r = 0; r < 3; ++r) {
        auto const& message = said[static_cast<std::size_t>(r)];
        if (made <= n || removing)
          BOOST_TEST(message == "");
        else if (r == culprit)
          BOOST_TEST(has(message, "No space left"), message);
        else if (!appeared)  // only rank 0 knows that the last sync failed: the checkpoint exists
          BOOST_TEST(has(message, culprit == 0 ? "0-2"
                                  : r == 0     ? "worker-"
                                               : "rank 0 did not finish"),
                     message);
      }
      if (!appeared) expect_complete(dir.path, 1);
      BOOST_TEST(unfinished(dir.path) == 0);
    }
    BOOST_TEST(n > 3);
  }
}
