// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Worker processes: start, kill, stop, and read their reports.

#include "options.hpp"

#include <limber/core/clock.hpp>
#include <limber/core/error.hpp>

#include <fcntl.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstddef>
#include <cstring>
#include <deque>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

namespace example {

/// One worker process, as its parent sees it.
struct member {
  enum class state { waiting, training, stopped, finished, killed, failed };

  std::string name;
  pid_t pid = 0;
  int fd = -1;
  state now = state::waiting;
  limber::i64 generation = 0;
  int rank = 0, size = 0;
  double epoch = 0, loss = 0, speed = 0;
  std::string news{};  ///< its last report
  double wakes = 0;    ///< when to continue it, if it is stopped
  bool exited = false;
  std::string unread{};

  [[nodiscard]] bool trains() const { return !exited && now == state::training; }
};

/// An event since the last call of `listen`.
struct report {
  member* who;
  std::string what;  ///< "step", "log", "finished", or "ended"
};

class team {
 public:
  /// @param program  the path of this program
  team(std::string program, run_options run, std::filesystem::path folder)
      : program_(std::move(program)), run_(std::move(run)), folder_(std::move(folder)) {}
  team(team const&) = delete;
  team& operator=(team const&) = delete;
  ~team() {
    for (member& m : members_) {
      if (!m.exited) {
        ::kill(m.pid, SIGKILL);
        ::waitpid(m.pid, nullptr, 0);
      }
      if (m.fd >= 0) ::close(m.fd);
    }
  }

  [[nodiscard]] std::deque<member>& members() { return members_; }
  [[nodiscard]] std::vector<member*> training() {
    std::vector<member*> out;
    for (member& m : members_)
      if (m.trains()) out.push_back(&m);
    return out;
  }
  [[nodiscard]] bool any_lives() const {
    return std::ranges::any_of(members_, [](member const& m) { return !m.exited; });
  }

  member& start() {
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) != 0) throw std::runtime_error(limber::text("pipe: ", std::strerror(errno)));
    std::string const name = limber::text("worker-", members_.size());
    std::vector<std::string> const words = arguments(name, ends[1]);
    std::vector<char*> argv;
    for (auto const& w : words) argv.push_back(const_cast<char*>(w.c_str()));
    argv.push_back(nullptr);
    pid_t const parent = ::getpid();
    pid_t const pid = ::fork();
    if (pid < 0) throw std::runtime_error(limber::text("fork: ", std::strerror(errno)));
    if (pid == 0) {
      // SIGINT is handled by the parent; workers end with it.
      ::signal(SIGINT, SIG_IGN);
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      ::fcntl(ends[1], F_SETFD, 0);
      if (::getppid() == parent) ::execv(program_.c_str(), argv.data());
      ::_exit(127);
    }
    ::close(ends[1]);
    return members_.emplace_back(member{.name = name, .pid = pid, .fd = ends[0]});
  }

  void kill(member& m) {
    ::kill(m.pid, SIGKILL);
    m.now = member::state::killed;
  }
  void stop(member& m, double until) {
    ::kill(m.pid, SIGSTOP);
    m.now = member::state::stopped;
    m.wakes = until;
  }
  void wake(member& m) {
    ::kill(m.pid, SIGCONT);
    m.now = member::state::waiting;
    m.news = "woken";
  }

  /// Waits for at most `seconds` for reports.
  [[nodiscard]] std::vector<report> listen(double seconds) {
    std::vector<pollfd> fds;
    std::vector<member*> whose;
    for (member& m : members_)
      if (m.fd >= 0) {
        fds.push_back({m.fd, POLLIN, 0});
        whose.push_back(&m);
      }
    std::vector<report> out;
    if (::poll(fds.data(), fds.size(), static_cast<int>(1000 * seconds)) <= 0) return out;
    for (std::size_t k = 0; k < fds.size(); ++k)
      if (fds[k].revents != 0) read(*whose[k], out);
    return out;
  }

 private:
  [[nodiscard]] std::vector<std::string> arguments(std::string const& name, int fd) const {
    auto const exact = [](double x) {
      std::ostringstream s;
      s.precision(17);
      s << x;
      return s.str();
    };
    run_options const& r = run_;
    return {program_,
            "--worker",
            name,
            "--report",
            std::to_string(fd),
            "--folder",
            folder_.string(),
            "--workers",
            std::to_string(r.workers),
            "--strategy",
            r.strategy,
            "--data",
            r.data.string(),
            "--epochs",
            std::to_string(r.epochs),
            "--batch",
            std::to_string(r.batch),
            "--hidden",
            std::to_string(r.hidden),
            "--eta",
            exact(r.eta),
            "--momentum",
            exact(r.momentum),
            "--pace",
            exact(r.pace),
            "--deadline",
            exact(r.deadline),
            "--seed",
            std::to_string(r.seed)};
  }

  static void read(member& m, std::vector<report>& out) {
    char buffer[4096];
    ssize_t const n = ::read(m.fd, buffer, sizeof buffer);
    if (n < 0 && errno == EINTR) return;
    if (n <= 0) {
      ::close(m.fd);
      m.fd = -1;
      int status = 0;
      ::waitpid(m.pid, &status, 0);
      m.exited = true;
      bool const signalled = WIFSIGNALED(status);
      if (m.now != member::state::killed)
        m.now = !signalled && WEXITSTATUS(status) == 0 ? member::state::finished : member::state::failed;
      if (signalled && m.now == member::state::failed) m.news = limber::text("signal ", WTERMSIG(status));
      out.push_back({&m, "ended"});
      return;
    }
    m.unread.append(buffer, static_cast<std::size_t>(n));
    for (std::size_t end; (end = m.unread.find('\n')) != std::string::npos; m.unread.erase(0, end + 1)) {
      std::istringstream line(m.unread.substr(0, end));
      std::string what;
      line >> what;
      if (what == "step") {
        line >> m.generation >> m.rank >> m.size >> m.epoch >> m.loss >> m.speed;
        if (m.now == member::state::waiting) m.now = member::state::training;
      } else {
        std::getline(line >> std::ws, m.news);
      }
      out.push_back({&m, what});
    }
  }

  std::string program_;
  run_options run_;
  std::filesystem::path folder_;
  std::deque<member> members_;
};

}  // namespace example
