// SPDX-License-Identifier: Apache-2.0
// labels: unit sanitize
#define BOOST_TEST_MODULE limber.comm.nccl_bootstrap
#include <boost/test/unit_test.hpp>

#include <comm/nccl_fake.hpp>

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

namespace limber::test {

namespace fs = std::filesystem;

/// A temporary directory.
struct scratch {
  fs::path path = fs::temp_directory_path() / text("limber-nccl-", std::random_device{}());
  scratch() { fs::create_directory(path); }
  scratch(scratch const&) = delete;
  scratch& operator=(scratch const&) = delete;
  ~scratch() { fs::remove_all(path); }
  [[nodiscard]] std::ptrdiff_t files() const {
    return std::distance(fs::directory_iterator(path), fs::directory_iterator());
  }
};

/// Connects n ranks, each in its thread; returns the failure of each.
std::vector<failure> connect_all(int n, nccl::kv_store const& store, std::shared_ptr<fake_world> const& world,
                                 std::vector<int> const& present, double deadline = 0.3) {
  std::vector<failure> out(static_cast<std::size_t>(n));
  std::vector<std::thread> team;
  for (int const r : present)
    team.emplace_back([&, r] {
      try {
        nccl::options how;
        how.rendezvous_deadline = deadline;
        how.deadline = 10;
        how.device = 0;
        fake_communicator comm(facts_of(r, n), store, how, fake_engine(world, r));
        comm.barrier();
      } catch (error const& e) { out[static_cast<std::size_t>(r)] = e.where(); }
    });
  for (auto& t : team) t.join();
  return out;
}

BOOST_AUTO_TEST_CASE(ranks_connect_through_a_directory_and_leave_no_files) {
  scratch const dir;
  auto const world = std::make_shared<fake_world>();
  for (auto const& f : connect_all(4, nccl::bootstrap_file(dir.path, "run/1"), world, {0, 1, 2, 3}, 60))
    BOOST_TEST(f.reason == "");
  BOOST_TEST(dir.files() == 0);
  BOOST_TEST(world->made_ids == 1);
  BOOST_TEST(world->misuse.empty());
}

BOOST_AUTO_TEST_CASE(a_key_is_put_once_and_by_one_writer_only) {
  scratch const dir;
  std::atomic<int> winners{0};
  std::vector<std::thread> team;
  for (int k = 0; k < 8; ++k)
    team.emplace_back([&, k] {
      auto const store = nccl::bootstrap_file(dir.path, "job");
      for (int i = 0; i < 20; ++i) winners += store.put(text("n", i), text("writer ", k)) ? 1 : 0;
    });
  for (auto& t : team) t.join();
  BOOST_TEST(winners == 20);
  BOOST_TEST(dir.files() == 20);
  auto const store = nccl::bootstrap_file(dir.path, "job");
  BOOST_TEST(store.get("n3")->starts_with("writer "));
  BOOST_TEST(!store.get("absent").has_value());
  store.remove("n3");
  store.remove("n3");
  BOOST_TEST(!store.get("n3").has_value());
  BOOST_TEST(store.put("n3", "again"));
  // Other jobs do not see it.
  BOOST_TEST(!nccl::bootstrap_file(dir.path, "other").get("n3").has_value());
}

BOOST_AUTO_TEST_CASE(missing_ranks_are_named_on_every_other_rank) {
  auto const result = connect_all(5, memory_kv_store(), std::make_shared<fake_world>(), {0, 2, 4});
  for (std::size_t const r : {0u, 2u, 4u}) {
    BOOST_TEST(result[r].engine == "nccl");
    BOOST_TEST(result[r].call == "bootstrap");
    BOOST_TEST(result[r].rank == 1);
    BOOST_TEST(result[r].reason == "rank 1, rank 3 of 5 did not come within 0.24 s");
  }
}

BOOST_AUTO_TEST_CASE(a_missing_rank_0_is_named) {
  auto const result = connect_all(2, memory_kv_store(), std::make_shared<fake_world>(), {1});
  BOOST_TEST(result[1].rank == 0);
  BOOST_TEST(result[1].reason == "rank 0 of 2 did not come within 0.3 s");
}

BOOST_AUTO_TEST_CASE(two_ranks_on_one_gpu_are_refused_before_nccl_is_asked) {
  auto const world = std::make_shared<fake_world>();
  world->same_gpu_names = true;
  auto const result = connect_all(2, memory_kv_store(), world, {0, 1}, 60);
  for (auto const& f : result)
    BOOST_TEST(
        f.reason ==
        "rank 0 and rank 1 share the GPU GPU-5, which NCCL refuses: start as many ranks on a machine as it "
        "has GPUs, and give each its own (options::device, or the local rank)");
  BOOST_TEST(world->made_ids == 0);
}

BOOST_AUTO_TEST_CASE(keys_of_an_earlier_start_are_reported_and_not_used) {
  scratch const dir;
  auto const store = nccl::bootstrap_file(dir.path, "run-1");
  std::string const hint = text("an earlier start of the same job left its keys: remove ", dir.path.string(),
                                "/limber.run-1.* (found 'id'), or give every start its own job name");
  BOOST_TEST(store.put("id", "+00"));
  BOOST_TEST(connect_all(2, store, std::make_shared<fake_world>(), {0})[0].reason == hint);
  BOOST_TEST(connect_all(2, store, std::make_shared<fake_world>(), {1})[1].reason ==
             text("the key 'id' of ", dir.path.string(), "/limber.run-1.* holds no id"));
}

BOOST_AUTO_TEST_CASE(two_processes_of_one_rank_are_detected) {
  auto const store = memory_kv_store();
  BOOST_TEST(store.put("here.1", "GPU-8"));
  auto const result = connect_all(2, store, std::make_shared<fake_world>(), {1});
  BOOST_TEST(result[1].rank == 1);
  BOOST_TEST(result[1].reason.starts_with("there are two processes of rank 1, or an earlier start"));
}

BOOST_AUTO_TEST_CASE(bootstrap_file_needs_a_directory_and_a_name) {
  scratch const dir;
  BOOST_TEST(misuse_of([&] { (void)nccl::bootstrap_file(dir.path / "absent", "job"); }) ==
             text("limber: nccl: bootstrap_file: '", (dir.path / "absent").string(), "' is not a directory"));
  BOOST_TEST(misuse_of([&] { (void)nccl::bootstrap_file(dir.path, ""); }) ==
             "limber: nccl: bootstrap_file: the job has no name; give one that differs for every start");
  BOOST_TEST(misuse_of([&] { fake_communicator const c(facts_of(0, 2), nccl::kv_store{}); }) ==
             "limber: nccl: 2 ranks need a kv_store for the rendezvous (bootstrap_file), or a function that "
             "exchanges the id");
}

BOOST_AUTO_TEST_CASE(a_directory_that_goes_away_is_an_error_with_its_name) {
  auto dir = std::make_unique<scratch>();
  auto const store = nccl::bootstrap_file(dir->path, "job");
  std::string const path = dir->path.string();
  dir.reset();
  failure const f = failure_of([&] { (void)store.put("id", "+"); });
  BOOST_TEST(f.call == "bootstrap");
  BOOST_TEST(f.reason.starts_with("cannot write '" + path + "/limber.job.id."), f.reason);
}

BOOST_AUTO_TEST_CASE(invalid_options_are_refused) {
  auto const refused = [](auto change) {
    nccl::options how;
    change(how);
    return misuse_of([&] { fake_communicator const c(how); });
  };
  BOOST_TEST(refused([](auto& o) { o.deadline = 0; }) == "limber: nccl: deadline must be > 0 s, got 0");
  BOOST_TEST(refused([](auto& o) { o.rendezvous_deadline = -1; }) ==
             "limber: nccl: rendezvous_deadline must be > 0 s, got -1");
  BOOST_TEST(refused([](auto& o) { o.clock = nullptr; }) == "limber: nccl: clock is empty");
  BOOST_TEST(refused([](auto& o) { o.pause = nullptr; }) == "limber: nccl: pause is empty");
  BOOST_TEST(refused([](auto& o) { o.device = 8; }) ==
             "limber: nccl: device 8 was asked for, but there are 8");
  BOOST_TEST(misuse_of([] { fake_communicator const c(2, 2, [](unique_id const& id) { return id; }); }) ==
             "limber: nccl: rank must lie in [0, 2), got 2");
  BOOST_TEST(misuse_of([] { fake_communicator const c(0, 2, nullptr); }) ==
             "limber: nccl: the function that exchanges the id is empty");
}

BOOST_AUTO_TEST_CASE(a_single_process_needs_no_store) {
  fake_communicator alone;
  alone.barrier();
  fake_communicator from_facts(facts_of(0, 1), nccl::kv_store{});
  from_facts.barrier();
  BOOST_TEST(from_facts.size() == 1);
}

}  // namespace limber::test
