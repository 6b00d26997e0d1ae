// SPDX-License-Identifier: Apache-2.0
// labels: unit state fault memory
// needs: state
#define BOOST_TEST_MODULE limber.state.damage
#include <limber/state/state.hpp>

#include <boost/test/unit_test.hpp>

#include <state/fake_worker.hpp>
#include <support/checks.hpp>
#include <sys/stat.h>

#include <functional>
#include <set>

using namespace limber;
using namespace limber::testing;
using state::latest;

namespace {

// Two checkpoints of one worker, 0-1 and 0-2.
struct two_checkpoints {
  scratch dir;
  fake_worker first = small_worker(1, 0), second = small_worker(2, 0);
  fs::path newest = dir.path / "0-2";

  two_checkpoints() {
    save(first, dir.path, {0, 1});
    save(second, dir.path, {0, 2});
  }

  // `latest` returns the older checkpoint, and the reason for rejecting the newer one; `open` throws the same
  // reason. Objects to load into are unchanged.
  std::string reason() {
    auto const f = latest(dir.path);
    BOOST_REQUIRE(f);
    if (f.step() == 2) return {};
    BOOST_REQUIRE(f.rejected.size() == 1u);
    BOOST_TEST(f.rejected[0].path == newest);
    auto fresh = first;
    fresh.clear();
    auto const before = fresh;
    auto const message = message_of([&] { load(fresh, state::open(dir.path, 0, 2)); });
    BOOST_TEST(message == f.rejected[0].reason);
    BOOST_TEST((fresh == before));
    load(fresh, f);
    BOOST_TEST((fresh == first));
    return f.rejected[0].reason;
  }
};

std::size_t header_end(std::string const& file) {
  std::uint64_t n = 0;
  std::memcpy(&n, file.data(), 8);
  return 8 + n;
}

}  // namespace

BOOST_AUTO_TEST_CASE(whole_ones_are_found) {
  two_checkpoints c;
  BOOST_TEST(c.reason() == "");
  auto const f = latest(c.dir.path);
  BOOST_TEST(f.path == c.newest);
  BOOST_TEST(f.verified);
  BOOST_TEST(!latest(c.dir.path, state::check_of::headers).verified);
  BOOST_TEST(!latest(c.dir.path / "nowhere"));
  BOOST_TEST(!latest(c.newest));  // a folder without checkpoints
  BOOST_TEST(
      has(message_of([&] { (void)latest(c.newest / "manifest.json"); }), "manifest.json", "Not a directory"));
}

// Every byte of every file counts: any bit of it that flips is found.
BOOST_AUTO_TEST_CASE(flipped_bits_are_found_wherever_they_are) {
  two_checkpoints c;
  for (auto const* const name : {"manifest.json", "model.safetensors", "worker-0.safetensors"}) {
    auto const whole = read_text(c.newest / name);
    bool const tensors = std::string(name) != "manifest.json";
    for (std::size_t k = 0; k < whole.size(); ++k) {
      auto spoilt = whole;
      spoilt[k] = static_cast<char>(spoilt[k] ^ (1 << (k % 8)));
      write_text(c.newest / name, spoilt);
      auto const reason = c.reason();
      BOOST_TEST(has(reason, "0-2", name), name << " byte " << k << ": " << reason);
      if (tensors && k >= header_end(whole))  // the tensor is named, too
        BOOST_TEST((has(reason, "tensor '", "its hash differs")), name << " byte " << k << ": " << reason);
    }
    write_text(c.newest / name, whole);
  }
  BOOST_TEST(c.reason() == "");
}

BOOST_AUTO_TEST_CASE(files_that_are_cut_off_or_too_long_are_found) {
  two_checkpoints c;
  for (auto const* const name : {"manifest.json", "model.safetensors", "worker-0.safetensors"}) {
    auto const whole = read_text(c.newest / name);
    for (std::size_t n = 0; n < whole.size(); n += n < 20 || whole.size() - n < 20 ? 1 : 17) {
      write_text(c.newest / name, whole.substr(0, n));
      BOOST_TEST(has(c.reason(), "0-2", name), name << " cut off at " << n);
    }
    for (auto const& more : {std::string(1, '\0'), std::string("\n"), std::string(1000, 'x')}) {
      write_text(c.newest / name, whole + more);
      BOOST_TEST(has(c.reason(), "0-2", name), name << " longer by " << more.size());
    }
    write_text(c.newest / name, whole);
  }
}

