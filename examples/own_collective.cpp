// SPDX-License-Identifier: Apache-2.0

/// @file
/// A collective of one's own, own_collective.hpp, at work: three processes that are connected by socket pairs
/// fit a line, each with its own third of the points. Fails if they do not find it.

#include "own_collective.hpp"

#include "line.hpp"

#include <limber/limber.hpp>

#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <exception>
#include <vector>

namespace {

constexpr int workers = 3;
constexpr limber::i64 points = 900;

// Trains for 40 epochs; returns how far the line is from the truth.
float train(example::socket_collective& comm) {
  example::line model;
  limber::optimizer opt{model.parameters(),
                        limber::sgd{.momentum = 0.9},
                        0.05,
                        limber::sync::allreduce{},
                        comm,
                        {.batch = limber::per_worker{30}, .epoch_size = points}};
  std::vector<limber::i64> batch(30);
  for (int epoch = 0; epoch < 40; ++epoch)
    for (limber::i64 first = 0; first < points / workers; first += 30) {
      for (std::size_t k = 0; k < batch.size(); ++k)
        batch[k] = comm.rank() + workers * (first + static_cast<limber::i64>(k));
      model.backward(batch);
      opt.step(30);
    }
  opt.finish();
  return model.error();
}

}  // namespace

int main() {
  std::vector<int> own{-1};  // rank 0's sockets
  for (int rank = 1; rank < workers; ++rank) {
    int ends[2];
    if (::socketpair(AF_UNIX, SOCK_STREAM, 0, ends) != 0) return std::perror("socketpair"), 1;
    pid_t const child = ::fork();
    if (child < 0) return std::perror("fork"), 1;
    if (child == 0) {
      ::close(ends[0]);
      for (std::size_t r = 1; r < own.size(); ++r) ::close(own[r]);
      example::socket_collective comm{rank, workers, {ends[1]}};
      try {
        ::_exit(train(comm) < 0.1f ? 0 : 1);
      } catch (std::exception const& e) {
        std::fprintf(stderr, "rank %d: %s\n", rank, e.what());
        ::_exit(1);
      }
    }
    ::close(ends[1]);
    own.push_back(ends[0]);
  }
  bool good = false;
  try {
    example::socket_collective comm{0, workers, own};
    float const error = train(comm);
    std::printf("%d processes over socket pairs: the line is off by %.4f\n", workers,
                static_cast<double>(error));
    good = error < 0.1f;
  } catch (std::exception const& e) { std::fprintf(stderr, "rank 0: %s\n", e.what()); }
  for (int status = 0; ::wait(&status) > 0;) good = good && status == 0;
  return good ? 0 : 1;
}
