// SPDX-License-Identifier: Apache-2.0
// labels: unit property
// sanitizers: address
#define BOOST_TEST_MODULE limber.sync.push_sum
#include <limber/comm/threads.hpp>
#include <limber/cuda/executor.hpp>
#include <limber/limber.hpp>
#include <limber/sync/strategies.hpp>

#include <boost/test/unit_test.hpp>

#include <support/checks.hpp>
#include <support/dealing.hpp>
#include <support/toy_model.hpp>

#include <algorithm>
#include <array>
#include <limits>
#include <string>
#include <tuple>
#include <vector>

using namespace limber;
using namespace limber::testing;

using scalars = std::tuple<float, double>;
using emulated = gpu::basic_executor<gpu::emulator>;

namespace {

// A collective without messages between two ranks but by mailbox.
struct mail_only {
  threads::communicator& inner;

  [[nodiscard]] int rank() const { return inner.rank(); }
  [[nodiscard]] int size() const { return inner.size(); }
  auto all_reduce(const_tensor_view in, tensor_view out, reduction how = reduction::sum) {
    return inner.all_reduce(in, out, how);
  }
  auto reduce_scatter(const_tensor_view in, tensor_view out) { return inner.reduce_scatter(in, out); }
  auto all_gather(const_tensor_view in, tensor_view out) { return inner.all_gather(in, out); }
  auto broadcast(tensor_view data, int root) { return inner.broadcast(data, root); }
  void barrier() { inner.barrier(); }
  void post(int peer, i64 tag, std::span<std::byte const> bytes) { inner.post(peer, tag, bytes); }
  std::optional<message> poll(i64 tag) { return inner.poll(tag); }
  void listen() { inner.listen(); }
};
static_assert(!point_to_point<mail_only>);

// And one without a mailbox.
struct no_mail {
  threads::communicator& inner;

  [[nodiscard]] int rank() const { return inner.rank(); }
  [[nodiscard]] int size() const { return inner.size(); }
  auto all_reduce(const_tensor_view in, tensor_view out, reduction how = reduction::sum) {
    return inner.all_reduce(in, out, how);
  }
  auto reduce_scatter(const_tensor_view in, tensor_view out) { return inner.reduce_scatter(in, out); }
  auto all_gather(const_tensor_view in, tensor_view out) { return inner.all_gather(in, out); }
  auto broadcast(tensor_view data, int root) { return inner.broadcast(data, root); }
  void barrier() { inner.barrier(); }
  void send(const_tensor_view in, int peer) { inner.send(in, peer); }
  void recv(tensor_view out, int peer) { inner.recv(out, peer); }
};
static_assert(collective<no_mail> && !mailbox<no_mail>);

// The pair (x, w) of a rank: one element of x, and the weight.
struct mass {
  double x = 0, w = 0;
};
template <class Optimizer>
mass mass_of(Optimizer& opt) {
  mass m;
  opt.visit([&](state_piece const& p) {
    auto const first = [&] {
      return p.data.type == dtype::f64 ? p.data.as<double>()[0] : static_cast<double>(p.data.as<float>()[0]);
    };
    if (p.name.ends_with("/x/w")) m.x = first();
    if (p.name.ends_with("/w") && p.name.starts_with("sync/") && !p.name.ends_with("/x/w")) m.w = first();
  });
  return m;
}

// The recursion on one number per rank, at rate 0.
struct by_hand {
  i64 overlap = 0, round = 0;
  std::vector<mass> held{};
  std::vector<std::vector<mass>> sent{};  // by round: what arrives at each rank