// Zeros and others' bytes in place of blocks, as file systems leave them after a power cut.
BOOST_AUTO_TEST_CASE(blocks_that_never_reached_the_disk_are_found) {
  two_checkpoints c;
  for (auto const* const name : {"model.safetensors", "worker-0.safetensors"}) {
    auto const whole = read_text(c.newest / name);
    for (std::size_t at = 0; at < whole.size(); at += 64) {
      auto spoilt = whole;
      for (std::size_t k = at; k < std::min(at + 64, whole.size()); ++k) spoilt[k] = '\0';
      write_text(c.newest / name, spoilt);
      BOOST_TEST(has(c.reason(), "0-2", name), name << " zeros at " << at);
    }
    write_text(c.newest / name, whole);
  }
}

BOOST_AUTO_TEST_CASE(files_that_are_missing_renamed_or_of_others_are_found) {
  two_checkpoints c;
  for (auto const* const name : {"manifest.json", "model.safetensors", "worker-0.safetensors"}) {
    fs::path const file = c.newest / name, aside = c.dir.path / "aside";
    fs::rename(file, aside);
    BOOST_TEST(has(c.reason(), name, "No such file"), c.reason());
    fs::copy_file(c.dir.path / "0-1" / name, file);  // of the older checkpoint
    BOOST_TEST(has(c.reason(), name, "0-1") != has(c.reason(), name, "its step is '1', not '2'"), c.reason());
    fs::remove(file);
    write_text(file, std::string("\x20\0\0\0\0\0\0\0", 8) + R"({"__metadata__":{"format":"pt"}})");
    BOOST_TEST(has(c.reason(), name), c.reason());
    fs::remove(file);
    fs::create_symlink(aside, file);
    BOOST_TEST(has(c.reason(), name, "symbolic link"), c.reason());
    fs::remove(file);
    fs::create_directory(file);
    BOOST_TEST(has(c.reason(), name, "not a plain file"), c.reason());
    fs::remove(file);
    BOOST_REQUIRE(::mkfifo(file.c_str(), 0600) == 0);  // nobody writes into it: opening must not wait
    BOOST_TEST(has(c.reason(), name, "not a plain file"), c.reason());
    fs::remove(file);
    fs::rename(aside, file);
  }
  BOOST_TEST(c.reason() == "");
  std::swap(c.first, c.second);
  fs::rename(c.dir.path / "0-1", c.dir.path / "0-3");
  auto const f = latest(c.dir.path);
  BOOST_TEST(f.step() == 2);
  BOOST_TEST(has(f.rejected.at(0).reason, "0-3", "is of checkpoint 0-1, not of this one"));
}

// The files of two workers under each other's names: both are whole, and neither is what it should be.
BOOST_AUTO_TEST_CASE(workers_files_cannot_change_places) {
  scratch dir;
  auto w = small_worker(1, 0), v = small_worker(1, 1);
  std::vector<std::vector<std::byte>> const others{state::pack(v, {0, 1, 1, 2})};
  save_gathered(w, dir.path, {0, 1, 0, 2}, others);
  fs::path const a = dir.path / "0-1" / "worker-0.safetensors", b = dir.path / "0-1" / "worker-1.safetensors";
  fs::rename(a, dir.path / "aside");
  fs::rename(b, a);
  fs::rename(dir.path / "aside", b);
  auto const f = latest(dir.path);
  BOOST_TEST(!f);
  BOOST_TEST(has(f.rejected.at(0).reason, "worker-0", "its rank is '1', not '0'"));
  BOOST_TEST(has(message_of([&] { load(w, f); }), "no checkpoint was found", "worker-0", "its rank"));
}

