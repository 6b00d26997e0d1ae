// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The mailbox and the blocking messages of the MPI backend.

#include <limber/comm/collective.hpp>
#include <limber/comm/detail/mpi_group.hpp>
#include <limber/comm/detail/mpi_letters.hpp>

#include <algorithm>
#include <cstddef>
#include <deque>
#include <exception>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace limber::mpi::detail {

/// A message of the mailbox on its way, out or in.
template <engine E>
struct letter {
  int source = 0;
  std::vector<std::byte> bytes{};
  typename E::request_type state = E::no_request();

  [[nodiscard]] bool arrived(E& engine) {
    bool done = false;
    check(engine, engine.test(state, done), "post");
    return done;
  }
};

/// Keeps what was still on its way when its communicator was destroyed: until then the memory is MPI's.
template <engine E>
class attic {
 public:
  /// Never destroyed: MPI may outlive static objects.
  [[nodiscard]] static attic& of_process() {
    static auto* const one = new attic;
    return *one;
  }
  void keep(E& engine, std::deque<letter<E>> letters) {
    std::scoped_lock const lock(door_);
    for (auto& l : letters) letters_.push_back(std::move(l));
    tidy(engine);
  }
  [[nodiscard]] bool is_empty(E& engine) {
    std::scoped_lock const lock(door_);
    tidy(engine);
    return letters_.empty();
  }

 private:
  void tidy(E& engine) {
    std::erase_if(letters_, [&](letter<E>& l) { return l.arrived(engine); });
  }

  std::mutex door_;
  std::deque<letter<E>> letters_;
};

/// A group with its messages.
template <engine E>
class correspondent : public group<E> {
  using base = group<E>;

 public:
  using base::base;
  ~correspondent() {
    if (!base::engine.is_running()) return;
    try {
      if (base::alive() && base::native != E::no_comm()) collect("end");  // what has come is not left to MPI
      attic<E>::of_process().keep(base::engine, std::move(outgoing_));
      attic<E>::of_process().keep(base::engine, std::move(incoming_));
    } catch (std::exception const&) {}  // MPI is broken, and the program on its way out
  }

  void post(int peer, i64 tag, std::span<std::byte const> bytes) {
    letter<E> l{base::rank, sealed(tag, bytes)};
    base::must_be_alive("post");
    while (!outgoing_.empty() && outgoing_.front().arrived(base::engine)) outgoing_.pop_front();
    base::carried = true;
    base::must(base::engine.send(base::native, l.bytes.data(), static_cast<int>(l.bytes.size()), dtype::uint8,
                                 peer, base::mail_tag(), l.state),
               "post");
    outgoing_.push_back(std::move(l));
  }
  [[nodiscard]] std::optional<message> poll(i64 tag) {
    if (base::alive()) collect("poll");
    auto m = mail_.take(tag);
    if (!m) base::must_be_alive("poll");
    return m;
  }
  void listen() {
    base::must_be_alive("listen");
    std::optional<double> since;
    auto const heard = [&] {
      collect("listen");
      return mail_.anything_new();
    };
    if (base::until(heard, since)) return;
    throw error({"mpi",
                 "listen",
                 0,
                 -1,
                 {},
                 text("nobody posted anything to rank ", base::rank, " within ", base::how.deadline, " s")});
  }

  /// Nothing is in flight before a message is there, so that deadline is not fatal.
  void recv(tensor_view out, int peer) {
    base::must_be_alive("recv", out.name);
    i64 const width = size_of(out.type);
    in_pieces(out.length, piece_of(base::how, out.type), [&](i64 first, int n) {
      typename base::flight f{"recv", out.name};
      typename E::message_type found = E::no_message();
      arrival a;
      std::optional<double> since;
      auto const there = [&] {
        base::must(base::engine.probe(base::native, peer, base::letter_tag(), found, a), f);
        return a.there;
      };
      if (!base::until(there, since))
        throw error({"mpi", "recv", 0, peer, std::string(out.name),
                     text("rank ", peer, " sent nothing to rank ", base::rank, " within ", base::how.deadline,
                          " s")});
      base::carried = true;
      bool const fits = a.bytes == n * width;
      if (!fits) base::misfit.resize(static_cast<std::size_t>(a.bytes));
      base::must(fits ? base::engine.take(found, out.data + first * width, n, out.type, f.next())
                      : base::engine.take(found, base::misfit.data(), a.bytes, dtype::uint8, f.next()),
                 f);
      base::wait(f);
      if (!fits)
        base::end({"mpi", "recv", 0, base::rank, std::string(out.name),
                   text("rank ", base::rank, " receives ", n * width, " bytes (", n, " ",
                        limber::name_of(out.type), ") but rank ", peer, " sent ", a.bytes)});
    });
  }

 private:
  /// Takes in what has come. A large message may need its sender's help: nobody waits for it here.
  void collect(std::string_view call) {
    for (arrival a;;) {
      typename E::message_type found = E::no_message();
      base::must(base::engine.probe(base::native, -1, base::mail_tag(), found, a), call);
      if (!a.there) break;
      base::carried = true;
      letter<E> l{a.source, std::vector<std::byte>(static_cast<std::size_t>(a.bytes))};
      base::must(base::engine.take(found, l.bytes.data(), a.bytes, dtype::uint8, l.state), call);
      incoming_.push_back(std::move(l));
    }
    if (incoming_.empty()) return;
    std::vector<int> behind;  // senders of whom an earlier message is still on its way
    std::erase_if(incoming_, [&](letter<E>& l) {
      if (std::ranges::find(behind, l.source) != behind.end()) return false;
      if (l.arrived(base::engine)) {
        mail_.sort(l.source, std::move(l.bytes));
        return true;
      }
      behind.push_back(l.source);
      return false;
    });
  }

  pigeonholes mail_;
  std::deque<letter<E>> outgoing_, incoming_;
};

}  // namespace limber::mpi::detail
