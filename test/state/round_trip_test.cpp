// SPDX-License-Identifier: Apache-2.0
// labels: unit property state memory
// needs: state
#define BOOST_TEST_MODULE limber.state.round_trip
#include <limber/state/state.hpp>

#include <boost/test/unit_test.hpp>

#include <state/fake_worker.hpp>
#include <support/checks.hpp>

#include <barrier>
#include <cmath>
#include <cstdio>
#include <exception>
#include <functional>
#include <thread>

using namespace limber;
using namespace limber::testing;
using state::latest;

namespace {

// All ranks save at once, each on its own thread. @return the error message of each
std::vector<std::string> save_all(std::vector<fake_worker>& workers, fs::path const& folder, i64 step,
                                  std::vector<double> const& weights = {}) {
  auto const n = static_cast<int>(workers.size());
  std::barrier all_ranks(n);
  std::vector<std::string> out(workers.size());
  std::vector<std::thread> threads;
  for (int r = 0; r < n; ++r)
    threads.emplace_back([&, r] {
      auto const k = static_cast<std::size_t>(r);
      out[k] = message_of([&] {
        save(workers[k], folder, {2, step, r, n, weights.empty() ? 1 : weights[k]},
             {.barrier = [&] { all_ranks.arrive_and_wait(); }});
      });
    });
  for (auto& t : threads) t.join();
  return out;
}

std::vector<fake_worker> workers_of(int n, std::uint64_t seed) {
  std::vector<fake_worker> out;
  for (int r = 0; r < n; ++r) out.push_back(every_kind(seed, r));
  return out;
}

fake_worker cleared(fake_worker w) {
  w.clear();
  return w;
}

// Has a round only while calls are open.
struct rounds {
  i64 calls = 0;
  std::vector<float> model = std::vector<float>(4), open = std::vector<float>(4);
  std::string last = "last";

  template <class F>
  void visit(F const& f) {
    f(state_piece{"calls", kept::replicated, {reinterpret_cast<std::byte*>(&calls), 1, dtype::int64, {}}});
    if (calls > 0) f(state_piece{"open", kept::round, view(open)});
    f(state_piece{last, kept::replicated, view(model)});
  }
};

// Runs a command, returns what it printed.
std::string output_of(std::string const& command) {
  std::string out;
  if (FILE* const p = ::popen(command.c_str(), "r")) {
    for (int c; (c = std::fgetc(p)) != EOF;) out += static_cast<char>(c);
    if (::pclose(p) != 0) out += "(failed)";
  }
  return out;
}

}  // namespace

BOOST_AUTO_TEST_CASE(as_many_workers_get_every_bit_back) {
  for (int const n : {1, 2, 3}) {
    scratch dir;
    auto workers = workers_of(n, 40u + static_cast<unsigned>(n));
    for (auto const& message : save_all(workers, dir.path, 17)) BOOST_TEST(message == "");
    auto const f = latest(dir.path);
    BOOST_REQUIRE(f);
    BOOST_TEST(f.generation() == 2);
    BOOST_TEST(f.step() == 17);
    BOOST_TEST(f.world() == n);
    BOOST_TEST(f.rejected.empty());
    for (int r = 0; r < n; ++r) {
      auto const& saved = workers[static_cast<std::size_t>(r)];
      auto fresh = cleared(saved);
      auto const what = load(fresh, f, {.rank = r, .world = n});
      BOOST_TEST((fresh == saved));
      BOOST_TEST(what.missing.size() + what.ignored.size() + what.averaged.size() + what.partial_sums.size() +
                     what.zeroed.size() ==
                 0u);
    }
  }
}

