// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <limber/comm/detail/process_group.hpp>
#include <limber/core/order.hpp>

#include <exception>
#include <utility>

namespace limber::detail {

LIMBER_FN shared_group::shared_group(process_group* of) noexcept : group_(of) {
  if (group_ != nullptr) __atomic_fetch_add(&group_->owners_, 1, __ATOMIC_RELAXED);
}
[[gnu::noinline]] LIMBER_FN shared_group::~shared_group() {
  if (group_ != nullptr && __atomic_fetch_sub(&group_->owners_, 1, __ATOMIC_ACQ_REL) == 1) delete group_;
}

LIMBER_COLD LIMBER_FN void process_group::lacks(char const* call) const {
  refuse_with(engine_name_, ": this engine has no ", call);
}
LIMBER_FN i64 process_group::start(int, signature const&, const_tensor_view, tensor_view) { lacks("start"); }
LIMBER_FN void process_group::send(int, int, const_tensor_view) { lacks("send"); }
LIMBER_FN void process_group::recv(int, int, tensor_view) { lacks("recv"); }
LIMBER_FN place process_group::split(int, int) { lacks("split"); }
LIMBER_FN void process_group::post(int, int, i64, std::span<std::byte const>) { lacks("post"); }
LIMBER_FN std::optional<message> process_group::poll(int, i64) { lacks("poll"); }
LIMBER_FN void process_group::listen(int) { lacks("listen"); }
LIMBER_FN void process_group::revoke(std::string const&) { lacks("revoke"); }
LIMBER_FN place process_group::shrink(int, std::span<int const>) { lacks("shrink"); }

LIMBER_FN void process_group::wait_for(group_call const& c) { group_request(shared_group(this), c).wait(); }
LIMBER_COLD LIMBER_FN error process_group::failure_error(std::string_view call,
                                                         std::string_view bucket) const {
  return error(
      {engine_name_, std::string(call), failed_->code, failed_->rank, std::string(bucket), failed_->reason});
}

LIMBER_COLD LIMBER_FN void check_waiting(char const* engine, double deadline, clock_function const& clock,
                                         pause_function const* pause) {
  expects(deadline > 0, engine, ": deadline must be > 0 s, got ", deadline);
  expects(clock != nullptr, engine, ": clock is empty");
  expects(pause == nullptr || *pause != nullptr, engine, ": pause is empty");
}
LIMBER_COLD LIMBER_FN std::string ranks_text(std::vector<int> const& ranks) {
  std::string out;
  for (int const r : ranks) out += text(out.empty() ? "rank " : ", rank ", r);
  return out;
}
LIMBER_COLD LIMBER_FN std::string dropped_text(std::string_view rank, std::string_view call,
                                               std::string_view bucket, bool unwinding) {
  return text(rank, unwinding ? " was left by an exception with its " : " destroyed its ", call,
              bucket.empty() ? "" : " of '", bucket, bucket.empty() ? "" : "'",
              unwinding ? " in flight" : " before it was waited for");
}
LIMBER_COLD LIMBER_FN std::string shrunk_text(std::string_view lost) {
  return text("the ranks continue in a new group", lost.empty() ? "" : " without ", lost);
}
LIMBER_COLD LIMBER_FN std::vector<int> survivors_of(std::span<int const> lost, int size) {
  std::vector<int> out;
  for (int r = 0; r < size; ++r)
    if (!contains(lost, r)) out.push_back(r);
  return out;
}
LIMBER_COLD LIMBER_FN std::vector<int> ranks_of_color(std::span<i64 const> colors, i64 color) {
  std::vector<int> out;
  for (std::size_t r = 0; r < colors.size(); ++r)
    if (colors[r] == color) out.push_back(static_cast<int>(r));
  return out;
}
LIMBER_COLD LIMBER_FN int index_of_color(std::vector<i64> colors, i64 color) {
  sort(colors, [](i64 a, i64 b) { return a < b; });
  int index = 0;
  for (std::size_t k = 0; k < colors.size() && colors[k] < color; ++k)
    if (k == 0 || colors[k] != colors[k - 1]) ++index;
  return index;
}
LIMBER_COLD LIMBER_FN int rank_among(std::vector<int> const& members, int rank) noexcept {
  std::size_t at = 0;
  while (at < members.size() && members[at] < rank) ++at;
  return static_cast<int>(at);
}

[[gnu::noinline]] LIMBER_FN group_request::group_request(shared_group where, group_call c) noexcept
    : where_(std::move(where)), call_(c), exceptions_(std::uncaught_exceptions()) {}
[[gnu::noinline]] LIMBER_FN group_request::group_request(group_request&& other) noexcept
    : group_request(std::move(other.where_), other.call_) {}
[[gnu::noinline]] LIMBER_FN group_request& group_request::operator=(group_request&& other) noexcept {
  if (this != &other) {
    drop();
    where_ = std::move(other.where_);
    call_ = other.call_;
  }
  return *this;
}
LIMBER_FN void group_request::wait() {
  if (!where_) return;
  where_->finish(call_);
  where_ = {};
}
LIMBER_FN bool group_request::done() { return !where_ || where_->done(call_); }
[[gnu::noinline]] LIMBER_FN void group_request::drop() noexcept {
  if (where_) where_->drop(call_, std::uncaught_exceptions() > exceptions_);
  where_ = {};
}

LIMBER_COLD LIMBER_FN group_handle::group_handle(char const* engine, place at) noexcept
    : engine_(engine), where_(std::move(at.where)), rank_(at.rank), exceptions_(std::uncaught_exceptions()) {}
LIMBER_COLD LIMBER_FN group_handle::group_handle(group_handle&& other) noexcept
    : group_handle(other.engine_, {std::move(other.where_), other.rank_}) {}
LIMBER_FN group_handle& group_handle::operator=(group_handle&& other) noexcept {
  if (this != &other) {
    leave();
    where_ = std::move(other.where_);
    rank_ = other.rank_;
  }
  return *this;
}
[[gnu::noinline]] LIMBER_COLD LIMBER_FN void group_handle::leave() noexcept {
  if (where_) where_->leave(rank_, std::uncaught_exceptions() > exceptions_);
  where_ = {};
}

LIMBER_FN process_group& group_handle::group() const {
  expects(static_cast<bool>(where_), engine_, ": this communicator was moved from");
  return *where_.get();
}
[[gnu::noinline]] LIMBER_FN group_request group_handle::start(signature const& s, const_tensor_view in,
                                                              tensor_view out) {
  i64 const sequence = group().start(rank_, s, in, out);
  return {where_, {sequence, rank_, s.what, bucket_of(in, out)}};
}

[[gnu::noinline]] LIMBER_FN group_request group_handle::all_reduce(const_tensor_view in, tensor_view out,
                                                                   reduction how) {
  return start(all_reduce_of(in, out, how), in, out);
}
[[gnu::noinline]] LIMBER_FN group_request group_handle::reduce_scatter(const_tensor_view in,
                                                                       tensor_view out) {
  return start(reduce_scatter_of(in, out, size()), in, out);
}
[[gnu::noinline]] LIMBER_FN group_request group_handle::all_gather(const_tensor_view in, tensor_view out) {
  return start(all_gather_of(in, out, size()), in, out);
}
[[gnu::noinline]] LIMBER_FN group_request group_handle::broadcast(tensor_view data, int root) {
  return start(broadcast_of(data, root, size()), data, data);
}
LIMBER_FN void group_handle::barrier() { start({operation::barrier}, {}, {}).wait(); }

LIMBER_FN void group_handle::send(const_tensor_view in, int peer) {
  check_memory("send", "in", in, in.name);
  check_rank("send", "peer", peer, size());
  group().send(rank_, peer, in);
}
LIMBER_FN void group_handle::recv(tensor_view out, int peer) {
  check_memory("recv", "out", out, out.name);
  check_rank("recv", "peer", peer, size());
  group().recv(rank_, peer, out);
}
LIMBER_FN void group_handle::post(int peer, i64 tag, std::span<std::byte const> bytes) {
  check_rank("post", "peer", peer, size());
  group().post(rank_, peer, tag, bytes);
}
[[gnu::noinline]] LIMBER_COLD LIMBER_FN place group_handle::shrink_place(std::span<int const> lost) {
  for (std::size_t i = 0; i < lost.size(); ++i) {
    check_rank("shrink", "lost rank", lost[i], size());
    expects(i == 0 || lost[i - 1] < lost[i], "shrink: lost ranks must be sorted, got ", lost[i], " after ",
            lost[i == 0 ? 0 : i - 1]);
    expects(lost[i] != rank_, "shrink: rank ", rank_, " cannot call itself lost");
  }
  return group().shrink(rank_, lost);
}

}  // namespace limber::detail
