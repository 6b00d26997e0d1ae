// SPDX-License-Identifier: Apache-2.0
// labels: unit contract mpi
// timeout: 120
// needs: MPI
// ranks: 2 3
// other ranks: 2
// sanitizers: address
#define BOOST_TEST_MODULE limber.comm.mpi_failure
#include <limber/comm/checked.hpp>

#include <boost/test/unit_test.hpp>

#include <support/checks.hpp>
#include <support/contract_values.hpp>
#include <support/mpi_main.hpp>

#include <chrono>
#include <functional>
#include <list>
#include <span>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace limber::test {

using limber::testing::has;
using limber::testing::message_of;
using limber::testing::on_ranks;
using limber::testing::the_world;

mpi::options const patient{.deadline = 30};

/// Thrown by `fatal` in these tests.
struct the_end : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// The real engine; the call named in `broken` fails with a code of MPI's.
struct breaking : mpi::driver {
  using answer = mpi::detail::answer;
  static inline std::string broken{};

  static answer or_broken(std::string const& name, answer a) {
    return broken == name ? answer{MPI_ERR_OTHER, a.function} : a;
  }
  template <class... A>
  answer all_reduce(A&&... a) {
    return or_broken("all_reduce", driver::all_reduce(std::forward<A>(a)...));
  }
  template <class... A>
  answer test(A&&... a) {
    return or_broken("test", driver::test(std::forward<A>(a)...));
  }
  template <class... A>
  answer send(A&&... a) {
    return or_broken("send", driver::send(std::forward<A>(a)...));
  }
  template <class... A>
  answer probe(A&&... a) {
    return or_broken("probe", driver::probe(std::forward<A>(a)...));
  }
  template <class... A>
  answer split(A&&... a) {
    return or_broken("split", driver::split(std::forward<A>(a)...));
  }
};
using breakable = mpi::basic_communicator<breaking>;

template <class C>
void sum(C& comm, std::string_view name, std::size_t n = 8) {
  std::vector<float> in(n, 1), out(n);
  comm.all_reduce(const_view(in, name), view(out)).wait();
}

/// Memory that MPI may still use, so it is never freed.
std::list<std::vector<float>> kept;
std::vector<float>& keep(std::size_t n) { return kept.emplace_back(n, 1.0f); }

