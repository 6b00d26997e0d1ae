// SPDX-License-Identifier: Apache-2.0
// labels: gpu
// timeout: 300
// needs: NCCL CUDA
#define BOOST_TEST_MODULE limber.comm.nccl_gpu
#include <limber/comm/nccl.hpp>

#include <cuda_runtime_api.h>

#include <boost/test/unit_test.hpp>

#include <support/contract_values.hpp>
#include <support/gpu_main.hpp>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <exception>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

namespace limber::test {

void cuda(cudaError_t status) {
  if (status != cudaSuccess) throw std::runtime_error(cudaGetErrorString(status));
}
int devices() {
  int n = 0;
  return cudaGetDeviceCount(&n) == cudaSuccess ? n : 0;
}

/// Memory of the current device.
template <class T>
class gpu_buffer {
 public:
  explicit gpu_buffer(std::vector<T> const& values) : length_(values.size()) {
    if (length_ == 0) return;
    cuda(cudaMalloc(&data_, length_ * sizeof(T)));
    cuda(cudaMemcpy(data_, values.data(), length_ * sizeof(T), cudaMemcpyHostToDevice));
  }
  gpu_buffer(gpu_buffer&& other) noexcept
      : length_(other.length_), data_(std::exchange(other.data_, nullptr)) {}
  ~gpu_buffer() { (void)cudaFree(data_); }
  [[nodiscard]] tensor_view view(std::string_view name) {
    return {static_cast<std::byte*>(data_), static_cast<i64>(length_), dtype_of<T>, name};
  }
  [[nodiscard]] std::vector<T> read() const {
    std::vector<T> out(length_);
    if (length_ > 0) cuda(cudaMemcpy(out.data(), data_, length_ * sizeof(T), cudaMemcpyDeviceToHost));
    return out;
  }

 private:
  std::size_t length_;
  void* data_ = nullptr;
};

/// One thread and one GPU per rank.
template <bool device_memory>
struct nccl_harness {
  using communicator = nccl::communicator;
  static inline int const largest_world = std::min(devices(), 8);
  static constexpr bool rank_order = false;
  static constexpr int skipped_parts = 2;  // bits and cutting; the mailbox
  template <class T>
  using buffer = std::conditional_t<device_memory, gpu_buffer<T>, host_buffer<T>>;

  template <class F>
  static void run(int n, F f) {
    std::mutex guard;
    std::exception_ptr first;
    nccl::unique_id id;
    (void)nccl::driver().make_id(id);
    std::vector<std::thread> team;
    for (int r = 0; r < n; ++r)
      team.emplace_back([&, r] {
        try {
          cuda(cudaSetDevice(r));
          nccl::options how;
          how.deadline = 60;
          how.device = r;
          communicator comm(
              r, n, [&](nccl::unique_id const&) { return id; }, how);
          f(comm);
        } catch (...) {
          std::scoped_lock const lock(guard);
          if (!first) first = std::current_exception();
        }
      });
    for (auto& t : team) t.join();
    if (first) std::rethrow_exception(first);
  }
};

}  // namespace limber::test

using contract_harnesses = std::tuple<limber::test::nccl_harness<true>, limber::test::nccl_harness<false>>;

#include <support/collective_contract.hpp>

