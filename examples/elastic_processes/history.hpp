// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// What workers write down while they train, so that afterwards each sample can be accounted for.

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

/// A worker took these samples in hand. Written before their gradient can reach anybody.
struct dealt {
  limber::i64 generation = 0, call = 0, epoch = 0;
  std::vector<limber::i64> samples{};
};

/// Where training stood when a worker entered a generation: what is not dealt or owed is consumed.
struct entered {
  limber::i64 generation = 0;
  limber::i64 samples = 0;  ///< that the optimizer counts
  limber::i64 epoch = 0, cursor = 0;
  std::vector<limber::elastic::stretch> owed{};

  friend bool operator==(entered const&, entered const&) = default;
};

/// How a worker ended that came to the end.
struct finished {
  limber::i64 generation = 0;
  limber::i64 samples = 0;
  std::uint64_t parameters = 0;   ///< a hash of their bits
  double bits = 0, accuracy = 0;  ///< on what was held out

  friend bool operator==(finished const&, finished const&) = default;
};

/// What one worker wrote down.
struct history {
  std::string worker;
  std::vector<dealt> hands{};
  std::vector<entered> generations{};
  std::vector<finished> end{};  ///< one, or none
};

/// Writes a history line by line; each line reaches the file before the call returns, and outlives the
/// process.
class diary {
 public:
  explicit diary(std::filesystem::path const& file)
      : file_(file), fd_(::open(file.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644)) {
    if (fd_ < 0) throw std::runtime_error(trouble("opened"));
  }
  diary(diary const&) = delete;
  diary& operator=(diary const&) = delete;
  ~diary() { ::close(fd_); }

  void note(limber::i64 generation, limber::i64 call, limber::elastic::hand const& h) {
    std::string line = limber::text("dealt ", generation, " ", call, " ", h.epoch);
    for (limber::i64 const s : h.samples) line += " " + std::to_string(s);
    write(std::move(line));
  }
  void note(entered const& e) {
    std::string line = limber::text("entered ", e.generation, " ", e.samples, " ", e.epoch, " ", e.cursor);
    for (auto const& s : e.owed) line += limber::text(" ", s.epoch, " ", s.first, " ", s.count);
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
  [[nodiscard]] std::string trouble(char const* what) const {
    return limber::text(file_.string(), ": cannot be ", what, ": ", std::strerror(errno));
  }
  void write(std::string line) {
    line += '\n';
    for (std::size_t sent = 0; sent < line.size();) {
      ssize_t const n = ::write(fd_, line.data() + sent, line.size() - sent);
      if (n < 0 && errno != EINTR) throw std::runtime_error(trouble("written"));
      if (n > 0) sent += static_cast<std::size_t>(n);
    }
  }

  std::filesystem::path file_;
  int fd_;
};

/// The history in a diary. A last line that its writer did not live to end is left out: nothing had come of
/// it.
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
      dealt d;
      line >> d.generation >> d.call >> d.epoch;
      for (i64 s = 0; line >> s;) d.samples.push_back(s);
      out.hands.push_back(std::move(d));
    } else if (what == "entered") {
      entered e;
      line >> e.generation >> e.samples >> e.epoch >> e.cursor;
      for (limber::elastic::stretch s; line >> s.epoch >> s.first >> s.count;) e.owed.push_back(s);
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
