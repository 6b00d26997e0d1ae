// SPDX-License-Identifier: Apache-2.0
// labels: unit sanitize
#define BOOST_TEST_MODULE limber.comm.nccl_failure
#include <boost/test/unit_test.hpp>

#include <comm/nccl_fake.hpp>

#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace limber::test {

struct operands {
  device_buffer<float> in{std::vector<float>(4, 1)}, out{std::vector<float>(4, 7)};
  [[nodiscard]] auto start(fake_communicator& comm, std::string_view name = "w") {
    return comm.all_reduce(in.view(name), out.view("sum"));
  }
};

BOOST_AUTO_TEST_CASE(a_missing_peer_is_named_at_the_deadline_with_operation_and_bucket) {
  fake_ranks all(2);
  operands a;
  auto request = a.start(all.comm[0]);
  failure const f = failure_of([&] { request.wait(); });
  BOOST_TEST(f.engine == "nccl");
  BOOST_TEST(f.call == "all_reduce");
  BOOST_TEST(f.bucket == "w");
  BOOST_TEST(f.rank == 1);
  BOOST_TEST(
      f.reason ==
      "all_reduce of 4 f32 (sum) of 'w' (call 1) did not complete within 6 s on rank 0 of 2; rank 1 is not "
      "waiting in it");
  BOOST_TEST(all.time->load() > 6);
  BOOST_TEST(all.time->load() < 9);
  BOOST_TEST(all.called(0, "revoke"));
  BOOST_TEST(!all.called(0, "abort"));
}

BOOST_AUTO_TEST_CASE(stopped_operations_do_not_write) {
  fake_ranks all(2);
  operands a, b;
  {
    auto request = a.start(all.comm[0]);
    BOOST_CHECK_THROW(request.wait(), error);
  }
  // The other rank calls too late.
  auto late = b.start(all.comm[1]);
  failure const f = failure_of([&] { late.wait(); });
  BOOST_TEST(f.call == "all_reduce");
  BOOST_TEST(
      f.reason.starts_with("all_reduce of 4 f32 (sum) of 'w' (call 1) did not complete within 6 s on rank 0"),
      f.reason);
  BOOST_TEST(a.out.read() == std::vector<float>(4, 7));
  BOOST_TEST(b.out.read() == std::vector<float>(4, 7));
}

BOOST_AUTO_TEST_CASE(every_later_call_throws_the_same_reason_under_its_own_name) {
  fake_ranks all(2);
  operands a;
  all.comm[0].revoke("enough");
  failure const sum = failure_of([&] { a.start(all.comm[0], "bucket 3").wait(); });
  BOOST_TEST(sum.reason == "enough");
  BOOST_TEST(sum.call == "all_reduce");
  BOOST_TEST(sum.bucket == "bucket 3");
  for (auto const& [name, call] : std::vector<std::pair<std::string, std::function<void()>>>{
           {"barrier", [&] { all.comm[0].barrier(); }},
           {"split", [&] { (void)all.comm[0].split(0); }},
           {"poll_errors", [&] { all.comm[0].poll_errors(); }},
           {"join", [&] { all.comm[0].join(nullptr); }},
           {"after", [&] { all.comm[0].after(nullptr); }},
           {"recv", [&] { all.comm[0].recv(a.in.view("x"), 1); }}}) {
    failure const f = failure_of(call);
    BOOST_TEST(f.call == name);
    BOOST_TEST(f.reason == "enough");
  }
  // The other rank detects it when it polls.
  all.advance(1);
  BOOST_TEST(failure_of([&] { all.comm[1].poll_errors(); }).reason == "enough");
}

BOOST_AUTO_TEST_CASE(an_asynchronous_error_is_thrown_with_its_code_on_all_ranks) {
  fake_ranks all(3);
  operands a, b;
  auto request = a.start(all.comm[1]);
  auto other = b.start(all.comm[2]);
  all.world->errors[1] = {step::failed, 6, "NCCL: remote process exited or there was a network error"};
  failure const f = failure_of([&] { request.wait(); });
  BOOST_TEST(f.code == 6);
  BOOST_TEST(f.bucket == "w");
  BOOST_TEST(
      f.reason ==
      "rank 1: all_reduce of 4 f32 (sum) of 'w': NCCL: remote process exited or there was a network error");
  failure const received = failure_of([&] { other.wait(); });
  BOOST_TEST(received.code == 6);
  BOOST_TEST(received.reason == f.reason);
  BOOST_TEST(all.time->load() < 6);
}

BOOST_AUTO_TEST_CASE(a_call_that_is_refused_ends_the_communicator) {
  for (std::string const call : {"all_reduce", "allocate"}) {
    fake_ranks all(2);
    all.world->refusals[call] = {step::failed, 3, call + ": internal error"};
    std::vector<float> const in(4, 1);
    std::vector<float> out(4);
    failure const f = failure_of([&] { all.comm[0].all_reduce(const_view(in, "host"), view(out)).wait(); });
    BOOST_TEST(f.code == 3);
    BOOST_TEST(f.bucket == "host");
    BOOST_TEST(f.reason == "rank 0: all_reduce of 4 f32 (sum) of 'host': " + call + ": internal error");
    BOOST_TEST(all.called(0, "revoke"));
  }
}