// R → R': the model is replicated, per_rank pieces are averaged (counters are rank 0's), partial sums are
// divided, rounds are void.
BOOST_AUTO_TEST_CASE(another_number_of_workers_combines_what_was_saved) {
  std::vector<double> const weights{1, 3, 0.5};
  for (auto const& weigh : {std::vector<double>{}, weights, std::vector<double>{0, 0, 0}}) {
    scratch dir;
    auto workers = workers_of(3, 5);
    for (auto const& message : save_all(workers, dir.path, 1, weigh)) BOOST_TEST(message == "");
    auto const f = latest(dir.path);
    for (int const n : {1, 2, 5})
      for (int r = 0; r < n; ++r) {
        auto fresh = cleared(workers[0]);
        auto const what = load(fresh, f, {.rank = r, .world = n});
        for (auto& p : fresh.pieces) {
          auto of = [&](std::size_t w) -> fake_piece& { return workers[w][p.name]; };
          double const tolerance = p.type == dtype::bf16  ? 0x1p-8
                                   : p.type == dtype::f16 ? 0x1p-11
                                   : p.type == dtype::f32 ? 0x1p-23
                                                          : 0x1p-50;
          for (i64 k = 0; k < p.length(); ++k) {
            double want = of(0).at(k);
            double const all[] = {of(0).at(k), of(1).at(k), of(2).at(k)};
            if (p.how == kept::round) want = 0;
            if (p.how == kept::partial) want = (all[0] + all[1] + all[2]) / n;
            if (p.how == kept::per_rank && is_floating(p.type))
              want = weigh == weights ? (all[0] + 3 * all[1] + 0.5 * all[2]) / 4.5
                                      : (all[0] + all[1] + all[2]) / 3;
            BOOST_TEST(std::abs(p.at(k) - want) <= tolerance * std::abs(want) + 1e-13,
                       p.name << "[" << k << "]: " << p.at(k) << " for " << want << " of " << n);
          }
        }
        BOOST_TEST(what.averaged.size() == 8u);
        BOOST_TEST(what.partial_sums.size() == 8u);
        BOOST_TEST(what.zeroed.size() == 12u);
      }
  }
}

// More than one portion of a megabyte, of odd length.
BOOST_AUTO_TEST_CASE(large_tensors_go_through_a_small_buffer) {
  scratch dir;
  std::vector<fake_worker> workers{small_worker(1, 0, 600'001), small_worker(1, 1, 600'001)};
  std::size_t most = 0;
  state::save_options o;
  for (auto const& message : save_all(workers, dir.path, 1)) BOOST_TEST(message == "");
  auto const f = latest(dir.path);
  auto fresh = cleared(workers[1]);
  load(fresh, f, {.rank = 1, .world = 2, .copy = [&](void* to, void const* from, std::size_t n) {
                    most = std::max(most, n);
                    std::memcpy(to, from, n);
                  }});
  BOOST_TEST((fresh == workers[1]));
  BOOST_TEST(most == std::size_t{1} << 20);
  load(fresh, f, {.rank = 0, .world = 1});
  auto const &a = workers[0]["momentum/w"], &b = workers[1]["momentum/w"], &mean = fresh["momentum/w"];
  for (i64 k = 0; k < a.length(); ++k) BOOST_REQUIRE(mean.at(k) == (a.at(k) + b.at(k)) / 2);
}

BOOST_AUTO_TEST_CASE(one_process_can_write_what_all_have_packed) {
  scratch sharded, gathered;
  auto workers = workers_of(3, 8);
  for (auto const& message : save_all(workers, sharded.path, 4)) BOOST_TEST(message == "");
  std::vector<std::vector<std::byte>> packed;
  for (int r = 1; r < 3; ++r)
    packed.push_back(state::pack(workers[static_cast<std::size_t>(r)], {2, 4, r, 3}));
  save_gathered(workers[0], gathered.path, {2, 4, 0, 3}, packed);
  for (auto const& e : fs::directory_iterator(sharded.path / "2-4"))
    BOOST_TEST(read_text(e.path()) == read_text(gathered.path / "2-4" / e.path().filename()),
               e.path().filename());
  BOOST_TEST(latest(gathered.path).world() == 3);

  std::swap(packed[0], packed[1]);
  auto const message = message_of([&] { save_gathered(workers[0], gathered.path, {2, 5, 0, 3}, packed); });
  BOOST_TEST(has(message, "worker-1", "its rank is '2', not '1'"), message);
  BOOST_TEST(latest(gathered.path).step() == 4);
  BOOST_TEST(has(message_of([&] {
                   save_gathered(workers[0], gathered.path, {2, 5, 0, 4}, packed);
                 }),
                 "2 packed workers"));
}

