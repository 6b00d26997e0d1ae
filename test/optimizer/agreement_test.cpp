// SPDX-License-Identifier: Apache-2.0
// labels: unit sanitize
#define BOOST_TEST_MODULE limber.optimizer.agreement
#include <limber/comm/threads.hpp>
#include <limber/limber.hpp>

#include <boost/test/unit_test.hpp>

#include <support/checks.hpp>
#include <support/toy_model.hpp>

#include <functional>
#include <map>

using namespace limber;
using namespace limber::testing;

namespace {

/// Every rank makes an optimizer with `odd` said of the last one; returns the message of the first step.
template <class Make>
std::string meeting(Make const& make) {
  std::string first;
  std::mutex guard;
  threads::run(3, [&](threads::communicator& comm) {
    toy_model<float> m;
    auto opt = make(m, comm, comm.rank() == 2);
    auto const message = message_of([&] { opt.step(1); });
    std::scoped_lock const lock(guard);
    if (comm.rank() == 0) first = message;
    if (message != first && comm.rank() == 0) first = "ranks were told different things";
  });
  return first;
}

}  // namespace

BOOST_AUTO_TEST_CASE(ranks_that_train_different_things_are_told_so_before_data_moves) {
  auto differ = [](auto const& make) {
    auto const said = meeting(make);
    BOOST_TEST(has(said, "handshake", "rank 2 and rank 0 do not train the same thing"), said);
  };
  using team = threads::communicator;
  using net = toy_model<float>;
  differ([](net& m, team& c, bool odd) {
    auto p = m.parameters();
    if (odd) p[1].name = "bias";
    return optimizer{p, sgd{}, 0.05, sync::allreduce{}, c};
  });
  differ([](net& m, team& c, bool odd) {
    return optimizer{m.parameters(), sgd{}, 0.05, sync::allreduce{odd ? 2 : 1}, c};
  });
  differ([](net& m, team& c, bool odd) {
    return optimizer{m.parameters(), sgd{}, 0.05, sync::local{odd ? 2 : 1}, c};
  });
  differ([](net& m, team& c, bool odd) {
    return optimizer{m.parameters(), sgd{}, 0.05,
                     sync::local{2, odd ? sync::moments::average : sync::moments::keep}, c};
  });
  differ([](net& m, team& c, bool odd) {
    return optimizer{m.parameters(), sgd{.momentum = odd ? 0.5 : 0.9}, 0.05, sync::allreduce{}, c};
  });
  differ([](net& m, team& c, bool odd) {
    return optimizer{m.parameters(), clipped{lamb{}, odd ? 1.0 : 2.0}, 0.05, sync::allreduce{}, c};
  });
  differ([](net& m, team& c, bool odd) {
    return optimizer{m.parameters(),    sgd{}, 0.05,
                     sync::allreduce{}, c,     {.gradient = odd ? gradient_is::sum : gradient_is::mean}};
  });
  differ([](net& m, team& c, bool odd) {
    return optimizer{m.parameters(), sgd{}, 0.05, sync::allreduce{}, c, {.epoch_size = odd ? 101 : 100}};
  });
  differ([](net& m, team& c, bool odd) {
    return optimizer{m.parameters(),    sgd{}, 0.05,
                     sync::allreduce{}, c,     {.ramp = odd ? immediate : ramp_rule{}}};
  });
  auto const rate = meeting([](net& m, team& c, bool odd) {
    return optimizer{m.parameters(), sgd{}, odd ? 0.04 : 0.05, sync::allreduce{}, c};
  });
  BOOST_TEST(has(rate, "the rate is 0.05 on rank 0 and 0.04 on rank 2"), rate);
  auto const batch = meeting([](net& m, team& c, bool odd) {
    return optimizer{m.parameters(), sgd{}, 0.05, sync::allreduce{}, c, {.batch = fixed{odd ? 12 : 9}}};
  });
  BOOST_TEST(has(batch, "the planned batch is 9 on rank 0 and 12 on rank 2"), batch);
}

BOOST_AUTO_TEST_CASE(equal_rules_of_every_kind_do_agree) {
  auto const said = meeting([](toy_model<float>& m, threads::communicator& c, bool) {
    return optimizer{m.parameters(), clipped{ema{master{lamb{}}, 0.9}, 1.0}, 0.05, sync::local{3}, c};
  });
  BOOST_TEST(said == "");
}

