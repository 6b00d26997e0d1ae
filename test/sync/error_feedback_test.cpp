// SPDX-License-Identifier: Apache-2.0
// labels: unit property
// sanitizers: address
#define BOOST_TEST_MODULE limber.sync.error_feedback
#include <limber/batch/policies.hpp>
#include <limber/comm/threads.hpp>
#include <limber/limber.hpp>

#include <boost/test/unit_test.hpp>

#include <support/checks.hpp>
#include <support/toy_model.hpp>
#include <support/wire_model.hpp>

#include <cmath>
#include <limits>

using namespace limber;
using namespace limber::testing;

namespace {

// One tensor, whose gradients a test writes itself.
struct plain_model {
  std::vector<float> w, g;
  explicit plain_model(std::size_t n) : w(n), g(n) {}
  [[nodiscard]] std::vector<tensor> parameters() { return {{"w", w, g}}; }
};

options with(bucket_options buckets, i64 planned) {
  options o;
  o.buckets = buckets;
  o.batch = fixed{planned};
  return o;
}

// bf16 and f16, with and without error feedback.
constexpr i64 mega = i64{1} << 20;
bucket_options wire(dtype type, bool feedback = true) { return {mega, mega, type, feedback}; }

template <class Optimizer>
std::vector<float> owed(Optimizer& opt, std::string const& name = "w") {
  std::vector<float> out;
  opt.visit([&](state_piece const& p) {
    if (p.name != "sync/error/" + name) return;
    LIMBER_CHECK(p.how == kept::partial);
    out.assign(p.data.as<float>().begin(), p.data.as<float>().end());
  });
  return out;
}

}  // namespace

// 1 + 2⁻¹² is 1 in bf16 at every single step. All numbers here are dyadic: what was applied and what is
// owed are the sum of all gradients, exactly.
BOOST_AUTO_TEST_CASE(what_is_applied_averages_to_the_true_gradient) {
  float const g = 1 + 0x1p-12f;
  int const calls = 5000;
  for (bool feedback : {false, true}) {
    plain_model m(3);
    self comm;
    optimizer opt{m.parameters(),    descent{}, 1.0,
                  sync::allreduce{}, comm,      with(wire(dtype::bf16, feedback), 4)};
    for (int call = 0; call < calls; ++call) {
      m.g = {g, -g, 0.5f * g};
      opt.step(4);
    }
    double const applied = -static_cast<double>(m.w[0]) / calls;
    if (!feedback) {
      BOOST_TEST(applied == 1);
      continue;
    }
    std::vector<float> const e = owed(opt);
    BOOST_TEST(std::abs(applied - static_cast<double>(g)) <= 0x1p-8 / calls);
    BOOST_TEST(static_cast<double>(e[0]) - static_cast<double>(m.w[0]) == static_cast<double>(g) * calls);
    BOOST_TEST(m.w[1] == -m.w[0]);
    BOOST_TEST(m.w[2] == 0.5f * m.w[0]);
  }
}

// The same over threads, with shares that differ; each element is one worker's, so that sums are exact.
BOOST_AUTO_TEST_CASE(every_worker_sends_what_it_owes) {
  threads::run(3, [](threads::communicator& comm) {
    plain_model m(3);
    optimizer opt{m.parameters(), descent{}, 1.0, sync::allreduce{}, comm, with(wire(dtype::bf16), 16)};
    int const calls = 2048;
    float const g = 1 + 0x1p-12f;
    i64 const share[] = {8, 6, 2};
    auto const mine = static_cast<std::size_t>(comm.rank());
    for (int call = 0; call < calls; ++call) {
      m.g[mine] = g;
      opt.step(share[mine]);
    }
    for (std::size_t r = 0; r < 3; ++r) {
      double const due = static_cast<double>(g) * static_cast<double>(share[r]) / 16;
      LIMBER_CHECK(std::abs(-static_cast<double>(m.w[r]) / calls - due) <= 0x1p-8 / calls);
    }
  });
}

