// SPDX-License-Identifier: Apache-2.0
// labels: unit memory sanitize
#define BOOST_TEST_MODULE limber.optimizer.one_type
#include <limber/comm/threads.hpp>
#include <limber/limber.hpp>

#include <boost/test/unit_test.hpp>

#include <core/says.hpp>
#include <support/allocations.hpp>
#include <support/checks.hpp>
#include <support/toy_model.hpp>

#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

// An optimizer is one type, whatever it is made of: it is kept, moved and assigned as a value, its parts are
// chosen while the program runs, and what is wrong with them is said by name.

using namespace limber;
using namespace limber::literals;
using namespace limber::testing;
using test::says;
using invalid = std::invalid_argument;

static_assert(std::is_nothrow_move_constructible_v<optimizer> &&
              std::is_nothrow_move_assignable_v<optimizer>);
static_assert(std::is_nothrow_swappable_v<optimizer> && !std::is_copy_constructible_v<optimizer>);

namespace {

using net = toy_model<float>;

// Calls [from, to) of training alone, 4 samples each.
void train(net& m, optimizer& opt, int from, int to) {
  for (int t = from; t < to; ++t) {
    m.backward(run_of(4 * t, 4));
    opt.step(4);
  }
}

[[nodiscard]] optimizer make(net& m, self& comm) {
  return {m.parameters(), ema{adamw{}, 0.9}, 0.1 * cosine(100_steps), sync::local{.period = 3}, comm};
}

// The model after so many calls, without a move.
[[nodiscard]] std::vector<float> expected(int calls) {
  net m;
  self comm;
  optimizer opt = make(m, comm);
  train(m, opt, 0, calls);
  return m.all();
}

// A trainer as a class of its user.
class trainer {
 public:
  explicit trainer(self& comm) : opt_{model_->parameters(), sgd{}, 0.1, sync::allreduce{}, comm} {
    opt_ = make(*model_, comm);
  }
  void run(int from, int to) { train(*model_, opt_, from, to); }
  [[nodiscard]] std::vector<float> model() const { return model_->all(); }

 private:
  std::unique_ptr<net> model_ = std::make_unique<net>();  // stays where it is when the trainer moves
  optimizer opt_;
};

// The first message of rank 0; "different" if another rank was told something else.
template <class Make>
[[nodiscard]] std::string told(int ranks, Make const& made) {
  std::vector<std::string> all(static_cast<std::size_t>(ranks));
  threads::run(ranks, [&](threads::communicator& comm) {
    net m;
    optimizer opt = made(m, comm, comm.rank() == ranks - 1);
    all[static_cast<std::size_t>(comm.rank())] = message_of([&] { opt.step(1); });
  });
  for (auto const& message : all)
    if (message != all[0]) return "different: " + all[0] + " and " + message;
  return all[0];
}

}  // namespace

BOOST_AUTO_TEST_CASE(a_member_moves_with_its_owner) {
  self comm;
  trainer first(comm);
  first.run(0, 4);
  trainer second(std::move(first));
  second.run(4, 7);
  trainer third(comm);
  third = std::move(second);
  third.run(7, 10);
  BOOST_TEST(same_bits(third.model(), expected(10)));
}

BOOST_AUTO_TEST_CASE(vectors_and_optionals_hold_it) {
  self comm;
  std::vector<net> models(5);
  std::vector<optimizer> all;  // grows, and moves what it holds
  for (auto& m : models) {
    all.push_back(make(m, comm));
    for (std::size_t k = 0; k < all.size(); ++k)
      train(models[k], all[k], static_cast<int>(all.size() - 1 - k), static_cast<int>(all.size() - k));
  }
  for (std::size_t k = 0; k < all.size(); ++k)
    BOOST_TEST(same_bits(models[k].all(), expected(static_cast<int>(5 - k))));
  all.erase(all.begin() + 1);
  train(models[2], all[1], 3, 6);
  BOOST_TEST(same_bits(models[2].all(), expected(6)));

  net m;
  std::optional<optimizer> later;
  BOOST_TEST(!later.has_value());
  later.emplace(m.parameters(), sgd{}, 0.1, sync::allreduce{}, comm, options{});
  later = make(m, comm);
  train(m, *later, 0, 3);
  std::optional<optimizer> const none = std::exchange(later, std::nullopt);
  BOOST_TEST(!later.has_value());
  BOOST_TEST(none->now().calls == 3);
}