BOOST_AUTO_TEST_CASE(joiners_are_told_what_is_frozen) {
  threads::run(2, [](threads::communicator& comm) {
    auto alone = comm.split(comm.rank());
    bool const survivor = comm.rank() == 0;
    toy_model<float> m;
    optimizer opt{m.parameters(), sgd{.momentum = 0.9}, 0.02, sync::allreduce{}, survivor ? alone : comm};
    if (survivor) {
      opt.freeze("b");
      for (int t = 0; t < 3; ++t) {
        m.backward(run_of(t, 4));
        opt.step(4);
      }
      opt.resize(comm);
    }
    for (int t = 3; t < 6; ++t) {
      opt.handshake();
      m.backward(run_of(8 * t + comm.rank() * 4, 4));
      opt.step(4);
    }
    LIMBER_CHECK(m.b[0] == 0);
  });
}

BOOST_AUTO_TEST_CASE(a_resume_with_other_workers_plans_the_batch_anew) {
  std::map<std::string, std::vector<std::byte>> saved;
  auto options_of = [] { return options{.batch = per_worker{8}, .ramp = immediate}; };
  threads::run(2, [&](threads::communicator& comm) {
    toy_model<float> m;
    optimizer opt{m.parameters(), sgd{.momentum = 0.9}, dynamic_sgd(0.01, 16), sync::allreduce{},
                  comm,           options_of()};
    for (int t = 0; t < 5; ++t) {
      m.backward(run_of(16 * t + comm.rank() * 8, 8));
      opt.step(8);
    }
    if (comm.rank() == 0)
      opt.visit([&](state_piece const& p) { saved[p.name] = {p.data.data, p.data.data + p.data.bytes()}; });
  });
  threads::run(8, [&](threads::communicator& comm) {
    toy_model<float> m;
    optimizer opt{m.parameters(), sgd{.momentum = 0.9}, dynamic_sgd(0.01, 16), sync::allreduce{},
                  comm,           options_of()};
    opt.visit([&](state_piece const& p) { std::ranges::copy(saved.at(p.name), p.data.data); });
    m.backward(run_of(80 + comm.rank() * 8, 8));
    LIMBER_CHECK(opt.step(8).rate == 0.04);
    LIMBER_CHECK(opt.now().steps == 6);
  });
}

BOOST_AUTO_TEST_CASE(a_policy_may_read_progress_and_joiners_plan_from_the_survivors) {
  threads::run(2, [](threads::communicator& comm) {
    auto alone = comm.split(comm.rank());
    bool const survivor = comm.rank() == 0;
    toy_model<float> m;
    options o;
    o.batch = [](batch_facts const& f) { return per_worker{f.now.steps < 2 ? 8 : 16}(f); };
    optimizer opt{m.parameters(), sgd{}, 0.02, sync::allreduce{}, survivor ? alone : comm, o};
    if (survivor) {
      for (int t = 0; t < 3; ++t) opt.step(8);
      opt.resize(comm);
    }
    opt.step(16);
    LIMBER_CHECK(opt.planned().total == 32);
    LIMBER_CHECK(opt.now().planned_batch() == 32);
  });
}

BOOST_AUTO_TEST_CASE(a_resize_that_cannot_be_planned_changes_nothing) {
  threads::run(4, [](threads::communicator& comm) {
    auto alone = comm.split(comm.rank());
    toy_model<float> m, n;
    auto make = [&](toy_model<float>& model) {
      return optimizer{model.parameters(), sgd{.momentum = 0.9}, 0.02, sync::allreduce{.period = 2}, alone,
                       {.batch = fixed{3}}};
    };
    auto opt = make(m);
    auto untouched = make(n);
    for (int t = 0; t < 5; ++t) {
      m.backward(run_of(3 * t, 3));
      n.backward(run_of(3 * t, 3));
      opt.step(3);
      untouched.step(3);
      if (t == 2) LIMBER_CHECK(has(message_of([&] { opt.resize(comm); }), "batch 3", "4 workers"));
    }
    LIMBER_CHECK(same_bits(m.all(), n.all()));
    LIMBER_CHECK(opt.explain() == untouched.explain());
  });
}