  void call() {
    auto const n = held.size();
    std::vector<mass> arrives(n);
    auto const step = static_cast<std::size_t>(sync::exponential_step(static_cast<int>(n), round));
    for (std::size_t r = 0; r < n; ++r) {
      held[r] = {held[r].x / 2, held[r].w / 2};
      arrives[(r + step) % n] = held[r];
    }
    sent.push_back(arrives);
    take(round++ - overlap);
  }
  void take(i64 of) {
    if (of < 0) return;
    for (std::size_t r = 0; r < held.size(); ++r) {
      auto& m = sent[static_cast<std::size_t>(of)][r];
      held[r] = {held[r].x + m.x, held[r].w + m.w};
      m = {};
    }
  }
  void finish() {
    for (i64 k = std::max<i64>(0, round - overlap); k < round; ++k) take(k);
  }
  [[nodiscard]] mass sums() const {
    mass all;
    auto add = [&](mass m) { all = {all.x + m.x, all.w + m.w}; };
    for (auto const& m : held) add(m);
    for (auto const& r : sent)
      for (auto const& m : r) add(m);
    return all;
  }
};

double start_of(int rank) { return 1.5 * rank * rank - 0.3 * rank + 0.1; }

template <class Comm, class T = double>
void check_at_rest(int workers, i64 overlap, int calls) {
  threads::run(workers, [&](threads::communicator& engine) {
    Comm comm{engine};
    auto const r = static_cast<std::size_t>(engine.rank());
    double const bound = std::is_same_v<T, float> ? 1e-6 * 30 : 1e-12;
    std::vector<T> w{0, 7}, g(2);
    optimizer opt{std::vector<tensor>{{"w", w, g}}, descent{}, 0.0,
                  sync::push_sum{overlap},          comm,      {.batch = per_worker{1}}};
    opt.handshake();
    // Set from outside, as an update would be.
    w[0] = static_cast<T>(start_of(engine.rank()));
    by_hand expected{overlap};
    for (int k = 0; k < workers; ++k) expected.held.push_back({start_of(k), 1});
    mass const start = expected.sums();
    for (int call = 0; call < calls; ++call) {
      g[0] = T(1);
      opt.step(engine.rank() == 0 ? 0 : 1);
      expected.call();
      mass const now = mass_of(opt), sums = expected.sums();
      LIMBER_CHECK(std::abs(now.x - expected.held[r].x) < bound);
      LIMBER_CHECK(now.w == expected.held[r].w);  // the same sums in the same order
      LIMBER_CHECK(now.w > 0);
      LIMBER_CHECK(std::abs(static_cast<double>(w[0]) - now.x / now.w) < bound);
      LIMBER_CHECK(std::abs(sums.x - start.x) < bound && std::abs(sums.w - start.w) < 1e-12);
      if (overlap == 0) LIMBER_CHECK(now.w == 1);
    }
    opt.finish();
    expected.finish();
    mass const now = mass_of(opt);
    LIMBER_CHECK(std::abs(now.x - expected.held[r].x) < bound);
    LIMBER_CHECK(std::abs(static_cast<double>(w[0]) - now.x / now.w) < bound);
    std::array<double, 2> const own{now.x, now.w};
    std::array<double, 2> all{};
    engine.all_reduce(const_view(own), view(all)).wait();
    LIMBER_CHECK(std::abs(all[0] - start.x) < bound);
    LIMBER_CHECK(std::abs(all[1] - workers) < 1e-12);
    LIMBER_CHECK(std::abs(static_cast<double>(w[1]) - 7) < bound);  // equal from the start
    opt.evaluate([&] { LIMBER_CHECK(std::abs(static_cast<double>(w[0]) - start.x / workers) < bound); });
    if (calls >= 60) LIMBER_CHECK(std::abs(static_cast<double>(w[0]) - start.x / workers) < 1e-3);
    // Nothing is left in the mailbox.
    for (i64 k = 0; k < calls; ++k) LIMBER_CHECK(!engine.poll(sync::push_sum_round::tag + k));
  });
}

// Trains the toy model, unevenly; returns every rank's model and the mean.
template <class E, class R>
std::vector<std::vector<float>> trained(int workers, i64 overlap, R const& rule, bool evaluate = true) {
  std::vector<std::vector<float>> out(static_cast<std::size_t>(workers));
  threads::run(workers, [&](threads::communicator& comm) {
    toy_model<float> m;
    options o;
    o.batch = per_worker{6};
    optimizer opt{m.parameters(), rule, 0.02, sync::push_sum{overlap}, comm, o, E{}};
    for (int t = 0; t < 11; ++t) {
      m.backward(run_of(t * 50 + comm.rank() * 10, 6));
      if (t == 5 && comm.rank() == 1) m.gw[2] = std::numeric_limits<float>::infinity();
      opt.step(t == 3 && comm.rank() == 2 ? 0 : 6);
      if (t == 7 && evaluate) opt.evaluate([] {});
    }
    opt.finish();
    out[static_cast<std::size_t>(comm.rank())] = m.all();
  });
  return out;
}

}  // namespace