BOOST_AUTO_TEST_CASE(it_is_returned_assigned_and_swapped) {
  self comm;
  net a, b;
  optimizer first = make(a, comm), second = make(b, comm);
  train(a, first, 0, 2);
  train(b, second, 0, 5);
  std::swap(first, second);
  train(a, second, 2, 4);
  train(b, first, 5, 6);
  BOOST_TEST(same_bits(a.all(), expected(4)));
  BOOST_TEST(same_bits(b.all(), expected(6)));
  first = std::move(second);  // what trained b is gone
  train(a, first, 4, 6);
  BOOST_TEST(same_bits(a.all(), expected(6)));
  optimizer& same = first;
  first = std::move(same);
  train(a, first, 6, 8);
  BOOST_TEST(same_bits(a.all(), expected(8)));
}

// Other rules, strategies and executors: still the same type.
BOOST_AUTO_TEST_CASE(whatever_it_is_made_of_it_is_assigned_over_another) {
  self comm;
  net m;
  optimizer opt{m.parameters(), sgd{}, 0.1, sync::allreduce{}, comm};
  opt.step(1);
  opt = optimizer{m.parameters(), clipped{adamw{}, 1.0}, 0.1, sync::local{.period = 4}, comm};
  opt.step(1);
#if defined(_OPENMP)
  int const threads = 2;
#else
  int const threads = 1;
#endif
  opt =
      optimizer{m.parameters(), lamb{}, warmup(10_steps), sync::diloco{.period = 4}, comm, {}, host{threads}};
  opt.step(1);
  opt = optimizer{
      groups(parameter_group{m.parameters(), lars{}}), 0.1, sync::slowmo{}, comm, {.batch = fixed{4}}};
  opt.step(1);
  BOOST_TEST(opt.now().calls == 1);
}

// C9
BOOST_AUTO_TEST_CASE(one_that_was_moved_from_says_so) {
  self comm;
  net m, n;
  optimizer first = make(m, comm);
  optimizer second = std::move(first);
  auto const refused = [](optimizer& opt) {
    auto const moved = says("limber: optimizer: it was moved from");
    BOOST_CHECK_EXCEPTION(opt.step(1), invalid, moved);
    BOOST_CHECK_EXCEPTION(opt.begin(1), invalid, moved);
    BOOST_CHECK_EXCEPTION(opt.mark_ready("w"), invalid, moved);
    BOOST_CHECK_EXCEPTION(opt.finish(), invalid, moved);
    BOOST_CHECK_EXCEPTION(opt.handshake(), invalid, moved);
    BOOST_CHECK_EXCEPTION(opt.freeze("w"), invalid, moved);
    BOOST_CHECK_EXCEPTION(opt.evaluate([] {}), invalid, moved);
    BOOST_CHECK_EXCEPTION(opt.visit([](state_piece const&) {}), invalid, moved);
    BOOST_CHECK_EXCEPTION((void)opt.now(), invalid, moved);
    BOOST_CHECK_EXCEPTION((void)opt.rate(), invalid, moved);
    BOOST_CHECK_EXCEPTION((void)opt.planned(), invalid, moved);
    BOOST_CHECK_EXCEPTION((void)opt.explain(), invalid, moved);
    BOOST_CHECK_EXCEPTION(opt.forget(), invalid, moved);
  };
  refused(first);
  first = make(n, comm);  // it can be assigned to
  first.step(1);
  second = std::move(first);  // had one of its own
  refused(first);
}

// C9
BOOST_AUTO_TEST_CASE(nothing_that_trains_is_called_inside_evaluate) {
  self comm;
  net m;
  optimizer opt = make(m, comm);
  opt.step(1);
  auto const inside = [](char const* call) { return says(call, "called inside evaluate()"); };
  opt.evaluate([&] {
    BOOST_CHECK_EXCEPTION(opt.step(1), invalid, inside("step"));
    BOOST_CHECK_EXCEPTION(opt.begin(1), invalid, inside("begin"));
    BOOST_CHECK_EXCEPTION(opt.finish(), invalid, inside("finish"));
    BOOST_CHECK_EXCEPTION(opt.resize(comm), invalid, inside("resize"));
    BOOST_CHECK_EXCEPTION(opt.evaluate([] {}), invalid, inside("evaluate"));
  });
  opt.step(1);
  BOOST_CHECK_THROW(opt.evaluate([]() -> int { throw std::runtime_error("not today"); }), std::runtime_error);
  opt.step(1);
  BOOST_TEST(opt.now().steps == 3);
}

