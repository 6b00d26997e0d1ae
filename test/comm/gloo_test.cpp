// SPDX-License-Identifier: Apache-2.0
// labels: gloo
// timeout: 120
// needs: gloo
#define BOOST_TEST_MODULE limber.comm.gloo
#include <boost/test/unit_test.hpp>

#include <comm/gloo_worlds.hpp>
#include <gloo/rendezvous/file_store.h>
#include <gloo/rendezvous/hash_store.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cmath>
#include <csignal>
#include <cstddef>
#include <cstring>
#include <filesystem>
#include <iterator>
#include <limits>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace limber::test {

using comm_type = gloo_engine::communicator;
using action = gloo_engine::detail::failure_detector::action;

void pause(double seconds) { std::this_thread::sleep_for(std::chrono::duration<double>(seconds)); }

template <class F>
failure failure_of(F f) {
  try {
    f();
  } catch (error const& e) { return e.where(); }
  return {};
}
template <class F>
std::string misuse_of(F f) {
  try {
    f();
  } catch (std::invalid_argument const& e) { return e.what(); }
  return {};
}

void must(bool ok, std::string const& what) {
  if (!ok) throw std::logic_error(what);
}

BOOST_AUTO_TEST_SUITE(rendezvous)

BOOST_AUTO_TEST_CASE(missing_ranks_are_named) {
  rendezvous_folder const place;
  crew workers(5, [&](int rank, voice const&) {
    if (rank == 1 || rank == 3) return;
    auto const comm = place.join(rank, 5, {.rendezvous_deadline = 0.4});
  });
  auto const endings = workers.join(30);
  for (std::size_t const r : {0u, 2u, 4u}) {
    BOOST_REQUIRE_MESSAGE(endings[r].where.has_value(), endings[r].what);
    failure const& f = *endings[r].where;
    BOOST_TEST(f.engine == "gloo");
    BOOST_TEST(f.call == "bootstrap");
    BOOST_TEST(f.rank == 1);
    BOOST_TEST(f.reason == "rank 1, rank 3 of 5 did not come within 0.4 s");
  }
}

BOOST_AUTO_TEST_CASE(a_rank_that_leaves_at_once_does_not_disturb_those_that_still_connect) {
  for (int round = 0; round < 100; ++round) {
    rendezvous_folder const place;
    crew workers(3, [&](int rank, voice const&) {
      auto const comm = place.join(rank, 3, {.rendezvous_deadline = 20});
    });
    for (auto const& e : workers.join(60)) BOOST_REQUIRE_MESSAGE(e.what.empty(), e.what);
  }
}

BOOST_AUTO_TEST_CASE(a_prefix_that_was_used_before_is_refused) {
  rendezvous_folder const place;
  auto const connect_with = [&](std::string const& prefix) {
    crew workers(2, [&](int rank, voice const&) {
      gloo_engine::options how;
      how.prefix = prefix;
      how.rendezvous_deadline = 5;
      place.join(rank, 2, how).barrier();
    });
    return workers.join(30);
  };
  for (ending const& e : connect_with("a/1")) BOOST_TEST((e.how == ending::kind::finished), e.what);
  for (ending const& e : connect_with("a/2")) BOOST_TEST((e.how == ending::kind::finished), e.what);
  for (ending const& e : connect_with("a/1")) {
    BOOST_REQUIRE_MESSAGE(e.where.has_value(), e.what);
    BOOST_TEST(e.where->reason.find("exists already: two processes have one rank, or an earlier start") !=
               std::string::npos);
  }
}

BOOST_AUTO_TEST_CASE(a_record_of_another_world_is_reported) {
  rendezvous_folder const place;
  gloo_engine::file_rendezvous(place.path())->set("limber/1", {'x'});
  failure const f = failure_of([&] { (void)place.join(0, 2, {.rendezvous_deadline = 1}); });
  BOOST_TEST(f.rank == 1);
  BOOST_TEST(f.reason == "rank 1 wrote a record that is truncated, or for a world of another size");
}