// Rank 1 is late in each of these; the communicators are lost on rank 0, and MPI ends normally.
BOOST_AUTO_TEST_CASE(an_operation_with_a_missing_rank_is_fatal_at_the_deadline) {
  struct example {
    std::string call, bucket;
    std::function<void(mpi::communicator&, std::vector<float>&, std::vector<float>&)> make;
  };
  std::size_t const n = 6, world = static_cast<std::size_t>(the_world()->size());
  std::vector<example> const examples{
      {"all_reduce", "w",
       [](auto& comm, auto& in, auto& out) {
         comm.all_reduce(const_view(in, "w"), limber::view(out)).wait();
       }},
      {"all_reduce", "w",  // checked by done() only
       [](auto& comm, auto& in, auto& out) {
         for (auto q = comm.all_reduce(const_view(in, "w"), limber::view(out)); !q.done();)
           std::this_thread::sleep_for(std::chrono::milliseconds(1));
       }},
      {"reduce_scatter", "w",
       [&](auto& comm, auto& in, auto& out) {
         comm.reduce_scatter(const_view(in, "w"), limber::view(std::span(out).first(n / world))).wait();
       }},
      {"all_gather", "w",
       [&](auto& comm, auto& in, auto& out) {
         comm.all_gather(const_view(std::span(in).first(n / world), "w"), limber::view(out)).wait();
       }},
      {"barrier", "", [](auto& comm, auto&, auto&) { comm.barrier(); }},
      {"split", "", [](auto& comm, auto&, auto&) { (void)comm.split(0); }},
  };
  for (auto const& e : examples) {
    bool const late = the_world()->rank() == 1;
    std::string heard;
    auto& in = keep(n);
    auto& out = keep(n);
    auto* const comm = new mpi::communicator(
        MPI_COMM_WORLD, {.deadline = late ? 30 : 0.3, .fatal = [&](std::string const& what) {
                           heard = what;
                           throw the_end(what);
                         }});
    if (late) {
      // The others time out first; then rank 1 makes the call, so that MPI can end.
      the_world()->meet();
      std::vector<i64> one(1), all(world);
      if (e.call == "split")  // the first part of a split, which the others would not complete
        comm->all_gather(const_view(one), view(all)).wait();
      else
        e.make(*comm, in, out);
    } else {
      double const start = steady_seconds();
      auto const message = message_of([&] { e.make(*comm, in, out); });
      double const seconds = steady_seconds() - start;
      BOOST_TEST(seconds >= 0.3);
      BOOST_TEST(seconds < 10);
      BOOST_TEST(message == heard);
      BOOST_TEST(
          has(message, "limber: mpi: " + e.call + ": rank ", text("rank ", the_world()->rank(), " of "),
              " waited 0.3 s", "another rank did not come to this call, or died"),
          message);
      BOOST_TEST((e.bucket.empty() || has(message, "[" + e.bucket + "]")), message);
      // For all later calls.
      for (auto const& next : examples) {
        auto const again = message_of([&] { next.make(*comm, in, out); });
        BOOST_TEST(has(again, "limber: mpi: " + next.call, "waited 0.3 s"), again);
      }
      auto const posted = message_of([&] { comm->post(1, 0, {}); });
      BOOST_TEST(has(posted, "limber: mpi: post", "waited 0.3 s"), posted);
      BOOST_TEST(has(message_of([&] { (void)comm->poll(0); }), "limber: mpi: poll", "waited 0.3 s"));
      BOOST_TEST(has(message_of([&] { comm->listen(); }), "limber: mpi: listen", "waited 0.3 s"));
      the_world()->meet();
    }
    delete comm;
  }
}

BOOST_AUTO_TEST_CASE(a_late_sender_or_an_empty_mailbox_is_an_error_and_the_group_stays_usable) {
  on_ranks(2, {.deadline = 0.3}, [&](mpi::communicator& comm) {
    std::vector<float> data{1, 2};
    if (comm.rank() == 0) {
      auto const received = message_of([&] { comm.recv(view(data, "w"), 1); });
      demand(received == "limber: mpi: recv: rank 1 sent nothing to rank 0 within 0.3 s [rank 1] [w]",
             received);
      auto const listened = message_of([&] { comm.listen(); });
      demand(listened == "limber: mpi: listen: nobody posted anything to rank 0 within 0.3 s", listened);
    }
  });
  on_ranks(2, patient, [&](mpi::communicator& comm) {
    mpi::communicator hasty(MPI_COMM_SELF, {.deadline = 0.1});
    demand(has(message_of([&] { hasty.listen(); }), "nobody posted"), "listen returned");
    hasty.post(0, 3, {});
    while (!hasty.poll(3)) hasty.listen();
    sum(hasty, "w");
    sum(comm, "w");
  });
}

BOOST_AUTO_TEST_CASE(a_message_of_another_size_is_named_and_ends_the_group) {
  on_ranks(2, patient, [&](mpi::communicator& comm) {
    std::vector<float> three{1, 2, 3}, two(2);
    if (comm.rank() == 0) {
      comm.send(const_view(three), 1);
      return;
    }
    auto const message = message_of([&] { comm.recv(view(two, "w"), 0); });
    demand(message == "limber: mpi: recv: rank 1 receives 8 bytes (2 f32) but rank 0 sent 12 [rank 1] [w]",
           message);
    demand(two == std::vector<float>(2), "something was written");
    auto const again = message_of([&] { comm.barrier(); });
    demand(has(again, "limber: mpi: barrier: rank 1 receives 8 bytes"), again);
  });
}