namespace limber::test {

/// Reports tests that this machine cannot run.
bool needs_two_gpus(char const* what) {
  if (devices() >= 2) return false;
  std::printf("skipped: %s: needs 2 GPUs, and there is %d\n", what, devices());
  return true;
}

BOOST_AUTO_TEST_CASE(a_captured_reduction_replays_with_new_values) {
  nccl::communicator comm;
  cudaStream_t stream = nullptr;
  cuda(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  gpu_buffer<float> in(std::vector<float>{1, 2}), out(std::vector<float>{0, 0});
  gpu_buffer<double> control(std::vector<double>{3}), total(std::vector<double>{0});
  std::vector<nccl::reduced> const buckets{{in.view("bucket"), out.view("bucket")},
                                           {control.view("control"), total.view("control")}};
  comm.enqueue_all_reduce(stream, buckets);  // connects
  cuda(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  comm.enqueue_all_reduce(stream, buckets);
  cudaGraph_t graph = nullptr;
  cuda(cudaStreamEndCapture(stream, &graph));
  cudaGraphExec_t replay = nullptr;
  cuda(cudaGraphInstantiate(&replay, graph, 0));
  cudaEvent_t behind = nullptr;
  cuda(cudaEventCreateWithFlags(&behind, cudaEventDisableTiming));
  for (float k = 1; k < 4; ++k) {
    std::vector<float> const values{k, -k};
    cuda(cudaMemcpyAsync(in.view("").data, values.data(), sizeof(float) * 2, cudaMemcpyHostToDevice, stream));
    cuda(cudaGraphLaunch(replay, stream));
    cuda(cudaEventRecord(behind, stream));
    comm.await(behind, "replay");
    BOOST_TEST(out.read() == values);
    BOOST_TEST(total.read()[0] == 3);
  }
  cuda(cudaEventDestroy(behind));
  cuda(cudaGraphExecDestroy(replay));
  cuda(cudaGraphDestroy(graph));
  cuda(cudaStreamDestroy(stream));
}

BOOST_AUTO_TEST_CASE(memory_of_nccl_is_registered_and_reduced) {
  nccl::communicator comm;
  nccl::memory memory(1 << 20);
  tensor_view const bucket{memory.data(), (1 << 20) / 4, dtype::f32, "bucket"};
  auto const known = comm.register_memory(bucket);
  cuda(cudaMemset(memory.data(), 0, 1 << 20));
  gpu_buffer<float> out(std::vector<float>(static_cast<std::size_t>(bucket.length), 1));
  comm.all_reduce(bucket, out.view("sum")).wait();
  BOOST_TEST(out.read()[17] == 0);
}

BOOST_AUTO_TEST_CASE(nan_wins_the_maximum) {
  nccl::communicator comm;
  gpu_buffer<float> in(std::vector<float>{std::nanf(""), -2}), out(std::vector<float>{0, 0});
  comm.all_reduce(in.view("x"), out.view("max"), reduction::max).wait();
  BOOST_TEST(std::isnan(out.read()[0]));
  BOOST_TEST(out.read()[1] == -2);
}

BOOST_AUTO_TEST_CASE(two_ranks_on_one_gpu_are_refused) {
  nccl::unique_id id;
  (void)nccl::driver().make_id(id);
  std::vector<std::string> messages(2);
  std::vector<std::thread> team;
  for (int r = 0; r < 2; ++r)
    team.emplace_back([&, r] {
      try {
        nccl::options how;
        how.rendezvous_deadline = 60;
        how.device = 0;
        nccl::communicator const comm(
            r, 2, [&](nccl::unique_id const&) { return id; }, how);
      } catch (error const& e) { messages[static_cast<std::size_t>(r)] = e.what(); }
    });
  for (auto& t : team) t.join();
  for (auto const& m : messages)
    BOOST_TEST(m.find("NCCL wants a GPU for every rank") != std::string::npos, m);
}

BOOST_AUTO_TEST_CASE(a_missing_peer_is_an_error_and_the_survivor_continues) {
  if (needs_two_gpus("deadline and shrink")) return;
  nccl::unique_id id;
  (void)nccl::driver().make_id(id);
  std::vector<std::string> messages(2);
  std::mutex stays;
  stays.lock();
  std::vector<std::thread> team;
  for (int r = 0; r < 2; ++r)
    team.emplace_back([&, r] {
      try {
        cuda(cudaSetDevice(r));
        nccl::options how;
        how.deadline = 5;
        how.device = r;
        nccl::communicator comm(
            r, 2, [&](nccl::unique_id const&) { return id; }, how);
        comm.barrier();
        if (r == 1) {
          std::scoped_lock const until_the_other_is_done(stays);
          return;
        }
        gpu_buffer<float> in(std::vector<float>{4}), out(std::vector<float>{0});
        try {
          comm.all_reduce(in.view("w"), out.view("sum")).wait();
        } catch (error const& e) { messages[0] = e.what(); }
        int const lost[] = {1};
        auto rest = comm.shrink(lost);
        rest.all_reduce(in.view("w"), out.view("sum")).wait();
        messages[1] = text(rest.size(), " ", out.read()[0]);
      } catch (error const& e) { messages[1] = e.what(); }
      if (r == 0) stays.unlock();
    });
  for (auto& t : team) t.join();
  BOOST_TEST(messages[0].find("all_reduce of 1 f32 (sum) of 'w' (call 2) did not complete within 5 s") !=
             std::string::npos);
  BOOST_TEST(messages[1] == "1 4");
}

}  // namespace limber::test
