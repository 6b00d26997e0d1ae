// SPDX-License-Identifier: Apache-2.0
// labels: unit contract sanitize
// forms: header-only
// optimize: 1
// timeout: 300
#define BOOST_TEST_MODULE limber.comm.any_communicator
#include <limber/comm/any_communicator.hpp>
#include <limber/comm/checked.hpp>
#include <limber/comm/reproducible.hpp>
#include <limber/comm/self.hpp>
#include <limber/comm/threads.hpp>

#include <boost/test/unit_test.hpp>

#include <support/allocations.hpp>
#include <support/checks.hpp>
#include <support/threads_harness.hpp>

#include <array>
#include <cstddef>
#include <span>
#include <stdexcept>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

// Owners of an engine, and handles on one.
using contract_harnesses = std::tuple<limber::test::threads_harness<limber::any_communicator, 4>,
                                      limber::test::threads_harness<limber::communicator, 4>>;

#include <support/collective_contract.hpp>

namespace limber::test {
namespace {

using testing::has;
using testing::message_of;

template <class C>
constexpr bool models_everything = collective<C>&& point_to_point<C>&& splittable<C>&& mailbox<C>&&
    revocable<C>&& shrinkable<C>&& sums_pieces<C>;
static_assert(models_everything<communicator> && models_everything<communicator const>);
static_assert(models_everything<any_communicator> && request<any_request>);

static_assert(std::is_trivially_copyable_v<communicator> && sizeof(communicator) == 2 * sizeof(void*));
static_assert(!std::is_copy_constructible_v<any_communicator> &&
              std::is_nothrow_move_constructible_v<any_communicator> &&
              std::is_nothrow_move_assignable_v<any_communicator>);
static_assert(!std::is_copy_constructible_v<any_request> &&
              std::is_nothrow_move_constructible_v<any_request> &&
              std::is_nothrow_move_assignable_v<any_request>);

// A handle on a temporary, or an owner that copies what cannot be copied, does not compile.
static_assert(std::is_constructible_v<communicator, self&> && !std::is_constructible_v<communicator, self>);
static_assert(std::is_constructible_v<communicator, any_communicator&> &&
              !std::is_constructible_v<communicator, any_communicator>);
static_assert(std::is_constructible_v<any_communicator, self&> &&
              std::is_constructible_v<any_communicator, threads::communicator> &&
              !std::is_constructible_v<any_communicator, threads::communicator&>);
static_assert(!std::is_constructible_v<any_communicator, int> &&
              !std::is_constructible_v<communicator, int&>);

/// A collective without any further capability, whose sums are `factor` times what comes in.
struct minimal {
  float factor = 1;

  int rank() const { return 0; }
  int size() const { return 1; }
  completed all_reduce(const_tensor_view in, tensor_view out, reduction = reduction::sum) {
    for (i64 i = 0; i < in.length; ++i)
      out.as<float>()[static_cast<std::size_t>(i)] = factor * in.as<float>()[static_cast<std::size_t>(i)];
    return {};
  }
  completed reduce_scatter(const_tensor_view in, tensor_view out) { return all_reduce(in, out); }
  completed all_gather(const_tensor_view in, tensor_view out) { return all_reduce(in, out); }
  completed broadcast(tensor_view, int) { return {}; }
  void barrier() {}
};

/// Takes note of the pieces that it is asked for.
struct noting : minimal {
  std::vector<piece> seen{};

  using minimal::all_reduce;
  completed all_reduce(const_tensor_view in, tensor_view out, std::span<piece const> pieces) {
    seen.assign(pieces.begin(), pieces.end());
    return minimal::all_reduce(in, out);
  }
};

/// Its own address, and how many of them live.
struct counted : minimal {
  counted(int& n, float f) : minimal{f}, alive(&n) { ++n; }
  counted(counted&& o) noexcept : minimal(o), alive(o.alive) { ++*alive; }
  counted& operator=(counted&&) = delete;
  ~counted() { --*alive; }