BOOST_AUTO_TEST_CASE(the_graph_is_the_directed_exponential_one) {
  auto const steps = [](int size) {
    std::vector<int> out;
    for (i64 k = 0; k < 7; ++k) out.push_back(sync::exponential_step(size, k));
    return out;
  };
  BOOST_TEST((steps(1) == std::vector{0, 0, 0, 0, 0, 0, 0}));
  BOOST_TEST((steps(2) == std::vector{1, 1, 1, 1, 1, 1, 1}));
  BOOST_TEST((steps(3) == std::vector{1, 2, 1, 2, 1, 2, 1}));
  BOOST_TEST((steps(4) == std::vector{1, 2, 1, 2, 1, 2, 1}));
  BOOST_TEST((steps(5) == std::vector{1, 2, 4, 1, 2, 4, 1}));
  BOOST_TEST((steps(8) == std::vector{1, 2, 4, 1, 2, 4, 1}));
  BOOST_TEST((steps(9) == std::vector{1, 2, 4, 8, 1, 2, 4}));
}

BOOST_AUTO_TEST_CASE(it_follows_the_recursion_and_keeps_both_sums) {
  for (int const workers : {2, 3, 5, 8}) {
    check_at_rest<threads::communicator&>(workers, 0, 11);
    check_at_rest<mail_only>(workers, 0, 11);
    for (i64 const overlap : {1, 2, 5}) check_at_rest<threads::communicator&>(workers, overlap, 11);
  }
  check_at_rest<threads::communicator&, float>(5, 0, 11);
  check_at_rest<threads::communicator&, float>(5, 2, 11);
  check_at_rest<threads::communicator&>(4, 6, 3);  // fewer calls than the overlap
}

BOOST_AUTO_TEST_CASE(models_without_gradients_agree_on_the_mean) {
  check_at_rest<threads::communicator&>(5, 0, 60);
  check_at_rest<threads::communicator&>(6, 2, 90);
}

BOOST_AUTO_TEST_CASE(a_power_of_two_agrees_exactly_after_one_turn_of_the_graph) {
  threads::run(8, [](threads::communicator& comm) {
    std::vector<double> w{0}, g(1);
    optimizer opt{std::vector<tensor>{{"w", w, g}}, descent{}, 0.0, sync::push_sum{}, comm};
    opt.handshake();
    w[0] = comm.rank();
    for (int call = 0; call < 3; ++call) opt.step(1);
    LIMBER_CHECK(w[0] == 3.5);
  });
}

BOOST_AUTO_TEST_CASE_TEMPLATE(one_worker_is_the_plain_rule_bit_for_bit, T, scalars) {
  dealing const one{{8}};
  for (i64 const overlap : {0, 1, 3}) {
    BOOST_TEST((train<T>(1, sync::push_sum{overlap}, nesterov, one) ==
                train<T>(1, sync::allreduce{}, nesterov, one)));
    BOOST_TEST(
        (train<T>(1, sync::push_sum{overlap}, adamw{}, one) == train<T>(1, sync::allreduce{}, adamw{}, one)));
  }
}

