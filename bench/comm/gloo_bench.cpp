// SPDX-License-Identifier: Apache-2.0
// needs: gloo

/// @file
/// What gloo_engine::communicator adds to Gloo: all_reduce between 2 processes of this machine.
///
/// blocking      all_reduce(...).wait() beside gloo::allreduce
/// control       gloo::allreduce beside itself, on another mesh
/// non-blocking  start, done() now and then, wait, beside a thread that is handed gloo::allreduce; Gloo
///               has no call of that kind itself

#include <limber/comm/gloo.hpp>

#include <comm/collective_cost.hpp>
#include <gloo/rendezvous/context.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <condition_variable>
#include <csignal>
#include <cstddef>
#include <exception>
#include <filesystem>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

namespace limber::bench {
namespace {

/// A thread that runs one call at a time for another thread.
class helper_thread {
 public:
  helper_thread() : thread_([this] { work(); }) {}
  ~helper_thread() {
    start(nullptr);
    thread_.join();
  }
  void start(std::function<void()> job) {
    std::scoped_lock const lock(mutex_);
    job_ = std::move(job);
    busy_ = true;
    changed_.notify_all();
  }
  void wait() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return !busy_; });
  }

 private:
  void work() {
    std::unique_lock lock(mutex_);
    for (;;) {
      changed_.wait(lock, [this] { return busy_; });
      if (!job_) return;
      lock.unlock();
      job_();
      lock.lock();
      busy_ = false;
      changed_.notify_all();
    }
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::function<void()> job_;
  bool busy_ = false;
  std::thread thread_;
};

using engine = std::shared_ptr<::gloo::rendezvous::Context>;

/// Two processes connected by Gloo alone, each with its own device thread, as in Limber.
engine connect(int rank, std::filesystem::path const& folder) {
  ::gloo::transport::tcp::attr at("127.0.0.1");
  auto device = ::gloo::transport::tcp::CreateDevice(at);
  auto made = std::make_shared<::gloo::rendezvous::Context>(rank, 2);
  auto store = gloo_engine::file_rendezvous(folder);
  made->connectFullMesh(*store, device);
  return made;
}

void measure(int rank, std::filesystem::path const& folder, cost_table& table) {
  gloo_engine::options o;
  o.host = "127.0.0.1";
  gloo_engine::communicator comm(rank, 2, gloo_engine::file_rendezvous(folder / "limber"), o);
  engine const alone = connect(rank, folder / "direct");
  engine const second = connect(rank, folder / "second");
  // A third one, so that the barrier warms the caches of neither.
  engine const third = connect(rank, folder / "settle");

  std::vector<float> in(cost_sizes[std::size(cost_sizes) - 1] / sizeof(float), 1), out(in.size());
  std::uint32_t tag = 0;
  auto const settle = [&] {
    ::gloo::BarrierOptions b(third);
    b.setTag(++tag);
    ::gloo::barrier(b);
  };
  helper_thread helper;
  for (std::size_t const bytes : cost_sizes) {
    std::size_t const n = bytes / sizeof(float);
    auto const over = [&](engine const& e) {
      ::gloo::AllreduceOptions a(e);
      a.setInput(in.data(), n);
      a.setOutput(out.data(), n);
      a.setReduceFunction(
          static_cast<void (*)(void*, void const*, void const*, std::size_t)>(&::gloo::sum<float>));
      a.setTag(++tag);
      ::gloo::allreduce(a);
    };
    auto const direct = [&] { over(alone); };
    auto const start = [&] {
      return comm.all_reduce(view(in).sub(0, static_cast<i64>(n)), view(out).sub(0, static_cast<i64>(n)));
    };
    // Warm-up.
    for (int k = 0; bytes == cost_sizes[0] && k < 300; ++k)
      over(alone), over(second), start().wait(), settle();
    table.add({"all_reduce", "blocking", bytes}, settle, direct, [&] { start().wait(); });
    table.add({"all_reduce", "control", bytes}, settle, direct, [&] { over(second); });
    table.add(
        {"all_reduce", "non-blocking", bytes}, settle,
        [&] {
          helper.start(direct);
          helper.wait();
        },
        [&] {
          auto q = start();
          (void)q.done();
          q.wait();
        });
  }
}

bool guarded(int rank, std::filesystem::path const& folder, cost_table& table) {
  try {
    measure(rank, folder, table);
    return true;
  } catch (std::exception const& e) {
    std::fprintf(stderr, "rank %d: %s\n", rank, e.what());
    return false;
  }
}

}  // namespace
}  // namespace limber::bench

int main(int argc, char** argv) {
  using namespace limber;
  auto const how = bench::cost_options_of(argc, argv, 4);
  char const* const title = "Gloo over TCP on one machine, 2 processes";
  bench::cost_table table(how, 0, title);
  for (int k = 0; k < how.starts; ++k) {
    auto const folder =
        std::filesystem::temp_directory_path() / text("limber-bench-gloo-", ::getpid(), "-", k);
    std::filesystem::create_directories(folder);
    pid_t const child = ::fork();
    if (child == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      bench::cost_table unread(how, 1, title);
      ::_exit(bench::guarded(1, folder, unread) ? 0 : 1);
    }
    bool const mine = bench::guarded(0, folder, table);
    int status = 0;
    ::waitpid(child, &status, 0);
    std::filesystem::remove_all(folder);
    if (!mine || !WIFEXITED(status) || WEXITSTATUS(status) != 0) return 2;
  }
  return table.finish();
}