  int* alive;
};

/// A user's wrapper that hands on what the wrapped one can do.
template <class C>
struct wrapper : C {
  capabilities can() const { return C::can(); }
};

[[nodiscard]] float sum_of_one(communicator comm) {
  std::array<float, 1> const in{1};
  std::array<float, 1> out{};
  comm.all_reduce(const_view(in), view(out)).wait();
  return out[0];
}

}  // namespace

BOOST_AUTO_TEST_CASE(capabilities_are_what_the_type_models) {
  capabilities const all_but_pieces = can_send_receive | can_post | can_split | can_shrink | can_revoke;
  static_assert(capabilities_of<minimal> == 0);
  static_assert(capabilities_of<noting> == sums_tensor_pieces);
  static_assert(capabilities_of<self> == all_but_pieces);
  static_assert(capabilities_of<threads::communicator> == all_but_pieces);
  static_assert(capabilities_of<reproducible<self&>> == (all_but_pieces | sums_tensor_pieces));
  static_assert(capabilities_of<checked<self&>> == all_but_pieces);

  minimal none;
  noting pieces;
  self alone;
  BOOST_TEST(communicator(none).can() == 0);
  BOOST_TEST(communicator(pieces).can() == sums_tensor_pieces);
  BOOST_TEST(communicator(alone).can() == all_but_pieces);
  BOOST_TEST(any_communicator(none).can() == 0);
  BOOST_TEST(communicator().can() == 0);
  threads::world w(1);
  any_communicator owner(w.communicator(0));
  BOOST_TEST(owner.can() == all_but_pieces);
  BOOST_TEST(owner.handle().can() == all_but_pieces);
}

BOOST_AUTO_TEST_CASE(a_wrapper_of_a_handle_can_do_what_is_inside) {
  minimal none;
  noting pieces;
  wrapper<communicator> of_none{communicator(none)}, of_pieces{communicator(pieces)};
  static_assert(capabilities_of<wrapper<communicator>> != 0);
  BOOST_TEST(communicator(of_none).can() == 0);
  BOOST_TEST(communicator(of_pieces).can() == sums_tensor_pieces);
}

BOOST_AUTO_TEST_CASE(capabilities_are_described_in_words) {
  BOOST_TEST(describe(0) == "nothing");
  BOOST_TEST(describe(can_post) == "a mailbox (post, poll, listen)");
  BOOST_TEST(describe(can_revoke | can_split) == "splittable groups (split) and revocable groups (revoke)");
  BOOST_TEST(describe(can_send_receive | can_shrink | sums_tensor_pieces) ==
             "point-to-point messages (send, recv), shrinkable groups (shrink) and sums of tensor pieces "
             "(all_reduce with pieces)");
}

BOOST_AUTO_TEST_CASE(what_a_collective_cannot_do_is_refused_by_name) {
  minimal none;
  any_communicator owner(none);
  std::vector<float> data(1);
  std::string const mail = "it lacks a mailbox (post, poll, listen)",
                    pairs = "it lacks point-to-point messages (send, recv)";
  auto const refuses_all = [&](auto& comm) {
    auto const refused = [](auto f, std::string const& message) {
      BOOST_CHECK_EXCEPTION(f(), std::invalid_argument, [&](std::exception const& e) {
        return e.what() == "limber: this collective cannot " + message;
      });
    };
    refused([&] { comm.send(const_view(data), 0); }, "send: " + pairs);
    refused([&] { comm.recv(view(data), 0); }, "recv: " + pairs);
    refused([&] { comm.post(0, 1, {}); }, "post: " + mail);
    refused([&] { (void)comm.poll(1); }, "poll: " + mail);
    refused([&] { comm.listen(); }, "listen: " + mail);
    refused([&] { comm.revoke("why"); }, "revoke: it lacks revocable groups (revoke)");
    refused([&] { (void)comm.split(0); }, "split: it lacks splittable groups (split)");
    refused([&] { (void)comm.shrink({}); }, "shrink: it lacks shrinkable groups (shrink)");
  };
  communicator handle(none);
  refuses_all(handle);
  refuses_all(owner);
}

BOOST_AUTO_TEST_CASE(an_empty_handle_refuses_everything) {
  communicator empty;
  BOOST_TEST(!empty);
  std::string const why = ": this communicator is empty: default-constructed, or moved from";
  BOOST_TEST(message_of([&] { (void)empty.rank(); }) == "limber: rank" + why);
  BOOST_TEST(message_of([&] { (void)empty.all_reduce({}, {}); }) == "limber: all_reduce" + why);
  BOOST_TEST(message_of([&] { empty.listen(); }) == "limber: listen" + why);

  any_communicator owner(self{});
  any_communicator other(std::move(owner));
  BOOST_TEST(!owner);
  BOOST_TEST(static_cast<bool>(other));
  BOOST_TEST(!owner.handle());
  BOOST_TEST(message_of([&] { owner.barrier(); }) == "limber: barrier" + why);
}

BOOST_AUTO_TEST_CASE(the_collectives_own_errors_pass_through) {
  self alone;
  communicator comm(alone);
  std::vector<float> data(2);
  BOOST_TEST(
      has(message_of([&] { comm.recv(view(data, "w"), 0); }), "self: recv", "nothing was sent", "[w]"));
  BOOST_TEST(has(message_of([&] { (void)comm.all_reduce(const_view(data), view(data)); }), "overlap"));
}

BOOST_AUTO_TEST_CASE(pieces_go_to_those_who_want_them) {
  std::vector<float> const in{1, 2, 3};
  std::vector<float> out(3);
  std::vector<piece> const pieces{{0, 1}, {2, 1}};
  noting wants{{2}};
  communicator(wants).all_reduce(const_view(in), view(out), pieces).wait();
  BOOST_TEST((wants.seen == pieces));
  BOOST_TEST(out == (std::vector<float>{2, 4, 6}));
  any_communicator plain(minimal{3});
  plain.all_reduce(const_view(in), view(out), pieces).wait();
  BOOST_TEST(out == (std::vector<float>{3, 6, 9}));
}

BOOST_AUTO_TEST_CASE(handles_of_handles_and_owners_refer_to_the_collective) {
  minimal inside{1};
  communicator first(inside);
  communicator second(first);
  any_communicator borrowed(first);
  communicator third(borrowed);
  inside.factor = 7;
  for (communicator const& c : {first, second, borrowed.handle(), third}) BOOST_TEST(sum_of_one(c) == 7);

  any_communicator copy(inside), moved(std::move(inside));
  inside.factor = 1;
  BOOST_TEST(sum_of_one(copy.handle()) == 7);
  BOOST_TEST(sum_of_one(moved.handle()) == 7);
}

BOOST_AUTO_TEST_CASE(a_collective_keeps_its_address_when_its_owner_moves) {
  int alive = 0;
  {
    any_communicator a(counted(alive, 2));
    BOOST_TEST(alive == 1);
    communicator const handle(a);
    any_communicator b(std::move(a));
    BOOST_TEST(alive == 1);
    BOOST_TEST(sum_of_one(handle) == 2);

    a = std::move(b);  // to one that was moved from
    BOOST_TEST(sum_of_one(handle) == 2);
    BOOST_TEST(!b);

    any_communicator c(counted(alive, 3));
    BOOST_TEST(alive == 2);
    c = std::move(a);  // the one that was there before goes at once
    BOOST_TEST(alive == 1);
    BOOST_TEST(sum_of_one(handle) == 2);

    auto& same = c;
    c = std::move(same);
    BOOST_TEST(alive == 1);
    BOOST_TEST(sum_of_one(c.handle()) == 2);

    c = any_communicator(minimal{5});  // of another type
    BOOST_TEST(alive == 0);
    BOOST_TEST(sum_of_one(c.handle()) == 5);
  }
  BOOST_TEST(alive == 0);
}

BOOST_AUTO_TEST_CASE(any_request_owns_one_request) {
  struct log {
    int waited = 0, alive = 0;
    bool done = false;
  };
  struct noted_request {
    explicit noted_request(log& l) : to(&l) { ++l.alive; }
    noted_request(noted_request&& o) noexcept : to(o.to) { ++to->alive; }
    noted_request& operator=(noted_request&&) noexcept = default;
    ~noted_request() { --to->alive; }
    void wait() { ++to->waited; }
    bool done() { return to->done; }
    log* to;
  };
  any_request empty;
  BOOST_TEST(empty.done());
  BOOST_CHECK_NO_THROW(empty.wait());
  BOOST_TEST(any_request(completed{}).done());

  log l, other;
  {
    any_request q(noted_request{l});
    BOOST_TEST(l.alive == 1);
    BOOST_TEST(!q.done());
    any_request r(std::move(q));
    BOOST_TEST(l.alive == 1);
    BOOST_TEST(q.done());  // empty now
    q.wait();
    BOOST_TEST(l.waited == 0);
    r.wait();
    l.done = true;
    BOOST_TEST(r.done());
    BOOST_TEST(l.waited == 1);

    any_request s(noted_request{other});
    s = std::move(r);
    BOOST_TEST(other.alive == 0);
    BOOST_TEST(l.alive == 1);
    auto& same = s;
    s = std::move(same);
    s.wait();
    BOOST_TEST(l.waited == 2);
    empty = std::move(s);
    s = any_request(noted_request{other});
    BOOST_TEST((l.alive == 1 && other.alive == 1));
  }
  BOOST_TEST((l.alive == 1 && other.alive == 0));
  empty = {};
  BOOST_TEST(l.alive == 0);
}

BOOST_AUTO_TEST_CASE(a_request_that_is_destroyed_unwaited_ends_the_group_as_the_engines_does) {
  auto const thrown = message_of([] {
    threads::run(2, [](threads::communicator& engine) {
      communicator comm(engine);
      std::vector<float> in(4), out(4);
      {
        any_request q = comm.all_reduce(const_view(in, "dropped"), view(out));
        any_request r(std::move(q));
        if (comm.rank() == 0) r.wait();
      }
      comm.barrier();
      comm.barrier();
    });
  });
  BOOST_TEST(has(thrown, "rank 1 destroyed its all_reduce of 'dropped' before it was waited for"), thrown);
}

BOOST_AUTO_TEST_CASE(an_owner_left_by_an_exception_ends_the_group_as_the_engine_does) {
  auto const thrown = message_of([] {
    threads::run(2, [](threads::communicator& engine) {
      any_communicator comm(std::move(engine));
      if (comm.rank() == 1) throw std::runtime_error("fell over");
      comm.barrier();
    });
  });
  BOOST_TEST(thrown == "fell over");
}

BOOST_AUTO_TEST_CASE(survivors_assign_what_shrink_returns) {
  threads::run(3, [](threads::communicator& engine) {
    any_communicator comm(std::move(engine));
    if (comm.rank() == 1) return;
    int const lost[] = {1};
    comm = comm.shrink(lost);
    demand(comm.size() == 2, "two must be left");
    std::vector<i64> const in{comm.rank() + 1};
    std::vector<i64> out(1);
    comm.all_reduce(const_view(in), view(out)).wait();
    demand(out[0] == 3, "wrong sum");
  });
}

BOOST_AUTO_TEST_CASE(wrappers_of_the_library_work_over_handles_and_inside_owners) {
  threads::run(2, [](threads::communicator& engine) {
    communicator handle(engine);
    std::vector<float> const in{0.5f, 2};
    std::vector<float> out(2);
    checked<communicator&> over(handle);
    over.all_reduce(const_view(in, "in"), view(out)).wait();
    demand(out == std::vector<float>{1, 4}, "wrong sum of checked");
    auto part = over.split(0);
    part.barrier();

    any_communicator owner{reproducible(checked(handle))};
    demand((owner.can() & sums_tensor_pieces) != 0, "reproducible sums pieces");
    piece const pieces[] = {{0, 1}, {1, 1}};
    owner.all_reduce(const_view(in, "in"), view(out), pieces).wait();
    demand(out == std::vector<float>{1, 4}, "wrong sum of reproducible");
    any_communicator rest = owner.split(0);
    demand((rest.can() & sums_tensor_pieces) != 0, "its parts do, too");
    rest.all_reduce(const_view(in, "in"), view(out)).wait();
    demand(out == std::vector<float>{1, 4}, "wrong sum of a part");
    owner.barrier();
  });
}

BOOST_AUTO_TEST_CASE(operations_through_a_handle_allocate_no_more_than_direct_ones) {
  using testing::allocations;
  threads::world w(1);
  auto direct = w.communicator(0);
  communicator handle(direct);
  any_communicator alone(self{});
  std::vector<float> const in(16, 1);
  std::vector<float> out(16);
  piece const pieces[] = {{0, 16}};
  auto const count = [&](auto& comm) {
    long const before = allocations;
    for (int k = 0; k < 10; ++k) {
      comm.all_reduce(const_view(in, "in"), view(out)).wait();
      auto q = comm.broadcast(view(out), 0);
      (void)q.done();
      auto r = std::move(q);
      r.wait();
      comm.barrier();
    }
    return allocations - before;
  };
  (void)count(direct);
  long const expected = count(direct);
  BOOST_TEST(expected == 0);
  BOOST_TEST(count(handle) == expected);
  BOOST_TEST(count(alone) == 0);
  long const before = allocations;
  handle.all_reduce(const_view(in, "in"), view(out), pieces).wait();
  BOOST_TEST(allocations == before);
}

}  // namespace limber::test
