// SPDX-License-Identifier: Apache-2.0
// labels: unit sanitize memory
#define BOOST_TEST_MODULE limber.optimizer.traps
#include <limber/batch/policies.hpp>
#include <limber/comm/checked.hpp>
#include <limber/comm/threads.hpp>
#include <limber/limber.hpp>
#include <limber/sync/strategies.hpp>

#include <boost/test/unit_test.hpp>

#include <support/checks.hpp>
#include <support/toy_model.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <map>
#include <optional>
#include <string>
#include <vector>

#if defined(__SSE2__)
#include <xmmintrin.h>
#endif

// Small inputs that once trained wrongly and said nothing.

using namespace limber;
using namespace limber::testing;

namespace {

struct one_number {
  std::vector<float> w{1}, g{0};
  [[nodiscard]] std::vector<tensor> parameters() { return {{"w", w, g}}; }
};

// What every rank says of the call after the handshake in which `wrong` changes something on rank 1 of two.
template <class Comm, class S, class Wrong>
std::array<std::string, 2> said_by_both(S const& strategy, Wrong const& wrong) {
  std::array<std::string, 2> said;
  threads::run(2, [&](threads::communicator& engine) {
    Comm comm(engine);
    auto const r = static_cast<std::size_t>(comm.rank());
    one_number m;
    double rate = 0.1;
    optimizer opt{m.parameters(), sgd{}, [&](progress const&) { return rate; }, strategy, comm};
    m.g[0] = 1;
    opt.step(1);
    if (r == 1) wrong(opt, rate);
    m.g[0] = 1;
    float const before = m.w[0];
    said[r] = message_of([&] { opt.step(1); });
    if constexpr (std::is_same_v<S, sync::allreduce>) LIMBER_CHECK(m.w[0] == before);
  });
  return said;
}

}  // namespace

BOOST_AUTO_TEST_CASE(rates_that_part_after_the_handshake_are_named_on_all_ranks) {
  auto const other_rate = [](optimizer&, double& rate) { rate = 0.2; };
  for (auto const& said : {said_by_both<threads::communicator&>(sync::allreduce{}, other_rate),
                           said_by_both<checked<threads::communicator&>>(sync::allreduce{}, other_rate),
                           said_by_both<threads::communicator&>(sync::local{.period = 2}, other_rate)})
    for (auto const& s : said) BOOST_TEST(has(s, "rate is 0.1 on rank 0", "0.2 on rank 1"), s);
}

BOOST_AUTO_TEST_CASE(a_tensor_that_one_rank_alone_has_frozen_is_named_on_all) {
  auto const freeze = [](optimizer& opt, double&) { opt.freeze("w"); };
  for (auto const& s : said_by_both<threads::communicator&>(sync::allreduce{}, freeze))
    BOOST_TEST(has(s, "'w' is frozen on rank 1", "not on rank 0"), s);
}

// Two optimizers, used in opposite order on two ranks from call `first` on: what each rank's two calls say.
template <class S>
std::array<std::string, 2> said_of_opposite_order(S const& strategy, int first, i64 length_of_second) {
  std::array<std::string, 2> said;
  threads::run(2, [&](threads::communicator& comm) {
    auto const r = static_cast<std::size_t>(comm.rank());
    one_number a;
    std::vector<float> w(static_cast<std::size_t>(length_of_second), 1), g(w.size(), 0);
    optimizer one{a.parameters(), sgd{}, 0.1, strategy, comm};
    optimizer other{std::vector<tensor>{{"w", w, g}}, sgd{}, 0.1, strategy, comm};
    for (int call = 0; call < first; ++call) {
      one.step(1);
      other.step(1);
    }
    a.g[0] = 1;
    said[r] = message_of([&] { (r == 0 ? one : other).step(1); });
    LIMBER_CHECK(a.w[0] == 1);
    LIMBER_CHECK(w[0] == 1);
  });
  return said;
}

BOOST_AUTO_TEST_CASE(two_optimizers_on_one_communicator_used_in_opposite_order_are_named_on_all_ranks) {
  for (i64 const length : {1, 5000}) {
    for (auto const& s : said_of_opposite_order(sync::allreduce{}, 0, length))
      BOOST_TEST(
          has(s, "rank 1 uses optimizer 2 of the 2 on this communicator where rank 0 uses optimizer 1"), s);
    for (auto const& s : said_of_opposite_order(sync::local{.period = 1}, 0, length))
      BOOST_TEST(has(s, "rank 1 uses optimizer 2 of the 2"), s);
  }
  for (auto const& s : said_of_opposite_order(sync::allreduce{}, 2, 1))
    BOOST_TEST(has(s, "rank 1 uses another optimizer than rank 0", "[w]"), s);
  for (auto const& s : said_of_opposite_order(sync::allreduce{}, 2, 5000))
    BOOST_TEST(has(s, "all_reduce of 1 f32", "all_reduce of 5000 f32"), s);
}

BOOST_AUTO_TEST_CASE(optimizers_on_one_communicator_may_come_and_go) {
  threads::run(2, [&](threads::communicator& comm) {
    one_number m;
    auto const make = [&] { return optimizer{m.parameters(), sgd{}, 0.1, sync::allreduce{}, comm}; };
    std::optional<optimizer> one{make()}, other{make()};
    one->step(1);
    other->step(1);
    if (comm.rank() == 0) one.reset();  // on one rank an assignment, on the other two calls
    one = make();
    one->step(1);
    other->step(1);
    LIMBER_CHECK(one->now().steps == 1);
    LIMBER_CHECK(other->now().steps == 2);
    other->resize(comm);
    other->step(1);
    LIMBER_CHECK(other->now().steps == 3);
  });
}