// Two workers send ½ and what they owe in turn: in bf16 the sum of both, 1 + 2⁻⁸, is 1 again.
BOOST_AUTO_TEST_CASE(what_the_engine_rounds_while_adding_is_lost) {
  threads::run(2, [](threads::communicator& comm) {
    plain_model m(1);
    optimizer opt{m.parameters(), descent{}, 1.0, sync::allreduce{}, comm, with(wire(dtype::bf16), 8)};
    for (int call = 0; call < 256; ++call) {
      m.g = {1 + 0x1p-9f + (call == 0 && comm.rank() == 0 ? 0x1p-8f : 0)};  // not in step
      opt.step(4);
    }
    LIMBER_CHECK(-m.w[0] < 256.1f);  // of 256.5
  });
}

BOOST_AUTO_TEST_CASE(the_error_is_bounded_by_half_a_place_of_the_wire) {
  for (dtype type : {dtype::bf16, dtype::f16}) {
    double const u = type == dtype::bf16 ? 0x1p-8 : 0x1p-11, least = type == dtype::bf16 ? 0 : 0x1p-25;
    plain_model m(400);
    self comm;
    optimizer opt{m.parameters(), descent{}, 0.1, sync::allreduce{}, comm, with(wire(type), 4)};
    std::mt19937 random(7);
    std::normal_distribution<float> normal;
    double largest = 0;
    for (int call = 0; call < 300; ++call) {
      float const size = std::ldexp(1.f, call % 7 - 12);
      double g = 0;
      for (float& x : m.g) {
        x = size * normal(random);
        g = std::max(g, std::abs(static_cast<double>(x)));
      }
      largest = std::max(largest, g);
      opt.step(4);
      double e = 0;
      for (float x : owed(opt)) e = std::max(e, std::abs(static_cast<double>(x)));
      BOOST_TEST_REQUIRE(e <= u / (1 - u) * largest + least);
      BOOST_TEST_REQUIRE(e > 0);
    }
  }
}

BOOST_AUTO_TEST_CASE(without_a_16_bit_wire_there_is_nothing_to_feed_back) {
  auto train = [](bucket_options buckets) {
    wire_model m;
    self comm;
    optimizer opt{m.parameters(), adamw{}, 0.05, sync::allreduce{}, comm, with(buckets, 4)};
    for (int call = 0; call < 5; ++call) {
      m.backward(0, call);
      opt.step(4);
    }
    BOOST_TEST(state_of(opt, "sync/error").empty());
    return std::pair{m.all(), opt.explain()};
  };
  BOOST_TEST((train({mega, mega, {}, true}) == train({mega, mega, {}, false})));
}

BOOST_AUTO_TEST_CASE(explain_says_what_happens_to_the_rest) {
  toy_model<float> m;
  self comm;
  optimizer owing{m.parameters(), sgd{}, 0.05, sync::allreduce{}, comm, with(wire(dtype::bf16), 4)};
  optimizer dropping{m.parameters(), sgd{}, 0.05, sync::allreduce{}, comm, with(wire(dtype::bf16, false), 4)};
  BOOST_TEST(has(owing.explain(), "sent later"));
  BOOST_TEST(!has(dropping.explain(), "sent later"));
}

// Ranks that disagree would send different things.
BOOST_AUTO_TEST_CASE(all_ranks_feed_back_or_none) {
  threads::run(2, [](threads::communicator& comm) {
    toy_model<float> m;
    optimizer opt{m.parameters(),    sgd{}, 0.05,
                  sync::allreduce{}, comm,  with(wire(dtype::bf16, comm.rank() == 0), 4)};
    LIMBER_CHECK(has(message_of([&] { opt.step(2); }), "handshake", "do not train the same"));
  });
}

BOOST_AUTO_TEST_CASE(logical_shards_owe_nothing) {
  toy_model<float> m;
  self comm;
  options o;
  o.buckets = wire(dtype::bf16);
  o.batch = logical_shards{3, 4};
  auto const message =
      message_of([&] { optimizer opt{m.parameters(), sgd{}, 0.05, sync::allreduce{}, comm, o}; });
  BOOST_TEST(has(message, "error_feedback", "logical_shards", "3"), message);
}

