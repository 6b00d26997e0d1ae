// SPDX-License-Identifier: Apache-2.0
// labels: unit property sanitize
#define BOOST_TEST_MODULE limber.sync.overlap
#include <limber/batch/policies.hpp>
#include <limber/comm/threads.hpp>
#include <limber/limber.hpp>
#include <limber/sync/strategies.hpp>

#include <boost/test/unit_test.hpp>

#include <support/allocations.hpp>
#include <support/checks.hpp>
#include <support/toy_model.hpp>
#include <support/wire_model.hpp>

#include <algorithm>
#include <limits>
#include <mutex>
#include <numeric>
#include <random>
#include <stdexcept>

using namespace limber;
using namespace limber::testing;

namespace {

// Threads, writing down in which order reductions are started.
struct scripted {
  threads::communicator* inner;
  std::vector<std::string>* log;

  [[nodiscard]] int rank() const { return inner->rank(); }
  [[nodiscard]] int size() const { return inner->size(); }
  auto all_reduce(const_tensor_view in, tensor_view out, reduction how = reduction::sum) {
    log->push_back(std::string(in.name));
    return inner->all_reduce(in, out, how);
  }
  auto reduce_scatter(const_tensor_view in, tensor_view out) { return inner->reduce_scatter(in, out); }
  auto all_gather(const_tensor_view in, tensor_view out) { return inner->all_gather(in, out); }
  auto broadcast(tensor_view data, int root) { return inner->broadcast(data, root); }
  void barrier() { inner->barrier(); }
};
static_assert(collective<scripted>);

enum class marks { none, backwards, shuffled, some, by_rank };

// The tensors that a rank marks in a call, by their place of registration.
std::vector<i64> order_of(marks how, int rank, int call) {
  std::vector<i64> order(wire_model::tensors);
  std::iota(order.begin(), order.end(), i64{0});
  std::ranges::reverse(order);
  std::mt19937 random(static_cast<unsigned>(10 * call + rank));
  if (how == marks::shuffled || how == marks::some) std::ranges::shuffle(order, random);
  if (how == marks::some) order.resize(random() % (wire_model::tensors + 1));
  if (how == marks::none || (how == marks::by_rank && rank == 1)) order.clear();
  return order;
}

struct result {
  std::vector<double> model;
  std::vector<std::pair<std::string, std::vector<std::byte>>> state;
  bool operator==(result const&) const = default;
};

// Nine calls of three workers, with a rank without samples, a bad gradient, a frozen tensor and an open end.
template <class Strategy>
std::vector<result> train(Strategy const& strategy, options o, marks how) {
  std::vector<result> out(3);
  if (o.batch(batch_facts{3, {}}).shards == 0) o.batch = per_worker{5};
  threads::run(3, [&, o](threads::communicator& comm) {
    wire_model m;
    optimizer opt{m.parameters(), clipped{adamw{}, 1.0}, 0.01, strategy, comm, o};
    for (int call = 0; call < 10; ++call) {
      i64 const n = call == 3 && comm.rank() == 1 ? 0 : 4 + comm.rank();
      opt.begin(n);
      m.backward(comm.rank(), call);
      if (call == 5 && comm.rank() == 2) m.gb[3] = std::numeric_limits<float>::infinity();
      if (call == 6) opt.freeze("wide");
      if (call == 8) opt.freeze("wide", false);
      for (i64 const t : order_of(how, comm.rank(), call)) opt.mark_ready(t);
      opt.step();
    }
    opt.finish();
    out[static_cast<std::size_t>(comm.rank())] = {m.all(), state_of(opt, "")};
  });
  return out;
}

bucket_options const plain{4096, 12'000};
bucket_options const narrow{4096, 12'000, dtype::bf16};
bucket_options const owing{4096, 12'000, dtype::bf16, true};

}  // namespace

// Parameters, slots, counters, progress with its noise statistics, and what is owed.
BOOST_AUTO_TEST_CASE(marks_do_not_change_a_bit) {
  for (bucket_options const& buckets : {plain, narrow, owing, bucket_options{}})
    for (i64 period : {i64{1}, i64{3}}) {
      options o;
      o.buckets = buckets;
      auto const expected = train(sync::allreduce{period}, o, marks::none);
      BOOST_TEST(std::isfinite(expected[0].model[0]));
      for (marks how : {marks::backwards, marks::shuffled, marks::some, marks::by_rank})
        BOOST_TEST((train(sync::allreduce{period}, o, how) == expected),
                   "period " << period << ", marks " << static_cast<int>(how));
    }
}

BOOST_AUTO_TEST_CASE(strategies_without_an_exchange_of_gradients_take_marks_and_do_nothing) {
  auto same = [](auto const& strategy, options const& o = {}) {
    BOOST_TEST((train(strategy, o, marks::shuffled) == train(strategy, o, marks::none)));
  };
  same(sync::local{.period = 2});
  same(sync::gossip{.period = 2});
  same(sync::lookahead{.period = 2});
  same(sync::hierarchical{.block_size = 2, .period = 2, .block_periods = 2});
  options shards;
  shards.batch = logical_shards{.shards = 3, .per_shard = 6};
  same(sync::allreduce{}, shards);
}

BOOST_AUTO_TEST_CASE(a_bucket_starts_as_soon_as_it_and_those_before_it_are_complete) {
  threads::run(2, [](threads::communicator& comm) {
    std::vector<std::string> log;
    scripted wire{&comm, &log};
    wire_model m;
    options o;
    o.buckets = {256, 12'000, {}};
    optimizer opt{m.parameters(), sgd{}, 0.01, sync::allreduce{}, wire, o};
    opt.step(4);
    // What crosses without marks is what crosses with them, in that order.
    std::vector<std::string> const order = log;
    auto at = [&](std::string_view part) {
      return std::ranges::find_if(log, [&](auto const& s) { return s.find(part) != s.npos; }) - log.begin();
    };
    LIMBER_CHECK(order.size() == 8 && order.back() == "control");
    // Both ranks mark in another order than the other.
    auto run = [&](std::vector<std::string_view> const& names) {
      log.clear();
      opt.begin(4);
      m.backward(comm.rank(), 1);
      for (auto const name : names) {
        opt.mark_ready(name);
        log.push_back(text("marked ", name));
      }
      log.push_back("backward is over");
      opt.step();
    };
    auto sent = [&] {
      std::vector<std::string> out = log;
      std::erase_if(out, [](auto const& s) { return s.starts_with("marked") || s.starts_with("backward"); });
      return out;
    };
    if (comm.rank() == 0)
      run({"attention", "double", "none", "wide", "bias", "embedding"});
    else
      run({"embedding", "bias", "wide", "double", "attention"});
    LIMBER_CHECK(sent() == order);
    LIMBER_CHECK(has(order[0], ": double") && has(order[1], ": attention"));
    if (comm.rank() == 0) {
      LIMBER_CHECK(at(": attention") > at("marked attention"));  // it waits for the one before it
      LIMBER_CHECK(at(": attention") < at("marked double"));
      LIMBER_CHECK(at("control") - at(": wide") > 3);  // in three pieces, at once
      LIMBER_CHECK(at(": wide") < at("marked wide"));
    } else {
      LIMBER_CHECK(at(": double") > at("marked wide"));
      LIMBER_CHECK(at(": double") < at("marked double"));
      LIMBER_CHECK(at(": attention") > at("marked double"));
    }
    LIMBER_CHECK(at(order[6]) < at("backward is over"));
    LIMBER_CHECK(at("control") > at("backward is over"));
    // What is not marked is sent by step(), and so is what comes after it.
    run({"embedding", "bias", "wide", "attention"});
    LIMBER_CHECK(sent() == order);
    LIMBER_CHECK(at(order[0]) > at("backward is over"));
    run({"double"});
    LIMBER_CHECK(sent() == order);
    LIMBER_CHECK(at(order[0]) < at("backward is over"));
    LIMBER_CHECK(at(order[1]) > at("backward is over"));
  });
}

BOOST_AUTO_TEST_CASE(only_the_last_call_of_a_period_starts_anything) {
  threads::run(2, [](threads::communicator& comm) {
    std::vector<std::string> log;
    scripted wire{&comm, &log};
    wire_model m;
    optimizer opt{m.parameters(), sgd{}, 0.01, sync::allreduce{.period = 2}, wire};
    for (int call = 0; call < 4; ++call) {
      opt.begin(4);
      log.clear();
      for (i64 t = 0; t < static_cast<i64>(wire_model::tensors); ++t) opt.mark_ready(t);
      LIMBER_CHECK(log.empty() == (call % 2 == 0));
      opt.step();
    }
  });
}

BOOST_AUTO_TEST_CASE(a_mark_that_makes_no_sense_is_refused_and_changes_nothing) {
  toy_model<float> m;
  self comm;
  optimizer opt{m.parameters(), sgd{}, 0.05, sync::allreduce{}, comm};
  auto message = [&](auto which) { return message_of([&] { opt.mark_ready(which); }); };
  BOOST_TEST(has(message("w"), "mark_ready", "'w'", "without begin"));
  opt.begin(3);
  m.backward(run_of(0, 3));
  BOOST_TEST(has(message("v"), "mark_ready", "'v'"));
  BOOST_TEST(has(message(2), "mark_ready", "2", "there are 2"));
  BOOST_TEST(has(message(-1), "mark_ready", "-1"));
  opt.mark_ready(0);  // w was registered first, though b comes first by name
  BOOST_TEST(has(message("w"), "mark_ready", "'w'", "twice"));
  BOOST_TEST(has(message_of([&] { opt.finish(); }), "finish", "begin(3)"));
  BOOST_TEST(has(message_of([&] { opt.evaluate([] {}); }), "evaluate", "begin(3)"));
  opt.mark_ready("b");
  BOOST_TEST(opt.step().applied);
  BOOST_TEST(has(message("b"), "without begin"));
  toy_model<float> n;
  optimizer other{n.parameters(), sgd{}, 0.05, sync::allreduce{}, comm};
  n.backward(run_of(0, 3));
  other.step(3);
  BOOST_TEST(same_bits(m.all(), n.all()));
}

// Buckets are in flight when backward fails: the others get its error, nobody hangs, no memory is used later.
BOOST_AUTO_TEST_CASE(a_rank_that_throws_between_begin_and_step_leaves_nothing_in_flight) {
  int failed = 0;
  std::mutex guard;
  auto run = [&] {
    threads::run(3, [&](threads::communicator& comm) {
      wire_model m;
      options o;
      o.buckets = narrow;
      optimizer opt{m.parameters(), sgd{}, 0.01, sync::allreduce{}, comm, o};
      opt.step(4);
      opt.begin(4);
      m.backward(comm.rank(), 1);
      try {
        for (char const* name : {"attention", "double", "wide"}) opt.mark_ready(name);
        if (comm.rank() == 1) throw std::runtime_error("out of samples");
        for (char const* name : {"bias", "embedding"}) opt.mark_ready(name);
        opt.step();
      } catch (error const& e) {
        std::scoped_lock const lock(guard);
        failed += has(e.what(), "out of samples") ? 1 : 0;
        throw;
      }
    });
  };
  BOOST_TEST(message_of(run) == "out of samples");
  BOOST_TEST(failed == 2);
}

// A trainer that gives up after marking: the other is told, and memory may go.
BOOST_AUTO_TEST_CASE(an_optimizer_may_end_between_begin_and_step) {
  threads::run(2, [](threads::communicator& comm) {
    auto pair = comm.split(0);
    wire_model m;
    {
      optimizer opt{m.parameters(), sgd{}, 0.01, sync::allreduce{}, pair};
      opt.begin(4);
      if (comm.rank() == 0)
        for (i64 t = 5; t >= 0; --t) opt.mark_ready(t);
      comm.barrier();
    }
    comm.barrier();
    LIMBER_CHECK(has(message_of([&] { pair.barrier(); }), "rank 0 destroyed", "all_reduce"));
  });
}

BOOST_AUTO_TEST_CASE(marked_steps_allocate_nothing_after_the_first) {
  for (i64 period : {i64{1}, i64{2}}) {
    wire_model m;
    self comm;
    options o;
    o.buckets = owing;
    optimizer opt{m.parameters(), adamw{}, 0.01, sync::allreduce{period}, comm, o};
    auto train = [&](int calls) {
      for (int call = 0; call < calls; ++call) {
        opt.begin(4);
        for (i64 t = 5; t >= 0; --t) opt.mark_ready(t);
        opt.step();
      }
    };
    train(4);
    long const before = allocations;
    train(10);
    BOOST_TEST(allocations == before);
  }
}

BOOST_AUTO_TEST_CASE(time_in_marks_is_not_the_hosts) {
  double now = 0;
  toy_model<float> m;
  self comm;
  options o;
  o.clock = [&] { return now += 0.25; };
  optimizer opt{m.parameters(), sgd{}, 0.05, sync::allreduce{}, comm, o};
  opt.begin(3);
  now += 10;
  opt.mark_ready("w");
  opt.mark_ready("b");
  opt.step();
  BOOST_TEST(opt.last().marking_seconds == 0.5);
  BOOST_TEST(opt.last().exchange_seconds == 0.25);
  BOOST_TEST(opt.last().host_seconds == 10 + 5 * 0.25 - 0.5);
  opt.step(3);
  BOOST_TEST(opt.last().marking_seconds == 0);
}
