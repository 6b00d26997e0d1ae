// SPDX-License-Identifier: Apache-2.0
// labels: unit property
#define BOOST_TEST_MODULE limber.sync.own_strategy
#include "../../examples/own_strategy.hpp"

#include <limber/comm/threads.hpp>
#include <limber/limber.hpp>

#include <boost/test/unit_test.hpp>

#include <support/checks.hpp>
#include <support/dealing.hpp>
#include <support/toy_model.hpp>

#include <map>
#include <stdexcept>
#include <string>
#include <tuple>
#include <vector>

// A strategy that knows the public contract alone, sync/plain_stage.hpp: that of examples/own_strategy.cpp,
// and smaller ones for what that one leaves out.

using namespace limber;
using namespace limber::literals;
using namespace limber::testing;
using example::anchored;
using scalars = std::tuple<float, double>;

namespace {

// A model of two values, gradient `g` in every call.
struct pair_model {
  std::vector<float> w{1, 2}, g{0, 0};
  [[nodiscard]] std::vector<tensor> parameters() { return {{"w", w, g}}; }
  void backward(float x) { g[0] += x, g[1] -= x; }
};

[[nodiscard]] std::map<std::string, kept> pieces_of(optimizer& opt) {
  std::map<std::string, kept> out;
  opt.visit([&](state_piece const& p) { out[p.name] = p.how; });
  return out;
}

using state_bytes = std::map<std::string, std::vector<std::byte>>;
[[nodiscard]] state_bytes bytes_of(optimizer& opt) {
  state_bytes out;
  opt.visit([&](state_piece const& p) { out[p.name] = {p.data.data, p.data.data + p.data.bytes()}; });
  return out;
}

}  // namespace

BOOST_AUTO_TEST_CASE_TEMPLATE(one_worker_is_the_plain_rule, T, scalars) {
  dealing const one{{8}}, changes{{8}, {0}, {3}};
  sync::exchange const alone(sync::gradients(sync::every{1}, sync::alone{}));
  auto const same = [](auto const& rule, auto const& strategy, anchored own, dealing const& deal) {
    BOOST_TEST(same_bits(train<T>(1, own, rule, deal)[0], train<T>(1, strategy, rule, deal)[0]));
  };
  same(nesterov, sync::allreduce{}, {.period = 3, .pull = 0.5}, one);
  same(adamw{}, sync::allreduce{}, {.period = 1, .pull = 1}, one);
  same(nesterov, alone, {.period = 3, .pull = 0.5}, changes);
}

// x = 1, gradients 1 and 3 at rate 0.1: 0.8 and 0.4 after two updates; the anchor is 0.6.
BOOST_AUTO_TEST_CASE(models_go_their_part_of_the_way_to_the_mean) {
  threads::run(2, [](threads::communicator& comm) {
    pair_model m;
    optimizer opt{m.parameters(), sgd{}, 0.1, anchored{.period = 2, .pull = 0.5}, comm};
    auto const near = [](float x, double y) { return std::abs(static_cast<double>(x) - y) < 1e-6; };
    bool const first = comm.rank() == 0;
    for (int call = 0; call < 2; ++call) {
      m.backward(first ? 1 : 3);
      opt.step(1);
    }
    LIMBER_CHECK(near(m.w[0], first ? 0.7 : 0.5));
    opt.finish();
    LIMBER_CHECK(near(m.w[0], 0.6) && near(m.w[1], 2.4));
    m.backward(first ? 1 : 3);
    opt.step(1);
    opt.finish();  // merges what is open
    LIMBER_CHECK(near(m.w[0], 0.4));
    LIMBER_CHECK(opt.now().steps == 3 && opt.now().samples == 6);
  });
}

BOOST_AUTO_TEST_CASE_TEMPLATE(all_ranks_agree_after_finish_and_on_the_anchor_always, T, scalars) {
  auto const ends = train<T>(3, anchored{.period = 5, .pull = 0.3}, nesterov, changing);
  BOOST_TEST(same_bits(ends[0], ends[1]));
  BOOST_TEST(same_bits(ends[0], ends[2]));

  std::vector<state_bytes> seen(3);
  threads::run(3, [&](threads::communicator& comm) {
    toy_model<T> m;
    optimizer opt{m.parameters(), nesterov, 0.02, anchored{.period = 2}, comm, {.batch = per_worker{4}}};
    for (int t = 0; t < 5; ++t) {
      m.backward(run_of(12 * t + 4 * comm.rank(), 4));
      opt.step(4);
    }
    seen[static_cast<std::size_t>(comm.rank())] = bytes_of(opt);
  });
  for (std::string const piece : {"sync/merge0/exchanges", "sync/merge0/anchor/w", "sync/merge0/anchor/b"}) {
    BOOST_TEST((seen[0].at(piece) == seen[1].at(piece)), piece);
    BOOST_TEST((seen[0].at(piece) == seen[2].at(piece)), piece);
  }
  BOOST_TEST((seen[0].at("parameter/w") != seen[1].at("parameter/w")));
}

