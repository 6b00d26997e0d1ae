// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The mailbox and the blocking messages of the MPI backend.

#include <limber/comm/collective.hpp>
#include <limber/comm/detail/mpi_process_group.hpp>
#include <limber/comm/detail/mpi_receive_queue.hpp>

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

/// A message of the mailbox that is being sent or received.
template <engine E>
struct pending_message {
  int source = 0;
  std::vector<std::byte> bytes{};
  typename E::request_type state = E::no_request();

  [[nodiscard]] bool arrived(E& engine) {
    bool done = false;
    check(engine, engine.test(state, done), "post");
    return done;
  }
};

/// Keeps messages that were in transit when their communicator was destroyed, since MPI still uses their
/// memory.
template <engine E>
class pending_sends {
 public:
  /// Never destroyed, since MPI may outlive static objects.
  [[nodiscard]] static pending_sends& of_process() {
    static auto* const one = new pending_sends;
    return *one;
  }
  void add(E& engine, std::deque<pending_message<E>> messages) {
    std::scoped_lock const lock(mutex_);
    for (auto& l : messages) messages_.push_back(std::move(l));
    remove_completed(engine);
  }
  [[nodiscard]] bool is_empty(E& engine) {
    std::scoped_lock const lock(mutex_);
    remove_completed(engine);
    return messages_.empty();
  }

 private:
  void remove_completed(E& engine) {
    std::erase_if(messages_, [&](pending_message<E>& l) { return l.arrived(engine); });
  }

  std::mutex mutex_;
  std::deque<pending_message<E>> messages_;
};

/// A process group with its messages.
template <engine E>
class messaging_group : public process_group<E> {
  using base = process_group<E>;

 public:
  using base::base;
  ~messaging_group() {
    if (!base::engine.is_running()) return;
    try {
      if (base::alive() && base::native != E::no_comm())
        receive_available("end");  // arrived messages must not stay in MPI
      pending_sends<E>::of_process().add(base::engine, std::move(outgoing_));
      pending_sends<E>::of_process().add(base::engine, std::move(incoming_));
    } catch (std::exception const&) {}  // MPI has failed, and the program is ending
  }

  void post(int peer, i64 tag, std::span<std::byte const> bytes) {
    pending_message<E> l{base::rank, with_tag(tag, bytes)};
    base::must_be_alive("post");
    while (!outgoing_.empty() && outgoing_.front().arrived(base::engine)) outgoing_.pop_front();
    base::carried_messages = true;
    base::must(base::engine.send(base::native, l.bytes.data(), static_cast<int>(l.bytes.size()), dtype::uint8,
                                 peer, base::mailbox_tag(), l.state),
               "post");
    outgoing_.push_back(std::move(l));
  }
  [[nodiscard]] std::optional<message> poll(i64 tag) {
    if (base::alive()) receive_available("poll");
    auto m = receive_queue_.take(tag);
    if (!m) base::must_be_alive("poll");
    return m;
  }
  void listen() {
    base::must_be_alive("listen");
    std::optional<double> since;
    auto const arrived_now = [&] {
      receive_available("listen");
      return receive_queue_.has_new();
    };
    if (base::until(arrived_now, since)) return;
    throw error({"mpi",
                 "listen",
                 0,
                 -1,
                 {},
                 text("nobody posted anything to rank ", base::rank, " within ", base::how.deadline, " s")});
  }

  /// Nothing is in flight before a message has arrived, so a deadline here is not fatal.
  void recv(tensor_view out, int peer) {
    base::must_be_alive("recv", out.name);
    i64 const width = size_of(out.type);
    in_pieces(out.length, piece_of(base::how, out.type), [&](i64 first, int n) {
      typename base::in_flight_op f{"recv", out.name};
      typename E::message_type found = E::no_message();
      arrival a;
      std::optional<double> since;
      auto const there = [&] {
        base::must(base::engine.probe(base::native, peer, base::tensor_tag(), found, a), f);
        return a.there;
      };
      if (!base::until(there, since))
        throw error({"mpi", "recv", 0, peer, std::string(out.name),
                     text("rank ", peer, " sent nothing to rank ", base::rank, " within ", base::how.deadline,
                          " s")});
      base::carried_messages = true;
      bool const fits = a.bytes == n * width;
      if (!fits) base::discarded.resize(static_cast<std::size_t>(a.bytes));
      base::must(fits ? base::engine.take(found, out.data + first * width, n, out.type, f.next())
                      : base::engine.take(found, base::discarded.data(), a.bytes, dtype::uint8, f.next()),
                 f);
      base::wait(f);
      if (!fits)
        base::end({"mpi", "recv", 0, base::rank, std::string(out.name),
                   text("rank ", base::rank, " receives ", n * width, " bytes (", n, " ",
                        limber::name_of(out.type), ") but rank ", peer, " sent ", a.bytes)});
    });
  }

 private:
  /// Starts to receive all arrived messages. A large message may need progress of its sender, so this does
  /// not wait for it.
  void receive_available(std::string_view call) {
    for (arrival a;;) {
      typename E::message_type found = E::no_message();
      base::must(base::engine.probe(base::native, -1, base::mailbox_tag(), found, a), call);
      if (!a.there) break;
      base::carried_messages = true;
      pending_message<E> l{a.source, std::vector<std::byte>(static_cast<std::size_t>(a.bytes))};
      base::must(base::engine.take(found, l.bytes.data(), a.bytes, dtype::uint8, l.state), call);
      incoming_.push_back(std::move(l));
    }
    if (incoming_.empty()) return;
    std::vector<int> behind;  // senders with an earlier message still in transit
    std::erase_if(incoming_, [&](pending_message<E>& l) {
      if (std::ranges::find(behind, l.source) != behind.end()) return false;
      if (l.arrived(base::engine)) {
        receive_queue_.put(l.source, std::move(l.bytes));
        return true;
      }
      behind.push_back(l.source);
      return false;
    });
  }

  receive_queue receive_queue_;
  std::deque<pending_message<E>> outgoing_, incoming_;
};

}  // namespace limber::mpi::detail