BOOST_AUTO_TEST_CASE(strategies_rules_and_schedules_are_chosen_by_flags) {
  self comm;
  for (bool flag : {true, false}) {
    net a, b;
    sync::any_strategy const how = flag ? sync::any_strategy(sync::diloco{.period = 3}) : sync::allreduce{};
    any_rule const rule = flag ? any_rule(clipped{adamw{}, 1.0}) : sgd{.momentum = 0.9};
    any_schedule const rate = flag ? any_schedule(0.1 * warmup(5_steps)) : 0.05;
    optimizer chosen{a.parameters(), rule, rate, how, comm};
    optimizer named = flag ? optimizer{b.parameters(), clipped{adamw{}, 1.0}, 0.1 * warmup(5_steps),
                                       sync::diloco{.period = 3}, comm}
                           : optimizer{b.parameters(), sgd{.momentum = 0.9}, 0.05, sync::allreduce{}, comm};
    train(a, chosen, 0, 8);
    train(b, named, 0, 8);
    BOOST_TEST(same_bits(a.all(), b.all()));
  }
  // Groups of any_rules, of which each is another.
  net a, b;
  optimizer of_any{groups(parameter_group{std::vector<tensor>{{"w", a.w, a.gw}}, any_rule(lamb{})},
                          parameter_group{std::vector<tensor>{{"b", a.b, a.gb}}, any_rule(sgd{}), 2.0}),
                   0.1, sync::allreduce{}, comm};
  optimizer of_types{groups(parameter_group{std::vector<tensor>{{"w", b.w, b.gw}}, lamb{}},
                            parameter_group{std::vector<tensor>{{"b", b.b, b.gb}}, sgd{}, 2.0}),
                     0.1, sync::allreduce{}, comm};
  train(a, of_any, 0, 5);
  train(b, of_types, 0, 5);
  BOOST_TEST(same_bits(a.all(), b.all()));
}

BOOST_AUTO_TEST_CASE(communicators_are_chosen_by_a_flag) {
  std::vector<std::vector<float>> ends(4);
  for (bool flag : {true, false})
    threads::run(2, [&](threads::communicator& all) {
      net m;
      any_communicator comm = flag ? any_communicator(all.split(0)) : any_communicator(self{});
      optimizer opt{m.parameters(), sgd{.momentum = 0.9}, 0.02, sync::local{.period = 2}, comm};
      any_communicator const moved = std::move(comm);  // the handle stays valid
      train(m, opt, all.rank(), all.rank() + 4);
      opt.finish();
      ends[static_cast<std::size_t>(all.rank() + (flag ? 0 : 2))] = m.all();
    });
  BOOST_TEST(same_bits(ends[0], ends[1]));
  BOOST_TEST(!same_bits(ends[2], ends[3]));
}

// What types say at compile time is asked when the optimizer is made where they do not.
BOOST_AUTO_TEST_CASE(a_strategy_that_the_collective_cannot_serve_is_refused) {
  struct silent : private self {
    using self::all_gather, self::all_reduce, self::barrier, self::broadcast, self::rank,
        self::reduce_scatter, self::size;
  } comm;
  static_assert(collective<silent> && !splittable<silent>);
  net m;
  sync::any_strategy const blocks = sync::hierarchical{1, 2, 2};
  BOOST_CHECK_EXCEPTION((optimizer{m.parameters(), sgd{}, 0.1, blocks, comm}), invalid,
                        says("this strategy needs", "split", "which the communicator has not"));
  any_communicator any{silent(comm)};
  BOOST_CHECK_EXCEPTION((optimizer{m.parameters(), sgd{}, 0.1, sync::hierarchical{1, 2, 2}, any}), invalid,
                        says("this strategy needs", "split", "which the communicator has not"));
}