BOOST_AUTO_TEST_CASE(a_rank_that_died_after_it_wrote_its_record_is_named) {
  rendezvous_folder const place;
  crew workers(2, [&](int rank, voice const& say) {
    gloo_engine::options how;
    how.rendezvous_deadline = 2;
    if (rank == 1) {
      // The state that a process leaves when it dies during the rendezvous.
      auto const store = gloo_engine::file_rendezvous(place.path());
      how.host = "127.0.0.1";
      auto const where = gloo_engine::detail::make_local_endpoint(how);
      gloo_engine::detail::mesh mesh(1, 2, where.device, 1);
      gloo_engine::detail::message_sockets const io(1, 2, gloo_engine::detail::numeric_host(where));
      gloo_engine::detail::rendezvous_record n{
          gloo_engine::detail::machine_name(), io.address(), {mesh.address_for(0), ""}};
      store->set("limber/1", gloo_engine::detail::serialized(n));
      say("died");
      ::_exit(0);
    }
    pause(0.3);
    double const start = steady_seconds();
    failure const f = failure_of([&] { (void)place.join(0, 2, how); });
    must(f.rank == 1 && f.call == "bootstrap", f.reason);
    must(steady_seconds() - start < 6, "it took too long");
  });
  BOOST_TEST(workers.hear(1, 10).value_or("") == "died");
  auto const endings = workers.join(30);
  BOOST_TEST((endings[0].how == ending::kind::finished), endings[0].what);
}

BOOST_AUTO_TEST_CASE(gloos_own_stores_serve_as_well) {
  {
    rendezvous_folder const place;
    run_processes(3, [&](int rank) {
      comm_type comm(rank, 3, std::make_shared<::gloo::rendezvous::FileStore>(place.path()),
                     {.host = "127.0.0.1"});
      comm.barrier();
      comm.split(rank % 2).barrier();
    });
  }
  // Ranks may also be threads of one process.
  run_processes(1, [](int) {
    auto const store = std::make_shared<::gloo::rendezvous::HashStore>();
    std::vector<std::thread> team;
    std::vector<int> sums(3);
    for (int r = 0; r < 3; ++r)
      team.emplace_back([&, r] {
        comm_type comm(r, 3, store);
        std::vector<i64> const in{r + 1};
        std::vector<i64> out(1);
        comm.all_reduce(const_view(in), view(out)).wait();
        sums[static_cast<std::size_t>(r)] = static_cast<int>(out[0]);
      });
    for (auto& t : team) t.join();
    must(sums == std::vector<int>{6, 6, 6}, "threads do not add up");
  });
}

BOOST_AUTO_TEST_CASE(the_facts_of_a_launcher_name_rank_and_prefix) {
  rendezvous_folder const place;
  run_processes(2, [&](int rank) {
    launch_facts facts;
    facts.rank = rank;
    facts.size = 2;
    facts.job = "job-7";
    auto const store = gloo_engine::file_rendezvous(place.path());
    comm_type comm(facts, store, {.host = "127.0.0.1"});
    comm.barrier();
    must(!store->get("limber.job-7/0").empty(), "no record below the job's name");
  });
}

BOOST_AUTO_TEST_CASE(a_single_process_needs_nobody) {
  comm_type alone(0, 1, nullptr);
  alone.barrier();
  BOOST_TEST(alone.split(3).size() == 1);
  BOOST_TEST(failure_of([&] { alone.listen(); }).reason == "nothing was posted, and nobody else can post");
  comm_type other(0, 1, nullptr);
  std::vector<float> x{1, 2}, y(2);
  other.send(const_view(x, "x"), 0);
  other.recv(view(y, "y"), 0);
  BOOST_TEST(y[1] == 2);
  BOOST_TEST(failure_of([&] { other.recv(view(y, "y"), 0); }).reason ==
             "nothing was sent, and nobody else can send");
}