BOOST_AUTO_TEST_CASE(names_are_free) {
  scratch dir;
  fake_worker w;
  for (std::string const name : {"", "a b", "\"quoted\"", "back\\slash", "\xc3\xa9t\xc3\xa9",
                                 "\xf0\x9f\x8e\xb2", "../../x", "/etc/x", "a\nb\tc", "*"})
    w.add(name, kept::replicated, dtype::f32, 3);
  w.add(std::string("\0\x01", 2), kept::per_rank, dtype::uint8, 3);
  w.fill(1, 0);
  save(w, dir.path, {});
  auto fresh = cleared(w);
  load(fresh, latest(dir.path));
  BOOST_TEST((fresh == w));
  BOOST_TEST(std::distance(fs::directory_iterator(dir.path), {}) == 1);

  w.add("\xff", kept::replicated, dtype::f32, 1);
  BOOST_TEST(has(message_of([&] { save(w, dir.path, {0, 1}); }), "not valid UTF-8"));
  w.pieces.back().name = "a b";
  BOOST_TEST(has(message_of([&] { save(w, dir.path, {0, 1}); }), "two pieces are named 'a b'"));
  w.pieces.back().name = "__metadata__";
  BOOST_TEST(has(message_of([&] { save(w, dir.path, {0, 1}); }), "'__metadata__' is not a name"));
  BOOST_TEST(latest(dir.path).step() == 0);
  BOOST_TEST(std::distance(fs::directory_iterator(dir.path), {}) == 1);
}

// Missing, unused and mismatching pieces are errors that name the piece, and nothing is changed.
BOOST_AUTO_TEST_CASE(loading_is_strict) {
  scratch dir;
  auto w = small_worker(3, 0);
  save(w, dir.path, {});
  auto const f = latest(dir.path);
  auto message_for = [&](std::function<void(fake_worker&)> const& change, state::load_options const& o = {}) {
    auto other = cleared(w);
    change(other);
    auto const before = other;
    auto const message = message_of([&] { load(other, f, o); });
    BOOST_TEST((other == before), message);
    return message;
  };
  auto add = [](fake_worker& o) { o.add("extra", kept::per_rank, dtype::f32, 2); };
  auto drop = [](fake_worker& o) { o.pieces.pop_back(); };
  BOOST_TEST(has(message_for(add), "'extra' is not in the checkpoint"));
  BOOST_TEST(has(message_for(drop), "'momentum/w' is in the checkpoint, but not used here"));
  BOOST_TEST(has(message_for([](auto& o) { o["parameter/w"].bytes.resize(40); }),
                 "'parameter/w' has 50 elements of f32 in the checkpoint, but 10 of f32"));
  BOOST_TEST(has(message_for([](auto& o) { o["seen"].type = dtype::f64; }), "'seen' has 2 elements of int64",
                 "2 of f64"));
  BOOST_TEST(has(message_for([](auto& o) { o["momentum/w"].how = kept::round; }),
                 "'momentum/w' was saved as per_rank, but is round here"));
  BOOST_TEST(has(message_for([](auto& o) { o["momentum/w"].name = "seen"; }), "two pieces are named 'seen'"));
  BOOST_TEST(has(message_for([](auto&) {}, {.rank = 2, .world = 2}), "rank 2 of a world of 2"));
  BOOST_TEST(has(message_for([](auto&) {}, {.rename = {{"*", "x"}}}), "one '*' on both sides"));
  BOOST_TEST(has(message_for([](auto&) {}, {.rename = {{"a*b*", "x**"}}}), "one '*' on both sides"));
  BOOST_TEST(
      has(message_for([](auto&) {}, {.rename = {{"seen", "progress"}}}), "rename makes 'progress' of both"));
  BOOST_TEST(has(message_of([&] { load(w, state::found{}); }), "no checkpoint was found"));

  auto more = cleared(w);
  add(more);
  auto const extra = more["extra"].bytes;
  auto const what = load(more, f, {.allow_missing = {"ext*"}});
  BOOST_TEST((what.missing == std::vector<std::string>{"extra"}));
  BOOST_TEST((more["extra"].bytes == extra));
  BOOST_TEST((more["momentum/w"].bytes == w["momentum/w"].bytes));

  auto less = cleared(w);
  drop(less);
  BOOST_TEST((load(less, f, {.ignore = {"momentum/*"}}).ignored == std::vector<std::string>{"momentum/w"}));
  BOOST_TEST((less["parameter/w"].bytes == w["parameter/w"].bytes));
  auto same = cleared(w);
  auto const before = same["parameter/w"].bytes;
  load(same, f, {.ignore = {"parameter/*"}});
  BOOST_TEST((same["parameter/w"].bytes == before));
  BOOST_TEST((same["momentum/w"].bytes == w["momentum/w"].bytes));
}