BOOST_AUTO_TEST_CASE(a_request_destroyed_before_its_wait_fails_all_ranks_and_not_the_deadline) {
  fake_ranks all(2);
  operands a, b;
  { auto const lost = a.start(all.comm[0]); }
  auto other = b.start(all.comm[1]);
  failure const f = failure_of([&] { other.wait(); });
  BOOST_TEST(f.rank == 0);
  BOOST_TEST(f.reason == "rank 0 destroyed its all_reduce of 4 f32 (sum) of 'w' before it was waited for");
  BOOST_TEST(all.time->load() < 6);
  BOOST_TEST(all.called(0, "revoke"));
}

BOOST_AUTO_TEST_CASE(an_exception_that_unwinds_a_request_is_reported_as_the_cause) {
  fake_ranks all(2);
  operands a;
  try {
    auto const open = a.start(all.comm[0]);
    throw std::runtime_error("elsewhere");
  } catch (std::runtime_error const&) {}
  all.advance(1);
  BOOST_TEST(failure_of([&] { all.comm[1].poll_errors(); }).reason ==
             "rank 0 was left by an exception with its all_reduce of 4 f32 (sum) of 'w' in flight");
}

BOOST_AUTO_TEST_CASE(operations_complete_before_the_failure_stay_valid) {
  fake_ranks all(2);
  operands a, b;
  auto first = a.start(all.comm[0]);
  auto second = b.start(all.comm[1]);
  BOOST_TEST(first.done());
  all.comm[0].revoke("later");
  first.wait();
  second.wait();
  BOOST_TEST(a.out.read() == std::vector<float>(4, 2));
  BOOST_TEST(b.out.read() == std::vector<float>(4, 2));
}

BOOST_AUTO_TEST_CASE(done_turns_true_at_the_deadline_and_wait_then_throws) {
  fake_ranks all(2);
  operands a;
  auto request = a.start(all.comm[0]);
  BOOST_TEST(!request.done());
  all.advance(5);
  BOOST_TEST(!request.done());
  all.advance(2);
  BOOST_TEST(request.done());
  BOOST_TEST(!all.called(0, "revoke"));
  BOOST_CHECK_THROW(request.wait(), error);
}

BOOST_AUTO_TEST_CASE(without_notices_the_error_mentions_them) {
  fake_ranks all(2, false);
  operands a;
  auto request = a.start(all.comm[0]);
  failure const f = failure_of([&] { request.wait(); });
  BOOST_TEST(f.rank == -1);
  BOOST_TEST(f.reason.ends_with("rank 0 of 2; who is missing is known only with options::notices"), f.reason);
}

BOOST_AUTO_TEST_CASE(ranks_that_are_behind_are_distinguished_from_missing_ones) {
  fake_ranks all(3);
  operands a, b, c;
  auto first = a.start(all.comm[0]);
  auto second = c.start(all.comm[0], "second");
  auto behind = b.start(all.comm[1]);
  std::thread other([&] { BOOST_REQUIRE_THROW(behind.wait(), error); });
  failure const f = failure_of([&] { second.wait(); });
  other.join();
  BOOST_TEST((f.rank == 2 || f.rank == 1));
  BOOST_TEST(f.reason.find("; rank 2 is not waiting in it") != std::string::npos, f.reason);
}

BOOST_AUTO_TEST_CASE(a_communicator_that_does_not_become_idle_is_aborted_and_cannot_shrink) {
  fake_ranks all(2);
  all.world->revoke_hangs = true;
  operands a;
  auto request = a.start(all.comm[0]);
  BOOST_CHECK_THROW(request.wait(), error);
  BOOST_TEST(all.called(0, "abort"));
  int const lost[] = {1};
  failure const f = failure_of([&] { (void)all.comm[0].shrink(lost); });
  BOOST_TEST(f.call == "shrink");
  BOOST_TEST(f.reason == "NCCL could not be revoked and was aborted; make a new communicator from a new id");
}

BOOST_AUTO_TEST_CASE(a_communicator_that_refuses_to_be_revoked_is_shrunk_with_the_abort_flag) {
  for (bool const refused : {false, true}) {
    fake_ranks all(2);
    all.world->revoke_refused = refused;
    operands a;
    auto request = a.start(all.comm[0]);
    BOOST_CHECK_THROW(request.wait(), error);
    int const lost[] = {1};
    auto rest = all.comm[0].shrink(lost);
    BOOST_TEST(rest.size() == 1);
    BOOST_TEST(all.called(0, "shrink (abort)") == refused);
    operands b;
    b.start(rest).wait();
    BOOST_TEST(b.out.read() == std::vector<float>(4, 1));
    BOOST_TEST(all.world->misuse.empty());
  }
}

BOOST_AUTO_TEST_CASE(a_survivor_that_does_not_call_shrink_is_named) {
  fake_ranks all(4);
  int const lost[] = {1};
  std::thread other([&] { BOOST_REQUIRE_THROW((void)all.comm[3].shrink(lost), error); });
  failure const f = failure_of([&] { (void)all.comm[0].shrink(lost); });
  other.join();
  BOOST_TEST(f.call == "shrink");
  BOOST_TEST(f.reason == "rank 0: the new group of 3 ranks was not complete within 6 s; rank 2 did not come");
}

