// SPDX-License-Identifier: Apache-2.0

/// @file
/// What backward hides of an exchange of gradients: the time of a step that the trainer waits for, in
/// mark_ready and in step, per step the maximum over ranks.
///
///     comm/overlap/link-1Gbps/16x256KiB/ranks-2/marked
///
/// Backward finishes one tensor after the other, in reverse order of use, and takes 1.5 times as long as the
/// link needs for all. It sleeps, as the host of a device does.
///
/// Rows     marked     every tensor is marked when it is finished
///          unmarked   all buckets cross in step()
///          alone      a step of a single rank: packing and the update, which nothing can hide (part)
/// Links    link-…     each reduction takes 50 µs and its bytes' time on a link of its own, one after the
///                     other, while the ranks compute: a network card. It sleeps.
///          threads no link: the last rank to arrive adds up, so only idle time is hidden
/// Choices  waiting for a rank that is late counts, with and without marks.

#include <limber/comm/threads.hpp>
#include <limber/limber.hpp>

#include <benchmark/benchmark.h>
#include <support/program.hpp>

#include <algorithm>
#include <chrono>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace limber::bench {
namespace {

constexpr double bytes_per_second = 125e6, latency = 50e-6;
constexpr i64 tensors = 16;

double seconds_on_link(i64 bytes) { return latency + static_cast<double>(bytes) / bytes_per_second; }

void sleep_until(double when) {
  if (double const left = when - steady_seconds(); left > 0)
    std::this_thread::sleep_for(std::chrono::duration<double>(left));
}

// A reduction whose result has come over the link.
template <class Request>
struct delivery {
  Request inner;
  double due;
  void wait() {
    sleep_until(due);
    inner.wait();
  }
  [[nodiscard]] bool done() { return steady_seconds() >= due && inner.done(); }
};

// A collective behind a link that carries one reduction after the other.
template <class Collective>
struct linked {
  Collective* inner;
  double free = 0;  // when the link is

  [[nodiscard]] int rank() const { return inner->rank(); }
  [[nodiscard]] int size() const { return inner->size(); }
  auto all_reduce(const_tensor_view in, tensor_view out, reduction how = reduction::sum) {
    auto started = inner->all_reduce(in, out, how);
    free = std::max(free, steady_seconds()) + seconds_on_link(in.bytes());
    return delivery<decltype(started)>{std::move(started), free};
  }
  auto reduce_scatter(const_tensor_view in, tensor_view out) { return inner->reduce_scatter(in, out); }
  auto all_gather(const_tensor_view in, tensor_view out) { return inner->all_gather(in, out); }
  auto broadcast(tensor_view data, int root) { return inner->broadcast(data, root); }
  void barrier() { inner->barrier(); }
};

struct model {
  std::vector<std::vector<float>> w, g;
  explicit model(i64 n) : w(tensors, std::vector<float>(static_cast<std::size_t>(n))), g(w) {}
  [[nodiscard]] std::vector<tensor> parameters() {
    std::vector<tensor> out;
    for (std::size_t k = 0; k < w.size(); ++k) out.push_back({text("layer", 10 + k), w[k], g[k]});
    return out;
  }
};

// Seconds that each of `steps` steps is waited for.
template <class Collective>
std::vector<double> exposed(Collective& comm, i64 n, i64 steps, bool marks) {
  model m(n);
  options o;
  o.buckets = {n * 4, 4 * n * 4};  // a bucket of one tensor, then of four
  optimizer opt{m.parameters(), sgd{.momentum = 0.9}, 1e-3, sync::allreduce{}, comm, o};
  opt.step(1);
  double const slice = 1.5 * seconds_on_link(n * 4);
  std::vector<double> seconds;
  for (i64 s = 0; s < steps; ++s) {
    comm.barrier();
    opt.begin(1);
    double const start = steady_seconds();
    for (i64 t = tensors - 1, done = 1; t >= 0; --t, ++done) {
      while (steady_seconds() < start + slice * static_cast<double>(done)) {}
      if (marks) opt.mark_ready(t);
    }
    opt.step();
    seconds.push_back(opt.last().marking_seconds + opt.last().exchange_seconds);
  }
  return seconds;
}

// Runs `one(comm)` on so many ranks, and counts the longest of every step.
template <class One>
void measure(benchmark::State& state, int ranks, i64 batch, One const& one) {
  while (state.KeepRunningBatch(batch)) {
    std::vector<std::vector<double>> all(static_cast<std::size_t>(ranks));
    threads::run(
        ranks, [&](threads::communicator& comm) { all[static_cast<std::size_t>(comm.rank())] = one(comm); });
    double sum = 0;
    for (std::size_t s = 0; s < static_cast<std::size_t>(batch); ++s) {
      double longest = 0;
      for (auto const& seconds : all) longest = std::max(longest, seconds[s]);
      sum += longest;
    }
    state.SetIterationTime(sum);
  }
}

void add_cases(program& all, std::string const& link, bool has_link, i64 n, int ranks) {
  i64 const bytes = tensors * n * 4, batch = 4;
  task t{.name = text("comm/overlap/", link, "/", tensors, "x", n * 4 / 1024, "KiB/ranks-", ranks),
         .read = bytes * ranks,
         .written = bytes * ranks,
         .has_ceiling = false,
         .manual_time = true};
  auto add = [&](std::string const& label, role as, int workers, bool marks) {
    all.add(t, label, as, [=](benchmark::State& state) {
      measure(state, workers, batch, [&](threads::communicator& comm) {
        if (!has_link || workers == 1) return exposed(comm, n, batch, marks);
        linked<threads::communicator> wire{&comm};
        return exposed(wire, n, batch, marks);
      });
    });
  };
  add("marked", role::subject, ranks, true);
  add("unmarked", role::peer, ranks, false);
  add("alone", role::part, 1, false);
}

}  // namespace
}  // namespace limber::bench

int main(int argc, char** argv) {
  using namespace limber;
  bench::program all(argc, argv);
  i64 const n = (i64{64} << 10) / (all.quick() ? 64 : 1);
  for (int const ranks : {2, 4}) {
    bench::add_cases(all, "link-1Gbps", true, n, ranks);
    bench::add_cases(all, "threads", false, n, ranks);
  }
  return all.run();
}
