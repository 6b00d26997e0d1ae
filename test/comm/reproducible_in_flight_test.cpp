// SPDX-License-Identifier: Apache-2.0
// labels: unit contract sanitize memory
#define BOOST_TEST_MODULE limber.comm.reproducible_in_flight
#include <limber/comm/checked.hpp>
#include <limber/comm/reproducible.hpp>
#include <limber/comm/self.hpp>
#include <limber/comm/threads.hpp>

#include <boost/test/unit_test.hpp>

#include <comm/observe.hpp>
#include <core/says.hpp>
#include <support/allocations.hpp>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <deque>
#include <numeric>
#include <optional>
#include <random>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

using namespace limber;
using test::observe;
using test::says;

namespace {

// Threads that log the operations in the order of their start.
struct scripted {
  threads::communicator& inner;
  std::vector<std::string>& script;

  int rank() const { return inner.rank(); }
  int size() const { return inner.size(); }
  auto all_reduce(const_tensor_view in, tensor_view out, reduction how = reduction::sum) {
    script.push_back(text(how == reduction::max ? "max " : "sum ", name_of(in.type), ' ', in.name));
    return inner.all_reduce(in, out, how);
  }
  auto reduce_scatter(const_tensor_view in, tensor_view out) {
    script.push_back(text("scatter ", name_of(in.type), ' ', in.name));
    return inner.reduce_scatter(in, out);
  }
  auto all_gather(const_tensor_view in, tensor_view out) {
    script.push_back(text("gather ", name_of(in.type), ' ', in.name));
    return inner.all_gather(in, out);
  }
  auto broadcast(tensor_view data, int root) {
    script.push_back(text("broadcast ", data.name));
    return inner.broadcast(data, root);
  }
  void barrier() {
    script.push_back("barrier");
    inner.barrier();
  }
};
static_assert(!mailbox<reproducible<scripted>> && !splittable<reproducible<scripted>>);
static_assert(!point_to_point<reproducible<scripted>> && !shrinkable<reproducible<scripted>>);
static_assert(!revocable<reproducible<scripted>> && sums_pieces<reproducible<scripted>>);

// Both nestings.
using inside = reproducible<checked<threads::communicator&>>;
using outside = checked<reproducible<threads::communicator&>>;
static_assert(sums_pieces<inside> && mailbox<inside> && splittable<inside> && shrinkable<inside>);
static_assert(sums_pieces<outside> && mailbox<outside> && splittable<outside> && shrinkable<outside>);
static_assert(!sums_pieces<checked<threads::communicator>> && !sums_pieces<threads::communicator>);

void demand(bool ok, std::string const& what) {
  if (!ok) throw std::logic_error(what);
}

}  // namespace