// Samples are those that were applied, not those that were planned.
BOOST_AUTO_TEST_CASE(progress_counts_the_samples_of_all_after_an_exchange) {
  threads::run(2, [](threads::communicator& comm) {
    toy_model<float> m;
    optimizer opt{m.parameters(), sgd{}, 0.02, anchored{.period = 2}, comm, {.batch = per_worker{8}}};
    i64 const own[] = {comm.rank() == 0 ? 3 : 8, comm.rank() == 0 ? 0 : 5};
    for (i64 n : own) {
      m.backward(run_of(0, n));
      opt.step(n);
    }
    LIMBER_CHECK(opt.now().samples == 16);
    LIMBER_CHECK(opt.now().steps == 2);
  });
}

BOOST_AUTO_TEST_CASE(evaluate_shows_the_mean_and_leaves_training_untouched) {
  std::vector<std::vector<float>> with(2), without(2), shown(2), before(2);
  auto const train_once = [&](bool looks, std::vector<std::vector<float>>& to) {
    threads::run(2, [&](threads::communicator& comm) {
      auto const r = static_cast<std::size_t>(comm.rank());
      toy_model<float> m;
      optimizer opt{m.parameters(), nesterov, 0.02, anchored{.period = 3}, comm, {.batch = per_worker{4}}};
      for (int t = 0; t < 8; ++t) {
        m.backward(run_of(8 * t + 4 * comm.rank(), 4));
        opt.step(4);
        if (!looks || t % 2 == 0) continue;
        auto const state = bytes_of(opt);
        before[r] = m.all();
        shown[r] = opt.evaluate([&] { return m.all(); });
        LIMBER_CHECK((bytes_of(opt) == state));
      }
      opt.finish();
      to[r] = m.all();
    });
  };
  train_once(true, with);
  train_once(false, without);
  BOOST_TEST(same_bits(with[0], without[0]));
  BOOST_TEST(same_bits(with[1], without[1]));
  BOOST_TEST(same_bits(shown[0], shown[1]));
  for (std::size_t k = 0; k < shown[0].size(); ++k)
    BOOST_TEST(std::abs(shown[0][k] - (before[0][k] + before[1][k]) / 2) <=
               1e-6f * std::abs(shown[0][k]) + 1e-7f);
}

BOOST_AUTO_TEST_CASE(every_piece_of_its_state_is_shown_with_its_kind) {
  threads::run(2, [](threads::communicator& comm) {
    toy_model<float> m;
    optimizer opt{m.parameters(), sgd{}, 0.02, anchored{.period = 3}, comm, {.batch = per_worker{4}}};
    opt.step(4);
    auto const pieces = pieces_of(opt);
    LIMBER_CHECK(pieces.at("sync/merge0/calls") == kept::replicated);
    LIMBER_CHECK(pieces.at("sync/merge0/samples") == kept::round);
    LIMBER_CHECK(pieces.at("sync/merge0/exchanges") == kept::replicated);
    LIMBER_CHECK(pieces.at("sync/merge0/anchor/w") == kept::replicated);
    LIMBER_CHECK(pieces.at("sync/merge0/anchor/b") == kept::replicated);
    LIMBER_CHECK(pieces.at("parameter/w") == kept::per_rank);
    LIMBER_CHECK(has(opt.explain(), "models every 3 calls"));
  });
}

// What visit shows is all of it: a copy of the state goes on with the same bits.
BOOST_AUTO_TEST_CASE(a_run_goes_on_from_what_was_saved) {
  std::vector<state_bytes> saved(2);
  std::vector<std::vector<float>> whole(2), resumed(2);
  auto const run = [&](int from, int to, std::vector<std::vector<float>>& out) {
    threads::run(2, [&](threads::communicator& comm) {
      auto const r = static_cast<std::size_t>(comm.rank());
      toy_model<float> m;
      optimizer opt{m.parameters(), nesterov, 0.02, anchored{.period = 3}, comm, {.batch = per_worker{4}}};
      if (from > 0)
        opt.visit([&](state_piece const& p) { std::ranges::copy(saved[r].at(p.name), p.data.data); });
      for (int t = from; t < to; ++t) {
        if (from == 0 && t == 4) saved[r] = bytes_of(opt);
        m.backward(run_of(8 * t + 4 * comm.rank(), 4));
        opt.step(4);
      }
      opt.finish();
      out[r] = m.all();
    });
  };
  run(0, 10, whole);
  run(4, 10, resumed);
  BOOST_TEST(same_bits(whole[0], resumed[0]));
  BOOST_TEST(same_bits(whole[1], resumed[1]));
}