BOOST_AUTO_TEST_CASE(options_that_cannot_be_are_refused) {
  auto const refused = [](auto change, int rank = 0, int size = 1) {
    gloo_engine::options how;
    change(how);
    return misuse_of([&] { comm_type const c(rank, size, nullptr, how); });
  };
  auto const nothing = [](auto&) {};
  BOOST_TEST(refused([](auto& o) { o.deadline = 0; }) == "limber: gloo: deadline must be > 0 s, got 0");
  BOOST_TEST(refused([](auto& o) { o.rendezvous_deadline = -1; }) ==
             "limber: gloo: rendezvous_deadline must be > 0 s, got -1");
  BOOST_TEST(refused([](auto& o) { o.lanes = 0; }) == "limber: gloo: lanes must be > 0, got 0");
  BOOST_TEST(refused([](auto& o) { o.prefix = ""; }) == "limber: gloo: prefix is empty");
  BOOST_TEST(refused([](auto& o) { o.clock = nullptr; }) == "limber: gloo: clock is empty");
  BOOST_TEST(refused([](auto& o) { o.host = "a", o.interface = "b"; }) ==
             "limber: gloo: both interface 'b' and host 'a' are given");
  BOOST_TEST(refused(nothing, 0, 0) == "limber: gloo: a world needs at least 1 rank, got 0");
  BOOST_TEST(refused(nothing, 2, 2) == "limber: gloo: rank must lie in [0, 2), got 2");
  BOOST_TEST(refused(nothing, 0, 2) ==
             "limber: gloo: 2 ranks need a store for the rendezvous (file_rendezvous)");
  BOOST_TEST(misuse_of([] { (void)gloo_engine::file_rendezvous("/dev/null/x"); }) ==
             "limber: gloo: file_rendezvous: '/dev/null/x' is no directory and cannot become one");
  // In a process of its own: Gloo loses memory there, which sanitizers would mind.
  run_processes(1, [](int) {
    rendezvous_folder const place;
    auto const store = gloo_engine::file_rendezvous(place.path());
    failure const f = failure_of([&] { (void)comm_type(0, 2, store, {.interface = "none7"}); });
    must(f.reason.starts_with("cannot listen at 'none7': "), f.reason);
  });
}

BOOST_AUTO_TEST_CASE(keys_of_the_directory_store_do_not_leave_it_and_are_put_once) {
  rendezvous_folder const place;
  auto const store = gloo_engine::file_rendezvous(place.path() / "new" / "folder");
  store->set("../a b/c", {'1', '\0', '2'});
  BOOST_TEST((store->get("../a b/c") == std::vector<char>{'1', '\0', '2'}));
  store->set("..%47%a b%47%c", {'3'});  // not what the first is written as
  BOOST_TEST((store->get("../a b/c") == std::vector<char>{'1', '\0', '2'}));
  BOOST_TEST(failure_of([&] { store->set("../a b/c", {'4'}); }).call == "bootstrap");
  BOOST_TEST(std::distance(std::filesystem::directory_iterator(place.path() / "new" / "folder"),
                           std::filesystem::directory_iterator()) == 2);
  double const start = steady_seconds();
  BOOST_CHECK_THROW(store->wait({"../a b/c", "absent"}, std::chrono::milliseconds(150)), ::gloo::IoException);
  BOOST_TEST(steady_seconds() - start >= 0.15);
  BOOST_TEST(steady_seconds() - start < 0.9);
  std::filesystem::remove_all(place.path() / "new");
  BOOST_TEST(failure_of([&] { store->set("k", {'1'}); }).reason.starts_with("cannot write '"));
}

BOOST_AUTO_TEST_SUITE_END()

BOOST_AUTO_TEST_SUITE(calls)

BOOST_AUTO_TEST_CASE(a_call_that_nobody_waits_for_is_made_all_the_same) {
  run_gloo(2, [](comm_type& comm) {
    std::vector<float> in(1000, 1), out(1000);
    for (double const idle : {0.0, 0.2, 0.0}) {
      pause(idle);  // long enough for the workers to fall asleep
      auto q = comm.all_reduce(const_view(in), view(out));
      for (double const start = steady_seconds(); steady_seconds() - start < 10 && !q.done();) pause(0.01);
      must(q.done(), "the call was not made");
      q.wait();
    }
    // Not even looked at: rank 0 computes, and rank 1 must get its sum meanwhile.
    auto q = comm.all_reduce(const_view(in), view(out));
    double const start = steady_seconds();
    if (comm.rank() == 0) pause(3);
    q.wait();
    must(comm.rank() == 0 || steady_seconds() - start < 2, "the call began with the wait of the other rank");
  });
}