// Several sums in flight, started in the same order, but waited for and polled in a different order on each
// rank.
BOOST_AUTO_TEST_CASE(the_calls_of_the_engine_depend_on_the_order_of_calls_only) {
  for (unsigned seed = 0; seed < 30; ++seed) {
    int const ranks = 2 + static_cast<int>(seed % 3);
    std::vector<std::vector<std::string>> scripts(static_cast<std::size_t>(ranks));
    threads::run(ranks, [&](threads::communicator& engine) {
      scripted script{engine, scripts[static_cast<std::size_t>(engine.rank())]};
      reproducible comm(script);
      std::mt19937 common(seed), own(1000 * seed + static_cast<unsigned>(comm.rank()));
      auto linger = [&] { test::sleep(1e-5 * static_cast<double>(own() % 40)); };
      struct pending_sum {
        std::string name;
        std::vector<float> in, out;
        std::vector<i64> whole, whole_out;
        std::vector<double> control, control_out;
        std::optional<decltype(comm)::request> open;
      };
      std::deque<pending_sum> pending;
      auto finish = [&](pending_sum& f) {
        if (own() % 2 == 0)
          while (!f.open->done()) linger();
        f.open->wait();
        f.open.reset();
        auto const n = static_cast<float>(comm.size());
        for (std::size_t i = 0; i < f.out.size(); ++i)
          demand(f.out[i] == n * static_cast<float>(i % 7) + n * (n - 1) / 2, f.name + " is wrong");
        for (i64 const x : f.whole_out) demand(x == comm.size(), f.name + " is wrong");
        for (double const x : f.control_out) demand(x == 0.5 * comm.size(), f.name + " is wrong");
      };
      for (int k = 0; k < 40; ++k) {
        auto& f = pending.emplace_back();
        f.name = text("op ", k);
        auto const kind = common() % 8, length = common() % 600;
        if (kind == 0) {
          f.whole.assign(length, 1), f.whole_out.resize(length);
          f.open.emplace(comm.all_reduce(const_view(f.whole, f.name), view(f.whole_out)));
        } else if (kind == 1) {
          f.control.assign(5, 0.5), f.control_out.resize(5);
          f.open.emplace(comm.all_reduce(const_view(f.control, f.name), view(f.control_out)));
        } else if (kind == 2) {
          comm.barrier();
        } else if (kind == 3) {
          std::vector<i64> word{comm.rank()};
          comm.broadcast(view(word, f.name), 1).wait();
          demand(word[0] == 1, "the broadcast is wrong");
        } else {
          for (std::size_t i = 0; i < length; ++i)
            f.in.push_back(static_cast<float>(i % 7) + static_cast<float>(comm.rank()));
          f.out.resize(length);
          if (kind == 4 && length % static_cast<unsigned>(comm.size()) == 0) {
            f.in.assign(length, 1);
            auto const part = length / static_cast<unsigned>(comm.size());
            std::vector<float> mine(part);
            auto q = comm.reduce_scatter(const_view(f.in, f.name), view(mine));
            linger();
            q.wait();
            for (float const x : mine) demand(x == static_cast<float>(comm.size()), f.name + " is wrong");
            f.out.clear();
          } else {
            f.open.emplace(comm.all_reduce(const_view(f.in, f.name), view(f.out)));
          }
        }
        linger();
        for (auto& g : pending) {
          if (!g.open || own() % 6 != 0) continue;
          if (own() % 2 == 0)
            (void)g.open->done();
          else
            finish(g);
        }
      }
      std::vector<std::size_t> order(pending.size());
      std::iota(order.begin(), order.end(), std::size_t{0});
      std::ranges::shuffle(order, own);
      for (std::size_t const k : order)
        if (pending[k].open) finish(pending[k]);
    });
    for (auto const& s : scripts) BOOST_TEST(s == scripts[0], boost::test_tools::per_element());
    // MAX and SUM of one operation follow each other.
    for (std::size_t i = 0; i < scripts[0].size(); ++i)
      if (auto const& line = scripts[0][i]; line.starts_with("max f32 ")) {
        std::string const name = line.substr(8);
        BOOST_REQUIRE(i + 1 < scripts[0].size());
        auto const& next = scripts[0][i + 1];
        BOOST_TEST((next == "sum int64 " + name || next == "scatter int64 " + name));
      }
  }
}

BOOST_AUTO_TEST_CASE(a_sum_is_started_without_waiting_for_others_and_makes_progress_when_polled) {
  std::atomic<bool> started{false};
  threads::run(2, [&](threads::communicator& engine) {
    reproducible comm(engine);
    std::vector<float> in(10, 1), out(10);
    if (comm.rank() == 0) {
      auto q = comm.all_reduce(const_view(in), view(out));
      demand(!q.done(), "done before the other rank came");
      started = true;
      while (!q.done()) test::sleep(1e-4);
      q.wait();
    } else {
      while (!started) test::sleep(1e-4);
      comm.all_reduce(const_view(in), view(out)).wait();
    }
    demand(out[9] == 2, "the sum is wrong");
  });
}

// One rank does not wait, but makes other calls of this object.
BOOST_AUTO_TEST_CASE(a_rank_at_its_mailbox_does_not_block_others) {
  for (bool const listens : {false, true})
    threads::run(2,
                 [&](threads::communicator& engine) {
                   int pauses = 0;
                   reproducible comm(engine, {.pause = [&] { ++pauses, test::sleep(1e-4); }});
                   std::vector<float> in(1000, 1), out(1000);
                   auto q = comm.all_reduce(const_view(in), view(out));
                   std::byte const word[] = {std::byte{7}};
                   if (comm.rank() == 1) {
                     q.wait();
                     comm.post(0, 5, word);
                     return;
                   }
                   std::optional<message> m;
                   while (!(m = comm.poll(5))) {
                     if (listens)
                       comm.listen();
                     else
                       test::sleep(1e-4);
                   }
                   demand(m->source == 1 && m->bytes[0] == word[0], "another message");
                   q.wait();
                 },
                 {.deadline = 20});
}

