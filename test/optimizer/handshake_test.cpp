// SPDX-License-Identifier: Apache-2.0
// labels: unit
#define BOOST_TEST_MODULE limber.optimizer.handshake
#include <limber/comm/self.hpp>
#include <limber/comm/threads.hpp>
#include <limber/limber.hpp>
#include <limber/optimizer/handshake.hpp>

#include <boost/test/unit_test.hpp>

#include <support/checks.hpp>
#include <support/toy_model.hpp>

#include <limits>

using namespace limber;
using namespace limber::testing;

static std::string nothing() { return {}; }

// Ranks 1 and 2 are furthest, 0 and 3 join with garbage.
BOOST_AUTO_TEST_CASE(the_furthest_give_and_what_joiners_held_counts_for_nothing) {
  threads::run(4, [](threads::communicator& comm) {
    int const r = comm.rank();
    i64 const calls[] = {3, 9, 9, 0};
    handshake h(communicator(comm), {77, nothing}, calls[r]);
    LIMBER_CHECK(h.joins() == (r == 0 || r == 3));
    float const garbage = std::numeric_limits<float>::quiet_NaN();
    bool const joins = h.joins();
    std::vector<float> alike(5, joins ? garbage : 10.f * static_cast<float>(r));
    std::vector<float> apart(5, joins ? garbage : 10.f * static_cast<float>(r));
    std::vector<i64> counter{joins ? -1 : 100 + r};
    any_executor e(host{});
    h.give(e, {"alike", kept::replicated, view(alike)});
    h.give(e, {"apart", kept::per_rank, view(apart)});
    h.give(e, {"counter", kept::per_rank, view(counter)});
    std::vector<float> open(2, 7.f);
    std::vector<i64> samples{9};
    h.give(e, {"open", kept::round, view(open)});
    h.give(e, {"samples", kept::round, view(samples)});
    LIMBER_CHECK(open[1] == (joins ? 0.f : 7.f));
    LIMBER_CHECK(samples[0] == (joins ? 0 : 9));
    LIMBER_CHECK(alike[4] == 10.f);  // rank 1's, the lowest that gives
    LIMBER_CHECK(apart[4] ==
                 (joins ? 15.f : 10.f * static_cast<float>(r)));  // the mean; the givers keep theirs
    LIMBER_CHECK(counter[0] == (joins ? 101 : 100 + r));
  });
}

BOOST_AUTO_TEST_CASE(nobody_joins_and_apart_state_stays_where_it_is) {
  threads::run(3, [](threads::communicator& comm) {
    handshake h(communicator(comm), {1, nothing}, 5);
    std::vector<float> x{static_cast<float>(comm.rank())}, y = x;
    any_executor e(host{});
    h.give(e, {"apart", kept::per_rank, view(x)});
    h.give(e, {"alike", kept::replicated, view(y)});
    LIMBER_CHECK(x[0] == static_cast<float>(comm.rank()));
    LIMBER_CHECK(y[0] == 0);
  });
}

BOOST_AUTO_TEST_CASE(plans_that_differ_are_reported_by_all_with_the_rank) {
  threads::run(3, [](threads::communicator& comm) {
    auto const message = message_of([&] {
      handshake(communicator(comm), {comm.rank() == 1 ? 5u : 4u, nothing}, 0);
    });
    LIMBER_CHECK(has(message, "handshake", "rank 1 and rank 0"));
  });
}

// The survivor is rank 1 of the new world; the joiner, rank 0, must not overwrite it.
BOOST_AUTO_TEST_CASE(a_survivor_with_a_higher_rank_gives_to_a_joiner_with_a_lower) {
  auto one_step = [](toy_model<float>& m, auto& opt, int t) {
    m.backward(run_of(8 * t, 8));
    opt.step(8);
  };
  threads::run(2, [&](threads::communicator& comm) {
    bool const survivor = comm.rank() == 1;
    toy_model<float> m, before;
    auto rule = sgd{.momentum = 0.9};
    auto go_on = [&](auto& opt) {
      for (int t = 0; t < 3; ++t) one_step(m, opt, 5 + t);
      LIMBER_CHECK(opt.now().calls == 8);
    };
    // An optimizer over threads alone is a group of one first: split makes it.
    auto alone = comm.split(comm.rank());
    optimizer opt{m.parameters(),          rule, 0.02, sync::local{.period = 100}, survivor ? alone : comm,
                  {.batch = per_worker{8}}};
    if (survivor) {
      for (int t = 0; t < 5; ++t) one_step(m, opt, t);
      opt.resize(comm);
    } else {
      std::ranges::fill(m.w, 99.f);
    }
    opt.handshake();
    LIMBER_CHECK(m.w[0] < 50.f);
    // The joiner's own momentum is the mean of the others', here the survivor's.
    std::vector<float> momentum;
    opt.visit([&](state_piece const& p) {
      if (p.name == "rule0/slot0/w") momentum = {p.data.as<float>().begin(), p.data.as<float>().end()};
    });
    std::vector<float> both(2 * momentum.size());
    comm.all_gather(const_view(momentum), view(both)).wait();
    for (std::size_t k = 0; k < momentum.size(); ++k) LIMBER_CHECK(both[k] == both[k + momentum.size()]);
    LIMBER_CHECK(momentum[0] != 0);
    go_on(opt);
  });
}
