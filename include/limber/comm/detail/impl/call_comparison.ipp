// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <limber/comm/detail/call_comparison.hpp>
#include <limber/comm/detail/process_group.hpp>
#include <limber/comm/detail/ticket.hpp>

#include <chrono>
#include <limits>
#include <string>
#include <thread>
#include <utility>

namespace limber::detail {

// The tags of messages to and from rank 0.
inline constexpr i64 to_rank_0 = std::numeric_limits<i64>::min(), from_rank_0 = to_rank_0 + 1;

// The fraction of the deadline after which rank 0 replies, so that the reply is in time.
inline constexpr double reply_fraction = 0.8;

/// The kinds of messages to rank 0.
enum class message_kind : std::uint8_t { ticket, answer_now, timed_out };

[[nodiscard]] inline failure failure_in(ticket const& call, int rank, std::string reason) {
  return {"checked", std::string(name_of(call.call.what)), 0, rank, call.bucket, std::move(reason)};
}

LIMBER_FN void sleep_briefly() { std::this_thread::sleep_for(std::chrono::microseconds(100)); }

LIMBER_FN call_comparison::call_comparison(check_options how, std::uint64_t plan_hash)
    : how_(std::move(how)), plan_hash_(plan_hash) {
  check_waiting("checked", how_.deadline, how_.clock, &how_.pause);
}

LIMBER_FN void call_comparison::check_tag(std::string_view call, i64 tag) {
  expects(tag > from_rank_0, "checked: ", call, ": tag ", tag, " is reserved");
}

LIMBER_FN void call_comparison::compare(mailbox_ref engine, signature const& s, std::string_view bucket) {
  if (failed_) throw error(*failed_);
  ticket const mine{++sequence_, s, plan_hash_, std::string(bucket)};
  if (engine.size == 1) return;
  try {
    if (auto wrong = engine.rank == 0 ? compare_all(engine, mine) : send_ticket(engine, mine)) {
      failed_ = std::move(wrong);
      throw error(*failed_);
    }
  } catch (error const& e) {
    // An error of the engine does not contain the operation and bucket of the call.
    if (!failed_) {
      failed_ = e.where();
      failed_->call = name_of(s.what);
      failed_->bucket = bucket;
    }
    throw error(*failed_);
  }
}

/// Rank 0: collects and compares the tickets, and sends the result to all ranks. Returns the failure, if
/// any.
LIMBER_FN std::optional<failure> call_comparison::compare_all(mailbox_ref const& engine,
                                                              ticket const& mine) const {
  auto const n = static_cast<std::size_t>(engine.size);
  std::vector<std::optional<ticket>> tickets(n);
  tickets[0] = mine;
  double const start = how_.clock();
  std::size_t arrived = 1;
  bool hurry = false;
  std::optional<int> gave_up_rank;
  for (;;) {
    // All available messages are read first: a rank may time out after its ticket.
    auto const m = engine.poll(to_rank_0);
    if (!m) {
      if (arrived == n || gave_up_rank || hurry || how_.clock() - start > reply_fraction * how_.deadline)
        break;
      how_.pause();
      continue;
    }
    auto const from = static_cast<std::size_t>(m->source);
    unpacker content(m->bytes);
    switch (content.get<message_kind>()) {
      case message_kind::ticket:
        arrived += tickets[from] ? 0 : 1;
        tickets[from] = ticket{content.get<i64>(), content.get<signature>(), content.get<std::uint64_t>(),
                               content.get_text()};
        break;
      case message_kind::answer_now: hurry |= content.get<i64>() == mine.sequence; break;
      case message_kind::timed_out: gave_up_rank = m->source; break;
    }
  }
  std::optional<failure> wrong = gave_up_rank
                                     ? failure_in(mine, 0,
                                                  text("rank 0 came to ", text_of(mine), " after rank ",
                                                       *gave_up_rank, " had timed out"))
                                     : find_mismatch(tickets);
  packer reply;
  reply.put(wrong.has_value());
  if (wrong) reply.put(wrong->rank);
  for (auto const part : {&failure::call, &failure::bucket, &failure::reason})
    if (wrong) reply.put(std::string_view((*wrong).*part));
  for (int r = 1; r < engine.size; ++r) engine.post(r, from_rank_0, reply.bytes());
  return wrong;
}

/// Other ranks: send a ticket and wait for the reply. Near the deadline a rank requests a reply at once; if
/// there is none, rank 0 is missing.
LIMBER_FN std::optional<failure> call_comparison::send_ticket(mailbox_ref const& engine,
                                                              ticket const& mine) const {
  double const start = how_.clock();
  packer content;
  content.put(message_kind::ticket).put(mine.sequence).put(mine.call).put(mine.plan_hash);
  content.put(std::string_view(mine.bucket));
  engine.post(0, to_rank_0, content.bytes());
  for (bool reminded = false;;) {
    if (auto const m = engine.poll(from_rank_0)) {
      unpacker reply(m->bytes);
      if (!reply.get<bool>()) return std::nullopt;
      failure f{"checked", {}, 0, reply.get<int>(), {}, {}};
      for (auto const part : {&failure::call, &failure::bucket, &failure::reason}) f.*part = reply.get_text();
      return f;
    }
    double const waited = how_.clock() - start;
    if (!reminded && waited > reply_fraction * how_.deadline) {
      engine.post(0, to_rank_0, packer{}.put(message_kind::answer_now).put(mine.sequence).bytes());
      reminded = true;
    }
    if (waited > how_.deadline) {
      engine.post(0, to_rank_0, packer{}.put(message_kind::timed_out).bytes());
      return failure_in(mine, 0,
                        text("rank 0 did not come to ", text_of(mine), " within ", how_.deadline, " s"));
    }
    how_.pause();
  }
}

/// Compares the tickets of all ranks; the call of the majority is taken as correct.
LIMBER_FN std::optional<failure> call_comparison::find_mismatch(
    std::vector<std::optional<ticket>> const& tickets) const {
  std::size_t best = 0, votes = 0;
  for (std::size_t r = 0; r < tickets.size(); ++r) {
    std::size_t equal = 0;
    for (auto const& t : tickets) equal += tickets[r] && t == tickets[r] ? 1 : 0;
    if (equal > votes) best = r, votes = equal;
  }
  ticket const& most = *tickets[best];
  failure f = failure_in(most, -1, {});
  std::vector<int> missing;
  for (std::size_t r = 0; r < tickets.size(); ++r) {
    if (!tickets[r]) {
      missing.push_back(static_cast<int>(r));
    } else if (*tickets[r] != most) {
      if (f.rank < 0) f.rank = static_cast<int>(r);
      f.reason +=
          text(f.reason.empty() ? "rank " : "; rank ", r, " ", describe_difference(*tickets[r], most));
    }
  }
  if (missing.empty() && f.reason.empty()) return std::nullopt;
  if (f.rank < 0) f.rank = missing[0];
  if (!missing.empty())
    f.reason += text(f.reason.empty() ? "" : "; ", ranks_text(missing), " did not come to ", text_of(most),
                     " within ", reply_fraction * how_.deadline, " s");
  return f;
}

}  // namespace limber::detail