// A skip is decided when gradients have crossed and errors were computed anew: they go back.
BOOST_AUTO_TEST_CASE(a_step_that_is_skipped_owes_what_was_owed_before) {
  for (bool marks : {false, true})
    for (i64 period : {i64{1}, i64{2}})
      threads::run(3, [&](threads::communicator& comm) {
        wire_model m;
        optimizer opt{m.parameters(),          adamw{}, 0.01,
                      sync::allreduce{period}, comm,    with({256, 12'000, dtype::bf16, true}, 12)};
        for (int update = 0; update < 5; ++update) {
          auto const before = state_of(opt, "sync/error"), model = state_of(opt, "parameter");
          for (i64 call = 0; call < period; ++call) {
            opt.begin(4);
            m.backward(comm.rank(), static_cast<int>(update * period + call));
            if (update == 3 && comm.rank() == 1 && call == 0)
              m.gc[8000] = std::numeric_limits<float>::infinity();
            for (i64 t = 5; marks && t >= 0; --t) opt.mark_ready(t);
            opt.step();
          }
          LIMBER_CHECK(opt.last().skipped == (update == 3));
          LIMBER_CHECK((state_of(opt, "sync/error") == before) == (update == 3));
          LIMBER_CHECK((state_of(opt, "parameter") == model) == (update == 3));
          for (char const* name : {"embedding", "wide", "bias"})
            for (float x : owed(opt, name)) LIMBER_CHECK(std::isfinite(x));
        }
      });
}

// 65520 and more is infinite in f16: here only together with what is owed.
BOOST_AUTO_TEST_CASE(what_overflows_the_wire_is_a_skip_as_well) {
  plain_model m(1);
  self comm;
  optimizer opt{m.parameters(), descent{}, 1.0, sync::allreduce{}, comm, with(wire(dtype::f16), 4)};
  m.g = {65518};  // sent as 65504
  BOOST_TEST(opt.step(4).applied);
  BOOST_TEST(owed(opt)[0] == 14);
  m.g = {65510};
  BOOST_TEST(opt.step(4).skipped);
  BOOST_TEST(owed(opt)[0] == 14);
  m.g = {2};
  BOOST_TEST(opt.step(4).applied);
  BOOST_TEST(m.w[0] == -65504 - 16);
  BOOST_TEST(owed(opt)[0] == 0);
}

BOOST_AUTO_TEST_CASE(a_rank_without_samples_sends_what_it_owes) {
  threads::run(2, [](threads::communicator& comm) {
    plain_model m(1);
    optimizer opt{m.parameters(), descent{}, 1.0, sync::allreduce{}, comm, with(wire(dtype::bf16), 8)};
    m.g = {2 + 0x1p-9f};
    opt.step(4);
    LIMBER_CHECK(owed(opt)[0] == 0x1p-10f);
    float const before = m.w[0];
    LIMBER_CHECK(before == -2);
    // Nobody has samples: no update is made, and nothing was sent.
    m.g = {std::numeric_limits<float>::quiet_NaN()};
    LIMBER_CHECK(!opt.step(0).applied);
    LIMBER_CHECK(owed(opt)[0] == 0x1p-10f);
    m.g = {comm.rank() == 0 ? 0.f : std::numeric_limits<float>::quiet_NaN()};
    LIMBER_CHECK(opt.step(comm.rank() == 0 ? 8 : 0).applied);
    LIMBER_CHECK(owed(opt)[0] == 0);
    LIMBER_CHECK(m.w[0] == before - 0x1p-9f);
  });
}

BOOST_AUTO_TEST_CASE(a_frozen_tensor_keeps_its_error) {
  wire_model m;
  self comm;
  optimizer opt{m.parameters(), sgd{}, 0.01, sync::allreduce{}, comm, with(wire(dtype::bf16), 4)};
  auto step = [&](int call) {
    m.backward(0, call);
    if (call == 2) m.gb[1] = std::numeric_limits<float>::quiet_NaN();
    opt.step(4);
    return std::pair{owed(opt, "bias"), owed(opt, "wide")};
  };
  auto const first = step(0);
  opt.freeze("bias");
  auto const second = step(1), third = step(2);
  BOOST_TEST(opt.last().applied);
  opt.freeze("bias", false);
  auto const fourth = step(3);
  BOOST_TEST(same_bits(first.first, third.first));
  BOOST_TEST(!same_bits(first.first, fourth.first));
  BOOST_TEST(!same_bits(first.second, second.second));
  BOOST_TEST(!same_bits(second.second, third.second));
}

BOOST_AUTO_TEST_CASE(errors_belong_to_tensors_not_to_buckets) {
  auto train = [](i64 bytes, dtype type, i64 period) {
    std::vector<std::pair<std::vector<double>, std::vector<float>>> out(3);
    threads::run(3, [&](threads::communicator& comm) {
      wire_model m;
      optimizer opt{m.parameters(),          adamw{}, 0.01,
                    sync::allreduce{period}, comm,    with({bytes, bytes, type, true}, 12)};
      for (int call = 0; call < 6; ++call) {
        m.backward(comm.rank(), call);
        opt.step(3 + comm.rank());
      }
      out[static_cast<std::size_t>(comm.rank())] = {m.all(), owed(opt, "wide")};
    });
    return out;
  };
  for (dtype type : {dtype::bf16, dtype::f16})
    for (i64 period : {i64{1}, i64{3}}) BOOST_TEST((train(300, type, period) == train(mega, type, period)));
}

// Sums over a period cross once, and finish() sends what is open: all of it dyadic again.
BOOST_AUTO_TEST_CASE(accumulated_gradients_are_cast_once) {
  plain_model m(1);
  self comm;
  optimizer opt{
      m.parameters(), descent{}, 1.0, sync::allreduce{.period = 3}, comm, with(wire(dtype::bf16), 4)};
  float const g = 1 + 0x1p-10f;
  for (int call = 0; call < 14; ++call) {
    m.g = {g};
    opt.step(4);
  }
  BOOST_TEST(owed(opt)[0] - 3 * m.w[0] == 12 * g);  // an update is the mean over three calls
  m.g = {7};                                        // of a backward that comes later
  float const before = m.w[0], error = owed(opt)[0];
  opt.finish();
  BOOST_TEST(owed(opt)[0] - 2 * (m.w[0] - before) == error + 2 * g);
  BOOST_TEST(m.g[0] == 7);
}

// What is owed is in samples of the planned batch. Two workers become three, then one; the joiner owes
// nothing.
BOOST_AUTO_TEST_CASE(a_new_plan_does_not_change_what_is_owed) {
  threads::run(3, [](threads::communicator& comm) {
    plain_model m(2);
    std::vector<float> e;
    auto pair = comm.split(comm.rank() < 2 ? 0 : 1);
    auto alone = comm.split(comm.rank());
    options o;
    o.buckets = wire(dtype::bf16);
    o.batch = per_worker{4};
    optimizer opt{m.parameters(), descent{}, 1.0, sync::allreduce{}, pair, o};
    if (comm.rank() < 2) {
      m.g = {4 + 0x1p-6f, comm.rank() == 0 ? 1 + 0x1p-9f : 1};  // a half of it is sent
      opt.step(4);
      e = owed(opt);
      LIMBER_CHECK(e[0] == 0x1p-7f);
      LIMBER_CHECK(e[1] == (comm.rank() == 0 ? 0x1p-10f : 0.f));
    }
    opt.resize(comm);
    opt.handshake();
    LIMBER_CHECK(owed(opt)[0] == (comm.rank() < 2 ? 0x1p-7f : 0.f));
    // Owed are 8 samples times 2⁻⁷ and 2⁻⁷: with 12 samples the mean gets both.
    float const before = m.w[0];
    m.g = {0, 0};
    opt.step(4);
    LIMBER_CHECK(std::abs((before - m.w[0]) - 2 * 0x1p-7f * 8 / 12) < 0x1p-14f);
    // Whoever goes on alone owes its own part alone.
    m.g = {3 * (1 + 0x1p-9f), 0};
    opt.step(4);
    e = owed(opt);
    opt.resize(alone);
    m.g = {0, 0};
    float const now = m.w[0];
    opt.step(4);
    double const due = static_cast<double>(e[0]) * 12 / 4;
    LIMBER_CHECK(e[0] != 0);
    LIMBER_CHECK(std::abs(static_cast<double>(now - m.w[0]) - due) <= 0x1p-8 * std::abs(due) + 0x1p-22);
  });
}
