// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// One rank's part of an MPI communicator: operations in flight, messages, deadlines, and failures.

#include <limber/comm/detail/mpi_engine.hpp>
#include <limber/comm/detail/process_group.hpp>
#include <limber/comm/detail/receive_queue.hpp>
#include <limber/core/error.hpp>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdio>
#include <cstring>
#include <deque>
#include <exception>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace limber::mpi::detail {

using limber::detail::group_call;
using limber::detail::group_failure;
using limber::detail::operation;
using limber::detail::place;
using limber::detail::shared_group;
using limber::detail::signature;

/// Fails with its first error. An operation that misses its deadline cannot be cancelled: MPI may use its
/// memory at any time, so the communicator and this object are then never destroyed.
///
/// MPI reuses the context id of a freed communicator; an unreceived message of the old one disturbs the new
/// one (Open MPI 4.1 then loses messages). So a communicator that has carried messages is kept until MPI
/// ends, and every group has a number, unique among the groups that share a rank with it, from which its
/// message tags are derived.
template <engine E>
class process_group final : public limber::detail::process_group {
 public:
  using in_flight_op = detail::in_flight_op<E>;
  using comm_type = typename E::comm_type;

  explicit process_group(options o, E e = {})
      : limber::detail::process_group("mpi"), engine(std::move(e)), how(std::move(o)) {}
  ~process_group() override {
    if (!engine.is_running()) return;
    try {
      if (!failed_ && native != E::no_comm()) receive_available("end");  // they must not stay in MPI
      pending_sends<E>::of_process().add(engine, std::move(outgoing_));
      pending_sends<E>::of_process().add(engine, std::move(incoming_));
    } catch (std::exception const&) {}  // MPI has failed, and the program is ending
    if (native != E::no_comm() && !carried_messages_) (void)engine.free(native);
  }

  [[nodiscard]] int rank() const noexcept { return rank_; }
  [[nodiscard]] int size() const noexcept override { return size_; }

  /// Becomes a duplicate of `host`.
  void duplicate(comm_type host) {
    bool between_two = false;
    must(engine.examine(host, between_two, rank_, size_), "communicator");
    expects(!between_two, "mpi: an intercommunicator cannot be used");
    in_flight_op f{"communicator"};
    must(engine.duplicate(host, native, f.next()), f);
    wait(f);
    open("communicator");
  }

  i64 start(int, signature const& s, const_tensor_view in, tensor_view out) override {
    std::string_view const call = limber::detail::name_of(s.what),
                           bucket = limber::detail::bucket_of(in, out);
    check_alive(call, bucket);
    auto const free = std::ranges::find(ops_, false, &in_flight_op::taken);
    i64 const number = free - ops_.begin();
    in_flight_op& f = free == ops_.end() ? ops_.emplace_back() : *free;
    f = {.call = call, .bucket = bucket, .taken = true};
    issue(f, [&] { begin(f, s, in, out); });
    return number;
  }
  void finish(group_call& c) override {
    in_flight_op& f = op(c);
    try {
      if (!f.over) wait(f);
    } catch (...) {
      f.over = failed_.has_value();  // is not waited for again
      throw;
    }
    f.taken = false;
  }
  /// Checks the deadline as well.
  [[nodiscard]] bool done(group_call& c) override {
    in_flight_op& f = op(c);
    if (!f.over && !test(f)) {
      if (late(f.since)) expire(f);
      return false;
    }
    return f.over = true;
  }
  void drop(group_call& c, bool) noexcept override {
    if (!op(c).over) drop(op(c));
    op(c).taken = false;
  }

  /// MPI's colors are not negative, and its call has no deadline, so the ranks exchange their colors first.
  [[nodiscard]] place split(int, int color) override {
    // The buffer belongs to the group, since MPI may write to it after a deadline.
    gathered_.assign(static_cast<std::size_t>(size_) + 1, color);
    auto* const data = reinterpret_cast<std::byte*>(gathered_.data());
    i64 const number = start(rank_, {operation::split, reduction::sum, dtype::int64, 1, 0},
                             {data, 1, dtype::int64}, {data + sizeof(i64), size_, dtype::int64});
    wait_for({number, rank_, operation::split});
    int const index = limber::detail::index_of_color(gathered_, color);
    auto* const part = new process_group(how, engine);
    shared_group const made(part);
    must(engine.split(native, index, rank_, part->native), "split");
    part->open("split");
    return {made, part->rank_};
  }

