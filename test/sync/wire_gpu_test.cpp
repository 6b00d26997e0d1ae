// SPDX-License-Identifier: Apache-2.0
// labels: kernel property
// timeout: 300
// sanitizers: no
#define BOOST_TEST_MODULE limber.sync.wire_gpu
#include <limber/comm/threads.hpp>
#include <limber/cuda/executor.hpp>
#include <limber/limber.hpp>

#include <boost/test/unit_test.hpp>

#include <support/wire_model.hpp>

#include <limits>

// Casts, errors and marks through kernel bodies have the bits of the host.

using namespace limber;
using namespace limber::testing;

namespace {

using emulated = gpu::basic_executor<gpu::emulator>;

struct result {
  std::vector<double> model;
  std::vector<std::pair<std::string, std::vector<std::byte>>> owed;
  bool operator==(result const&) const = default;
};

template <class Executor>
std::vector<result> train(bucket_options const& buckets, i64 period, bool marks) {
  std::vector<result> out(2);
  options o;
  o.buckets = buckets;
  o.batch = fixed{8};
  threads::run(2, [&](threads::communicator& comm) {
    wire_model m;
    optimizer opt{m.parameters(), sgd{.momentum = 0.9}, 0.01, sync::allreduce{period}, comm, o, Executor{}};
    for (int call = 0; call < 9; ++call) {
      opt.begin(call == 2 && comm.rank() == 0 ? 0 : 4);
      m.backward(comm.rank(), call);
      if (call == 4 && comm.rank() == 1) m.gb[2] = std::numeric_limits<float>::infinity();
      if (call == 6) opt.freeze("wide");
      if (call == 8) opt.freeze("wide", false);
      for (i64 t = 5; marks && t >= comm.rank() * 3; --t) opt.mark_ready(t);
      opt.step();
    }
    opt.finish();
    out[static_cast<std::size_t>(comm.rank())] = {m.all(), state_of(opt, "sync/error")};
  });
  return out;
}

void check_same(bucket_options const& buckets) {
  for (i64 period : {i64{1}, i64{2}}) {
    auto const expected = train<host>(buckets, period, false);
    for (bool marks : {false, true})
      BOOST_TEST((train<emulated>(buckets, period, marks) == expected),
                 "period " << period << ", marks " << marks);
  }
}

}  // namespace

BOOST_AUTO_TEST_CASE(a_gpu_owes_the_same_bits) {
  check_same({4096, 12'000, dtype::bf16, true});
  check_same({4096, 12'000, dtype::f16, true});
}

BOOST_AUTO_TEST_CASE(marks_change_no_bit_without_errors_either) {
  check_same({4096, 12'000});
  check_same({4096, 12'000, dtype::bf16});
}
