// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The records that workers write while they train, from which each sample is accounted for afterwards.

#include <limber/core/config.hpp>
#include <limber/core/error.hpp>
#include <limber/elastic/dealer.hpp>

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <span>
#include <sstream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace example {

/// Samples assigned to a worker. Written before their gradient can reach any other worker.
struct assigned {
  limber::i64 generation = 0, call = 0, epoch = 0;
  std::vector<limber::i64> samples{};
};

/// The state of training when a worker entered a generation: samples that were dealt and are not requeued are
/// consumed.
struct entered {
  limber::i64 generation = 0;
  limber::i64 samples = 0;  ///< that the optimizer counts
  limber::i64 epoch = 0, cursor = 0;
  std::vector<limber::elastic::sample_range> requeued{};

  friend bool operator==(entered const&, entered const&) = default;
};

/// The result of a worker that finished.
struct finished {
  limber::i64 generation = 0;
  limber::i64 samples = 0;
  std::uint64_t parameters = 0;   ///< a hash of their bits
  double bits = 0, accuracy = 0;  ///< on the held-out samples

  friend bool operator==(finished const&, finished const&) = default;
};

/// The records of one worker.
struct history {
  std::string worker;
  std::vector<assigned> assignments{};
  std::vector<entered> generations{};
  std::vector<finished> end{};  ///< at most one
};

/// Writes a history line by line; each line is in the file before the call returns, and survives the process.
class history_writer {
 public:
  explicit history_writer(std::filesystem::path const& file)
      : file_(file), fd_(::open(file.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644)) {
    if (fd_ < 0) throw std::runtime_error(error_text("opened"));
  }
  history_writer(history_writer const&) = delete;
  history_writer& operator=(history_writer const&) = delete;
  ~history_writer() { ::close(fd_); }

  void note(limber::i64 generation, limber::i64 call, limber::elastic::work_assignment const& h) {
    std::string line = limber::text("dealt ", generation, " ", call, " ", h.epoch);
    for (limber::i64 const s : h.samples) line += " " + std::to_string(s);
    write(std::move(line));
  }
  void note(entered const& e) {
    std::string line = limber::text("entered ", e.generation, " ", e.samples, " ", e.epoch, " ", e.cursor);
    for (auto const& s : e.requeued) line += limber::text(" ", s.epoch, " ", s.first, " ", s.count);
    write(std::move(line));
  }
  void note(finished const& f) {
    std::ostringstream line;
    line.precision(17);
    line << "finished " << f.generation << ' ' << f.samples << ' ' << f.parameters << ' ' << f.bits << ' '
         << f.accuracy;
    write(line.str());
  }

 private:
  [[nodiscard]] std::string error_text(char const* what) const {
    return limber::text(file_.string(), ": cannot be ", what, ": ", std::strerror(errno));
  }
  void write(std::string line) {
    line += '\n';
    for (std::size_t sent = 0; sent < line.size();) {
      ssize_t const n = ::write(fd_, line.data() + sent, line.size() - sent);
      if (n < 0 && errno != EINTR) throw std::runtime_error(error_text("written"));
      if (n > 0) sent += static_cast<std::size_t>(n);
    }
  }

  std::filesystem::path file_;
  int fd_;
};

/// Reads the history in a file. An incomplete last line of a writer that died is ignored: it had no effect.
[[nodiscard]] inline history read_history(std::filesystem::path const& file) {
  using limber::i64;
  history out{.worker = file.stem().string()};
  std::ifstream in(file, std::ios::binary);
  std::string const all{std::istreambuf_iterator<char>(in), {}};
  for (std::size_t at = 0, end = 0; (end = all.find('\n', at)) != std::string::npos; at = end + 1) {
    std::istringstream line(all.substr(at, end - at));
    std::string what;
    line >> what;
    if (what == "dealt") {
      assigned d;
      line >> d.generation >> d.call >> d.epoch;
      for (i64 s = 0; line >> s;) d.samples.push_back(s);
      out.assignments.push_back(std::move(d));
    } else if (what == "entered") {
      entered e;
      line >> e.generation >> e.samples >> e.epoch >> e.cursor;
      for (limber::elastic::sample_range s; line >> s.epoch >> s.first >> s.count;) e.requeued.push_back(s);
      out.generations.push_back(std::move(e));
    } else if (what == "finished") {
      finished f;
      line >> f.generation >> f.samples >> f.parameters >> f.bits >> f.accuracy;
      out.end.push_back(f);
    } else {
      throw std::runtime_error(limber::text(file.string(), ": a line begins with '", what, "'"));
    }
  }
  return out;
}

}  // namespace example