BOOST_AUTO_TEST_CASE(a_request_destroyed_unwaited_lets_its_operation_end_and_ends_the_group) {
  on_ranks(2, patient, [&](mpi::communicator& comm) {
    {
      std::vector<float> in(100'000, 1), out(100'000);
      auto open = comm.all_reduce(const_view(in, "w"), view(out));
      if (comm.rank() == 0) open.wait();
    }  // no later writes: checked by AddressSanitizer
    if (comm.rank() == 0) return;
    auto const message = message_of([&] { sum(comm, "v"); });
    demand(message ==
               "limber: mpi: all_reduce: rank 1 destroyed a request of all_reduce before it was waited for "
               "[rank 1] [v]",
           message);
  });
  on_ranks(2, patient, [&](mpi::communicator& comm) {
    std::vector<float> in(10, 1), out(10), second(10);
    auto open = comm.all_reduce(const_view(in), view(out));
    while (!open.done()) std::this_thread::yield();
    open = comm.all_reduce(const_view(in), view(second));  // done: may be replaced
    open.wait();
    demand(out[9] == 2 && second[9] == 2, "a sum is wrong");
    sum(comm, "w");
  });
}

BOOST_AUTO_TEST_CASE(every_code_of_mpi_is_seen) {
  struct example {
    std::string broken, function, call;
    std::function<void(breakable&)> make;
  };
  std::vector<example> const examples{
      {"all_reduce", "MPI_Iallreduce", "all_reduce", [](breakable& c) { sum(c, "w"); }},
      {"test", "MPI_Test", "all_reduce", [](breakable& c) { sum(c, "w"); }},
      {"test", "MPI_Test", "barrier", [](breakable& c) { c.barrier(); }},
      {"send", "MPI_Isend", "post", [](breakable& c) { c.post(0, 1, {}); }},
      {"probe", "MPI_Improbe", "poll", [](breakable& c) { (void)c.poll(1); }},
      {"probe", "MPI_Improbe", "listen", [](breakable& c) { c.listen(); }},
      {"probe", "MPI_Improbe", "recv",
       [](breakable& c) {
         std::vector<float> one(1);
         c.recv(view(one, "w"), 0);
       }},
      {"split", "MPI_Comm_split", "split", [](breakable& c) { (void)c.split(0); }},
  };
  for (auto const& e : examples) {
    breakable comm(MPI_COMM_SELF,
                   {.deadline = 1, .fatal = [](std::string const& what) { throw the_end(what); }});
    breaking::broken = e.broken;
    failure seen;
    try {
      e.make(comm);
    } catch (error const& failed) { seen = failed.where(); }
    breaking::broken.clear();
    BOOST_TEST(seen.engine == "mpi");
    BOOST_TEST(seen.call == e.call);
    BOOST_TEST(seen.code == MPI_ERR_OTHER);
    BOOST_TEST(has(seen.reason, e.function + ": "), seen.reason);
    BOOST_TEST(seen.reason.size() > e.function.size() + 4);  // followed by MPI's text
    bool const has_bucket = e.call == "all_reduce" || e.call == "recv";
    BOOST_TEST(seen.bucket == (has_bucket ? "w" : ""));
    auto const again = message_of([&] { comm.barrier(); });
    BOOST_TEST(has(again, "limber: mpi: barrier: ", e.function), again);
  }
}

// checked<> over MPI ------------------------------------------------------------------------------------

using checked_mpi = checked<mpi::communicator&>;

/// The error of f on this rank, which must be equal on all ranks.
template <class F>
[[nodiscard]] failure seen_by_all(F f, double deadline) {
  failure mine;
  int const n = the_world()->size();
  double seconds = 0;
  on_ranks(n, patient, [&](mpi::communicator& engine) {
    checked_mpi comm(engine, {.deadline = deadline});
    double const start = steady_seconds();
    try {
      f(comm);
    } catch (error const& e) { mine = e.where(); }
    seconds = steady_seconds() - start;
  });
  BOOST_TEST(seconds < deadline + 5);
  auto const all = the_world()->gather(mine.engine.empty() ? "" : error(mine).what());
  for (auto const& one : all)
    for (auto const& other : all) BOOST_TEST((one.empty() || other.empty() || one == other), one + other);
  return mine;
}

