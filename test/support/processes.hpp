// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Tests on real processes: forked from the test, watched by it, and killed at a deadline.
///
///     run_processes(4, [](int rank) { … });                 // throws again what the first rank threw
///
///     crew workers(3, [](int rank, voice const& say) { say("here"); … });
///     workers.hear(1, 10);                                  // "here", or nothing within 10 s
///     workers.signal(1, SIGKILL);
///     auto const endings = workers.join(30);                // of all; those who are late are killed
///
/// Processes are forked, so the test itself must not have other threads at that time. What they print
/// goes where the test prints; what they find out goes through `say`, or is thrown: Boost.Test's own
/// checks mean nothing in them.

#include <limber/core/clock.hpp>
#include <limber/core/error.hpp>

#include <poll.h>
#include <sys/prctl.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <deque>
#include <exception>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace limber::test {

/// How a process ended.
struct ending {
  enum class kind { none, finished, threw, killed, late };
  kind how = kind::none;
  std::string what{};              ///< the exception's text, or what killed it
  std::optional<failure> where{};  ///< of a limber::error
};

/// What a process reports with: any bytes, read in order by crew::hear.
class voice {
 public:
  void operator()(std::string_view words) const { send('s', words); }

 private:
  friend class crew;
  explicit voice(int fd) : fd_(fd) {}

  void send(char kind, std::string_view words) const {
    std::string frame(1 + sizeof(std::uint32_t), kind);
    auto const n = static_cast<std::uint32_t>(words.size());
    std::memcpy(frame.data() + 1, &n, sizeof n);
    frame += words;
    for (std::size_t sent = 0; sent < frame.size();) {
      ssize_t const w = ::write(fd_, frame.data() + sent, frame.size() - sent);
      if (w < 0 && errno != EINTR) return;  // the test has ended
      if (w > 0) sent += static_cast<std::size_t>(w);
    }
  }

  int fd_;
};

class crew {
 public:
  /// f(rank, voice const&) in n processes.
  template <class F>
  crew(int n, F const& f) {
    for (int r = 0; r < n; ++r) start(f);
  }
  crew(crew const&) = delete;
  crew& operator=(crew const&) = delete;
  /// Whoever still lives is killed.
  ~crew() {
    for (member& m : members_) {
      if (!m.reaped) ::kill(m.pid, SIGKILL);
      reap(m, true);
      ::close(m.pipe);
    }
  }

  /// One more process, as the next rank; returns it.
  template <class F>
  int start(F const& f) {
    int ends[2];
    if (::pipe(ends) != 0) throw std::runtime_error(text("pipe: ", std::strerror(errno)));
    int const rank = static_cast<int>(members_.size());
    std::fflush(nullptr);  // or both would print what is in the buffers
    pid_t const pid = ::fork();
    if (pid < 0) throw std::runtime_error(text("fork: ", std::strerror(errno)));
    if (pid == 0) {
      ::close(ends[0]);
      live(rank, voice(ends[1]), f);
    }
    ::close(ends[1]);
    members_.push_back({pid, ends[0]});
    return rank;
  }

  [[nodiscard]] int size() const noexcept { return static_cast<int>(members_.size()); }
  [[nodiscard]] int pid(int rank) const { return members_.at(static_cast<std::size_t>(rank)).pid; }

  /// SIGKILL, SIGSTOP, SIGCONT, … Nothing happens if it has ended.
  void signal(int rank, int which) {
    member& m = members_.at(static_cast<std::size_t>(rank));
    reap(m, false);
    if (!m.reaped) ::kill(m.pid, which);
  }

  /// The next thing `rank` said; nothing when it ended before, or says nothing within so many seconds.
  [[nodiscard]] std::optional<std::string> hear(int rank, double seconds) {
    double const end = steady_seconds() + seconds;
    member& m = members_.at(static_cast<std::size_t>(rank));
    while (m.said.empty() && !m.silent && steady_seconds() < end) read(end, &m);
    if (m.said.empty()) return std::nullopt;
    std::string words = std::move(m.said.front());
    m.said.pop_front();
    return words;
  }

  /// True once it has ended, and all that it said was heard.
  [[nodiscard]] bool silent(int rank) const {
    member const& m = members_.at(static_cast<std::size_t>(rank));
    return m.silent && m.said.empty();
  }

