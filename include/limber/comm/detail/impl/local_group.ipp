// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <limber/comm/detail/local_group.hpp>
#include <limber/core/order.hpp>

namespace limber::detail {

/// Locks a group.
struct local_group::scope {
  explicit scope(local_group& g) : group(g) { group.lock(); }
  scope(scope const&) = delete;
  scope& operator=(scope const&) = delete;
  ~scope() { group.unlock(); }
  local_group& group;
};

LIMBER_COLD LIMBER_FN local_group::local_group(local_world& w, std::vector<int> const& world_ranks)
    : process_group(w.engine), world_(w), members_(world_ranks.size()) {
  for (std::size_t r = 0; r < world_ranks.size(); ++r) members_[r].world_rank = world_ranks[r];
  local_group** at_end = &w.first_group;
  while (*at_end != nullptr) at_end = &(*at_end)->next_group;
  *at_end = this;
}
LIMBER_COLD LIMBER_FN void local_group::forget() noexcept {
  local_group** at = &world_.first_group;
  while (*at != this) at = &(*at)->next_group;
  *at = next_group;
}

// Operations ------------------------------------------------------------------------------------------

LIMBER_FN i64 local_group::start(int rank, signature const& s, const_tensor_view in, tensor_view out,
                                 int color) {
  scope const here(*this);
  std::string_view const bucket = bucket_of(in, out);
  check_in(rank, name_of(s.what), bucket);
  advance();
  i64 const sequence = ++at(rank).started;
  record& r = records_.fetch(sequence, completed_, members_.size());
  if (r.arrived == 0) {
    r.what = s;
    r.first = rank;
  } else if (r.what != s) {
    // If two ranks agree and one differs, that one is at fault.
    int const low = least(rank, r.first), high = greatest(rank, r.first);
    fail_with(r.arrived == 1 ? high : rank, {low, " called ", low == rank ? s : r.what, " where ", high,
                                             " called ", low == rank ? r.what : s});
    throw failure_error(name_of(s.what), bucket);
  }
  r.ranks[static_cast<std::size_t>(rank)] = {in.data, out.data, color, true};
  if (++r.arrived == size()) {
    if (s.what == operation::split) make_split_groups(r);
    perform(r);
  }
  return sequence;
}

LIMBER_FN void local_group::finish(group_call& c) {
  wait_timer t{now()};
  scope const here(*this);
  check_caller(c.rank, "wait", false);
  for (bool timed_out = false;;) {
    if (completed_ < c.sequence && work()) continue;
    if (is_over(c.sequence, timed_out)) break;
    timed_out = wait(c.rank, {name_of(c.what), c.bucket, c.sequence}, t);
  }
  if (completed_ < c.sequence) throw failure_error(name_of(c.what), c.bucket);
}

LIMBER_FN bool local_group::done(group_call& c) {
  double const time = now();
  scope const here(*this);
  check_caller(c.rank, "wait", false);
  wait_timer& t = c.timer;
  if (!t.running || t.seen != completed_) t = {time, true, completed_};
  if (is_over(c.sequence, time - t.since > world_.deadline)) return true;
  return empty_poll(c.rank, {name_of(c.what), c.bucket, c.sequence}) && is_over(c.sequence, false);
}

LIMBER_FN void local_group::drop(group_call& c, bool unwinding) noexcept {
  wait_timer t{now()};
  scope const here(*this);
  if (is_dead(c.rank)) return;
  halt_or_fail(c.rank, unwinding, {dropped_text(say({c.rank}), name_of(c.what), c.bucket, unwinding)});
  while (working()) wait(c.rank, {}, t);
}

LIMBER_COLD LIMBER_FN void local_group::leave(int rank, bool unwinding) noexcept {
  scope const here(*this);
  at(rank).left = true;
  ++left_count_;
  wake_all();
  if (unwinding) halt_or_fail(rank, true, {rank, " was left by an exception"});
}

LIMBER_COLD LIMBER_FN place local_group::split(int rank, int color) {
  wait_for({start(rank, {operation::split}, {}, {}, color), rank, operation::split});
  scope const here(*this);
  return std::exchange(at(rank).next, {});
}

LIMBER_COLD LIMBER_FN void local_group::make_split_groups(record const& r) {
  std::vector<int> placed(members_.size());
  for (std::size_t first = 0; first < placed.size(); ++first) {
    if (placed[first] != 0) continue;
    std::vector<int> ranks, world_ranks;
    for (std::size_t k = first; k < placed.size(); ++k) {
      if (r.ranks[k].color != r.ranks[first].color) continue;
      placed[k] = 1;
      ranks.push_back(static_cast<int>(k));
      world_ranks.push_back(members_[k].world_rank);
    }
    shared_group const made = make(world_ranks);
    for (std::size_t k = 0; k < ranks.size(); ++k) at(ranks[k]).next = {made, static_cast<int>(k)};
  }
}

LIMBER_FN void local_group::advance() {
  for (;;) {
    record const& r = records_[completed_ + 1];
    if (r.sequence != completed_ + 1 || r.arrived < size() || !is_complete(r)) return;
    ++completed_;
  }
}

LIMBER_FN bool local_group::is_over(i64 sequence, bool timed_out) {
  advance();
  if (completed_ >= sequence) return true;
  if (!failed_) check_completable(sequence, timed_out);
  return failed_ && !working();
}

LIMBER_FN void local_group::check_completable(i64 sequence, bool timed_out) {
  if (halted_) {
    if (timed_out) fail_halted();
    return;
  }
  if (!timed_out && left_count_ == 0 && known_deaths_ == 0) return;
  for (i64 s = completed_ + 1; s <= sequence; ++s) {
    record const& r = records_[s];
    auto const is_here = [&](int k) { return r.ranks[static_cast<std::size_t>(k)].here; };
    for (int k = 0; known_deaths_ > 0 && k < size(); ++k)
      if (death_known(k) && !at(k).left)
        return fail_with(k, {death_text(k), is_here(k) ? " during " : " without calling ", r.what});
    if (r.arrived == size()) continue;
    std::vector<int> missing, left;
    for (int k = 0; k < size(); ++k)
      if (!is_here(k)) (at(k).left ? left : missing).push_back(k);
    if (!left.empty()) return fail_with(left[0], {left, " left without calling ", r.what});
    if (timed_out)
      return fail_with(missing[0], {missing, " did not call ", r.what, " within ", world_.deadline, " s"});
  }
}

// Failures --------------------------------------------------------------------------------------------

LIMBER_COLD LIMBER_FN std::string local_group::say(parts all) const {
  std::string out;
  for (part const& p : all) switch (p.what) {
      case part::kind::words: out.append(static_cast<char const*>(p.data), p.size); break;
      case part::kind::seconds: out += text(*static_cast<double const*>(p.data)); break;
      case part::kind::call: out += text_of(*static_cast<signature const*>(p.data)); break;
      case part::kind::ranks:
        for (std::size_t k = 0; k < p.size; ++k) {
          int const rank = static_cast<int const*>(p.data)[k], of_world = at(rank).world_rank;
          bool const is_last = k == world_.most_named;
          if (is_last)
            out += text(" and ", p.size - k, " more");
          else
            out += text(k == 0 ? "rank " : ", rank ", rank);
          if (!is_last && of_world != rank) out += text(world_.before, of_world, world_.after);
          if (is_last) break;
        }
    }
  return out;
}

LIMBER_FN void local_group::wake_all() {
  for (int r = 0; r < size(); ++r) wake(r);
}

LIMBER_COLD LIMBER_FN void local_group::fail(int rank, std::string reason) {
  if (failed_) return;
  failed_ = group_failure{rank, std::move(reason)};
  wake_all();
}
LIMBER_COLD LIMBER_FN void local_group::revoke(std::string const& reason) {
  scope const here(*this);
  fail(-1, reason);
}

/// Stops all work until the reason is known, if it will be.
LIMBER_COLD LIMBER_FN void local_group::halt_or_fail(int rank, bool unwinding, parts reason) {
  if (!unwinding || !supervised(rank)) return fail_with(rank, reason);
  if (failed_ || halted_) return;
  halted_ = true;
  failed_rank_ = rank;
  world_.unwinding[static_cast<std::size_t>(at(rank).world_rank)] = 1;
  wake_all();
}
LIMBER_COLD LIMBER_FN void local_group::fail_halted() {
  fail_with(failed_rank_, {failed_rank_, " was left by an exception with operations in flight"});
}

LIMBER_COLD LIMBER_FN void local_group::fail_with_rank(local_world& w, int world_rank,
                                                       std::string const& reason, bool only_halted) {
  w.unwinding[static_cast<std::size_t>(world_rank)] = 0;
  for (local_group* g = w.first_group; g != nullptr; g = g->next_group)
    for (int r = 0; r < g->size(); ++r) {
      if (g->at(r).world_rank != world_rank) continue;
      bool const caused_by_it = g->halted_ && g->failed_rank_ == r;
      if (caused_by_it || (!only_halted && !g->at(r).left)) g->fail_with(r, {r, " ", reason});
    }
}
LIMBER_COLD LIMBER_FN void local_group::fail_unwound(local_world& w, int world_rank) {
  if (w.unwinding[static_cast<std::size_t>(world_rank)] != 0)
    fail_with_rank(w, world_rank, "was left by an exception with operations in flight, and continued", true);
}

LIMBER_FN void local_group::check_in(int rank, std::string_view call, std::string_view bucket) {
  check_caller(rank, call, true);
  fail_unwound(world_, at(rank).world_rank);
  check_alive(call, bucket);
}

// Messages --------------------------------------------------------------------------------------------

LIMBER_FN void local_group::arrive(int to, stored_message m) {
  if (at(to).left || is_dead(to)) return;
  at(to).messages.put(std::move(m));
  wake(to);
}

LIMBER_COLD LIMBER_FN void local_group::send(int rank, int peer, const_tensor_view in) {
  stored_message m = stored_message::of(rank, in);
  scope const here(*this);
  check_in(rank, "send", in.name);
  if (at(peer).left)
    fail_with(peer, {peer, " has left and receives nothing from ", rank});
  else if (death_known(peer))
    fail_with(peer, {death_text(peer)});
  check_alive("send", in.name);
  deliver(peer, std::move(m));
}

LIMBER_COLD LIMBER_FN void local_group::check_deliverable(int rank, int peer, bool timed_out) {
  if (halted_) {
    if (timed_out) fail_halted();
    return;
  }
  if (!in_transit(rank, peer)) {
    if (peer < 0 && left_count_ + known_deaths_ == size() - 1 && !at(rank).left)
      fail_with(rank, {"all others have ", world_.gone, ", and nobody posts to ", rank});
    if (peer >= 0 && at(peer).left) fail_with(peer, {peer, " has left and sends nothing to ", rank});
    if (peer >= 0 && death_known(peer)) fail_with(peer, {death_text(peer)});
  }
  if (!timed_out) return;
  if (peer < 0)
    fail_with(rank, {"nobody posted anything to ", rank, " within ", world_.deadline, " s"});
  else
    fail_with(peer, {peer, " sent nothing to ", rank, " within ", world_.deadline, " s"});
}

LIMBER_COLD LIMBER_FN void local_group::recv(int rank, int peer, tensor_view out) {
  wait_timer t{now()};
  std::optional<stored_message> m;
  {
    scope const here(*this);
    check_caller(rank, "recv", false);
    fail_unwound(world_, at(rank).world_rank);
    for (bool timed_out = false; !(m = at(rank).messages.take_tensor(peer));
         timed_out = wait(rank, {"recv", out.name, 0, peer}, t)) {
      check_deliverable(rank, peer, timed_out);
      check_alive("recv", out.name);
    }
    if (!m->fits(out)) {
      fail(rank, m->mismatch_text(say({rank}), out, say({peer})));
      throw failure_error("recv", out.name);
    }
  }
  m->copy_to(out);
}

/// A message to a rank that has left or died costs the sender as much as any other.
LIMBER_COLD LIMBER_FN void local_group::post(int rank, int peer, i64 tag, std::span<std::byte const> bytes) {
  stored_message m = stored_message::of(rank, tag, bytes);
  scope const here(*this);
  check_in(rank, "post");
  deliver(peer, std::move(m));
}

/// Messages that arrived before the group failed are still delivered.
LIMBER_COLD LIMBER_FN std::optional<message> local_group::poll(int rank, i64 tag) {
  scope const here(*this);
  check_caller(rank, "poll", false);
  auto first = at(rank).messages.take(tag);
  if (first) return first;
  check_in(rank, "poll");
  if (empty_poll(rank, {"poll", {}, tag})) first = at(rank).messages.take(tag);
  return first;
}

LIMBER_COLD LIMBER_FN void local_group::listen(int rank) {
  wait_timer t{now()};
  scope const here(*this);
  check_caller(rank, "listen", false);
  for (bool timed_out = false; !has_news(at(rank)); timed_out = wait(rank, {"listen"}, t)) {
    check_in(rank, "listen");
    check_deliverable(rank, -1, timed_out);
    check_alive("listen");
  }
  at(rank).messages.mark_seen();
}

// Shrink ----------------------------------------------------------------------------------------------

LIMBER_COLD LIMBER_FN std::string local_group::absence_text(int rank) const {
  if (at(rank).left) return say({rank, " left as well; shrink without it"});
  return death_known(rank) ? say({death_text(rank), " as well; shrink without it"}) : std::string();
}

LIMBER_COLD LIMBER_FN void local_group::close(shrinking& s, int culprit, std::string reason) {
  if (!s.failed) s.failed = group_failure{culprit, std::move(reason)};
  s.open = false;
  wake_all();
}
LIMBER_COLD LIMBER_FN void local_group::end(shrinking& s, int culprit, parts reason) {
  close(s, culprit, say(reason));
  throw error({engine_name_, "shrink", 0, s.failed->rank, {}, s.failed->reason});
}

/// The shrinking of `rank`, which the others with the same list share.
LIMBER_COLD LIMBER_FN local_group::shrinking& local_group::join(int rank, std::span<int const> lost,
                                                                std::vector<int> const& survivors) {
  // An outdated list, of the caller or of a waiting rank, is not a disagreement: this is checked before the
  // lists are compared.
  for (int const r : survivors)
    if (auto why = absence_text(r); !why.empty())
      throw error({engine_name_, "shrink", 0, r, {}, std::move(why)});
  for (shrinking* s = shrinkings_.get(); s != nullptr; s = s->next.get())
    for (int r = 0; s->open && r < size(); ++r)
      if ((at(r).left || death_known(r)) && !contains(s->lost, r)) close(*s, r, absence_text(r));
  std::vector<int> const all_lost(lost.begin(), lost.end());
  shrinking* mine = nullptr;
  owner<shrinking>* last = &shrinkings_;
  for (; *last; last = &(*last)->next) {
    shrinking* const s = last->get();
    if (!s->open) continue;
    if (s->lost == all_lost) mine = s;
    for (int const r : survivors)
      if (s != mine && s->here[static_cast<std::size_t>(r)] != 0)
        end(*s, r, {r, " continues without ", s->lost, " but ", rank, " without ", lost});
  }
  if (mine == nullptr) {
    *last = owner<shrinking>(mine = new shrinking);
    mine->lost = all_lost;
    mine->here.resize(members_.size());
  }
  mine->here[static_cast<std::size_t>(rank)] = 1;
  return *mine;
}

/// Waits for all survivors, which must pass the same lost ranks; the old group has failed afterwards.
LIMBER_COLD LIMBER_FN place local_group::shrink(int rank, std::span<int const> lost) {
  wait_timer t{now()};
  std::vector<int> const survivors = survivors_of(lost, size());
  scope const here(*this);
  check_caller(rank, "shrink", false);
  fail_unwound(world_, at(rank).world_rank);
  shrinking& mine = join(rank, lost, survivors);
  for (bool timed_out = false; !mine.made || !has_come(mine.usable_from);
       timed_out = wait(rank, {"shrink"}, t)) {
    if (mine.made) continue;
    if (mine.failed) end(mine, rank, {});
    std::vector<int> missing, world_ranks;
    for (int const r : survivors) {
      if (mine.here[static_cast<std::size_t>(r)] == 0 || is_dead(r)) missing.push_back(r);
      world_ranks.push_back(at(r).world_rank);
    }
    if (missing.empty()) {
      mine.made = make(world_ranks);
      mine.usable_from = usable_from(static_cast<local_group&>(*mine.made.get()), rank);
      mine.open = false;
      fail(lost.empty() ? -1 : lost[0], shrunk_text(say({lost})));
      wake_all();
      if (has_come(mine.usable_from)) break;
      continue;
    }
    for (int const r : missing)
      if (auto why = absence_text(r); !why.empty()) end(mine, r, {why});
    if (timed_out) end(mine, missing[0], {missing, " did not call shrink within ", world_.deadline, " s"});
  }
  place made{mine.made, rank_among(survivors, rank)};
  if (++mine.taken == made.where->size()) mine.made = {};
  return made;
}

}  // namespace limber::detail