// Algorithm 1, typed out: the gradient at z goes to x, then halves go round.
BOOST_AUTO_TEST_CASE(it_follows_the_paper) {
  for (i64 const overlap : {0, 1, 2}) {
    constexpr std::size_t workers = 3;
    constexpr int calls = 20;
    std::array<toy_model<double>, workers> m;  // holds z
    std::array<std::vector<double>, workers> v;
    for (auto& x : v) x.assign(21, 0);
    std::vector<by_hand> elements(21, by_hand{overlap});
    for (std::size_t k = 0; k < 21; ++k)
      for (auto const& one : m) elements[k].held.push_back({one.all()[k], 1});
    i64 first = 0;
    for (int call = 0; call < calls; ++call) {
      double const rate = 0.02 * std::min(1.0, call / 4.0);
      auto const& now = changing[static_cast<std::size_t>(call) % changing.size()];
      for (std::size_t r = 0; r < workers; first += now[r++]) {
        if (now[r] == 0) continue;
        m[r].backward(run_of(first, now[r]));
        for (std::size_t k = 0; k < 21; ++k) {
          double& g = k < 20 ? m[r].gw[k] : m[r].gb[0];
          v[r][k] = 0.9 * v[r][k] + g;
          elements[k].held[r].x -= rate * v[r][k];
          g = 0;
        }
      }
      for (std::size_t k = 0; k < 21; ++k) {
        elements[k].call();
        for (std::size_t r = 0; r < workers; ++r)
          (k < 20 ? m[r].w[k] : m[r].b[0]) = elements[k].held[r].x / elements[k].held[r].w;
      }
    }
    auto const got =
        train<double>(workers, sync::push_sum{overlap}, sgd{.momentum = 0.9}, changing, calls, false);
    for (std::size_t r = 0; r < workers; ++r) BOOST_TEST(distance(got[r], m[r].all()) < 1e-12);
  }
}

BOOST_AUTO_TEST_CASE(the_same_bits_on_every_run_and_on_the_gpu_executor) {
  for (i64 const overlap : {0, 2}) {
    auto const expected = trained<host>(5, overlap, ema{sgd{.momentum = 0.9}, 0.9});
    BOOST_TEST((trained<host>(5, overlap, ema{sgd{.momentum = 0.9}, 0.9}) == expected));
    BOOST_TEST((trained<emulated>(5, overlap, ema{sgd{.momentum = 0.9}, 0.9}) == expected));
    BOOST_TEST((trained<host>(5, overlap, ema{sgd{.momentum = 0.9}, 0.9}, false) == expected));
    BOOST_TEST(std::isfinite(expected[0][0]));
    BOOST_TEST((expected[0] != expected[1]));
  }
}

BOOST_AUTO_TEST_CASE(an_update_that_leaves_a_model_not_finite_is_undone) {
  for (i64 const overlap : {0, 1})
    threads::run(3, [&](threads::communicator& comm) {
      toy_model<double> m;
      auto const start = m.all();
      optimizer opt{m.parameters(), descent{}, 0.0, sync::push_sum{overlap}, comm, {.batch = per_worker{4}}};
      for (int call = 0; call < 9; ++call) {
        opt.step(4);
        LIMBER_CHECK(distance(m.all(), start) < 1e-15);
        if (comm.rank() == 0) m.w[3] = call % 2 == 0 ? std::numeric_limits<double>::infinity() : std::nan("");
      }
      opt.step(4);
      opt.finish();
      LIMBER_CHECK(distance(m.all(), start) < 1e-15);
    });
}

// Far below a step of bf16: only if masters cross and are followed does the mean move.
BOOST_AUTO_TEST_CASE(masters_are_what_crosses) {
  for (i64 const overlap : {0, 2})
    threads::run(2, [&](threads::communicator& comm) {
      std::vector<bf16> w(100, bf16(1.f));
      std::vector<float> g(100);
      optimizer opt{std::vector<tensor>{{"w", w, g}}, master{descent{}}, 1.0, sync::push_sum{overlap}, comm};
      for (int t = 0; t < 10; ++t) {
        std::ranges::fill(g, comm.rank() == 0 ? 1e-3f : 3e-3f);
        opt.step(1);
      }
      opt.finish();
      mass const own = mass_of(opt);
      std::array<double, 2> const mine{own.x, own.w};
      std::array<double, 2> all{};
      comm.all_reduce(const_view(mine), view(all)).wait();
      LIMBER_CHECK(std::abs(all[0] - (2 - 0.04)) < 1e-5);
      LIMBER_CHECK(std::abs(all[1] - 2) < 1e-12);
      LIMBER_CHECK(static_cast<float>(w[0]) == static_cast<float>(bf16(static_cast<float>(own.x / own.w))));
    });
}