BOOST_AUTO_TEST_CASE(tensors_can_have_new_names) {
  scratch dir;
  auto w = small_worker(3, 0);
  save(w, dir.path, {});
  auto other = cleared(w);
  other["parameter/w"].name = "parameter/head";
  other["momentum/w"].name = "momentum/head";
  other["seen"].name = "counted";
  load(other, latest(dir.path), {.rename = {{"*/w", "*/head"}, {"seen", "counted"}}});
  BOOST_TEST((other == w));
}

// Saved between merges, and loaded for a strategy whose ranks never differ.
BOOST_AUTO_TEST_CASE(per_rank_pieces_that_are_replicated_now_get_the_mean) {
  scratch dir;
  std::vector<fake_worker> workers{small_worker(1, 0), small_worker(1, 1)};
  for (auto const& message : save_all(workers, dir.path, 1)) BOOST_TEST(message == "");
  for (int r = 0; r < 2; ++r) {
    auto fresh = cleared(workers[0]);
    fresh["momentum/w"].how = fresh["seen"].how = kept::replicated;
    load(fresh, latest(dir.path), {.rank = r, .world = 2});
    auto const &a = workers[0]["momentum/w"], &b = workers[1]["momentum/w"];
    for (i64 k = 0; k < a.length(); ++k) BOOST_REQUIRE(fresh["momentum/w"].at(k) == (a.at(k) + b.at(k)) / 2);
    BOOST_TEST((fresh["seen"].bytes == workers[0]["seen"].bytes));
  }
}

// Pieces may depend on integers that were read before; after an error these are restored.
BOOST_AUTO_TEST_CASE(integers_may_decide_which_pieces_there_are) {
  scratch dir;
  rounds w{3, {1, 2, 3, 4}, {5, 6, 7, 8}}, fresh;
  save(w, dir.path, {});
  load(fresh, latest(dir.path));
  BOOST_TEST(fresh.calls == 3);
  BOOST_TEST((fresh.open == w.open));
  BOOST_TEST((fresh.model == w.model));
  rounds other;
  other.last = "another name";
  BOOST_TEST(
      has(message_of([&] { load(other, latest(dir.path)); }), "'another name' is not in the checkpoint"));
  BOOST_TEST(other.calls == 0);
  BOOST_TEST(other.open[0] == 0);
}

BOOST_AUTO_TEST_CASE(invalid_checkpoint_ids_are_refused) {
  scratch dir;
  auto w = small_worker(1, 0);
  auto message_for = [&](state::checkpoint_id const& at, state::save_options const& o = {}) {
    return message_of([&] { save(w, dir.path, at, o); });
  };
  BOOST_TEST(has(message_for({-1, 0}), "generation", "-1"));
  BOOST_TEST(has(message_for({0, -2}), "step", "-2"));
  BOOST_TEST(has(message_for({0, 0, 1, 1}), "rank must lie in [0, 1), got 1"));
  BOOST_TEST(has(message_for({0, 0, 0, 0}), "world", "0"));
  BOOST_TEST(has(message_for({0, 0, 0, 1, -1}), "weight", "-1"));
  BOOST_TEST(has(message_for({0, 0, 0, 1, std::nan("")}), "weight"));
  BOOST_TEST(has(message_for({0, 0, 0, 2}), "options.barrier"));
  BOOST_TEST(has(message_for({}, {.keep = 0}), "at least 1", "0"));
  BOOST_TEST(fs::is_empty(dir.path));
}

