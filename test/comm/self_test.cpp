// SPDX-License-Identifier: Apache-2.0
// labels: unit contract
#define BOOST_TEST_MODULE limber.comm.self
#include <limber/comm/self.hpp>

#include <boost/test/unit_test.hpp>

#include <support/contract_values.hpp>

#include <tuple>

struct self_harness {
  using communicator = limber::self;
  static constexpr int largest_world = 1;
  static constexpr bool rank_order = true;
  static constexpr int skipped_parts = 0;
  template <class T>
  using buffer = limber::test::host_buffer<T>;
  template <class F>
  static void run(int, F f) {
    limber::self alone;
    f(alone);
  }
};
using contract_harnesses = std::tuple<self_harness>;

#include <support/collective_contract.hpp>

namespace limber::test {

static_assert(collective<self> && point_to_point<self> && splittable<self> && mailbox<self>);
static_assert(revocable<self> && shrinkable<self>);

BOOST_AUTO_TEST_CASE(messages_to_itself_arrive_in_order) {
  self alone;
  std::vector<float> const first{1, 2}, second{3};
  std::vector<float> a(2), b(1);
  alone.send(const_view(first), 0);
  alone.send(const_view(second), 0);
  alone.recv(view(a), 0);
  alone.recv(view(b), 0);
  BOOST_TEST(a == first);
  BOOST_TEST(b == second);
}

BOOST_AUTO_TEST_CASE(mail_of_each_tag_keeps_its_order_among_that_of_others) {
  self alone;
  for (int k = 0; k < 6; ++k) {
    std::byte const bytes[] = {std::byte(k)};
    alone.post(0, k % 2, bytes);
  }
  for (int const k : {1, 3, 0, 5, 2, 4}) {
    alone.listen();
    auto const m = alone.poll(k % 2);
    BOOST_REQUIRE(m.has_value());
    BOOST_TEST((m->bytes == std::vector<std::byte>{std::byte(k)}));
  }
  BOOST_TEST(!alone.poll(0).has_value());
  BOOST_CHECK_EXCEPTION(alone.listen(), error, [](error const& e) {
    return e.where().call == "listen" && e.where().reason == "nothing was posted, and nobody else can post";
  });
}

BOOST_AUTO_TEST_CASE(receiving_what_was_not_sent_is_an_error_and_not_a_hang) {
  self alone;
  std::vector<float> a(2);
  BOOST_CHECK_EXCEPTION(alone.recv(view(a, "w"), 0), error, [](error const& e) {
    return e.where().engine == "self" && e.where().call == "recv" && e.where().bucket == "w" &&
           e.where().reason == "nothing was sent, and nobody else can send";
  });
  std::vector<double> const d{1};
  alone.send(const_view(d), 0);
  BOOST_CHECK_EXCEPTION(alone.recv(view(a, "w"), 0), error, [](error const& e) {
    return e.where().reason == "rank 0 receives 2 f32 but rank 0 sent 1 f64";
  });
}

BOOST_AUTO_TEST_CASE(mail_that_arrived_before_a_revocation_is_still_delivered) {
  self alone;
  std::byte const bytes[] = {std::byte{7}};
  alone.post(0, 1, bytes);
  alone.revoke("over");
  auto const m = alone.poll(1);
  BOOST_REQUIRE(m.has_value());
  BOOST_TEST((m->source == 0 && m->bytes == std::vector<std::byte>{std::byte{7}}));
  BOOST_CHECK_THROW((void)alone.poll(1), error);
  BOOST_CHECK_THROW(alone.barrier(), error);
  BOOST_CHECK_NO_THROW(alone.shrink({}).barrier());
}

BOOST_AUTO_TEST_CASE(the_only_rank_cannot_be_lost) {
  self alone;
  int const lost[] = {0};
  BOOST_CHECK_EXCEPTION((void)alone.shrink(lost), std::invalid_argument, [](std::exception const& e) {
    return std::string(e.what()) == "limber: self: shrink: the only rank cannot be lost, got 1 lost ranks";
  });
}

}  // namespace limber::test
