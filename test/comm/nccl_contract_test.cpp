// SPDX-License-Identifier: Apache-2.0
// labels: contract sanitize
// optimize: 1
// timeout: 300
#define BOOST_TEST_MODULE limber.comm.nccl_contract
#include <boost/test/unit_test.hpp>

#include <comm/nccl_fake.hpp>
#include <support/contract_values.hpp>

#include <exception>
#include <mutex>
#include <stdexcept>
#include <thread>
#include <tuple>
#include <vector>

/// The whole backend on the host, with fake calls of NCCL and CUDA.
template <bool on_device>
struct nccl_harness {
  using communicator = limber::test::fake_communicator;
  static constexpr int largest_world = 5;
  static constexpr bool rank_order = true;  // of the fake; NCCL guarantees none
  static constexpr int skipped_parts = 1;   // no mailbox
  template <class T>
  using buffer = std::conditional_t<on_device, limber::test::device_buffer<T>, limber::test::host_buffer<T>>;

  template <class F>
  static void run(int n, F f) {
    auto const world = std::make_shared<limber::test::fake_world>();
    auto const store = limber::test::memory_kv_store();
    std::mutex guard;
    std::exception_ptr first;
    std::vector<std::thread> team;
    for (int r = 0; r < n; ++r)
      team.emplace_back([&, r] {
        try {
          communicator comm(limber::test::facts_of(r, n), store, {.deadline = 30, .device = 0},
                            limber::test::fake_engine(world, r));
          f(comm);
        } catch (...) {
          std::scoped_lock const lock(guard);
          if (!first) first = std::current_exception();
        }
      });
    for (auto& t : team) t.join();
    if (first) std::rethrow_exception(first);
    if (!world->misuse.empty()) throw std::runtime_error("misuse of NCCL: " + world->misuse[0]);
  }
};
using contract_harnesses = std::tuple<nccl_harness<true>, nccl_harness<false>>;

#include <support/collective_contract.hpp>