// Another type than the host, so that nothing is compiled for it ahead.
struct other_executor : host {
  other_executor() : host(1) {}
};

BOOST_AUTO_TEST_CASE(any_rule_is_for_the_host) {
  net m, n;
  self comm;
  BOOST_CHECK_EXCEPTION(
      (optimizer{m.parameters(), any_rule(adamw{}), 0.1, sync::allreduce{}, comm, {}, other_executor{}}),
      invalid, says("the rule of 'w'", "any_rule", "host", "give the rule's own type"));
  optimizer typed{m.parameters(), adamw{}, 0.1, sync::local{.period = 2}, comm, {}, other_executor{}};
  optimizer on_host{n.parameters(), adamw{}, 0.1, sync::local{.period = 2}, comm};
  train(m, typed, 0, 5);
  train(n, on_host, 0, 5);
  BOOST_TEST(same_bits(m.all(), n.all()));
}

// C2
BOOST_AUTO_TEST_CASE(a_schedule_that_counts_epochs_needs_their_size) {
  net m;
  self comm;
  auto const rate = 0.1 * (warmup(1_epochs) | cosine(9_epochs));
  auto const said = says("limber: optimizer: the schedule counts epochs", "options.epoch_size");
  BOOST_CHECK_EXCEPTION((optimizer{m.parameters(), sgd{}, rate, sync::allreduce{}, comm}), invalid, said);
  BOOST_CHECK_EXCEPTION((optimizer{m.parameters(), sgd{}, any_schedule(rate), sync::allreduce{}, comm}),
                        invalid, said);
  optimizer opt{m.parameters(), sgd{}, rate, sync::allreduce{}, comm, {.epoch_size = 10}};
  BOOST_TEST(opt.rate() >= 0);
  optimizer const counts_steps{m.parameters(), sgd{}, 0.1 * warmup(5_steps), sync::allreduce{}, comm};
}

// C8
BOOST_AUTO_TEST_CASE(memory_that_two_names_share_is_refused_with_both) {
  std::vector<float> w(6), g(6), v(6), h(6);
  self comm;
  auto const made = [&](std::vector<tensor> const& p, std::vector<tensor> const& b = {}) {
    optimizer const opt{groups(parameter_group{p, sgd{}}, buffers{b}), 0.1, sync::allreduce{}, comm};
  };
  BOOST_CHECK_EXCEPTION(made({{"w", w, w}}), invalid,
                        says("the values of 'w'", "the gradients of 'w'", "share memory"));
  BOOST_CHECK_EXCEPTION(made({{"w", w, g}, {"v", v, view(w)}}), invalid,
                        says("of 'w'", "of 'v'", "share memory"));
  BOOST_CHECK_EXCEPTION(made({{"w", w, g}, {"v", v, g}}), invalid, says("'w'", "'v'", "share memory"));
  BOOST_CHECK_EXCEPTION(made({{"w", w, g}}, {{"mean", view(w).sub(2, 3)}}), invalid,
                        says("the values of 'w'", "the buffers of 'mean'", "share memory"));
  BOOST_CHECK_EXCEPTION(made({{"w", w, g}}, {{"mean", v}, {"variance", view(v).sub(5, 1)}}), invalid,
                        says("'mean'", "'variance'", "share memory"));
  made({{"a", view(w).sub(0, 3), view(g).sub(0, 3)}, {"b", view(w).sub(3, 3), view(g).sub(3, 3)}},
       {{"mean", v}});
}

// C13
BOOST_AUTO_TEST_CASE(explain_says_which_updates_are_lost_in_16_bits) {
  std::vector<bf16> w(4, bf16(1.f));
  std::vector<float> g(4), v(4), h(4);
  self comm;
  std::vector<tensor> const p{{"w", w, g}, {"v", v, h}};
  optimizer bare{p, adamw{}, 1e-4, sync::allreduce{}, comm};
  auto const said = bare.explain();
  BOOST_TEST(has(said, "'w' is bf16", "half a unit in its last place", "is lost", "master{rule}"), said);
  optimizer safe{p, master{adamw{}}, 1e-4, sync::allreduce{}, comm};
  BOOST_TEST(!has(safe.explain(), "is lost"), safe.explain());
}

