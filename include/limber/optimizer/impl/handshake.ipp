// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <limber/core/order.hpp>
#include <limber/optimizer/handshake.hpp>

namespace limber {

LIMBER_COLD LIMBER_FN state_piece progress_piece(progress& now) noexcept {
  return {"progress",
          kept::replicated,
          {reinterpret_cast<std::byte*>(&now), static_cast<i64>(sizeof now), dtype::uint8, {}}};
}

LIMBER_COLD LIMBER_FN void level(communicator comm, i64& calls) {
  std::array<i64, 1> mine{calls}, most{};
  comm.all_reduce(const_view(mine, "finish"), view(most, "finish"), reduction::max).wait();
  calls = most[0];
}

namespace detail {

[[nodiscard]] LIMBER_COLD LIMBER_FN error handshake_error(int rank, std::string reason) {
  return error({"optimizer", "handshake", 0, rank, {}, std::move(reason)});
}

/// The lines of two descriptions that differ, at most three: "epoch_size is 10 on rank 0 and 20 on rank 1".
[[nodiscard]] LIMBER_COLD LIMBER_FN std::string differences(std::string_view a, std::string_view b,
                                                            std::size_t rank) {
  auto const next = [](std::string_view& s) {
    auto const end = least(s.find('\n'), s.size());
    std::string_view const line = s.substr(0, end);
    s.remove_prefix(least(end + 1, s.size()));
    return line;
  };
  auto const key_of = [](std::string_view line) { return line.substr(0, line.find(": ")); };
  auto const value_in = [&](std::string_view all, std::string_view key) {
    while (!all.empty())
      if (std::string_view const line = next(all); key_of(line) == key)
        return line.substr(least(key.size() + 2, line.size()));
    return std::string_view("absent");
  };
  std::string out;
  int found = 0;
  auto const compare = [&](std::string_view from, bool only_new) {
    for (std::string_view rest = from; !rest.empty();) {
      std::string_view const key = key_of(next(rest)), in_a = value_in(a, key), in_b = value_in(b, key);
      if (in_a == in_b || (only_new && in_a != "absent")) continue;
      if (++found <= 3)
        out += text(found > 1 ? "; " : "", key, " is ", in_a, " on rank 0 and ", in_b, " on rank ", rank);
    }
  };
  compare(a, false);
  compare(b, true);
  if (found > 3) out += text("; and ", found - 3, " more");
  return out;
}

/// All optimizers of this process, those that were made last in front, while nobody else looks.
struct optimizers_of_process {
  bool busy = false;
  communicator_user* first = nullptr;
  i64 next_id = 1;

  class lock {
   public:
    lock() {
      while (__atomic_test_and_set(&all_.busy, __ATOMIC_ACQUIRE)) {}  // held for a few instructions
    }
    ~lock() { __atomic_clear(&all_.busy, __ATOMIC_RELEASE); }
    lock(lock const&) = delete;
    lock& operator=(lock const&) = delete;
    optimizers_of_process* operator->() const noexcept { return &all_; }

   private:
    optimizers_of_process& all_ = the();
  };