BOOST_AUTO_TEST_CASE(it_is_chosen_by_a_flag_as_any_other) {
  for (bool own : {true, false}) {
    sync::any_strategy const how =
        own ? sync::any_strategy(anchored{.period = 2}) : sync::any_strategy(sync::local{.period = 2});
    auto const chosen = train<float>(2, how, nesterov, {{4, 5}});
    auto const named = own ? train<float>(2, anchored{.period = 2}, nesterov, {{4, 5}})
                           : train<float>(2, sync::local{.period = 2}, nesterov, {{4, 5}});
    BOOST_TEST(same_bits(chosen[0], named[0]));
    BOOST_TEST(same_bits(chosen[1], named[1]));
  }
  sync::any_strategy one = sync::allreduce{};
  one = anchored{};
  BOOST_TEST(one.parts().after.size() == 1u);
}

// Ranks whose options differ are told so; the value's mix says what they are.
BOOST_AUTO_TEST_CASE(options_are_compared_in_the_handshake) {
  threads::run(2, [](threads::communicator& comm) {
    pair_model m;
    optimizer opt{m.parameters(), sgd{}, 0.1, anchored{.pull = comm.rank() == 0 ? 0.5 : 0.25}, comm};
    auto const said = message_of([&] { opt.step(1); });
    LIMBER_CHECK(has(said, "handshake", "do not train the same thing",
                     "the strategy's stage 0 after the rule is anchored"));
  });
}

// 16-bit parameters with an fp32 master: the masters are averaged.
BOOST_AUTO_TEST_CASE(masters_are_what_is_averaged) {
  threads::run(2, [](threads::communicator& comm) {
    std::vector<bf16> w{bf16(1.f)};
    std::vector<float> g{0};
    optimizer opt{std::vector<tensor>{{"w", w, g}}, master{sgd{}}, 1e-3, anchored{.period = 1}, comm};
    for (int t = 0; t < 8; ++t) {
      g[0] = comm.rank() == 0 ? 0.5f : 1.5f;
      opt.step(1);
    }
    opt.finish();
    LIMBER_CHECK(static_cast<float>(w[0]) == static_cast<float>(bf16(0.992f)));
  });
}

namespace {

struct refuses {
  int at_exchange = 0;
  struct state {
    int last, now = 0;
    void exchange(sync::training_context&) {
      if (++now == last) throw std::runtime_error("refuses: not today");
    }
  };
  [[nodiscard]] state start(sync::training_context&) const { return {at_exchange}; }
  [[nodiscard]] sync::exchange parts() const {
    return sync::exchange(sync::gradients(sync::every{1}, sync::everyone{}), *this);
  }
};

}  // namespace

BOOST_AUTO_TEST_CASE(what_an_exchange_throws_leaves_step_and_training_goes_on) {
  pair_model m;
  self comm;
  optimizer opt{m.parameters(), sgd{}, 0.1, refuses{.at_exchange = 2}, comm};
  opt.step(1);
  BOOST_CHECK_EXCEPTION(opt.step(1), std::runtime_error,
                        [](auto const& e) { return std::string(e.what()) == "refuses: not today"; });
  opt.step(1);
  opt.finish();
}

namespace {

// Says nothing but what it must; merges every update.
struct to_the_first {
  struct state {
    tensor_list model;
    void exchange(sync::training_context& at) {
      for (auto const& t : model) at.comm.broadcast(t, 0).wait();
    }
  };
  static constexpr capabilities needs = can_post;
  [[nodiscard]] state start(sync::training_context& at) const { return {at.inner.model()}; }
  [[nodiscard]] sync::exchange parts() const {
    return sync::exchange(sync::gradients(sync::every{1}, sync::alone{}), *this);
  }
};

// The same, with what the optimizer can use.
struct to_the_first_and_says_so : to_the_first {
  static constexpr bool uniform_updates = true;
  static constexpr bool unifies = true;
  [[nodiscard]] sync::exchange parts() const {
    return sync::exchange(sync::gradients(sync::every{1}, sync::alone{}), *this);
  }
};

// Counts what it is told.
struct counts {
  struct state {
    i64 rounds = 0, updates = 0, samples = 0;
    double rates = 0;
    void start_first_round(sync::training_context&) { ++rounds; }
    void count(i64 n, double rate) { ++updates, samples += n, rates += rate; }
    [[nodiscard]] static bool due(i64, progress const& now) { return now.steps == 2; }
    void exchange(sync::training_context&) {}
    [[nodiscard]] static i64 bytes() { return 12345; }
    void visit(sync::piece_visitor f) {
      f("updates", kept::round, {reinterpret_cast<std::byte*>(&updates), 1, dtype::int64, {}});
      f("sum", kept::per_rank, {reinterpret_cast<std::byte*>(&samples), 1, dtype::int64, {}});
      f("rounds", kept::per_rank, {reinterpret_cast<std::byte*>(&rounds), 1, dtype::int64, {}});
      f("rates", kept::per_rank, {reinterpret_cast<std::byte*>(&rates), 8, dtype::uint8, {}});
    }
  };
  [[nodiscard]] state start(sync::training_context&) const { return {}; }
};

}  // namespace

