// SPDX-License-Identifier: Apache-2.0
// labels: unit
// needs: context
// sanitizers: address
#define BOOST_TEST_MODULE limber.sim.messages
#include <limber/sim/sim.hpp>

#include <boost/test/unit_test.hpp>

#include <sim/both.hpp>

#include <cstddef>
#include <string>
#include <vector>

using namespace limber;
using namespace limber::test;

namespace {

// 100 bytes take a second, and a quarter to arrive.
sim::cluster slow_links(int n) {
  auto c = idle_cluster(n);
  c.network = {.latency = 0.25, .bandwidth = 100};
  return c;
}
std::string const hundred(100, 'x');

struct arrival {
  double time;
  int source;
  bool operator==(arrival const&) const = default;
};

}  // namespace

BOOST_AUTO_TEST_CASE(messages_to_one_server_queue_at_its_link) {
  std::vector<arrival> seen;
  auto const r = sim::run(slow_links(4), [&](sim::worker& me) {
    auto& comm = me.comm();
    if (me.rank() > 0) return post(comm, 0, hundred);
    while (seen.size() < 3) {
      comm.listen();
      while (auto const m = comm.poll(0)) seen.push_back({me.now(), m->source});
    }
  });
  BOOST_TEST((seen == std::vector<arrival>{{1.25, 1}, {2.25, 2}, {3.25, 3}}));
  BOOST_TEST(r.workers[0].waiting == 3.25);
  BOOST_TEST(r.workers[1].ended == 0);  // post does not wait
  BOOST_TEST(r.workers[1].messages == 1);
  BOOST_TEST(r.bytes() == 300);
}

BOOST_AUTO_TEST_CASE(messages_from_one_worker_queue_at_its_link) {
  std::vector<arrival> seen;
  sim::run(slow_links(3), [&](sim::worker& me) {
    auto& comm = me.comm();
    if (me.rank() == 0) {
      post(comm, 1, hundred);
      post(comm, 2, hundred);
      post(comm, 0, hundred);
      if (polled(comm).empty()) throw std::logic_error("a message to oneself is there at once");
      return;
    }
    comm.listen();
    seen.push_back({me.now(), me.rank()});
  });
  BOOST_TEST((seen == std::vector<arrival>{{1.25, 1}, {2.25, 2}}));
}

// Rank 1's first message holds the server's link from 0 to 1; its second reaches it at 1, rank 2's at 0.5.
BOOST_AUTO_TEST_CASE(a_link_serves_whoever_reached_it_first) {
  std::vector<arrival> seen;
  sim::run(slow_links(3), [&](sim::worker& me) {
    auto& comm = me.comm();
    if (me.rank() == 1) {
      post(comm, 0, hundred);
      post(comm, 0, hundred);
    }
    if (me.rank() == 2) {
      me.sleep(0.5);
      post(comm, 0, hundred);
    }
    while (me.rank() == 0 && seen.size() < 3) {
      comm.listen();
      while (auto const m = comm.poll(0)) seen.push_back({me.now(), m->source});
    }
  });
  BOOST_TEST((seen == std::vector<arrival>{{1.25, 1}, {2.25, 2}, {3.25, 1}}));
}

BOOST_AUTO_TEST_CASE(links_inside_a_block_do_not_wait_for_the_network) {
  auto c = slow_links(4);
  c.block_size = 2;
  c.inside = {.latency = 0.125};
  std::vector<arrival> seen;
  sim::run(c, [&](sim::worker& me) {
    auto& comm = me.comm();
    if (me.rank() == 0) {
      post(comm, 2, hundred);
      post(comm, 1, hundred);
    } else if (me.rank() < 3) {
      comm.listen();
      seen.push_back({me.now(), me.rank()});
    }
  });
  BOOST_TEST((seen == std::vector<arrival>{{0.125, 1}, {1.25, 2}}));
}

BOOST_AUTO_TEST_CASE(send_waits_for_its_own_link_and_recv_for_the_arrival) {
  double taken = 0, received = 0;
  sim::run(slow_links(2), [&](sim::worker& me) {
    std::vector<float> data(25, static_cast<float>(me.rank()));
    if (me.rank() == 0) {
      me.comm().send(view(data), 1);
      me.comm().send(view(data), 1);
      taken = me.now();
    } else {
      me.comm().recv(view(data), 0);
      if (data[24] != 0) throw std::logic_error("other bytes");
      me.comm().recv(view(data), 0);
      received = me.now();
    }
  });
  BOOST_TEST(taken == 2);
  BOOST_TEST(received == 2.25);
}

