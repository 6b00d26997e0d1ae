// SPDX-License-Identifier: Apache-2.0
// labels: unit
#define BOOST_TEST_MODULE limber.comm.nccl_stream
#include <boost/test/unit_test.hpp>

#include <comm/nccl_fake.hpp>
#include <support/contract_values.hpp>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <thread>
#include <vector>

namespace limber::test {

using log_lines = std::vector<std::string>;

struct alone {
  std::shared_ptr<fake_world> world = std::make_shared<fake_world>();
  fake_engine engine{world, 0};
  fake_communicator comm{nccl::options{}, engine};
  fake_stream* stream = made_stream();
  [[nodiscard]] fake_stream* made_stream() {
    fake_stream* s = nullptr;
    (void)engine.make_stream(s);
    return s;
  }
  log_lines calls_of(auto f) {
    world->log[0].clear();
    f();
    return world->log[0];
  }
};

template <class T>
std::vector<T> reduced_alone(fake_communicator& comm, std::vector<T> const& in, reduction how,
                             bool from_device, bool to_device) {
  std::vector<T> host_in(in), host_out(in.size());
  device_buffer<T> device_in(in), device_out(host_out);
  comm.all_reduce(from_device ? device_in.view("w") : view(host_in, "w"),
                  to_device ? device_out.view("sum") : view(host_out, "sum"), how)
      .wait();
  return to_device ? device_out.read() : host_out;
}

BOOST_AUTO_TEST_CASE(an_operation_is_recorded_only_after_it_was_launched) {
  fake_ranks all(2);
  all.world->launch_polls = 40;  // an event recorded earlier would be reached at once
  device_buffer<float> in(std::vector<float>{1}), out(std::vector<float>{0});
  std::vector<std::thread> team;
  for (std::size_t r : {0u, 1u})
    team.emplace_back([&, r] {
      for (float k = 0; k < 20; ++k) {
        device_buffer<float> mine(std::vector<float>{k}), sum(std::vector<float>{-1});
        all.comm[r].all_reduce(mine.view("w"), sum.view("sum")).wait();
        if (sum.read()[0] != 2 * k) throw std::logic_error("waited for nothing");
      }
    });
  for (auto& t : team) t.join();
  BOOST_TEST(all.world->misuse.empty());
}

BOOST_AUTO_TEST_CASE(device_memory_is_used_directly_and_host_memory_through_a_reused_buffer) {
  alone a;
  std::vector<float> const values{1, 2, 3};
  BOOST_TEST((a.calls_of([&] { (void)reduced_alone(a.comm, values, reduction::sum, true, true); }) ==
              log_lines{"all_reduce", "record", "query"}));
  auto const blocks = fake_memory::count(fake_memory::kind::device);
  BOOST_TEST((a.calls_of([&] { (void)reduced_alone(a.comm, values, reduction::sum, false, false); }) ==
              log_lines{"copy 12", "all_reduce", "copy 12", "record", "query"}));
  BOOST_TEST((a.calls_of([&] { (void)reduced_alone(a.comm, values, reduction::sum, true, false); }) ==
              log_lines{"all_reduce", "copy 12", "record", "query"}));
  BOOST_TEST((a.calls_of([&] { (void)reduced_alone(a.comm, values, reduction::sum, false, true); }) ==
              log_lines{"copy 12", "all_reduce", "record", "query"}));
  for (int k = 0; k < 100; ++k) (void)reduced_alone(a.comm, values, reduction::sum, false, false);
  BOOST_TEST(fake_memory::count(fake_memory::kind::device) == blocks + 1);
  // It grows, and the smaller one is freed.
  (void)reduced_alone(a.comm, std::vector<float>(100'000, 1), reduction::sum, false, false);
  BOOST_TEST(fake_memory::count(fake_memory::kind::device) == blocks + 1);
  BOOST_TEST(fake_memory::count(fake_memory::kind::pinned) == 1u);
  BOOST_TEST(a.world->misuse.empty());
}

BOOST_AUTO_TEST_CASE(host_values_are_read_when_the_operation_starts_and_written_by_wait) {
  alone a;
  std::vector<double> in{5}, out{0};
  auto request = a.comm.all_reduce(const_view(in), view(out));
  in[0] = 6;
  while (!request.done()) {}
  BOOST_TEST(out[0] == 0);
  request.wait();
  BOOST_TEST(out[0] == 5);
}

BOOST_AUTO_TEST_CASE(several_staged_operations_in_flight_do_not_share_a_buffer) {
  alone a;
  std::vector<std::vector<float>> in, out;
  for (int k = 0; k < 6; ++k) {
    in.emplace_back(100, static_cast<float>(k));
    out.emplace_back(100);
  }
  std::vector<fake_communicator::request> open;
  for (std::size_t k = 0; k < in.size(); ++k)
    open.push_back(a.comm.all_reduce(const_view(in[k]), view(out[k])));
  while (!open.empty()) {
    open.back().wait();
    open.pop_back();
  }
  BOOST_TEST((in == out));
}

BOOST_AUTO_TEST_CASE(the_maximum_keeps_nan_and_the_order_of_all_floats) {
  float const inf = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
  std::vector<float> const up{-inf, -3e38f, -1, -1e-45f, -0.0f, 0.0f, 1e-45f, 1, 3e38f, inf, nan};
  for (std::size_t i = 0; i < up.size(); ++i)
    for (std::size_t j = 0; j < up.size(); ++j)
      BOOST_TEST((nccl::detail::key_of(static_cast<double>(up[i])) <
                  nccl::detail::key_of(static_cast<double>(up[j]))) == (i < j));
  // A NaN of either sign: its bits alone would order a negative one below -inf.
  double const wide = static_cast<double>(nan);
  BOOST_TEST(nccl::detail::key_of(-wide) == nccl::detail::key_of(wide));
  BOOST_TEST(std::isnan(nccl::detail::of_key(nccl::detail::key_of(-static_cast<double>(nan)))));
  alone a;
  for (bool const from : {false, true})
    for (bool const to : {false, true}) {
      auto const floats = reduced_alone(a.comm, up, reduction::max, from, to);
      auto const doubles =
          reduced_alone(a.comm, std::vector<double>{-2.5, 1e300, -0.0}, reduction::max, from, to);
      for (std::size_t i = 0; i + 1 < up.size(); ++i) BOOST_TEST(same_bits(floats[i], up[i]));
      BOOST_TEST(std::isnan(floats.back()));
      BOOST_TEST((doubles == std::vector<double>{-2.5, 1e300, -0.0}));
      BOOST_TEST(std::signbit(doubles[2]));
    }
  BOOST_TEST(a.world->misuse.empty());
}

BOOST_AUTO_TEST_CASE(all_buckets_are_one_group_forked_from_the_stream_and_joined_to_it) {
  alone a;
  device_buffer<float> g(std::vector<float>{1, 2}), sum(std::vector<float>{0, 0});
  device_buffer<double> control(std::vector<double>{3}), total(std::vector<double>{0});
  std::vector<nccl::reduced> const buckets{{g.view("bucket 0"), sum.view("bucket 0")},
                                           {control.view("control"), total.view("control")}};
  BOOST_TEST((
      a.calls_of([&] { a.comm.enqueue_all_reduce(a.stream, buckets); }) ==
      log_lines{"record", "wait", "group start", "all_reduce", "all_reduce", "group end", "record", "wait"}));
  fake_event* end = nullptr;
  (void)a.engine.make_event(end);
  (void)a.engine.record(end, a.stream);
  a.comm.await(end);
  BOOST_TEST((sum.read() == std::vector<float>{1, 2}));
  BOOST_TEST((total.read() == std::vector<double>{3}));
}

BOOST_AUTO_TEST_CASE(what_follows_on_the_stream_overlaps_a_fork_until_it_is_joined) {
  fake_ranks all(2);
  fake_engine engine(all.world, 0);
  fake_stream* stream = nullptr;
  (void)engine.make_stream(stream);
  device_buffer<float> g(std::vector<float>{1}), sum(std::vector<float>{0});
  std::vector<nccl::reduced> const buckets{{g.view("b"), sum.view("b")}};
  fake_event *between = nullptr, *behind = nullptr;
  (void)engine.make_event(between);
  (void)engine.make_event(behind);
  all.comm[0].fork_all_reduce(stream, buckets);
  (void)engine.record(between, stream);
  all.comm[0].join(stream);
  (void)engine.record(behind, stream);
  BOOST_TEST((engine.query(between).is == step::done));
  BOOST_TEST((engine.query(behind).is == step::pending));
  failure const f = failure_of([&] { all.comm[0].await(behind, "replay"); });
  BOOST_TEST(f.call == "replay");
  BOOST_TEST(f.rank == 1);
  BOOST_TEST(f.reason ==
             "replay (call 1) did not complete within 6 s on rank 0 of 2; rank 1 is not waiting in it");
}

BOOST_AUTO_TEST_CASE(operations_wait_for_the_event_they_are_to_come_after) {
  alone a;
  fake_event* ready = nullptr;
  (void)a.engine.make_event(ready);
  bool open = false;
  a.stream->work.push_back([&] { return open; });
  (void)a.engine.record(ready, a.stream);
  a.comm.after(ready);
  device_buffer<float> in(std::vector<float>{1}), out(std::vector<float>{0});
  auto request = a.comm.all_reduce(in.view("w"), out.view("sum"));
  BOOST_TEST(!request.done());
  open = true;
  request.wait();
  BOOST_TEST(out.read()[0] == 1);
}

BOOST_AUTO_TEST_CASE(a_group_that_was_opened_is_closed_when_a_bucket_is_refused) {
  alone a;
  a.world->refusals["all_reduce"] = {step::failed, 4, "ncclAllReduce: invalid argument"};
  device_buffer<float> g(std::vector<float>{1, 2}), sum(std::vector<float>{0, 0});
  std::vector<nccl::reduced> const buckets{{g.view("bucket 0"), sum.view("bucket 0")}};
  failure f;
  auto const calls =
      a.calls_of([&] { f = failure_of([&] { a.comm.enqueue_all_reduce(a.stream, buckets); }); });
  BOOST_TEST(f.code == 4);
  BOOST_TEST(f.bucket == "bucket 0");
  BOOST_TEST(std::ranges::count(calls, "group end") == 1);
}

BOOST_AUTO_TEST_CASE(memory_and_streams_of_another_device_are_refused_before_anything_starts) {
  alone a;
  std::vector<float> host{1};
  device_buffer<float> in(std::vector<float>{1}), out(std::vector<float>{0}), far(std::vector<float>{0}, 3);
  auto const refused = [&](const_tensor_view from, tensor_view to) {
    std::vector<nccl::reduced> const buckets{{from, to}};
    return misuse_of([&] { a.comm.enqueue_all_reduce(a.stream, buckets); });
  };
  BOOST_TEST(
      refused(const_view(host, "w"), out.view("sum")) ==
      "limber: 'w' lies in host memory: stream-ordered operations and registrations need device memory");
  BOOST_TEST(refused(in.view("w"), far.view("sum")) ==
             "limber: 'w' lies on device 3, the communicator is on device 0");
  BOOST_TEST(misuse_of([&] { a.comm.all_reduce(in.view("w"), far.view("sum")).wait(); }) ==
             "limber: 'w' lies on device 3, the communicator is on device 0");
  BOOST_TEST(
      misuse_of([&] { (void)a.comm.register_memory(view(host, "w")); }) ==
      "limber: 'w' lies in host memory: stream-ordered operations and registrations need device memory");
  a.stream->device = 2;
  BOOST_TEST(misuse_of([&] { a.comm.join(a.stream); }) ==
             "limber: join: the stream is on device 2, the communicator on device 0");
  BOOST_TEST(misuse_of([&] { a.comm.send(in.view("w"), 0); }) == "limber: send: peer 0 is this rank itself");
  a.comm.barrier();
}

BOOST_AUTO_TEST_CASE(a_registration_ends_with_its_object_or_with_the_communicator) {
  alone a;
  nccl::basic_memory<fake_engine> buffer(4096);
  tensor_view const bucket{buffer.data(), 1024, dtype::f32, "bucket"};
  BOOST_TEST((a.calls_of([&] {
    auto first = a.comm.register_memory(bucket);
    auto second = std::move(first);
  }) == log_lines{"register 4096", "deregister"}));
  auto late = a.comm.register_memory(bucket);
  BOOST_TEST((a.calls_of([&] { auto const gone = std::move(a.comm); }) == log_lines{"finalize", "destroy"}));
  BOOST_TEST((a.calls_of([&] { auto const gone = std::move(late); }) == log_lines{}));
  BOOST_TEST(a.world->misuse.empty());
}

BOOST_AUTO_TEST_CASE(memory_that_nccl_refuses_to_register_is_an_error_with_its_code) {
  alone a;
  a.world->refusals["enroll"] = {step::failed, 2, "ncclCommRegister: unhandled system error"};
  device_buffer<float> in(std::vector<float>{1});
  failure const f = failure_of([&] { (void)a.comm.register_memory(in.view("bucket")); });
  BOOST_TEST(f.call == "register_memory");
  BOOST_TEST(f.code == 2);
  BOOST_TEST(f.bucket == "bucket");
  a.comm.barrier();
}

BOOST_AUTO_TEST_CASE(all_memory_of_a_communicator_is_freed) {
  auto const before =
      fake_memory::count(fake_memory::kind::device) + fake_memory::count(fake_memory::kind::pinned);
  auto const world = std::make_shared<fake_world>();
  {
    fake_communicator comm({}, fake_engine(world, 0));
    (void)reduced_alone(comm, std::vector<float>(5, 1), reduction::max, false, false);
    auto part = comm.split(-3);
    (void)reduced_alone(part, std::vector<float>(5, 1), reduction::sum, false, false);
  }
  BOOST_TEST(fake_memory::count(fake_memory::kind::device) + fake_memory::count(fake_memory::kind::pinned) ==
             before);
  BOOST_TEST(world->streams.empty());
  BOOST_TEST(world->events.empty());
}

}  // namespace limber::test