// Older checkpoints are removed, but neither newer ones nor other files.
BOOST_AUTO_TEST_CASE(as_many_checkpoints_are_kept_as_asked_for) {
  scratch dir;
  auto w = small_worker(1, 0);
  auto names = [&] {
    std::set<std::string> out;
    for (auto const& e : fs::directory_iterator(dir.path)) out.insert(e.path().filename());
    return out;
  };
  using set = std::set<std::string>;
  fs::create_directories(dir.path / "notes");
  fs::create_directories(dir.path / "1-01");
  fs::create_directories(dir.path / "0-1.partial");
  fs::create_directories(dir.path / "7-7.partial");
  for (i64 const step : {1, 2, 10}) save(w, dir.path, {1, step});
  BOOST_TEST((names() == set{"1-2", "1-10", "notes", "1-01", "7-7.partial"}));
  save(w, dir.path, {0, 99});  // of a generation that has ended
  BOOST_TEST((names() == set{"0-99", "1-2", "1-10", "notes", "1-01", "7-7.partial"}));
  BOOST_TEST(latest(dir.path).step() == 10);
  save(w, dir.path, {2, 0}, {.keep = 3});
  BOOST_TEST((names() == set{"1-2", "1-10", "2-0", "notes", "1-01", "7-7.partial"}));
  save(w, dir.path, {2, 5}, {.keep = 1});
  BOOST_TEST((names() == set{"2-5", "notes", "1-01", "7-7.partial"}));
  // The same id again: the later save replaces the earlier.
  w.fill(99, 0);
  BOOST_TEST(save(w, dir.path, {2, 5}).path == dir.path / "2-5");
  auto fresh = cleared(w);
  load(fresh, latest(dir.path));
  BOOST_TEST((fresh == w));
  BOOST_TEST((names() == set{"2-5", "notes", "1-01", "7-7.partial"}));
}

BOOST_AUTO_TEST_CASE(damaged_ones_do_not_count_as_kept) {
  scratch dir;
  auto w = small_worker(1, 0);
  save(w, dir.path, {0, 1});
  save(w, dir.path, {0, 2});
  fs::remove(dir.path / "0-2" / "model.safetensors");
  save(w, dir.path, {0, 3});
  BOOST_TEST(fs::exists(dir.path / "0-1"));
  save(w, dir.path, {0, 4});
  BOOST_TEST(!fs::exists(dir.path / "0-1"));
  BOOST_TEST(!fs::exists(dir.path / "0-2"));
}

BOOST_AUTO_TEST_CASE(python_reads_the_same) {
  if (std::system("python3 -c 'import json, struct' 2>/dev/null") != 0) {
    BOOST_TEST_MESSAGE("skipped: python3 was not found");
    return;
  }
  scratch dir;
  auto workers = workers_of(2, 77);
  for (auto const& message : save_all(workers, dir.path, 3)) BOOST_TEST(message == "");
  std::string const reader = "python3 '" LIMBER_SOURCE_DIR "/test/state/read_safetensors.py' ";
  for (int r = -1; r < 2; ++r) {
    std::string const name = r < 0 ? std::string(state::model_name) : state::worker_name(r);
    auto& w = workers[static_cast<std::size_t>(std::max(r, 0))];
    std::map<std::string, std::string> want;
    for (auto const& p : w.pieces) {
      if ((p.how == kept::replicated) != (r < 0)) continue;
      double sum = 0;
      for (i64 k = 0; k < p.length(); ++k) sum += p.at(k);
      want[p.name] =
          text(p.name, " ", state::detail::spelling_of(p.type), " ", p.length(), " ", sum == 0 ? 0.0 : sum,
               sum == std::floor(sum) ? ".0 " : " ", state::print_hash(state::hash_of(p.bytes)), " ok\n");
    }
    std::string all;
    for (auto const& [key, line] : want) all += line;
    BOOST_TEST(output_of(reader + (dir.path / "2-3" / name).string()) == all);
  }
  auto spoilt = read_text(dir.path / "2-3" / "model.safetensors");
  spoilt.back() = static_cast<char>(spoilt.back() ^ 1);
  write_text(dir.path / "spoilt", spoilt);
  BOOST_TEST(has(output_of(reader + (dir.path / "spoilt").string()), "DIFFERS"));

  // Other readers, if installed.
  for (std::string const module : {"safetensors.numpy", "safetensors.torch"}) {
    if (std::system(("python3 -c 'import " + module + "' 2>/dev/null").c_str()) != 0) {
      BOOST_TEST_MESSAGE("skipped: Python's " + module + " was not found");
      continue;
    }
    auto w = small_worker(1, 0);
    save(w, dir.path, {3, 0});
    double sum = 0;
    for (i64 k = 0; k < 50; ++k) sum += w["parameter/w"].at(k);
    auto const printed = output_of("python3 -c \"import " + module + " as s; t = s.load_file('" +
                                   (dir.path / "3-0" / "model.safetensors").string() +
                                   "'); print(sorted(t), float(t['parameter/w'].sum()))\"");
    BOOST_TEST(has(printed, "['parameter/w', 'progress']", text(sum)), printed);
  }
}