BOOST_AUTO_TEST_CASE(only_exchange_is_required) {
  threads::run(2, [](threads::communicator& comm) {
    pair_model m;
    optimizer opt{m.parameters(), sgd{}, 0.1, to_the_first{}, comm, {.batch = per_worker{4}}};
    m.backward(comm.rank() == 0 ? 1 : 3);
    opt.step(comm.rank() == 0 ? 1 : 2);
    LIMBER_CHECK(m.w[0] == 0.9f);
    LIMBER_CHECK(opt.now().samples == 8);  // planned: nobody has said what ranks agree on
    LIMBER_CHECK(pieces_of(opt).at("parameter/w") == kept::per_rank);
  });
}

BOOST_AUTO_TEST_CASE(a_stage_that_unifies_leaves_one_model_to_save) {
  threads::run(2, [](threads::communicator& comm) {
    pair_model m;
    optimizer opt{m.parameters(), sgd{}, 0.1, to_the_first_and_says_so{}, comm, {.batch = per_worker{4}}};
    m.backward(comm.rank() == 0 ? 1 : 3);
    opt.step(comm.rank() == 0 ? 1 : 2);
    LIMBER_CHECK(opt.now().samples == 3);
    LIMBER_CHECK(pieces_of(opt).at("parameter/w") == kept::replicated);
  });
}

// Also where gradients are everybody's, and the library's own stages hold the same on all ranks.
BOOST_AUTO_TEST_CASE(a_state_says_itself_how_its_pieces_relate_to_other_ranks) {
  for (sync::exchange const& how :
       {sync::exchange(sync::gradients(sync::every{1}, sync::everyone{}), counts{}),
        sync::exchange(sync::gradients(sync::every{1}, sync::alone{}), counts{})}) {
    pair_model m;
    self comm;
    optimizer opt{m.parameters(), sgd{}, 0.1, how, comm};
    opt.step(1);
    auto const pieces = pieces_of(opt);
    BOOST_TEST((pieces.at("sync/merge0/updates") == kept::round));
    BOOST_TEST((pieces.at("sync/merge0/sum") == kept::per_rank));
    BOOST_TEST((pieces.at("sync/merge0/rates") == kept::per_rank));
  }
}

BOOST_AUTO_TEST_CASE(a_state_is_told_of_rounds_and_updates) {
  pair_model m;
  self comm;
  optimizer opt{m.parameters(), sgd{},
                0.25,           sync::exchange(sync::gradients(sync::every{1}, sync::alone{}), counts{}),
                comm,           {.batch = per_worker{4}}};
  for (i64 n : {3, 4, 5, 6}) opt.step(n);
  std::map<std::string, i64> seen;
  double rates = 0;
  opt.visit([&](state_piece const& p) {
    if (p.data.type == dtype::int64) seen[p.name] = p.data.as<i64>()[0];
    if (p.name == "sync/merge0/rates") std::memcpy(&rates, p.data.data, sizeof rates);
  });
  BOOST_TEST(seen.at("sync/merge0/rounds") == 1);
  BOOST_TEST(seen.at("sync/merge0/updates") == 4);
  BOOST_TEST(seen.at("sync/merge0/sum") == 18);
  BOOST_TEST(seen.at("sync/merge0/samples") == 6);  // of the open round
  BOOST_TEST(rates == 1);
  BOOST_TEST((pieces_of(opt).at("sync/merge0/updates") == kept::round));
  BOOST_TEST(has(opt.explain(), "strategy 12.3 kB"), opt.explain());
}

// Where the types are not known, a collective that cannot do what the stage needs is refused by name.
BOOST_AUTO_TEST_CASE(needs_are_asked_for_when_the_optimizer_is_made) {
  struct silent : private self {
    using self::all_gather, self::all_reduce, self::barrier, self::broadcast, self::rank,
        self::reduce_scatter, self::size;
  } comm;
  static_assert(collective<silent> && !mailbox<silent>);
  pair_model m;
  auto const said = message_of([&] {
    optimizer{m.parameters(), sgd{}, 0.1, sync::any_strategy(to_the_first{}), comm};
  });
  BOOST_TEST(has(said, "this strategy needs a mailbox", "which the communicator has not"), said);
}