  void send(int, int peer, const_tensor_view in) override {
    check_alive("send", in.name);
    in_flight_op f{"send", in.name};
    carried_messages_ = true;
    issue(f, [&] {
      in_pieces(in.length, piece_of(how, in.type), [&](i64 first, int n) {
        must(engine.send(native, at(in, first), n, in.type, peer, tensor_tag(), f.next()), f);
      });
    });
    wait(f);
  }
  /// Nothing is in flight before a message has arrived, so a deadline here is not fatal.
  void recv(int, int peer, tensor_view out) override {
    check_alive("recv", out.name);
    i64 const width = size_of(out.type);
    in_pieces(out.length, piece_of(how, out.type), [&](i64 first, int n) {
      in_flight_op f{"recv", out.name};
      typename E::message_type found = E::no_message();
      arrival a;
      std::optional<double> since;
      auto const there = [&] {
        must(engine.probe(native, peer, tensor_tag(), found, a), f);
        return a.there;
      };
      if (!until(there, since))
        throw error({"mpi", "recv", 0, peer, std::string(out.name),
                     text("rank ", peer, " sent nothing to rank ", rank_, " within ", how.deadline, " s")});
      carried_messages_ = true;
      bool const fits = a.bytes == n * width;
      if (!fits) discarded_.resize(static_cast<std::size_t>(a.bytes));
      must(fits ? engine.take(found, at(out, first), n, out.type, f.next())
                : engine.take(found, discarded_.data(), a.bytes, dtype::uint8, f.next()),
           f);
      wait(f);
      if (fits) return;
      note({rank_, text("rank ", rank_, " receives ", n * width, " bytes (", n, " ",
                        limber::name_of(out.type), ") but rank ", peer, " sent ", a.bytes)});
      throw failure_error("recv", out.name);
    });
  }

  void post(int, int peer, i64 tag, std::span<std::byte const> bytes) override {
    pending_message<E> l{rank_, with_tag(tag, bytes)};
    check_alive("post");
    while (!outgoing_.empty() && outgoing_.front().arrived(engine)) outgoing_.pop_front();
    carried_messages_ = true;
    must(engine.send(native, l.bytes.data(), static_cast<int>(l.bytes.size()), dtype::uint8, peer,
                     mailbox_tag(), l.state),
         "post");
    outgoing_.push_back(std::move(l));
  }
  [[nodiscard]] std::optional<message> poll(int, i64 tag) override {
    if (!failed_) receive_available("poll");
    auto m = receive_queue_.take(tag);
    if (!m) check_alive("poll");
    return m;
  }
  void listen(int) override {
    check_alive("listen");
    std::optional<double> since;
    auto const arrived_now = [&] {
      receive_available("listen");
      return receive_queue_.has_new();
    };
    if (!until(arrived_now, since))
      throw error({"mpi",
                   "listen",
                   0,
                   -1,
                   {},
                   text("nobody posted anything to rank ", rank_, " within ", how.deadline, " s")});
    receive_queue_.mark_seen();
  }

  E engine;
  options how;
  comm_type native = E::no_comm();

 private:
  static constexpr unsigned polls_per_check = 32;

  [[nodiscard]] static std::byte const* at(const_tensor_view v, i64 first) noexcept {
    return v.data + first * size_of(v.type);
  }
  [[nodiscard]] static std::byte* at(tensor_view v, i64 first) noexcept {
    return v.data + first * size_of(v.type);
  }
  [[nodiscard]] in_flight_op& op(group_call const& c) { return ops_[static_cast<std::size_t>(c.sequence)]; }

  /// Makes the calls of MPI for one operation.
  void begin(in_flight_op& f, signature const& s, const_tensor_view in, tensor_view out) {
    i64 const piece = piece_of(how, s.type);
    int const all = static_cast<int>(s.count);
    auto const broadcast = [&](tensor_view data, int root) {
      in_pieces(data.length, piece, [&](i64 first, int n) {
        must(engine.broadcast(native, at(data, first), n, data.type, root, f.next()), f);
      });
    };
    switch (s.what) {
      case operation::all_reduce:
        return in_pieces(s.count, piece, [&](i64 first, int n) {
          must(engine.all_reduce(native, at(in, first), at(out, first), n, s.type, s.how, f.next()), f);
        });
      case operation::reduce_scatter:
        if (in.length <= piece)
          return must(engine.reduce_scatter(native, in.data, out.data, all, s.type, s.how, f.next()), f);
        for (int r = 0; r < size_; ++r)
          in_pieces(s.count, piece, [&](i64 first, int n) {
            must(engine.reduce(native, at(in, r * s.count + first), at(out, first), n, s.type, s.how, r,
                               f.next()),
                 f);
          });
        return;
      case operation::split:
      case operation::all_gather:
        if (out.length <= piece || s.what == operation::split)
          return must(engine.all_gather(native, in.data, out.data, all, s.type, f.next()), f);
        std::memcpy(at(out, rank_ * s.count), in.data, static_cast<std::size_t>(in.bytes()));
        for (int r = 0; r < size_; ++r) broadcast(out.sub(r * s.count, s.count), r);
        return;
      case operation::broadcast: return broadcast(out, s.root);
      case operation::barrier: return must(engine.barrier(native, f.next()), f);
    }
  }