// C11: the handshake names what differs, with both values, and tells all ranks the same.
BOOST_AUTO_TEST_CASE(ranks_that_differ_are_told_in_what) {
  using team = threads::communicator;
  for (int ranks : {2, 3}) {
    std::string const other = text("rank ", ranks - 1),
                      pair = text(other, " and rank 0 do not train the same thing: ");
    auto const expect = [&](std::string const& said, auto const&... parts) {
      BOOST_TEST(has(said, "handshake", pair, parts...), said);
    };
    expect(told(ranks,
                [](net& m, team& comm, bool odd) {
                  if (odd) m.w.resize(19), m.gw.resize(19);
                  return optimizer{m.parameters(), sgd{}, 0.1, sync::allreduce{}, comm};
                }),
           "tensor 'w' is 20 x f32", "on rank 0 and 19 x f32", text("on ", other));
    expect(told(ranks,
                [](net& m, team& comm, bool odd) {
                  auto p = m.parameters();
                  if (odd) p[1].name = "bias";
                  return optimizer{p, sgd{}, 0.1, sync::allreduce{}, comm};
                }),
           "tensor 'b' is 1 x f32", text("on rank 0 and absent on ", other));
    expect(told(ranks,
                [](net& m, team& comm, bool odd) {
                  return optimizer{m.parameters(),    sgd{}, 0.1,
                                   sync::allreduce{}, comm,  {.epoch_size = odd ? 20 : 10}};
                }),
           text("options.epoch_size is 10 on rank 0 and 20 on ", other));
    expect(told(ranks,
                [](net& m, team& comm, bool odd) {
                  return optimizer{m.parameters(), sgd{.momentum = odd ? 0.5 : 0.9}, 0.1, sync::allreduce{},
                                   comm};
                }),
           "the rule of 'b' is sgd", "hyper-parameters");
    expect(told(ranks,
                [](net& m, team& comm, bool odd) {
                  return odd ? optimizer{m.parameters(), sgd{}, 0.1, sync::allreduce{}, comm}
                             : optimizer{m.parameters(), lion{}, 0.1, sync::allreduce{}, comm};
                }),
           "the rule of 'b' is lion", "on rank 0 and sgd");
    expect(told(ranks,
                [](net& m, team& comm, bool odd) {
                  return optimizer{m.parameters(), sgd{}, 0.1, sync::local{.period = odd ? 8 : 4}, comm};
                }),
           "strategy", "every 4 calls", "on rank 0 and merge, every 8 calls", text("on ", other));
    expect(told(ranks,
                [](net& m, team& comm, bool odd) {
                  return optimizer{m.parameters(), sgd{}, 0.1,
                                   odd ? sync::any_strategy(sync::local{.period = 4}) : sync::allreduce{},
                                   comm};
                }),
           "strategy", "after the rule");
  }
}

BOOST_AUTO_TEST_CASE(a_step_allocates_nothing_whatever_it_is_made_of) {
  auto const count = [](auto const& rule, auto const& rate, auto const& strategy) {
    net m;
    self comm;
    optimizer made{m.parameters(), rule, rate, strategy, comm};
    optimizer opt = std::move(made);
    auto const steps = [&](int n) {
      for (int t = 0; t < n; ++t) {
        opt.begin(4);
        opt.mark_ready("w");
        opt.step();
        opt.step(4);
      }
    };
    steps(4);
    long const before = allocations;
    steps(12);
    return allocations - before;
  };
  auto const lambda = [](progress const& p) { return 0.1 / static_cast<double>(1 + p.steps); };
  BOOST_TEST(count(any_rule(sgd{.momentum = 0.9}), lambda, sync::any_strategy(sync::allreduce{})) == 0);
  BOOST_TEST(count(any_rule(clipped{lamb{}, 1.0}), any_schedule(0.1),
                   sync::any_strategy(sync::local{.period = 3})) == 0);
  BOOST_TEST(count(adamw{}, 0.1, sync::slowmo{.period = 2}) == 0);
  BOOST_TEST(count(lion{}, 0.1 * cosine(100_steps), sync::diloco{.period = 4}) == 0);
  BOOST_TEST(count(adagrad{}, 0.1, sync::lookahead{.period = 2}) == 0);
}
