// SPDX-License-Identifier: Apache-2.0
// labels: fault gloo state
// timeout: 600
// needs: gloo state
// sanitizers: no
#define BOOST_TEST_MODULE limber.fault.restart
#include <limber/state/state.hpp>

#include <boost/test/unit_test.hpp>

#include <comm/gloo_worlds.hpp>
#include <fault/fault_run.hpp>

#include <algorithm>
#include <array>
#include <csignal>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <span>
#include <string>
#include <thread>
#include <vector>

namespace limber::test {

namespace {

/// Loads the newest checkpoint, and writes one every three steps.
struct checkpoints {
  std::filesystem::path folder{};
  voice const* say = nullptr;

  /// The state of a dealer as one block.
  struct dealer_block {
    i64 count = 0;
    std::array<i64, 64> numbers{};
  };

  void begin(auto& run, auto& opt, elastic::dealer& samples) {
    auto const newest = state::latest(folder);
    if (!newest) return;
    dealer_block dealer_state;
    state::composite_state all{opt, state::block{"dealer", dealer_state}};
    load(all, newest, {.rank = run.communicator().rank(), .world = run.communicator().size()});
    samples.restore(std::span(dealer_state.numbers).first(static_cast<std::size_t>(dealer_state.count)));
    (*say)(text("loaded ", newest.step(), " ", newest.rejected.size()));
  }
  void stepped(auto& run, auto& opt, elastic::dealer& samples) {
    if (opt.open().any() || opt.now().steps % 3 != 0) return;
    auto& comm = run.communicator();
    auto const at = samples.state();
    dealer_block dealer_state{std::ssize(at), {}};
    std::ranges::copy(at, dealer_state.numbers.begin());
    state::composite_state all{opt, state::block{"dealer", dealer_state}};
    save(all, folder,
         {.generation = run.now().generation,
          .step = opt.now().calls,
          .rank = comm.rank(),
          .world = comm.size()},
         {.barrier = [&] { comm.barrier(); }});
  }
};

void work(std::filesystem::path const& place, char const* part, int id, int workers, fault_point fault,
          voice const& say) {
  train_ledger({.folder = place / part, .id = id, .workers = workers, .fault = fault, .pause = 5},
               sync::allreduce{}, logical_shards{4, ledger_model::batch / 4}, say,
               checkpoints{place / "checkpoints", &say});
}

std::vector<float> model_in(std::string const& words) {
  std::vector<float> out(ledger_model::length);
  if (words.size() == 6 + sizeof(float) * out.size())
    std::memcpy(out.data(), words.data() + 6, words.size() - 6);
  return out;
}

/// The model of all `n` workers of an undisturbed run, which must agree. Counts the workers that loaded a
/// checkpoint.
std::vector<float> trained(std::filesystem::path const& place, char const* part, int n, int& loaded) {
  std::filesystem::create_directories(place / part / "histories");
  crew workers(n, [&](int r, voice const& say) { work(place, part, r, n, {}, say); });
  std::vector<std::vector<float>> models(static_cast<std::size_t>(n));
  for (int r = 0; r < n; ++r)
    while (auto const words = workers.hear(r, 30)) {
      if (words->starts_with("loaded")) ++loaded;
      if (words->starts_with("model")) models[static_cast<std::size_t>(r)] = model_in(*words);
    }
  expect_finished(workers.join(5));
  for (auto const& m : models) BOOST_TEST((m == models[0]));
  return models[0];
}

}  // namespace

// Checkpoints are written while workers die; then all die, and another number of workers continues.
BOOST_AUTO_TEST_CASE(all_die_and_others_continue_from_the_last_checkpoint) {
  char const* const asked = std::getenv("LIMBER_FAULTS");
  int const runs = asked ? std::max(1, std::atoi(asked) / 5) : 4;
  rendezvous_folder const calm_place;
  int loaded = 0, of = 0;
  auto const calm = trained(calm_place.path(), "calm", 3, loaded);
  BOOST_TEST(loaded == 0);
  for (int seed = 0; seed < runs; ++seed) {
    dice d(static_cast<std::uint64_t>(1000 + seed));
    rendezvous_folder const place;
    std::filesystem::create_directories(place.path() / "first" / "histories");
    {
      int const victim = d.below(3);
      fault_point const fault{fault_point::kind::kill_inside, 1 + d.below(500), d.below(1500)};
      crew workers(3, [&](int r, voice const& say) {
        work(place.path(), "first", r, 3, r == victim ? fault : fault_point{}, say);
      });
      for (int r = 0; r < 3; ++r) (void)workers.hear(r, 20);
      std::this_thread::sleep_for(std::chrono::duration<double>(d.between(0.1, 0.7)));
      for (int r = 0; r < 3; ++r) workers.signal(r, SIGKILL);
      for (auto const& e : workers.join(5)) BOOST_TEST((e.how != ending::kind::threw), e.what);
    }
    int const n = seed % 2 == 0 ? 2 : 4, before = loaded;
    of += n;
    auto const model = trained(place.path(), "second", n, loaded);
    BOOST_TEST((model == calm), "seed " << seed << ": other bits than in an undisturbed run");
    BOOST_TEST((loaded == before || loaded == before + n));
  }
  std::printf("%d of %d workers began from a checkpoint\n", loaded, of);
  BOOST_TEST(loaded >= of / 4);
}

}  // namespace limber::test