BOOST_AUTO_TEST_CASE(calls_end_in_the_order_in_which_they_were_started) {
  run_gloo(2,
           [](comm_type& comm) {
             std::vector<float> large(4'000'000, 1), sum(4'000'000),
                 small(3, static_cast<float>(comm.rank()));
             for (int k = 0; k < 5; ++k) {
               auto a = comm.all_reduce(const_view(large), view(sum));
               auto b = comm.broadcast(view(small), k % 2);
               while (!b.done()) pause(0.001);
               must(a.done(), "the second call ended before the first");
               b.wait();
               a.wait();
             }
           },
           {.lanes = 2});
}

BOOST_AUTO_TEST_CASE(many_calls_in_flight_keep_their_numbers_apart) {
  for (int const lanes : {1, 3})
    run_gloo(2,
             [](comm_type& comm) {
               std::size_t const n = 4500;  // more than the numbers in a tag
               std::vector<i64> in(n), out(n);
               std::vector<gloo_engine::request> open;
               for (std::size_t k = 0; k < n; ++k) {
                 in[k] = static_cast<i64>(k) * (comm.rank() + 1);
                 open.push_back(comm.all_reduce(view(in).sub(static_cast<i64>(k), 1),
                                                view(out).sub(static_cast<i64>(k), 1)));
               }
               for (auto& q : open) q.wait();
               for (std::size_t k = 0; k < n; ++k)
                 must(out[k] == static_cast<i64>(3 * k), text("sum ", k, " is wrong"));
             },
             {.lanes = lanes});
}

BOOST_AUTO_TEST_CASE(narrow_sums_are_rounded_after_each_addition_of_floats) {
  run_gloo(3, [](comm_type& comm) {
    // 256 + 1 is 256 in bf16 whenever it is added alone; in float the sum would be 258.
    std::vector<bf16> const in(6, bf16(comm.rank() == 0 ? 256.f : 1.f));
    std::vector<bf16> out(6);
    comm.all_reduce(const_view(in), view(out)).wait();
    for (bf16 const x : out) {
      float const v = static_cast<float>(x);
      must(v == 256 || v == 258, text("256 + 1 + 1 is ", v));
    }
    must(static_cast<float>(out[0]) != static_cast<float>(out[2]) ||
             static_cast<float>(out[0]) != static_cast<float>(out[4]),
         "a ring adds each third in another order");
  });
}

BOOST_AUTO_TEST_CASE(integers_wrap_and_nan_wins) {
  run_gloo(3, [](comm_type& comm) {
    std::vector<i64> const big(4, std::numeric_limits<i64>::max());
    std::vector<i64> sum(4);
    comm.all_reduce(const_view(big), view(sum)).wait();
    must(sum[3] == std::numeric_limits<i64>::max() - 2, "int64 does not wrap");
    for (int who = 0; who < 3; ++who) {
      std::vector<double> const in(5, comm.rank() == who ? std::nan("") : 7.);
      std::vector<double> out(5);
      comm.all_reduce(const_view(in), view(out), reduction::max).wait();
      for (double const x : out) must(std::isnan(x), "max lost a NaN");
    }
  });
}

BOOST_AUTO_TEST_SUITE_END()

BOOST_AUTO_TEST_SUITE(messages)