BOOST_AUTO_TEST_CASE(skipped_reordered_and_different_calls_are_named_on_every_rank) {
  int const n = the_world()->size(), odd = n - 1;
  if (n < 3) return;  // two ranks have no majority
  auto const f = seen_by_all(
      [&](checked_mpi& comm) {
        sum(comm, "first");
        if (comm.rank() != odd) sum(comm, "second");
        sum(comm, "third");
      },
      20);
  BOOST_TEST(f.call == "all_reduce");
  BOOST_TEST(f.rank == odd);
  BOOST_TEST(f.bucket == "second");
  BOOST_TEST(f.reason == text("rank ", odd,
                              " calls all_reduce of 8 f32 (sum) of 'third', the others all_reduce of 8 f32 "
                              "(sum) of 'second'"));
  auto const g = seen_by_all(
      [&](checked_mpi& comm) {
        sum(comm, comm.rank() == odd ? "b" : "a");
        sum(comm, comm.rank() == odd ? "a" : "b");
      },
      20);
  BOOST_TEST(g.rank == odd);
  BOOST_TEST(g.bucket == "a");
  BOOST_TEST(has(g.reason, "of 'b', the others"), g.reason);

  struct example {
    std::function<void(checked_mpi&)> make;
    std::string what;
  };
  std::vector<float> in(8), out(8);
  std::vector<double> in64(8), out64(8);
  std::vector<example> const examples{
      {[](checked_mpi& comm) { sum(comm, "w", 9); }, "all_reduce of 9 f32 (sum) of 'w'"},
      {[&](checked_mpi& comm) { comm.all_reduce(const_view(in64, "w"), view(out64)).wait(); },
       "all_reduce of 8 f64 (sum) of 'w'"},
      {[&](checked_mpi& comm) { comm.all_reduce(const_view(in, "w"), view(out), reduction::max).wait(); },
       "all_reduce of 8 f32 (max) of 'w'"},
      {[&](checked_mpi& comm) { comm.broadcast(view(in, "w"), 1).wait(); },
       "broadcast of 8 f32 from rank 1 of 'w'"},
      {[](checked_mpi& comm) { comm.barrier(); }, "barrier"},
  };
  for (auto const& e : examples) {
    auto const h = seen_by_all(
        [&](checked_mpi& comm) {
          if (comm.rank() == odd)
            e.make(comm);
          else
            sum(comm, "w");
        },
        20);
    BOOST_TEST(h.engine == "checked");
    BOOST_TEST(h.rank == odd);
    BOOST_TEST(h.bucket == "w");
    BOOST_TEST(has(h.reason, text("rank ", odd, " calls ", e.what, ", the others all_reduce of 8 f32 (sum)")),
               h.reason);
  }
}

BOOST_AUTO_TEST_CASE(an_absent_rank_is_named_within_the_deadline_and_nothing_is_fatal) {
  int const n = the_world()->size();
  for (int const absent : {0, n - 1}) {
    auto const f = seen_by_all(
        [&](checked_mpi& comm) {
          sum(comm, "first");
          if (comm.rank() != absent) sum(comm, "second");
        },
        3);
    if (the_world()->rank() == absent) continue;
    BOOST_TEST(f.engine == "checked");
    BOOST_TEST(f.call == "all_reduce");
    BOOST_TEST(f.rank == absent);
    BOOST_TEST(f.bucket == "second");
    BOOST_TEST(has(f.reason, text("rank ", absent, " did not come to all_reduce of 8 f32 (sum) of 'second'")),
               f.reason);
  }
}

}  // namespace limber::test