BOOST_AUTO_TEST_CASE(workers_come_and_go_with_what_is_in_flight) {
  for (i64 const overlap : {0, 2})
    threads::run(4, [&](threads::communicator& comm) {
      std::vector<double> w{0}, g(1);
      auto few = comm.split(comm.rank() < 3 ? 0 : 1);
      auto pair = comm.split(comm.rank() / 2);
      optimizer opt{std::vector<tensor>{{"w", w, g}}, descent{}, 0.0, sync::push_sum{overlap}, few};
      opt.handshake();
      if (comm.rank() < 3) {
        w[0] = comm.rank() + 1;
        for (int call = 0; call < 7; ++call) opt.step(1);
      }
      opt.resize(comm);  // rank 3 comes
      opt.handshake();
      mass joined = mass_of(opt);
      if (comm.rank() == 3) {
        LIMBER_CHECK(std::abs(joined.x - 2) < 1e-12);
        LIMBER_CHECK(std::abs(joined.w - 1) < 1e-12);
        LIMBER_CHECK(std::abs(w[0] - 2) < 1e-12);
      }
      for (int call = 0; call < 40; ++call) opt.step(1);
      opt.finish();
      LIMBER_CHECK(std::abs(w[0] - 2) < 1e-3);
      opt.resize(pair);  // two go, with what they hold
      w[0] += comm.rank() % 2 == 0 ? 1 : 0;
      for (int call = 0; call < 90; ++call) opt.step(1);
      opt.finish();
      LIMBER_CHECK(std::isfinite(w[0]));
      mass const last = mass_of(opt);
      LIMBER_CHECK(std::abs(last.x / last.w - w[0]) < 1e-12);
      std::array<double, 1> const own{w[0]};
      std::array<double, 2> all{};
      pair.all_gather(const_view(own), view(all)).wait();
      LIMBER_CHECK(std::abs(all[0] - all[1]) < 1e-3);
    });
}

// As after deaths: weights that differ. State from elsewhere is followed by the parameters.
BOOST_AUTO_TEST_CASE(parameters_are_the_ratio_and_evaluate_that_of_the_sums) {
  threads::run(2, [&](threads::communicator& comm) {
    std::vector<double> w{100}, g(1);
    tensor_list const values{view(w, "w")};
    sync::training_context at{
        any_executor(host{}), communicator(comm), updater(values), {view(g, "w")}, {}, {}, {}};
    at.inner.assign(0, descent{});
    at.inner.allocate(at.exec);
    auto const stage = sync::push_sum_round{}.start(at);
    stage->attach(at);
    double const x = comm.rank() == 0 ? 3 : 5, weight = comm.rank() == 0 ? 0.25 : 0.75;
    auto const set = [&](std::string const& name, kept, tensor_view v) {
      if (name == "pinned") v.as<i64>()[0] = 1;
      if (name == "w") v.as<double>()[0] = weight;
      if (name == "x/w") v.as<double>()[0] = x;
    };
    stage->visit(kept::replicated, set);
    stage->start_first_round(at);
    LIMBER_CHECK(w[0] == x / weight);
    double const own = w[0];
    stage->average_into(at, values);
    LIMBER_CHECK(std::abs(w[0] - 8) < 1e-12);
    w[0] = own;
    stage->run(at);
    LIMBER_CHECK(std::abs(w[0] - 8) < 1e-12);
  });
}