BOOST_AUTO_TEST_CASE(large_messages_arrive_complete_and_in_order_among_small_ones) {
  run_gloo(3, [](comm_type& comm) {
    std::size_t const large = 64u << 20;
    int const next = (comm.rank() + 1) % 3, last = (comm.rank() + 2) % 3;
    std::vector<std::byte> large_message(large);
    for (std::size_t i = 0; i < large; i += 997) large_message[i] = std::byte(i % 251);
    double const start = steady_seconds();
    std::byte const one[] = {std::byte{1}}, two[] = {std::byte{2}};
    comm.post(next, 7, one);
    comm.post(next, 7, large_message);
    comm.post(next, 7, two);
    comm.send(const_tensor_view(large_message.data(), static_cast<i64>(large), dtype::uint8), next);
    must(steady_seconds() - start < 5, "post or send blocks");
    std::vector<std::size_t> sizes;
    while (sizes.size() < 3) {
      auto const m = comm.poll(7);
      if (!m) {
        comm.listen();
        continue;
      }
      must(m->source == last, "a message has a wrong sender");
      sizes.push_back(m->bytes.size());
      if (m->bytes.size() == large) must(m->bytes == large_message, "a large message has other bytes");
    }
    must((sizes == std::vector<std::size_t>{1, large, 1}), "messages arrived out of order");
    std::vector<std::uint8_t> got(large);
    comm.recv(view(got), last);
    must(std::memcmp(got.data(), large_message.data(), large) == 0, "what was sent has other bytes");
    comm.barrier();
  });
}

BOOST_AUTO_TEST_CASE(messages_posted_just_before_leaving_arrive) {
  for (int round = 0; round < 3; ++round)
    run_gloo(2, [](comm_type& comm) {
      if (comm.rank() == 1) {
        comm.post(0, 1, std::vector<std::byte>(10'000'000, std::byte{9}));
        return;
      }
      pause(0.2);
      comm.listen();
      auto const m = comm.poll(1);
      must(m && m->bytes.size() == 10'000'000 && m->bytes[9'999'999] == std::byte{9},
           "the last message is lost");
      double const start = steady_seconds();
      failure const f = failure_of([&] { comm.listen(); });
      must(f.reason == "all others have left, and nobody posts to rank 0", f.reason);
      must(steady_seconds() - start < 5 && comm.broken().empty(), "who leaves is not lost");
    });
}

BOOST_AUTO_TEST_CASE(a_listener_gives_up_at_the_deadline_and_a_receiver_names_whom_it_waits_for) {
  auto const give_up = [](bool listens) {
    run_gloo(2,
             [=](comm_type& comm) {
               if (comm.rank() == 1) return pause(1.5);
               std::vector<float> x(3);
               double const start = steady_seconds();
               failure const f = failure_of([&] { listens ? comm.listen() : comm.recv(view(x, "x"), 1); });
               must(f.reason == (listens ? "nobody posted anything to rank 0 within 0.5 s"
                                         : "rank 1 sent nothing to rank 0 within 0.5 s"),
                    f.reason);
               must(f.call == (listens ? "listen" : "recv") && f.bucket == (listens ? "" : "x"), f.call);
               must(steady_seconds() - start >= 0.5 && steady_seconds() - start < 1.4,
                    "that is not the deadline");
             },
             {.deadline = 0.5});
  };
  give_up(true);
  give_up(false);
}

BOOST_AUTO_TEST_CASE(a_message_that_does_not_fit_is_named_on_both_sides) {
  rendezvous_folder const place;
  crew workers(2, [&](int rank, voice const&) {
    auto comm = place.join(rank, 2);
    std::vector<float> four(4);
    std::vector<double> doubles(4);
    if (rank == 0) {
      comm.send(const_view(four, "four"), 1);
      comm.recv(view(four), 1);
    } else {
      comm.recv(view(doubles, "doubles"), 0);
    }
  });
  for (ending const& e : workers.join(30)) {
    BOOST_REQUIRE_MESSAGE(e.where.has_value(), e.what);
    BOOST_TEST(e.where->rank == 1);
    BOOST_TEST(e.where->reason == "rank 1 receives 4 f64 but rank 0 sent 4 f32");
  }
}