BOOST_AUTO_TEST_CASE(poll_sees_a_message_from_its_arrival_on) {
  std::vector<std::string> seen;
  sim::run(slow_links(2), [&](sim::worker& me) {
    // The receiver has the lower rank and is asked first.
    if (me.rank() == 1) return post(me.comm(), 0, hundred.substr(0, 25));
    for (int k = 0; k < 3; ++k) {
      seen.push_back(polled(me.comm()).substr(0, 2));
      me.sleep(0.25);
    }
  });
  BOOST_TEST(seen == (std::vector<std::string>{"", "", "1:"}), boost::test_tools::per_element());
}

BOOST_AUTO_TEST_CASE(listen_returns_once_per_arrival_and_not_for_read_messages) {
  std::vector<double> woken;
  sim::run(idle_cluster(2), [&](sim::worker& me) {
    auto& comm = me.comm();
    if (me.rank() == 1) {
      for (int k = 0; k < 6; ++k) {
        me.sleep(1);
        post(comm, 0, "word", k);
      }
      return;
    }
    auto listen = [&] {
      comm.listen();
      woken.push_back(me.now());
    };
    listen();       // 1
    me.sleep(1.5);  // the second came at 2
    listen();       // 2.5, at once
    listen();       // 3: the first two are unread, but were listened to
    me.sleep(1.5);  // the last came at 4 …
    if (polled(comm, 3).empty()) throw std::logic_error("nothing came at 4");
    if (polled(comm, 0).empty()) throw std::logic_error("the first is gone");
    listen();  // … and was read: 5
    post(comm, 0, "to myself", 9);
    listen();  // 5, at once
  });
  BOOST_TEST(woken == (std::vector<double>{1, 2.5, 3, 5, 5}), boost::test_tools::per_element());
}

BOOST_AUTO_TEST_CASE(listen_fails_when_no_sender_is_left_and_all_has_arrived) {
  auto c = slow_links(3);
  c.deaths = {{.worker = 1, .at = 3}};
  c.detection = 2;
  std::vector<double> times;
  std::string reason;
  sim::run(c, [&](sim::worker& me) {
    if (me.rank() == 1) me.sleep(100);
    if (me.rank() == 2) return post(me.comm(), 0, hundred);  // and leaves
    try {
      me.comm().listen();
      times.push_back(me.now());
      (void)polled(me.comm());
      me.comm().listen();
    } catch (error const& e) {
      times.push_back(me.now());
      reason = e.where().reason;
    }
  });
  BOOST_TEST(times == (std::vector<double>{1.25, 5}), boost::test_tools::per_element());
  BOOST_TEST(reason == "all others have left or died, and nobody posts to rank 0");
}

BOOST_AUTO_TEST_CASE(endless_polling_lets_time_pass) {
  for (auto const how : schedulers()) {
    auto c = slow_links(2);
    c.how = how;
    double mail = 0, reduced = 0;
    sim::run(c, [&](sim::worker& me) {
      auto& comm = me.comm();
      std::vector<float> in(25), out(25);
      if (me.rank() == 0) {
        while (polled(comm).empty()) {}
        mail = me.now();
      } else {
        me.compute(2);
        post(comm, 0, hundred);
      }
      auto q = comm.all_reduce(view(in), view(out));
      while (!q.done()) {}
      reduced = me.now();
      q.wait();
    });
    BOOST_TEST(mail == 3.25);
    BOOST_TEST(reduced == 3.25 + 2 * (0.25 + 0.5));
  }
}

BOOST_AUTO_TEST_CASE(polling_for_many_tags_is_no_deadlock) {
  auto const r = sim::run(idle_cluster(2), [&](sim::worker& me) {
    auto& comm = me.comm();
    if (me.rank() == 0) {
      for (i64 tag = 0; tag < 20000; ++tag)
        if (!polled(comm, tag).empty()) throw std::logic_error("a message from nowhere");
      post(comm, 1, "go");
    } else {
      comm.listen();
    }
  });
  BOOST_TEST(r.seconds == 0);
}