 private:
  static optimizers_of_process& the() {
    static optimizers_of_process all;
    return all;
  }
};

}  // namespace detail

LIMBER_COLD LIMBER_FN communicator_user::communicator_user(communicator comm) { move_to(comm); }
LIMBER_COLD LIMBER_FN communicator_user::~communicator_user() { move_to({}); }
LIMBER_COLD LIMBER_FN void communicator_user::move_to(communicator comm) {
  detail::optimizers_of_process::lock const all;
  for (communicator_user** u = &all->first; *u != nullptr; u = &(*u)->next_)
    if (*u == this) {
      *u = next_;
      break;
    }
  comm_ = comm.object();
  if (comm_ != nullptr) next_ = std::exchange(all->first, this);
}
LIMBER_COLD LIMBER_FN communicator_user::place communicator_user::among_all() const {
  detail::optimizers_of_process::lock const all;
  place p{0, 0};
  for (communicator_user const* u = all->first; u != nullptr; u = u->next_) {
    if (u->comm_ != comm_) continue;
    if (u == this) p.index = -p.count - 1;
    ++p.count;
  }
  p.index += p.count;
  return p;
}

LIMBER_COLD LIMBER_FN handshake::handshake(communicator comm, description const& own, i64 position,
                                           bool lockstep, int server)
    : comm_(comm) {
  auto const n = static_cast<std::size_t>(comm.size());
  struct facts {
    i64 hash, position, id, index, count;
  };
  constexpr std::size_t fields = sizeof(facts) / sizeof(i64);
  std::array<i64, fields> mine{static_cast<i64>(own.hash), position,
                               detail::optimizers_of_process::lock()->next_id++, own.place.index,
                               own.place.count};
  std::vector<i64> numbers(fields * n);
  comm.all_gather(const_view(mine, "handshake"), view(numbers, "handshake")).wait();
  auto const of = [&](std::size_t r) {
    auto const* p = &numbers[fields * r];
    return facts{p[0], p[1], p[2], p[3], p[4]};
  };
  facts const first = of(0);
  bool same_count = first.count > 1;
  for (std::size_t r = 1; r < n; ++r) same_count = same_count && of(r).count == first.count;
  i64 most = invalid_state;
  bool begun = false;
  for (std::size_t r = 0; r < n; ++r) {
    auto const [hash, at, id, index, count] = of(r);
    if (same_count && index != first.index)
      throw detail::handshake_error(
          static_cast<int>(r),
          text("rank ", r, " uses optimizer ", index + 1, " of the ", count,
               " on this communicator where rank 0 uses optimizer ", first.index + 1,
               ": optimizers that share a communicator must be used in the same order on all ranks"));
    if (hash != first.hash) name_difference(r, own.lines());
    begun = begun || at == invalid_state;
    id_ = detail::greatest(id_, id);
    if (at > most) {
      most = at;
      giver_ = static_cast<int>(r);
    }
  }
  if (begun && most <= 0)  // of what was begun nothing is left; newcomers alone would train anew
    throw detail::handshake_error(
        -1,
        "all ranks that had state were interrupted while it was copied, and nobody holds a whole copy; "
        "load a checkpoint");
  if (server >= 0 && server < comm.size() && of(static_cast<std::size_t>(server)).position > 0)
    giver_ = server;
  for (std::size_t r = 0; r < n; ++r)
    if (i64 const p = of(r).position; lockstep ? p < most : p <= 0 && p < most) {
      joined_.push_back(static_cast<int>(r));
      joins_ = joins_ || joined_.back() == comm.rank();
    }
  position_ = most;
  givers_ = comm.size() - static_cast<int>(joined_.size());
  anybody_ = !joined_.empty();
  detail::optimizers_of_process::lock const everybody;
  everybody->next_id = detail::greatest(everybody->next_id, id_ + 1);
}

// All ranks have seen the same hashes, so all of them come here, with the same rank.
LIMBER_COLD LIMBER_FN void handshake::name_difference(std::size_t rank, std::string const& mine) {
  std::array<std::string, 2> both;
  std::array<int, 2> const roots{0, static_cast<int>(rank)};
  for (std::size_t k = 0; k < 2; ++k) {
    both[k] = mine;
    std::array<i64, 1> length{static_cast<i64>(mine.size())};
    comm_.broadcast(view(length, "handshake"), roots[k]).wait();
    both[k].resize(static_cast<std::size_t>(length[0]));
    if (length[0] > 0)
      comm_
          .broadcast({reinterpret_cast<std::byte*>(both[k].data()), length[0], dtype::uint8, "handshake"},
                     roots[k])
          .wait();
  }
  throw detail::handshake_error(static_cast<int>(rank),
                                text("rank ", rank, " and rank 0 do not train the same thing: ",
                                     detail::differences(both[0], both[1], rank)));
}

LIMBER_COLD LIMBER_FN void handshake::compare(std::string_view what, double value) {
  std::array<double, 1> mine{value};
  std::vector<double> all(static_cast<std::size_t>(comm_.size()));
  comm_.all_gather(const_view(mine, "handshake"), view(all, "handshake")).wait();
  for (std::size_t r = 1; r < all.size(); ++r)
    if (all[r] != all[0])
      throw detail::handshake_error(static_cast<int>(r),
                                    text(what, " is ", all[0], " on rank 0 and ", all[r], " on rank ", r));
}

LIMBER_COLD LIMBER_FN void handshake::give(any_executor& e, state_piece const& piece) {
  tensor_view data = piece.data;
  data.name = piece.name;
  if (data.length == 0) return;
  e.synchronize();  // the piece, and memory that was just made, are ready for the collective
  if (piece.how == kept::replicated) return comm_.broadcast(data, giver_).wait();
  if (piece.how == kept::round || piece.how == kept::partial) {
    if (!joins_) return;
    if (is_floating(data.type))
      e.each(zero{}, out(tensor_list{data}));
    else
      std::memset(data.data, 0, static_cast<std::size_t>(data.bytes()));
    return;
  }
  if (!anybody_) return;
  if (is_floating(data.type))
    take_mean(e, data);
  else
    take_from_giver(e, data);
}

LIMBER_COLD LIMBER_FN void handshake::take_mean(any_executor& e, tensor_view data) {
  tensor_list const list{data};
  layout const where = layout_of(list);
  slab share = e.make(where), mean = e.make(where);
  e.norm(weighted{joins_ ? 0.0 : 1.0 / givers_}, out(share.parts), in(list));
  e.synchronize();
  comm_.all_reduce(share.parts[0], mean.parts[0]).wait();
  if (joins_) e.each(copy{}, out(list), in(mean.parts));
}

// Who neither gives nor joins takes part with memory that nobody reads.
LIMBER_COLD LIMBER_FN void handshake::take_from_giver(any_executor& e, tensor_view data) {
  if (joins_ || comm_.rank() == giver_) return comm_.broadcast(data, giver_).wait();
  slab const spare = e.make(layout_of({data}));
  e.synchronize();
  comm_.broadcast(spare.parts[0], giver_).wait();
}

}  // namespace limber