BOOST_AUTO_TEST_CASE(connections_of_unrelated_processes_are_not_listened_to) {
  using namespace limber::detail;
  run_processes(1, [](int) {
    message_sockets a(0, 2, "127.0.0.1"), b(1, 2, "127.0.0.1");
    std::string const address = a.address(), endpoint = address.substr(0, address.find(' '));
    zmq::context_t context;
    auto const stranger = [&](std::string const& id) {
      zmq::socket_t s(context, zmq::socket_type::dealer);
      s.set(zmq::sockopt::linger, 0);
      s.set(zmq::sockopt::routing_id, id);
      s.connect(endpoint);
      for (std::size_t const size : {0, 3, 100}) {
        s.send(zmq::message_t(size), zmq::send_flags::sndmore);
        s.send(zmq::message_t(size), zmq::send_flags::none);
        s.send(zmq::message_t(size), zmq::send_flags::none);
      }
      return s;
    };
    auto const first = stranger("1-1"), second = stranger("nobody");
    // Bytes that are not ZeroMQ's.
    ::gloo::transport::tcp::attr none;
    int const raw = ::socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in to{};
    to.sin_family = AF_INET;
    to.sin_port = htons(static_cast<std::uint16_t>(std::stoi(endpoint.substr(endpoint.rfind(':') + 1))));
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    must(::connect(raw, reinterpret_cast<sockaddr const*>(&to), sizeof to) == 0, "no connection");
    std::vector<char> const noise(1000, '\x7f');
    must(::write(raw, noise.data(), noise.size()) == 1000, "nothing written");

    std::thread other([&] {
      b.connect({address, {}}, steady_seconds, 5);
      b.await_all(steady_seconds, 5);
    });
    a.connect({{}, {}}, steady_seconds, 5);
    a.await_all(steady_seconds, 5);
    other.join();
    std::atomic<int> heard{0}, events{0};
    a.start({[&](peer_event e) {
               ++events;
               heard = e.peer * 100 + static_cast<int>(e.head.tag) * 10 + static_cast<int>(e.bytes.size());
             },
             [] {}},
            0.01);
    b.start({[](peer_event) {}, [] {}}, 0.01);
    b.post(0, {.tag = 4}, std::vector<std::byte>(3));
    b.flush(5);
    must(heard == 143 && events == 1, text("heard ", heard.load(), ", ", events.load(), " events"));
    b.stop();
    ::close(raw);
  });
}

BOOST_AUTO_TEST_CASE(messages_arrive_before_the_end_of_their_connection_is_reported) {
  using namespace limber::detail;
  run_processes(1, [](int) {
    for (int round = 0; round < 50; ++round) {
      int const n = 3;
      std::vector<std::unique_ptr<message_sockets>> all;
      std::vector<std::string> addresses;
      for (int r = 0; r < n; ++r) {
        all.push_back(std::make_unique<message_sockets>(r, n, "127.0.0.1"));
        addresses.push_back(all.back()->address());
      }
      std::vector<std::thread> team;
      for (auto& s : all)
        team.emplace_back([&] {
          s->connect(addresses, steady_seconds, 5);
          s->await_all(steady_seconds, 5);
        });
      for (auto& t : team) t.join();
      std::atomic<int> wrong{0}, lost{0};
      std::vector<int> next(static_cast<std::size_t>(n));
      int const watcher = round % n;
      for (int r = 0; r < n; ++r)
        all[static_cast<std::size_t>(r)]->start({[&, r](peer_event e) {
                                                   if (r != watcher) return;
                                                   int& k = next[static_cast<std::size_t>(e.peer)];
                                                   if (e.lost && (k != 100 || ++lost < 0)) ++wrong;
                                                   if (!e.lost && e.head.tag != k++) ++wrong;
                                                 },
                                                 [] {}},
                                                0.01);
      for (int r = 0; r < n; ++r) {
        if (r == watcher) continue;
        auto& s = all[static_cast<std::size_t>(r)];
        for (int k = 0; k < 100; ++k) s->post(watcher, {.tag = k}, std::vector<std::byte>(1000));
        s->flush(5);
        s.reset();
      }
      for (double const start = steady_seconds(); lost < n - 1 && steady_seconds() - start < 5;) pause(0.001);
      must(wrong == 0 && lost == n - 1, text(wrong.load(), " wrong, ", lost.load(), " lost"));
    }
  });
}