BOOST_AUTO_TEST_CASE(shrinking_by_an_invalid_list_is_refused) {
  fake_ranks all(3);
  auto const refused = [&](std::vector<int> const& lost) {
    return misuse_of([&] { (void)all.comm[1].shrink(lost); });
  };
  BOOST_TEST(refused({1}) == "limber: shrink: rank 1 cannot call itself lost");
  BOOST_TEST(refused({2, 0}) == "limber: shrink: lost ranks must be sorted, got 0 after 2");
  BOOST_TEST(refused({3}) == "limber: shrink: lost rank must lie in [0, 3), got 3");
  all.comm[1].poll_errors();
}

BOOST_AUTO_TEST_CASE(a_split_that_not_all_call_fails_at_the_deadline) {
  fake_ranks all(2);
  failure const f = failure_of([&] { (void)all.comm[0].split(3); });
  BOOST_TEST(f.call == "split");
  BOOST_TEST(f.rank == 1);
  BOOST_TEST(f.reason ==
             "split (call 1) did not complete within 6 s on rank 0 of 2; rank 1 is not waiting in it");
}

BOOST_AUTO_TEST_CASE(a_healthy_communicator_is_flushed_and_a_failed_one_aborted) {
  fake_ranks all(2);
  all.comm[1].revoke("enough");
  all.comm.clear();
  BOOST_TEST(all.called(0, "finalize"));
  BOOST_TEST(all.called(0, "destroy"));
  BOOST_TEST(!all.called(0, "abort"));
  BOOST_TEST(!all.called(1, "finalize"));
  BOOST_TEST(all.called(1, "abort"));
  BOOST_TEST(all.world->misuse.empty());
}

BOOST_AUTO_TEST_CASE(a_request_outlives_its_communicator_as_an_error) {
  fake_ranks all(2);
  operands a, b;
  auto request = a.start(all.comm[0]);
  auto other = b.start(all.comm[1]);
  operands c;
  auto open = c.start(all.comm[0], "open");
  request.wait();
  { auto const gone = std::move(all.comm[0]); }
  failure const f = failure_of([&] { open.wait(); });
  BOOST_TEST(f.bucket == "open");
  BOOST_TEST(f.reason == "rank 0 left with operations in flight");
  other.wait();
}

BOOST_AUTO_TEST_CASE(ranks_that_do_not_join_are_an_error_at_the_start) {
  fake_ranks clock(1);
  nccl::options how = clock.how();
  how.rendezvous_deadline = 5;
  failure const f = failure_of([&] {
    fake_communicator const alone(
        0, 2, [](unique_id const& mine) { return mine; }, how, fake_engine(clock.world, 0));
  });
  BOOST_TEST(f.call == "init");
  BOOST_TEST(
      f.reason ==
      "rank 0 of 2: not all ranks joined within 5 s: one did not come, or they do not reach each other "
      "(NCCL_SOCKET_IFNAME names the network, NCCL_DEBUG=INFO prints details)");
  BOOST_TEST(clock.called(0, "abort"));
}

BOOST_AUTO_TEST_CASE(the_error_of_nccl_for_two_ranks_on_one_gpu_is_passed_on_with_a_hint) {
  fake_ranks clock(1);
  clock.world->same_gpu = true;
  failure const f = failure_of([&] {
    fake_communicator const alone(
        0, 1, [](unique_id const& mine) { return mine; }, clock.how(), fake_engine(clock.world, 0));
  });
  BOOST_TEST(f.code == 5);
  BOOST_TEST(f.reason.find("Duplicate GPU detected : rank 0 and rank 1") != std::string::npos);
  BOOST_TEST(f.reason.find("; NCCL wants a GPU for every rank: start as many ranks") != std::string::npos);
}

BOOST_AUTO_TEST_CASE(an_unreachable_store_does_not_hide_the_reason) {
  fake_ranks all(2);
  nccl::options how = all.how();
  how.notices = memory_kv_store();
  how.notices.put = [](auto const&, auto const&) -> bool { throw std::runtime_error("no such directory"); };
  how.notices.get = [](auto const&) -> std::optional<std::string> {
    throw std::runtime_error("no such directory");
  };
  std::vector<std::optional<fake_communicator>> made(2);
  std::vector<std::thread> team;
  for (int r = 0; r < 2; ++r)
    team.emplace_back([&, r] {
      made[static_cast<std::size_t>(r)].emplace(
          r, 2, [](unique_id const&) { return unique_id{std::byte{9}}; }, how, fake_engine(all.world, r));
    });
  for (auto& t : team) t.join();
  operands a;
  auto request = a.start(*made[0]);
  BOOST_TEST(failure_of([&] { request.wait(); }).reason ==
             "all_reduce of 4 f32 (sum) of 'w' (call 1) did not complete within 6 s on rank 0 of 2");
}

}  // namespace limber::test