BOOST_AUTO_TEST_CASE(messages_and_groups_pass_through) {
  threads::run(3, [&](threads::communicator& engine) {
    reproducible comm(engine, {.most_ranks = 3});
    std::vector<float> in(300, 1), out(300), values(4, static_cast<float>(comm.rank()));
    auto q = comm.all_reduce(const_view(in), view(out));
    if (comm.rank() == 0) comm.send(const_view(values), 1);
    if (comm.rank() == 1) comm.recv(view(values), 0);
    auto part = comm.split(comm.rank() % 2);  // after the sum on every rank
    q.wait();
    demand(out[299] == 3, "the sum of all is wrong");
    demand(comm.rank() != 1 || values[0] == 0, "the message is wrong");
    part.all_reduce(const_view(in), view(out)).wait();
    demand(out[0] == static_cast<float>(part.size()), "the sum of a part is wrong");
    auto moved = std::move(part);
    moved.all_reduce(const_view(in), view(out)).wait();
    demand(out[0] == static_cast<float>(moved.size()), "the sum of a moved group is wrong");
  });
}

BOOST_AUTO_TEST_CASE(maxima_and_integers_are_passed_to_the_engine) {
  std::vector<std::string> script;
  threads::run(1, [&](threads::communicator& engine) {
    scripted s{engine, script};
    reproducible comm(s);
    std::vector<double> d(1000, 2), e(1000);
    std::vector<i64> i(1000, 3), j(1000);
    std::vector<float> f(4, 1), g(4);
    comm.all_reduce(const_view(d, "d"), view(e), reduction::max).wait();
    comm.all_reduce(const_view(i, "i"), view(j)).wait();
    comm.reduce_scatter(const_view(i, "i"), view(j)).wait();
    comm.all_reduce(const_view(f, "f"), view(g)).wait();
    demand(e[999] == 2 && j[999] == 3 && g[3] == 1, "wrong values");
  });
  std::vector<std::string> const expected{"max f64 d", "sum int64 i", "scatter int64 i", "max f32 f",
                                          "sum int64 f"};
  BOOST_TEST(script == expected, boost::test_tools::per_element());
}