BOOST_AUTO_TEST_SUITE_END()

BOOST_AUTO_TEST_SUITE(failure_detector)

BOOST_AUTO_TEST_CASE(queries_after_most_of_the_deadline_and_diagnoses_when_all_have_replied) {
  gloo_engine::detail::failure_detector w(3);
  BOOST_TEST((w.check(0, 10, 5, 7) == action::wait));
  BOOST_TEST((w.check(8, 10, 5, 7) == action::wait));
  BOOST_TEST((w.check(8.1, 10, 6, 7) == action::wait));  // progress
  BOOST_TEST((w.check(16, 10, 6, 7) == action::wait));
  BOOST_TEST((w.check(16.2, 10, 6, 7) == action::query));
  BOOST_TEST(w.next() == 7);
  w.record_reply(0, 7, {9, "x"});
  w.record_reply(1, 6, {9, "x"});  // to another query
  w.record_reply(1, 7, {6, ""});
  BOOST_TEST((w.check(16.3, 10, 6, 7) == action::wait));
  w.record_reply(2, 7, {7, "x"});
  BOOST_TEST((w.check(16.3, 10, 6, 7) == action::diagnose));
  auto const v = w.diagnose("x", 10);
  BOOST_TEST(v.rank == 1);
  BOOST_TEST(v.reason == "rank 1 did not call x within 10 s");
  // The next call starts a new wait.
  BOOST_TEST((w.check(17, 10, 6, 8) == action::wait));
  BOOST_TEST((w.check(24, 10, 6, 8) == action::wait));
  w.reset();
  BOOST_TEST((w.check(30, 10, 6, 8) == action::wait));
  BOOST_TEST((w.check(38.5, 10, 6, 8) == action::query));
}

BOOST_AUTO_TEST_CASE(a_missing_reply_is_waited_for_briefly) {
  gloo_engine::detail::failure_detector w(3);
  (void)w.check(0, 10, 0, 1);
  BOOST_TEST((w.check(8.5, 10, 0, 1) == action::query));
  w.record_reply(0, 1, {1, "x"});
  w.record_reply(1, 1, {0, ""});
  BOOST_TEST((w.check(9.4, 10, 0, 1) == action::wait));
  BOOST_TEST((w.check(9.6, 10, 0, 1) == action::diagnose));
  BOOST_TEST(w.diagnose("x", 10).reason ==
             "rank 2 does not answer, being stopped or out of reach: x did not end within 10 s");
}

BOOST_AUTO_TEST_CASE(the_rank_that_is_furthest_behind_is_at_fault) {
  gloo_engine::detail::failure_detector w(5);
  auto const ask = [&] {
    w.reset();
    (void)w.check(0, 1, 0, 9);
    (void)w.check(0.9, 1, 0, 9);
    w.record_reply(0, 9, {9, "x"});
  };
  ask();
  w.record_reply(1, 9, {8, ""});
  w.record_reply(2, 9, {6, ""});
  w.record_reply(3, 9, {10, "x"});
  w.record_reply(4, 9, {6, ""});
  BOOST_TEST(w.diagnose("x", 1).reason == "rank 2, rank 4 did not call x within 1 s");
  w.record_reply(4, 9, {6, "", true});
  BOOST_TEST(w.diagnose("x", 1).reason == "rank 4 left without calling x");
  ask();
  for (int const r : {1, 2, 4}) w.record_reply(r, 9, {9, "x"});
  w.record_reply(3, 9, {400, ""});  // far ahead
  BOOST_TEST(w.diagnose("x", 1).reason == "all ranks are in x, but there was no progress for 1 s");
  w.record_reply(2, 9, {9, "y"});
  BOOST_TEST(w.diagnose("x", 1).reason == "rank 2 called y where others called x");
  BOOST_TEST(w.diagnose("x", 1).rank == 2);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace limber::test
