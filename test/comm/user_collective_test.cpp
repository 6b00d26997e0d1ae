// SPDX-License-Identifier: Apache-2.0
// labels: unit
#define BOOST_TEST_MODULE limber.comm.user_collective
#include <limber/comm/self.hpp>
#include <limber/comm/threads.hpp>

#include <boost/test/unit_test.hpp>

#include <stdexcept>
#include <vector>

namespace {

using namespace limber;

// A user's engine, written from the documentation of `collective` only. [counting-begin]
template <collective C>
struct counting {
  C& inner;
  i64 bytes = 0;

  int rank() const { return inner.rank(); }
  int size() const { return inner.size(); }
  const_tensor_view count(const_tensor_view v) { return bytes += v.bytes(), v; }
  auto all_reduce(const_tensor_view in, tensor_view out, reduction how = reduction::sum) {
    return inner.all_reduce(count(in), out, how);
  }
  auto reduce_scatter(const_tensor_view in, tensor_view out) { return inner.reduce_scatter(count(in), out); }
  auto all_gather(const_tensor_view in, tensor_view out) { return inner.all_gather(count(in), out); }
  auto broadcast(tensor_view data, int root) { return inner.broadcast((count(data), data), root); }
  void barrier() { inner.barrier(); }
};
// [counting-end]

static_assert(collective<counting<self>> && collective<counting<threads::communicator>>);
static_assert(collective<counting<counting<self>>>);
static_assert(!splittable<counting<self>> && !mailbox<counting<self>>);

/// Code that uses only the concept.
template <collective C>
double mean_of_ranks(C& comm) {
  std::vector<double> const mine{static_cast<double>(comm.rank())};
  std::vector<double> sum(1);
  comm.all_reduce(const_view(mine, "rank"), view(sum)).wait();
  comm.barrier();
  return sum[0] / comm.size();
}

}  // namespace

BOOST_AUTO_TEST_CASE(a_users_collective_works_where_the_librarys_does) {
  threads::run(4, [](threads::communicator& engine) {
    counting<threads::communicator> comm{engine};
    if (mean_of_ranks(comm) != 1.5) throw std::logic_error("wrong mean");
    if (comm.bytes != 8) throw std::logic_error("wrong count of bytes");
    std::vector<float> data(3), all(12);
    comm.broadcast(view(data), 2).wait();
    comm.all_gather(const_view(data), view(all)).wait();
    comm.reduce_scatter(const_view(all), view(data)).wait();
    if (comm.bytes != 8 + 12 + 12 + 48) throw std::logic_error("wrong count of bytes");
  });
  self alone;
  counting<self> comm{alone};
  BOOST_TEST(mean_of_ranks(comm) == 0);
  BOOST_TEST(comm.bytes == 8);
}