// A rank dies with messages to and from it in flight; the survivors attach to what is left of the group.
BOOST_AUTO_TEST_CASE(survivors_write_off_the_mass_of_the_dead) {
  for (i64 const overlap : {0, 1, 3})
    threads::run(4, [&](threads::communicator& comm) {
      std::vector<double> w{1.0 + comm.rank()}, g(1);
      tensor_list const values{view(w, "w")};
      sync::training_context at{
          any_executor(host{}), communicator(comm), updater(values), {view(g, "w")}, {}, {}, {}};
      at.inner.assign(0, descent{});
      at.inner.allocate(at.exec);
      auto const stage = sync::push_sum_round{overlap}.start(at);
      stage->attach(at);
      stage->start_first_round(at);
      for (int call = 0; call < 6; ++call) stage->run(at);
      double const before = w[0];
      comm.barrier();
      if (comm.rank() == 2) return;  // without a word
      std::array<int, 1> const lost{2};
      auto survivors = comm.shrink(lost);
      at.comm = communicator(survivors);
      stage->attach(at);
      stage->start_first_round(at);
      LIMBER_CHECK(w[0] == before);  // x and w were lost alike
      std::array<double, 1> const own{before};
      std::array<double, 3> all{};
      survivors.all_gather(const_view(own), view(all)).wait();
      for (int call = 0; call < 60; ++call) {
        stage->run(at);
        LIMBER_CHECK(std::isfinite(w[0]));
      }
      stage->close(at);
      auto const [low, high] = std::ranges::minmax(all);
      LIMBER_CHECK(w[0] >= low - 1e-12 && w[0] <= high + 1e-12);
      std::array<double, 1> const now{w[0]};
      survivors.all_gather(const_view(now), view(all)).wait();
      LIMBER_CHECK(std::abs(all[0] - all[1]) < 1e-3 && std::abs(all[0] - all[2]) < 1e-3);
    });
}

// A merge over all beside it, as in SlowMo over SGP, replaces the sums, and what is in flight with them.
BOOST_AUTO_TEST_CASE(a_coarser_merge_replaces_the_sums) {
  struct strategy {
    i64 overlap;
    [[nodiscard]] auto parts() const {
      return sync::exchange(sync::gradients(sync::every{1}, sync::alone{}), sync::push_sum_round{overlap},
                            sync::merge(sync::every{5}, sync::everyone{}));
    }
  };
  for (i64 const overlap : {0, 3})
    threads::run(4, [&](threads::communicator& comm) {
      std::vector<double> w{0}, g(1);
      optimizer opt{std::vector<tensor>{{"w", w, g}}, descent{}, 0.0, strategy{overlap}, comm};
      opt.handshake();
      double agreed = 0;
      for (int call = 0; call < 23; ++call) {
        if (call == 3) w[0] = comm.rank();
        opt.step(1);
        if (call == 4) {
          agreed = w[0];
          std::array<double, 1> const own{agreed};
          std::array<double, 4> all{};
          comm.all_gather(const_view(own), view(all)).wait();
          LIMBER_CHECK(all[0] == all[1] && all[0] == all[2] && all[0] == all[3]);
        }
        if (call >= 4) LIMBER_CHECK(std::abs(w[0] - agreed) < 1e-12);
      }
    });
}

BOOST_AUTO_TEST_CASE(overlap_needs_a_mailbox_and_is_not_negative) {
  threads::run(2, [](threads::communicator& comm) {
    toy_model<float> m;
    no_mail engine{comm};
    std::string const why = message_of([&] {
      optimizer{m.parameters(), descent{}, 0.1, sync::push_sum{.overlap = 2}, engine};
    });
    LIMBER_CHECK(has(why, "overlap 2", "limber::mailbox"));
    optimizer opt{m.parameters(), descent{}, 0.1, sync::push_sum{}, engine};
    opt.step(1);
  });
  BOOST_TEST(has(message_of([] { (void)sync::push_sum{-1}.parts(); }), "overlap", "-1"));
}