  /// Waits until all have ended; kills those who have not after so many seconds.
  std::vector<ending> join(double seconds) {
    double const end = steady_seconds() + seconds;
    auto const lives = [](member const& m) { return !m.silent; };
    while (std::ranges::any_of(members_, lives) && steady_seconds() < end) read(end, nullptr);
    std::vector<ending> endings;
    for (member& m : members_) {
      if (!m.silent) {
        ::kill(m.pid, SIGKILL);
        m.end = {ending::kind::late, text("did not end within ", seconds, " s"), {}};
      }
      reap(m, true);
      if (m.end.how == ending::kind::none) {
        int const by = WIFSIGNALED(m.status) ? WTERMSIG(m.status) : 0;
        m.end = {ending::kind::killed,
                 by != 0 ? text("killed by signal ", by) : text("exit status ", WEXITSTATUS(m.status)),
                 {}};
      }
      endings.push_back(m.end);
    }
    return endings;
  }

 private:
  struct member {
    pid_t pid = 0;
    int pipe = -1;
    bool silent = false;  ///< the pipe has ended
    bool reaped = false;
    int status = 0;
    std::string unread{};
    std::deque<std::string> said{};
    ending end{};
  };

  template <class F>
  [[noreturn]] static void live(int rank, voice const& say, F const& f) {
    // Boost.Test's handlers would go on with the test here.
    for (int const s : {SIGABRT, SIGSEGV, SIGFPE, SIGILL, SIGBUS, SIGALRM, SIGCHLD, SIGTERM})
      std::signal(s, SIG_DFL);
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    try {
      f(rank, say);
      say.send('f', {});
    } catch (error const& e) {
      failure const& w = e.where();
      std::string all = e.what();
      for (std::string const& part : {w.engine, w.call, text(w.code), text(w.rank), w.bucket, w.reason})
        all += std::string(1, '\0') + part;
      say.send('e', all);
    } catch (std::exception const& e) { say.send('t', e.what()); } catch (...) {
      say.send('t', "something that is no std::exception");
    }
    std::fflush(nullptr);
    ::_exit(0);
  }

  static void reap(member& m, bool wait) {
    if (!m.reaped) m.reaped = ::waitpid(m.pid, &m.status, wait ? 0 : WNOHANG) == m.pid;
  }

  /// Takes in what the processes write, until somebody has written something.
  void read(double end, member* only) {
    std::vector<pollfd> fds;
    std::vector<member*> whose;
    for (member& m : members_) {
      if (m.silent || (only && &m != only)) continue;
      fds.push_back({m.pipe, POLLIN, 0});
      whose.push_back(&m);
    }
    int const patience = std::max(1, static_cast<int>((end - steady_seconds()) * 1000));
    if (::poll(fds.data(), fds.size(), patience) <= 0) return;
    for (std::size_t i = 0; i < fds.size(); ++i)
      if (fds[i].revents != 0) take(*whose[i]);
  }
  static void take(member& m) {
    char buffer[4096];
    ssize_t const n = ::read(m.pipe, buffer, sizeof buffer);
    if (n < 0 && errno == EINTR) return;
    if (n <= 0) {
      m.silent = true;
      return;
    }
    m.unread.append(buffer, static_cast<std::size_t>(n));
    std::uint32_t length = 0;
    while (m.unread.size() >= 1 + sizeof length) {
      std::memcpy(&length, m.unread.data() + 1, sizeof length);
      std::size_t const whole = 1 + sizeof length + length;
      if (m.unread.size() < whole) return;
      hear_out(m, m.unread[0], m.unread.substr(1 + sizeof length, length));
      m.unread.erase(0, whole);
    }
  }
  static void hear_out(member& m, char kind, std::string words) {
    switch (kind) {
      case 's': m.said.push_back(std::move(words)); return;
      case 'f': m.end = {ending::kind::finished, {}, {}}; return;
      case 't': m.end = {ending::kind::threw, std::move(words), {}}; return;
      default: break;
    }
    std::vector<std::string> parts(1);
    for (char const c : words)
      if (c == '\0')
        parts.emplace_back();
      else
        parts.back() += c;
    parts.resize(7, "0");
    m.end = {ending::kind::threw, parts[0],
             failure{parts[1], parts[2], std::stoi(parts[3]), std::stoi(parts[4]), parts[5], parts[6]}};
  }

  std::deque<member> members_;
};

/// Throws unless all processes finished: what the first that did not says, with its rank.
inline void expect_finished(std::vector<ending> const& endings) {
  for (auto const kind : {ending::kind::threw, ending::kind::killed, ending::kind::late})
    for (std::size_t r = 0; r < endings.size(); ++r)
      if (endings[r].how == kind) throw std::runtime_error(text("rank ", r, ": ", endings[r].what));
}

/// f(rank) in n processes; throws again what one of them threw, with its rank.
template <class F>
void run_processes(int n, F const& f, double seconds = 60) {
  crew workers(n, [&](int rank, voice const&) { f(rank); });
  expect_finished(workers.join(seconds));
}

}  // namespace limber::test