// A manifest, and hashes, that are forged are consistent: what they say is still checked before it is used.
BOOST_AUTO_TEST_CASE(forged_manifests_gain_nothing) {
  two_checkpoints c;
  auto const path = c.newest / "manifest.json";
  auto const whole = state::detail::parse_manifest(read_text(path), "");
  auto forge = [&](std::function<void(state::manifest&)> const& change) {
    auto m = whole;
    change(m);
    write_text(path, state::detail::print(m));
    return c.reason();
  };
  BOOST_TEST(forge([](auto&) {}) == "");
  BOOST_TEST(has(forge([](auto& m) { m.step = 9; }), "is of checkpoint 0-9"));
  BOOST_TEST(has(forge([](auto& m) { m.model.bytes += 1; }), "model.safetensors", "bytes, not the"));
  BOOST_TEST(has(forge([](auto& m) { m.model.header_hash += 1; }), "model.safetensors", "its hash differs"));
  BOOST_TEST(has(forge([](auto& m) { m.workers.resize(2); }), "its world is '1', not '2'"));
  BOOST_TEST(has(forge([](auto& m) { m.workers.clear(); }), "cannot be of 0 workers"));
  BOOST_TEST(forge([](auto& m) { m.version = "99.0 \"x\""; }) == "");  // a later version of the same form
  auto text = [&](std::string const& s) {
    write_text(path, s);
    return c.reason();
  };
  BOOST_TEST(has(text("{}"), "does not say 'limber checkpoint'"));
  BOOST_TEST(has(text(R"({"limber checkpoint":"2"})"), "form '2'", "reads '1'"));
  BOOST_TEST(has(
      text(
          R"({"limber checkpoint":"1","version":"","generation":"0","step":"2","model.safetensors":"0 0000000000000000","world":"1000000000000"})"),
      "cannot be of 1000000000000 workers"));
  BOOST_TEST(has(
      text(
          R"({"limber checkpoint":"1","version":"","generation":"-0","step":"2","model.safetensors":"0 0000000000000000"})"),
      "'generation' is not a count"));
  BOOST_TEST(has(
      text(R"({"limber checkpoint":"1","version":"","generation":"0","step":"2","model.safetensors":"0"})"),
      "not a size and a hash"));
  BOOST_TEST(has(text(R"({"limber checkpoint":1})"), "a number"));
  BOOST_TEST(has(text(R"({"limber checkpoint":{}})"), "nesting"));
}

// What comes after `latest` has looked is found, too: load compares what it reads. The rest stays readable.
BOOST_AUTO_TEST_CASE(damage_that_comes_later_is_found_when_it_is_read) {
  two_checkpoints c;
  auto const f = latest(c.dir.path);
  auto file = read_text(c.newest / "worker-0.safetensors");
  file.back() = static_cast<char>(file.back() ^ 1);
  write_text(c.newest / "worker-0.safetensors", file);
  auto fresh = c.first;
  BOOST_TEST(has(message_of([&] { load(fresh, f); }), "worker-0", "tensor 'momentum/w'", "its hash differs"));
  auto const ignoring = load(fresh, f, {.ignore = {"momentum/w"}});
  BOOST_TEST((fresh["parameter/w"].bytes == c.second["parameter/w"].bytes));
}

// Names of folders that only look like checkpoints.
BOOST_AUTO_TEST_CASE(only_exact_names_are_checkpoints) {
  two_checkpoints c;
  for (auto const* const name : {"0-03", "00-3", "0-02", "00-2", "-3", "0-", "0--3", "0-+3", "0- 3", "0-3x",
                                 "0-3.partial", "0", "0-3-4", "0x0-3", "0-99999999999999999999999"})
    fs::create_directory(c.dir.path / name);
  BOOST_TEST(c.reason() == "");
  BOOST_TEST(latest(c.dir.path).rejected.empty());
  fs::create_directory(c.dir.path / "0-9223372036854775807");
  BOOST_TEST(has(latest(c.dir.path).rejected.at(0).reason, "manifest.json", "No such file"));
}

// Numbers, not words, are compared; the generation comes first.
BOOST_AUTO_TEST_CASE(the_newest_is_that_of_the_last_generation) {
  scratch dir;
  auto w = small_worker(1, 0);
  for (auto const& [generation, step] : {std::pair{1, 900}, {2, 30}, {2, 4}, {10, 5}, {9, 700}}) {
    save(w, dir.path, {generation, step}, {.keep = 10});
    auto const f = latest(dir.path);
    BOOST_TEST(f.generation() == std::max(generation, static_cast<int>(f.generation())));
  }
  std::vector<std::pair<i64, i64>> order;
  while (auto const f = latest(dir.path)) {
    order.emplace_back(f.generation(), f.step());
    fs::remove_all(f.path);
  }
  BOOST_TEST((order == std::vector<std::pair<i64, i64>>{{10, 5}, {9, 700}, {2, 30}, {2, 4}, {1, 900}}));
}