  /// Reads rank and size of `native`, and agrees on the number of the group.
  void open(std::string_view call) {
    bool between_two = false;
    must(engine.adopt(native), call);
    must(engine.examine(native, between_two, rank_, size_), call);
    static std::atomic<i64> latest = 0;
    own_number_ = latest + 1;
    in_flight_op f{call};
    must(engine.all_reduce(native, &own_number_, &number_, 1, dtype::int64, reduction::max, f.next()), f);
    wait(f);
    for (i64 seen = latest; seen < number_ && !latest.compare_exchange_weak(seen, number_);) {}
  }

  /// MPI guarantees only 32768 tags, so numbers repeat after many communicators.
  [[nodiscard]] int mailbox_tag() const noexcept { return static_cast<int>(number_ % 16384) * 2; }
  [[nodiscard]] int tensor_tag() const noexcept { return mailbox_tag() + 1; }

  void note(group_failure f) {
    if (!failed_) failed_ = std::move(f);
  }
  /// Checks the result of a call of MPI; a failure ends the group.
  void must(answer a, std::string_view call, std::string_view bucket = {}) {
    if (!a.failed()) return;
    try {
      check(engine, a, call, bucket);
    } catch (error const& e) {
      note({-1, e.where().reason, a.code});
      throw;
    }
  }
  void must(answer a, in_flight_op const& f) { must(a, f.call, f.bucket); }

  void wait(in_flight_op& f) {
    if (!until([&] { return test(f); }, f.since)) expire(f);
  }
  /// Calls go(); an operation that was begun in part is dropped.
  template <class Go>
  void issue(in_flight_op& f, Go go) {
    try {
      go();
    } catch (...) {
      drop(f);
      throw;
    }
  }
  /// The request is destroyed, and MPI cannot cancel the operation: waits for it, and ends the group.
  void drop(in_flight_op& f) noexcept {
    if (stuck_) return;  // `fatal` was called, and did not end the program: nothing better is left
    try {
      note({rank_, text("rank ", rank_, " destroyed a request of ", f.call, " before it was waited for")});
      wait(f);
    } catch (...) {}
  }

  /// Polls until ready(), and returns false at the deadline. Checks the clock and yields only every few
  /// polls.
  template <class Ready>
  [[nodiscard]] bool until(Ready ready, std::optional<double>& since) const {
    for (unsigned polls = 1; !ready(); ++polls)
      if (polls % polls_per_check == 0) {
        if (late(since)) return false;
        how.pause();
      }
    return true;
  }

  [[nodiscard]] bool test(in_flight_op& f) {
    for (;;) {
      bool done = false;
      must(engine.test(f.more.empty() ? f.first : f.more.back(), done), f);
      if (!done) return false;
      if (f.more.empty()) return true;
      f.more.pop_back();
    }
  }
  [[nodiscard]] bool late(std::optional<double>& since) const {
    double const now = how.clock();
    if (!since) since = now;
    return now - *since > how.deadline;
  }
  [[noreturn]] void expire(in_flight_op const& f) {
    stuck_ = shared_group(this);
    failed_ = group_failure{
        -1, text("rank ", rank_, " of ", size_, " waited ", how.deadline,
                 " s: another rank did not come to this call, or died. MPI cannot take the call back, so the "
                 "program ends here; limber::checked names the rank that is missing")};
    error const e = failure_error(f.call, f.bucket);
    if (how.fatal) {
      how.fatal(e.what());
    } else {
      std::fprintf(stderr, "%s\n", e.what());
      std::fflush(stderr);
      engine.abort();
    }
    throw e;
  }

  /// Starts to receive all arrived messages. A large message may need progress of its sender, so this does
  /// not wait for it.
  void receive_available(std::string_view call) {
    for (arrival a;;) {
      typename E::message_type found = E::no_message();
      must(engine.probe(native, -1, mailbox_tag(), found, a), call);
      if (!a.there) break;
      carried_messages_ = true;
      pending_message<E> l{a.source, std::vector<std::byte>(static_cast<std::size_t>(a.bytes))};
      must(engine.take(found, l.bytes.data(), a.bytes, dtype::uint8, l.state), call);
      incoming_.push_back(std::move(l));
    }
    if (incoming_.empty()) return;
    std::vector<int> behind;  // senders with an earlier message still in transit
    std::erase_if(incoming_, [&](pending_message<E>& l) {
      if (std::ranges::find(behind, l.source) != behind.end()) return false;
      if (l.arrived(engine)) {
        receive_queue_.put(without_tag(l.source, std::move(l.bytes)));
        return true;
      }
      behind.push_back(l.source);
      return false;
    });
  }

  int rank_ = 0, size_ = 1;
  bool carried_messages_ = false;       ///< a message between two ranks was sent or seen
  std::vector<i64> gathered_{};         ///< buffer of split; must outlive its operation
  std::vector<std::byte> discarded_{};  ///< buffer of messages of unexpected size; must outlive its operation
  std::deque<in_flight_op> ops_;        ///< by number
  shared_group stuck_;                  ///< this object, once MPI may write to it at any time
  i64 own_number_ = 0, number_ = 0;
  limber::detail::receive_queue receive_queue_;
  std::deque<pending_message<E>> outgoing_, incoming_;
};

}  // namespace limber::mpi::detail
