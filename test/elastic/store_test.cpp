// SPDX-License-Identifier: Apache-2.0
// labels: unit sanitize memory
// timeout: 60
#define BOOST_TEST_MODULE limber.elastic.store
#include <limber/elastic/store.hpp>

#include <boost/test/unit_test.hpp>

#include <core/says.hpp>
#include <elastic/scratch_folder.hpp>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstddef>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <optional>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <tuple>
#include <vector>

namespace limber::elastic::test {
namespace {

namespace fs = std::filesystem;
using limber::test::says;

template <class S>
struct fresh;
template <>
struct fresh<memory_store> {
  memory_store store;
};
template <>
struct fresh<directory_store> {
  scratch_folder folder;
  directory_store store{folder.path};
};
using both = std::tuple<memory_store, directory_store>;

// Runs f(k) in n processes. Returns what each returned, −1 for those that threw or were killed.
std::vector<int> in_processes(int n, std::function<int(int)> const& f) {
  std::vector<pid_t> children;
  for (int k = 0; k < n; ++k) {
    pid_t const child = ::fork();
    if (child == 0) {
      int code = 255;
      try {
        code = f(k);
      } catch (...) {}
      ::_exit(code);
    }
    children.push_back(child);
  }
  std::vector<int> out;
  for (pid_t const child : children) {
    int status = 0;
    ::waitpid(child, &status, 0);
    out.push_back(WIFEXITED(status) && WEXITSTATUS(status) != 255 ? WEXITSTATUS(status) : -1);
  }
  return out;
}

error failure_of(std::function<void()> const& f) {
  try {
    f();
  } catch (error const& e) { return e; }
  throw std::logic_error("nothing was thrown");
}

void write_file(fs::path const& file, std::string const& text) {
  std::ofstream(file, std::ios::binary) << text;
}

// All files in the folder, including temporary ones.
std::size_t files_in(fs::path const& folder) {
  return static_cast<std::size_t>(std::distance(fs::directory_iterator(folder), fs::directory_iterator()));
}

}  // namespace

BOOST_AUTO_TEST_CASE_TEMPLATE(keeps_what_is_put, S, both) {
  fresh<S> f;
  S& s = f.store;
  BOOST_TEST(!s.get("a"));
  BOOST_TEST(s.put_if_absent("a", "one"));
  BOOST_TEST(!s.put_if_absent("a", "two"));
  BOOST_TEST(s.get("a").value() == "one");
  s.replace("a", "three");
  BOOST_TEST(s.get("a").value() == "three");
  s.replace("b", "");
  BOOST_TEST(s.get("b").value() == "");
  BOOST_TEST(s.remove("a"));
  BOOST_TEST(!s.remove("a"));
  BOOST_TEST(!s.get("a"));
  BOOST_TEST(s.put_if_absent("a", "four"));
  BOOST_TEST(s.get("a").value() == "four");

  std::string bytes(store_value_limit, '\0');
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<char>(i * 7 + i / 256);
  s.replace("large", bytes);
  BOOST_TEST((s.get("large").value() == bytes));
}

BOOST_AUTO_TEST_CASE_TEMPLATE(lists_by_prefix_in_order, S, both) {
  fresh<S> f;
  S& s = f.store;
  BOOST_TEST(s.list("").empty());
  for (char const* key : {"gen/2/members", "gen/10/here/b", "gen/1/here/a", "gen/1/members", "join/x", "g"})
    s.put_if_absent(key, "v");
  using keys = std::vector<std::string>;
  BOOST_TEST((s.list("gen/1/") == keys{"gen/1/here/a", "gen/1/members"}));
  BOOST_TEST((s.list("gen/1") == keys{"gen/1/here/a", "gen/1/members", "gen/10/here/b"}));
  BOOST_TEST((s.list("gen/1/here/a") == keys{"gen/1/here/a"}));
  BOOST_TEST(s.list("gen/3").empty());
  BOOST_TEST(
      (s.list("") == keys{"g", "gen/1/here/a", "gen/1/members", "gen/10/here/b", "gen/2/members", "join/x"}));
}

BOOST_AUTO_TEST_CASE_TEMPLATE(refuses_invalid_keys, S, both) {
  fresh<S> f;
  S& s = f.store;
  std::string const longest(store_key_limit, 'k');
  for (std::string const& key :
       {std::string(), std::string("/a"), std::string("a/"), std::string("a//b"), std::string("."),
        std::string(".."), std::string("a/../b"), std::string("../a"), std::string("a/.b"),
        std::string("a+b"), std::string("a b"), std::string("a\0b", 3), std::string("a\nb"),
        std::string("\xc3\xa4"), longest + "k"}) {
    BOOST_CHECK_EXCEPTION(s.put_if_absent(key, ""), std::invalid_argument, says("the key"));
    BOOST_CHECK_EXCEPTION(s.replace(key, ""), std::invalid_argument, says("the key"));
    BOOST_CHECK_EXCEPTION((void)s.get(key), std::invalid_argument, says("the key"));
    BOOST_CHECK_EXCEPTION(s.remove(key), std::invalid_argument, says("the key"));
  }
  BOOST_TEST(s.put_if_absent(longest, "v"));
  BOOST_TEST(s.put_if_absent("A-Z_a.z/0..9", "v"));
  BOOST_TEST(s.list("").size() == 2u);
  std::string const large(store_value_limit + 1, 'x');
  BOOST_CHECK_EXCEPTION(s.put_if_absent("a", large), std::invalid_argument, says("1048577 bytes"));
  BOOST_CHECK_EXCEPTION(s.replace("a", large), std::invalid_argument, says("1048577 bytes"));
}

BOOST_AUTO_TEST_CASE_TEMPLATE(waits_by_the_injected_clock, S, both) {
  fresh<S> f;
  double now = 100;
  int pauses = 0;
  polling const how{0.5, [&] { return now; },
                    [&](double s) {
                      now += s;
                      if (++pauses == 3) f.store.replace("a/b", "here");
                    }};
  BOOST_TEST(wait(f.store, "a/b", 10, how) == "here");
  BOOST_TEST(pauses == 3);
  auto const e = failure_of([&] { (void)wait(f.store, "never", 2, how); });
  BOOST_TEST(e.where().engine == "store");
  BOOST_TEST(e.where().call == "wait");
  BOOST_TEST(e.where().code == ETIMEDOUT);
  BOOST_TEST(says("\"never\": not there after 2 s")(e));
  BOOST_TEST(pauses == 7);
  BOOST_CHECK_EXCEPTION((void)wait(f.store, "a", -1, how), std::invalid_argument, says("deadline"));
  // A waiter that was stopped until after the deadline polls once more.
  int polls = 0;
  polling const stopped{0.5, [&] { return now; },
                        [&](double) {
                          now += 1000;
                          if (++polls == 1) f.store.replace("late", "v");
                        }};
  BOOST_TEST(wait(f.store, "late", 2, stopped) == "v");
}

// Each of 8 processes puts each of 150 keys: every key has exactly one winner, whose value is stored.
BOOST_AUTO_TEST_CASE(one_process_wins_each_key) {
  scratch_folder const folder;
  constexpr int processes = 8, keys = 150;
  auto const codes = in_processes(processes, [&](int k) {
    directory_store s(folder.path);
    for (int i = 0; i < keys; ++i) {
      std::string const value = text("by ", k, std::string(5000, static_cast<char>('a' + k)));
      if (s.put_if_absent(text("key/", i), value)) s.put_if_absent(text("won/", i, "/", k), "");
    }
    return 0;
  });
  BOOST_TEST(std::count(codes.begin(), codes.end(), 0) == processes);
  directory_store s(folder.path);
  std::set<int> winners;
  for (int i = 0; i < keys; ++i) {
    auto const won = s.list(text("won/", i, "/"));
    BOOST_TEST_REQUIRE(won.size() == 1u);
    int const k = won.front().back() - '0';
    winners.insert(k);
    BOOST_TEST(
        (s.get(text("key/", i)).value() == text("by ", k, std::string(5000, static_cast<char>('a' + k)))));
  }
  BOOST_TEST_MESSAGE(winners.size() << " of " << processes << " processes won something");
  BOOST_TEST(files_in(folder.path) == 2u * keys);  // no temporary file is left
}

// Writers that are killed at any moment leave the old value or the new one, never a part, and no key that
// they did not put.
BOOST_AUTO_TEST_CASE(readers_never_see_a_part) {
  scratch_folder const folder;
  directory_store s(folder.path);
  auto const size_of = [](int n) { return static_cast<std::size_t>(1 + (n * 7919) % 60'000); };
  auto const letter_of = [](int n) { return static_cast<char>('a' + n % 26); };
  auto const value_of = [&](int n) { return std::string(size_of(n), letter_of(n)); };
  s.replace("v", value_of(0));
  std::set<std::size_t> seen;
  for (int round = 0; round < 40; ++round) {
    pid_t const writer = ::fork();
    if (writer == 0) try {
        for (int n = 17 * round;; ++n) s.replace("v", value_of(n));
      } catch (...) { ::_exit(1); }
    for (int k = 0; k < 40; ++k) {
      auto const v = s.get("v");
      BOOST_TEST_REQUIRE(v.has_value());
      BOOST_TEST_REQUIRE(!v->empty());
      BOOST_TEST_REQUIRE((*v == std::string(v->size(), v->front())));
      int n = 0;
      while (n < 60'000 && !(size_of(n) == v->size() && letter_of(n) == v->front())) ++n;
      BOOST_TEST_REQUIRE(n < 60'000);
      seen.insert(v->size());
      BOOST_TEST_REQUIRE((s.list("") == std::vector<std::string>{"v"}));
      sleep_seconds(0.0002);
    }
    ::kill(writer, SIGKILL);
    ::waitpid(writer, nullptr, 0);
  }
  BOOST_TEST_MESSAGE(seen.size() << " values were seen");
  BOOST_TEST(seen.size() > 40u);
}

BOOST_AUTO_TEST_CASE_TEMPLATE(threads_share_a_store, S, both) {
  fresh<S> f;
  std::atomic<int> won{0}, wrong{0};
  std::vector<std::thread> threads;
  for (int k = 0; k < 4; ++k)
    threads.emplace_back([&, k] {
      for (int i = 0; i < 100; ++i) {
        won += f.store.put_if_absent(text("k/", i), text(k)) ? 1 : 0;
        f.store.replace("shared", std::string(static_cast<std::size_t>(100 + k), static_cast<char>('0' + k)));
        auto const v = f.store.get("shared");
        if (!v || *v != std::string(v->size(), v->front()) ||
            v->size() != static_cast<std::size_t>(100 + v->front() - '0'))
          ++wrong;
        for (std::string const& key : f.store.list(""))
          if (key != "shared" && key.substr(0, 2) != "k/") ++wrong;
      }
    });
  for (auto& t : threads) t.join();
  BOOST_TEST(won == 100);
  BOOST_TEST(wrong == 0);
}

// Foreign entries in the folder neither redirect nor block a call.
BOOST_AUTO_TEST_CASE(foreign_entries_are_harmless) {
  scratch_folder const outside, folder;
  write_file(outside.path / "secret", "secret");
  directory_store s(folder.path);
  s.put_if_absent("good", "v");
  fs::create_symlink(outside.path / "secret", folder.path / "link");
  fs::create_symlink(outside.path / "new", folder.path / "dangling");
  fs::create_symlink("loop", folder.path / "loop");
  fs::create_directory(folder.path / "directory");
  BOOST_TEST(::mkfifo((folder.path / "pipe").c_str(), 0644) == 0);
  sockaddr_un name{};
  name.sun_family = AF_UNIX;
  std::strncpy(name.sun_path, (folder.path / "socket").c_str(), sizeof name.sun_path - 1);
  state::detail::descriptor const bound(::socket(AF_UNIX, SOCK_STREAM, 0));
  BOOST_TEST(::bind(bound.get(), reinterpret_cast<sockaddr const*>(&name), sizeof name) == 0);
  write_file(folder.path / "huge", "");
  fs::resize_file(folder.path / "huge", std::uintmax_t{1} << 40);
  write_file(folder.path / "over", std::string(store_value_limit + 1, 'x'));
  write_file(folder.path / "not a key", "x");
  write_file(folder.path / "+a", "x");
  write_file(folder.path / "a++b", "x");
  write_file(folder.path / "..+..+a", "x");
  write_file(folder.path / ".hidden", "x");

  BOOST_TEST((s.list("") == std::vector<std::string>{"good", "huge", "over"}));
  for (char const* key : {"link", "dangling", "loop", "directory", "pipe", "socket", "huge", "over"}) {
    auto const e = failure_of([&] { (void)s.get(key); });
    BOOST_TEST_CONTEXT(e.what()) {
      BOOST_TEST(e.where().code == detail::foreign_entry);
      BOOST_TEST(e.where().call == "get");
      BOOST_TEST(says(key)(e));
      BOOST_TEST(says("no store put this")(e));
    }
    BOOST_TEST(!s.put_if_absent(key, "v"));
  }
  BOOST_TEST(says("1099511627776 bytes")(failure_of([&] { (void)s.get("huge"); })));
  // A rename replaces the link itself.
  for (char const* key : {"link", "dangling", "loop", "pipe", "huge", "over"}) {
    s.replace(key, "mine");
    BOOST_TEST(s.get(key).value() == "mine");
    BOOST_TEST(s.remove(key));
  }
  BOOST_CHECK_EXCEPTION(s.replace("directory", "v"), error, says("directory"));
  BOOST_CHECK_EXCEPTION(s.remove("directory"), error, says("directory"));
  std::ifstream in(outside.path / "secret");
  std::string still;
  in >> still;
  BOOST_TEST(still == "secret");
  BOOST_TEST(!fs::exists(outside.path / "new"));
  BOOST_TEST(fs::is_directory(folder.path / "directory"));
}

BOOST_AUTO_TEST_CASE(a_full_disk_is_an_error_and_leaves_nothing) {
  scratch_folder const folder;
  auto const codes = in_processes(1, [&](int) {
    directory_store s(folder.path);
    s.put_if_absent("before", "v");
    std::signal(SIGXFSZ, SIG_IGN);
    rlimit const limit{1000, 1000};
    if (::setrlimit(RLIMIT_FSIZE, &limit) != 0) return 1;
    std::string const value(5000, 'x');
    auto const put = failure_of([&] { s.put_if_absent("new", value); });
    if (put.where().code != EFBIG || put.where().call != "put_if_absent" || !says("\"new\"")(put) ||
        !says("File too large")(put) || !says(folder.path.string().c_str())(put))
      return 2;
    auto const replaced = failure_of([&] { s.replace("before", value); });
    if (replaced.where().code != EFBIG || replaced.where().call != "replace") return 3;
    if (s.get("before") != "v" || s.get("new") || s.list("").size() != 1) return 4;
    // Existing entries need no space.
    if (s.put_if_absent("before", value)) return 5;
    if (!s.put_if_absent("small", "v")) return 6;
    return files_in(folder.path) == 2 ? 0 : 7;
  });
  BOOST_TEST(codes.front() == 0);
}

BOOST_AUTO_TEST_CASE(no_more_files_is_an_error) {
  scratch_folder const folder;
  auto const codes = in_processes(1, [&](int) {
    directory_store s(folder.path);
    s.put_if_absent("a", "v");
    rlimit const limit{0, 0};
    if (::setrlimit(RLIMIT_NOFILE, &limit) != 0) return 1;
    if (failure_of([&] { (void)s.get("a"); }).where().code != EMFILE) return 2;
    if (failure_of([&] { s.replace("a", "w"); }).where().code != EMFILE) return 3;
    if (failure_of([&] { s.put_if_absent("b", "w"); }).where().code != EMFILE) return 4;
    if (failure_of([&] { (void)s.list(""); }).where().code != EMFILE) return 5;
    return 0;
  });
  BOOST_TEST(codes.front() == 0);
}

BOOST_AUTO_TEST_CASE(a_removed_folder_is_an_error) {
  scratch_folder const folder;
  fs::path const inside = folder.path / "x" / "y";
  directory_store s(inside);
  BOOST_TEST((s.folder() == inside));
  s.put_if_absent("a", "v");
  fs::remove_all(folder.path / "x");
  for (auto const& call : std::vector<std::function<void()>>{
           [&] { (void)s.get("a"); }, [&] { s.replace("a", "w"); }, [&] { s.put_if_absent("a", "w"); },
           [&] { (void)s.list(""); }, [&] { s.remove("a"); }}) {
    auto const e = failure_of(call);
    BOOST_TEST_CONTEXT(e.what()) {
      BOOST_TEST(e.where().engine == "store");
      BOOST_TEST(e.where().code == ENOENT);
      BOOST_TEST(says(inside.c_str())(e));
    }
  }
  // Another folder of that name is detected.
  fs::create_directories(inside);
  auto const e = failure_of([&] { (void)s.list(""); });
  BOOST_TEST(says("replaced")(e));
}

BOOST_AUTO_TEST_CASE(a_folder_that_cannot_be_created_is_an_error) {
  scratch_folder const folder;
  write_file(folder.path / "file", "x");
  BOOST_CHECK_EXCEPTION(directory_store(folder.path / "file"), error, says("file"));
  BOOST_CHECK_EXCEPTION(directory_store(folder.path / "file" / "below"), error, says("cannot create"));
  BOOST_CHECK_EXCEPTION(directory_store{fs::path()}, std::invalid_argument, says("no name"));
  // The process file system allows no new files, even for root.
  directory_store s("/proc/self");
  BOOST_CHECK_EXCEPTION(s.put_if_absent("limber-store-test", "v"), error, says("cannot create a file"));
  BOOST_CHECK_EXCEPTION(s.replace("limber-store-test", "v"), error, says("cannot create a file"));
}

BOOST_AUTO_TEST_CASE(a_synced_store_does_the_same) {
  scratch_folder const folder;
  directory_store s(folder.path, true);
  BOOST_TEST(s.put_if_absent("a", "one"));
  BOOST_TEST(!s.put_if_absent("a", "two"));
  s.replace("a", "three");
  BOOST_TEST(s.get("a").value() == "three");
  BOOST_TEST(s.remove("a"));
  BOOST_TEST(files_in(folder.path) == 0u);
}

BOOST_AUTO_TEST_CASE(too_many_keys_are_an_error) {
  scratch_folder const folder;
  directory_store s(folder.path);
  s.put_if_absent("seed", "");
  for (std::size_t k = 0; k < store_list_limit; ++k)
    if (::link((folder.path / "seed").c_str(), (folder.path / text("many+", k)).c_str()) != 0) {
      // Some file systems allow fewer links to a file.
      fs::rename(folder.path / "seed", folder.path / text("many+", k));
      s.put_if_absent("seed", "");
    }
  BOOST_TEST(s.list("many/").size() == store_list_limit);
  BOOST_CHECK_EXCEPTION((void)s.list(""), error, says("more than 32768 keys"));
}

}  // namespace limber::elastic::test