BOOST_AUTO_TEST_CASE(nothing_is_allocated_in_a_steady_state) {
  std::atomic<long> before{0}, after{0};
  threads::run(2, [&](threads::communicator& engine) {
    reproducible comm(engine);
    std::vector<float> in(5000, 1), out(20'000);
    std::vector<double> control(5, 1), all(5);
    std::vector<piece> const pieces{{0, 100}, {104, 4000}};
    std::vector<decltype(comm)::request> open;
    open.reserve(8);
    for (int step = 0; step < 40; ++step) {
      if (step == 20) {
        comm.barrier();
        if (comm.rank() == 0) before = testing::allocations.load();
        comm.barrier();
      }
      for (int k = 0; k < 4; ++k)
        open.push_back(comm.all_reduce(const_view(in), view(out).sub(5000 * k, 5000), std::span(pieces)));
      open.push_back(comm.all_reduce(const_view(control), view(all)));
      open.push_back(comm.reduce_scatter(const_view(in), view(out).sub(0, 2500)));
      for (auto& q : open) q.wait();
      open.clear();
    }
    comm.barrier();
    if (comm.rank() == 0) after = testing::allocations.load();
    comm.barrier();
  });
  BOOST_TEST(after - before == 0);
}

BOOST_AUTO_TEST_CASE(options_out_of_range_are_refused) {
  self alone;
  auto const refused = [&](reproducible_options how, auto... parts) {
    BOOST_CHECK_EXCEPTION(reproducible(alone, how), std::invalid_argument, says("reproducible", parts...));
  };
  refused({.most_ranks = 1}, "most_ranks", "[2, 2^31]", "got 1");
  refused({.most_ranks = (i64{1} << 31) + 1}, "most_ranks", "2147483649");
  refused({.longest_double = -1}, "longest_double", "-1");
  refused({.pause = {}}, "pause is empty");
  auto const r =
      observe(3, [](threads::communicator& engine) { reproducible comm(engine, {.most_ranks = 2}); });
  BOOST_TEST(r.thrown.find("3 ranks are more than most_ranks = 2") != std::string::npos);
}

BOOST_AUTO_TEST_CASE(invalid_sums_are_refused_before_anything_is_sent) {
  reproducible comm(self{});
  std::vector<double> d(65), e(65);
  BOOST_CHECK_EXCEPTION((void)comm.all_reduce(const_view(d, "w"), view(e)), std::invalid_argument,
                        says("all_reduce of 'w'", "f64", "at most 64", "got 65"));
  BOOST_CHECK_EXCEPTION((void)comm.reduce_scatter(const_view(d, "w"), view(e)), std::invalid_argument,
                        says("reduce_scatter of 'w'", "got 65"));
  std::vector<piece> const whole{{0, 65}};
  BOOST_CHECK_EXCEPTION((void)comm.all_reduce(const_view(d, "w"), view(e), std::span(whole)),
                        std::invalid_argument, says("all_reduce of 'w'", "got 65"));
  comm.all_reduce(const_view(d).data ? const_tensor_view(view(d).sub(0, 64)) : const_tensor_view(),
                  view(e).sub(0, 64))
      .wait();
  std::vector<float> x(10), y(10);
  for (auto const& bad : std::vector<std::vector<piece>>{{{0, 11}},
                                                         {{-1, 2}},
                                                         {{3, -1}},
                                                         {{0, 5}, {4, 2}},
                                                         {{5, 2}, {0, 2}},
                                                         {{11, 0}},
                                                         {{1, i64{1} << 62}}})
    BOOST_CHECK_EXCEPTION((void)comm.all_reduce(const_view(x, "w"), view(y), std::span(bad)),
                          std::invalid_argument, says("all_reduce of 'w'", "a tensor of"));
  auto moved = std::move(comm);
  BOOST_CHECK_EXCEPTION(comm.barrier(), std::invalid_argument, says("moved from"));
  BOOST_CHECK_EXCEPTION((void)comm.all_reduce(const_view(x, "w"), view(y)), std::invalid_argument,
                        says("moved from"));
  moved.barrier();
}

// The same number of blocks, so that the engine alone would not detect the difference.
BOOST_AUTO_TEST_CASE(ranks_with_different_sums_all_get_an_error) {
  auto const differ = [](auto f) {
    std::atomic<int> errors{0};
    threads::run(3, [&](threads::communicator& engine) {
      try {
        f(engine);
      } catch (error const& e) {
        demand(e.where().engine == "reproducible" && e.where().bucket == "w", e.what());
        demand(says("the ranks differ", "most_ranks")(e), e.what());
        ++errors;
      }
      // The group stays usable, since all ranks failed.
      test::sum(engine);
    });
    BOOST_TEST(errors == 3);
  };
  differ([](threads::communicator& engine) {
    reproducible comm(engine);
    std::vector<float> x(300), y(300);
    std::vector<piece> const pieces{{0, 100}, {100, engine.rank() == 1 ? 200 : 199}};
    comm.all_reduce(const_view(x, "w"), view(y), std::span(pieces)).wait();
  });
  differ([](threads::communicator& engine) {
    reproducible comm(engine);
    std::vector<float> x(300), y(300);
    std::vector<piece> const pieces{{engine.rank() == 2 ? 1 : 0, 100}};
    comm.all_reduce(const_view(x, "w"), view(y), std::span(pieces)).wait();
  });
  differ([](threads::communicator& engine) {
    reproducible comm(engine);
    std::vector<float> x(300), y(300);
    std::vector<f16> u(300), v(300);
    if (engine.rank() == 0)
      comm.all_reduce(const_view(x, "w"), view(y)).wait();
    else
      comm.all_reduce(const_view(u, "w"), view(v)).wait();
  });
  differ([](threads::communicator& engine) {
    reproducible comm(engine, {.most_ranks = engine.rank() == 0 ? 1024 : 2048});
    std::vector<float> x(300), y(300);
    auto q = comm.all_reduce(const_view(x, "w"), view(y));
    while (!q.done()) test::sleep(1e-4);
    try {
      q.wait();
    } catch (error const&) {
      q.wait();  // the same error again
    }
  });
  differ([](threads::communicator& engine) {
    reproducible comm(engine);
    std::vector<float> x(768), y(768);
    std::vector<piece> const pieces{{0, 256}, {256, 256}, {512, 256}};
    if (engine.rank() == 0)
      comm.all_reduce(const_view(x, "w"), view(y), std::span(pieces)).wait();
    else
      comm.reduce_scatter(const_view(x, "w"), view(y).sub(0, 256)).wait();
  });
}

BOOST_AUTO_TEST_CASE(errors_of_the_engine_name_call_and_bucket_and_reach_all) {
  auto const r = observe(2, [](threads::communicator& engine) {
    reproducible comm(engine);
    std::vector<float> x(300, 1), y(300);
    if (engine.rank() == 1) throw std::runtime_error("out of memory");
    comm.all_reduce(const_view(x, "w"), view(y)).wait();
  });
  BOOST_TEST(r.thrown == "out of memory");
  BOOST_TEST(r.ranks[0].bucket == "w");
  BOOST_TEST(r.ranks[0].call == "all_reduce");
  BOOST_TEST(r.ranks[0].rank == 1);
  BOOST_TEST(r.seconds < test::at_once);
}

BOOST_AUTO_TEST_CASE(a_request_that_is_dropped_ends_the_group) {
  // During its MAX, and during its SUM.
  for (bool const halfway : {false, true}) {
    auto const r = observe(2, [=](threads::communicator& engine) {
      reproducible comm(engine);
      std::vector<float> x(300, 1), y(300);
      {
        auto q = comm.all_reduce(const_view(x, "w"), view(y));
        if (halfway) {
          std::vector<float> z(300);
          auto next = comm.all_reduce(const_view(x, "v"), view(z));
          if (engine.rank() == 1) q.wait(), next.wait();
        }
        if (engine.rank() == 0) return test::sleep(0.01);
        if (!halfway) q.wait();
      }
      comm.barrier();
    });
    BOOST_TEST(r.is_limber_error);
    // The latest one is dropped first.
    std::string const expected = text("destroyed its all_reduce of '", halfway ? "v" : "w", "'");
    BOOST_TEST(r.thrown.find(expected) != std::string::npos, r.thrown);
    BOOST_TEST(r.seconds < test::at_once);
  }
}

BOOST_AUTO_TEST_CASE(survivors_of_an_exception_shrink_and_sum_again) {
  threads::run(3, [](threads::communicator& engine) {
    reproducible comm(engine);
    std::vector<float> x(300, 1), y(300);
    if (engine.rank() == 2) {
      comm.revoke("the power went");
      return;
    }
    try {
      for (int k = 0; k < 100; ++k) comm.all_reduce(const_view(x, "w"), view(y)).wait();
      throw std::logic_error("nothing happened");
    } catch (error const& e) { demand(says("the power went")(e), e.what()); }
    int const lost[] = {2};
    auto rest = comm.shrink(lost);
    rest.all_reduce(const_view(x, "w"), view(y)).wait();
    demand(y[299] == 2, "the survivors' sum is wrong");
  });
}

BOOST_AUTO_TEST_CASE(checked_works_as_outer_and_inner_wrapper) {
  threads::run(2, [](threads::communicator& engine) {
    reproducible within(engine);
    checked outer(within);
    checked safe(engine);
    reproducible inner(safe);
    std::vector<float> x(300, 1), y(300);
    std::vector<piece> const pieces{{0, 300}};
    outer.all_reduce(const_view(x), view(y), std::span(pieces)).wait();
    demand(y[299] == 2, "checked outside: wrong");
    inner.all_reduce(const_view(x), view(y), std::span(pieces)).wait();
    demand(y[0] == 2, "checked inside: wrong");
    auto part = outer.split(0);
    part.all_reduce(const_view(x), view(y)).wait();
    demand(y[0] == 2, "a checked part: wrong");
  });
}