BOOST_AUTO_TEST_CASE(the_loop_of_the_readme_counts_alike_with_logical_shards_on_any_number_of_workers) {
  for (int const workers : {1, 2, 3, 4, 5}) {
    threads::run(workers, [&](threads::communicator& comm) {
      toy_model<float> m;
      optimizer opt{m.parameters(), sgd{}, 0.01, sync::allreduce{}, comm, {.batch = logical_shards{4, 8}}};
      sampler order(320, 1);
      while (order.epoch() < 1) {
        auto const mine = order.take(opt.planned().share, comm.rank());
        m.backward(mine);
        auto const& said = opt.step(static_cast<i64>(mine.size()));
        if (said.applied) LIMBER_CHECK(said.samples == 32);
      }
      LIMBER_CHECK(opt.now().steps == 10);
      LIMBER_CHECK(opt.now().samples == 320);
    });
  }
}

BOOST_AUTO_TEST_CASE(a_batch_far_from_the_planned_one_fits_a_16_bit_wire) {
  for (dtype const wire : {dtype::f16, dtype::bf16})
    for (i64 const n : {1, 4096, 1 << 20}) {
      threads::run(2, [&](threads::communicator& comm) {
        one_number m;
        optimizer opt{m.parameters(), sgd{}, 0.001, sync::allreduce{}, comm, {.buckets = {.wire = wire}}};
        for (int call = 1; call <= 3; ++call) {
          m.g[0] = 20;
          LIMBER_CHECK(opt.step(n).applied);
          LIMBER_CHECK(std::abs(m.w[0] - (1 - 0.02f * static_cast<float>(call))) < 1e-3f);
        }
      });
    }
}

BOOST_AUTO_TEST_CASE(a_sum_that_overflows_the_wire_says_so) {
  threads::run(2, [](threads::communicator& comm) {
    one_number m;
    optimizer opt{m.parameters(),    sgd{}, 0.001,
                  sync::allreduce{}, comm,  {.buckets = {.wire = dtype::f16}, .max_skipped = 0}};
    m.g[0] = 60000;
    auto const said = message_of([&] { opt.step(4); });
    LIMBER_CHECK(opt.last().overflowed);
    LIMBER_CHECK(has(said, "each rank's gradient was finite", "f16", "buckets.wire"));
  });
}

// All state, by name, as a checkpoint holds it.
using saved_state = std::map<std::string, std::vector<std::byte>>;
static saved_state save(optimizer& opt) {
  saved_state out;
  opt.visit([&](state_piece const& p) { out[p.name].assign(p.data.data, p.data.data + p.data.bytes()); });
  return out;
}
static void load(optimizer& opt, saved_state const& from) {
  opt.visit([&](state_piece const& p) {
    auto const& bytes = from.at(p.name);
    std::copy(bytes.begin(), bytes.end(), p.data.data);
  });
}

BOOST_AUTO_TEST_CASE(an_open_gradient_that_was_loaded_is_applied_by_finish) {
  self comm;
  one_number m, n;
  optimizer a{m.parameters(), sgd{}, 0.1, sync::allreduce{.period = 2}, comm};
  m.g[0] = 1;
  a.step(1);
  optimizer b{n.parameters(), sgd{}, 0.1, sync::allreduce{.period = 2}, comm};
  load(b, save(a));
  b.finish();
  BOOST_TEST(n.w[0] == 0.9f);
  BOOST_TEST(b.now().steps == 1);
}

BOOST_AUTO_TEST_CASE(models_that_were_loaded_apart_are_merged_by_finish) {
  std::array<float, 2> whole{}, resumed{};
  threads::run(2, [&](threads::communicator& comm) {
    auto const r = static_cast<std::size_t>(comm.rank());
    one_number m, n;
    optimizer a{m.parameters(), sgd{}, 0.1, sync::local{.period = 4}, comm};
    for (int call = 0; call < 6; ++call) {
      m.g[0] = comm.rank() == 0 ? 1.f : 0.f;
      a.step(1);
    }
    auto const state = save(a);
    a.finish();
    whole[r] = m.w[0];
    optimizer b{n.parameters(), sgd{}, 0.1, sync::local{.period = 4}, comm};
    load(b, state);
    b.finish();
    resumed[r] = n.w[0];
  });
  BOOST_TEST(whole[0] == whole[1]);
  BOOST_TEST(resumed == whole, boost::test_tools::per_element());
}

#if defined(__SSE2__)
// What linking with -Ofast or -ffast-math sets when a program starts: flush to zero, denormals are zero, or
// both.
BOOST_AUTO_TEST_CASE(a_program_that_rounds_subnormal_numbers_to_zero_is_refused) {
  for (unsigned const mode : {0x8000u, 0x0040u, 0x8040u}) {
    self comm;
    one_number m;
    unsigned const before = _mm_getcsr();
    _mm_setcsr(before | mode);
    auto const said = message_of([&] { optimizer opt{m.parameters(), sgd{}, 0.1, sync::allreduce{}, comm}; });
    _mm_setcsr(before);
    BOOST_TEST(has(said, "subnormal", "-Ofast", "flush-to-zero"), said);
  }
}
#endif
