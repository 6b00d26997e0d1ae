// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Compares the calls of all ranks before data moves.

#include <limber/comm/collective.hpp>
#include <limber/comm/detail/signature.hpp>
#include <limber/comm/detail/ticket.hpp>
#include <limber/core/clock.hpp>
#include <limber/core/error.hpp>

#include <chrono>
#include <functional>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

namespace limber {

/// How long `checked` waits for the other ranks, and how it passes the time.
struct check_options {
  double deadline = 60;                   ///< seconds of `clock`, > 0
  clock_function clock = steady_seconds;  ///< on a virtual clock, give a `pause` that lets it advance
  std::function<void()> pause = [] { std::this_thread::sleep_for(std::chrono::microseconds(100)); };
};

/// A collective that first compares what all ranks are about to do: sequence number, operation,
/// reduction, dtype, count, root, name of the bucket, and plan hash.
///
///     checked comm(engine);      // refers to `engine`; checked(std::move(engine)) owns it
///     comm.plan_hash(plan.hash());
///
/// Cost     2 (n − 1) messages an operation, through rank 0. Starting an operation waits until all
///          ranks have started it: for debugging and for first steps, not for measuring overlap.
/// Errors   limber::error of engine "checked", on every rank that takes part, with operation and bucket
///          that most ranks wanted and the rank that differs, or is missing at the deadline (all of
///          them are in the message; rank 0 waits 0.8 deadlines, so that its answer is in time). After that
///          every call throws the same error. Errors of the engine while waiting get operation and bucket
///          added.
/// Choices  `send`, `recv`, `post` and `poll` pass through unchecked; the two lowest tags of the mailbox
///          are taken. Keeps the capabilities of C; split and shrink give checked groups, with a
///          fresh sequence and the same plan hash. Without a mailbox it does not compile.
template <class C>
  requires collective<C> && mailbox<C>
class checked {
 public:
  /// @throws std::invalid_argument unless deadline > 0 and clock and pause are there
  explicit checked(std::type_identity_t<C> inner, check_options how = {}, std::uint64_t plan_hash = 0)
      : inner_(std::forward<C>(inner)), how_(std::move(how)), plan_hash_(plan_hash) {
    expects(how_.deadline > 0, "checked: deadline must be > 0 s, got ", how_.deadline);
    expects(how_.clock != nullptr, "checked: clock is empty");
    expects(how_.pause != nullptr, "checked: pause is empty");
  }

  [[nodiscard]] int rank() const { return inner_.rank(); }
  [[nodiscard]] int size() const { return inner_.size(); }

  /// Compared from the next call on.
  void plan_hash(std::uint64_t hash) noexcept { plan_hash_ = hash; }

  [[nodiscard]] auto all_reduce(const_tensor_view in, tensor_view out, reduction how = reduction::sum) {
    compare(detail::all_reduce_of(in, out, how), detail::bucket_of(in, out));
    return inner_.all_reduce(in, out, how);
  }
  [[nodiscard]] auto all_reduce(const_tensor_view in, tensor_view out,
                                std::span<piece const> pieces) requires sums_pieces<C> {
    compare(detail::all_reduce_of(in, out, reduction::sum), detail::bucket_of(in, out));
    return inner_.all_reduce(in, out, pieces);
  }
  [[nodiscard]] auto reduce_scatter(const_tensor_view in, tensor_view out) {
    compare(detail::reduce_scatter_of(in, out, size()), detail::bucket_of(in, out));
    return inner_.reduce_scatter(in, out);
  }
  [[nodiscard]] auto all_gather(const_tensor_view in, tensor_view out) {
    compare(detail::all_gather_of(in, out, size()), detail::bucket_of(in, out));
    return inner_.all_gather(in, out);
  }
  [[nodiscard]] auto broadcast(tensor_view data, int root) {
    compare(detail::broadcast_of(data, root, size()), data.name);
    return inner_.broadcast(data, root);
  }
  void barrier() {
    compare({detail::operation::barrier}, {});
    inner_.barrier();
  }

  void send(const_tensor_view in, int peer) requires point_to_point<C> { inner_.send(in, peer); }
  void recv(tensor_view out, int peer) requires point_to_point<C> { inner_.recv(out, peer); }

  [[nodiscard]] auto split(int color) requires splittable<C> {
    compare({detail::operation::split}, {});
    using part = decltype(inner_.split(color));
    return checked<part>(inner_.split(color), how_, plan_hash_);
  }
  void revoke(std::string const& reason) requires revocable<C> { inner_.revoke(reason); }
  /// The survivors' calls are not compared: the mailbox may be gone with the lost.
  [[nodiscard]] auto shrink(std::span<int const> lost) requires shrinkable<C> {
    using rest = decltype(inner_.shrink(lost));
    return checked<rest>(inner_.shrink(lost), how_, plan_hash_);
  }

  void post(int peer, i64 tag, std::span<std::byte const> bytes) {
    check_tag("post", tag);
    inner_.post(peer, tag, bytes);
  }
  [[nodiscard]] std::optional<message> poll(i64 tag) {
    check_tag("poll", tag);
    return inner_.poll(tag);
  }
  void listen() { inner_.listen(); }

 private:
  static constexpr i64 to_judge = std::numeric_limits<i64>::min(), from_judge = to_judge + 1;

  // What a rank tells rank 0, apart from what rank 0 answers.
  enum class word : std::uint8_t { ticket, impatient, gave_up };

  static void check_tag(std::string_view call, i64 tag) {
    expects(tag > from_judge, "checked: ", call, ": tag ", tag, " is reserved");
  }

  void compare(detail::signature const& s, std::string_view bucket) {
    if (failed_) throw error(*failed_);
    detail::ticket const mine{++sequence_, s, plan_hash_, std::string(bucket)};
    if (size() == 1) return;
    try {
      if (auto wrong = rank() == 0 ? judge(mine) : ask(mine)) {
        failed_ = std::move(wrong);
        throw error(*failed_);
      }
    } catch (error const& e) {
      // An engine that failed meanwhile knows neither what was going to be called, nor on what.
      if (!failed_) {
        failed_ = e.where();
        failed_->call = name_of(s.what);
        failed_->bucket = bucket;
      }
      throw error(*failed_);
    }
  }

  /// Rank 0: collects tickets, compares, answers all. Something is wrong if it returns a failure.
  std::optional<failure> judge(detail::ticket const& mine) {
    auto const n = static_cast<std::size_t>(size());
    std::vector<std::optional<detail::ticket>> said(n);
    said[0] = mine;
    double const start = how_.clock();
    std::size_t arrived = 1;
    bool hurry = false;
    std::optional<int> deserter;
    for (;;) {
      // All that is there is read first: a ticket may be followed by a rank's giving up.
      auto const m = inner_.poll(to_judge);
      if (!m) {
        if (arrived == n || deserter || hurry || how_.clock() - start > patience * how_.deadline) break;
        how_.pause();
        continue;
      }
      auto const from = static_cast<std::size_t>(m->source);
      detail::unpacker letter(m->bytes);
      switch (letter.get<word>()) {
        case word::ticket:
          arrived += said[from] ? 0 : 1;
          said[from] = unpack_ticket(letter);
          break;
        case word::impatient: hurry |= letter.get<i64>() == mine.sequence; break;
        case word::gave_up: deserter = m->source; break;
      }
    }
    std::optional<failure> wrong = deserter ? failure{"checked",
                                                      std::string(name_of(mine.call.what)),
                                                      0,
                                                      0,
                                                      mine.bucket,
                                                      text("rank 0 came to ", text_of(mine), " after rank ",
                                                           *deserter, " had given up waiting for it")}
                                            : verdict(said);
    detail::packer answer;
    answer.put(wrong.has_value());
    if (wrong)
      answer.put(wrong->rank).put(std::string_view(wrong->call)).put(std::string_view(wrong->bucket));
    if (wrong) answer.put(std::string_view(wrong->reason));
    for (int r = 1; r < size(); ++r) inner_.post(r, from_judge, answer.bytes());
    return wrong;
  }

  /// The others: hand in a ticket and wait for the answer. A rank that grows impatient asks for an
  /// answer at once; without any answer it is rank 0 that is missing.
  std::optional<failure> ask(detail::ticket const& mine) {
    double const start = how_.clock();
    detail::packer letter;
    letter.put(word::ticket);
    detail::pack(letter, mine);
    inner_.post(0, to_judge, letter.bytes());
    for (bool asked = false;;) {
      if (auto const m = inner_.poll(from_judge)) {
        detail::unpacker answer(m->bytes);
        if (!answer.template get<bool>()) return std::nullopt;
        failure f{"checked", {}, 0, answer.template get<int>(), {}, {}};
        f.call = answer.get_text();
        f.bucket = answer.get_text();
        f.reason = answer.get_text();
        return f;
      }
      double const waited = how_.clock() - start;
      if (!asked && waited > patience * how_.deadline) {
        inner_.post(0, to_judge, detail::packer{}.put(word::impatient).put(mine.sequence).bytes());
        asked = true;
      }
      if (waited > how_.deadline) {
        inner_.post(0, to_judge, detail::packer{}.put(word::gave_up).bytes());
        return failure{
            "checked",   std::string(name_of(mine.call.what)),
            0,           0,
            mine.bucket, text("rank 0 did not come to ", text_of(mine), " within ", how_.deadline, " s")};
      }
      how_.pause();
    }
  }

  /// What is wrong with the tickets of all ranks; the call that most of them make is held to be right.
  std::optional<failure> verdict(std::vector<std::optional<detail::ticket>> const& said) const {
    std::size_t best = 0, votes = 0;
    for (std::size_t r = 0; r < said.size(); ++r) {
      std::size_t alike = 0;
      for (auto const& t : said) alike += said[r] && t == said[r] ? 1 : 0;
      if (alike > votes) best = r, votes = alike;
    }
    detail::ticket const& most = *said[best];
    failure f{"checked", std::string(name_of(most.call.what)), 0, -1, most.bucket, {}};
    std::string missing, different;
    int first_missing = -1;
    for (std::size_t r = 0; r < said.size(); ++r) {
      if (!said[r]) {
        if (first_missing < 0) first_missing = static_cast<int>(r);
        missing += text(missing.empty() ? "rank " : ", rank ", r);
      } else if (*said[r] != most) {
        if (f.rank < 0) f.rank = static_cast<int>(r);
        different +=
            text(different.empty() ? "rank " : "; rank ", r, " ", detail::difference(*said[r], most));
      }
    }
    if (missing.empty() && different.empty()) return std::nullopt;
    if (f.rank < 0) f.rank = first_missing;
    if (!missing.empty())
      missing += text(" did not come to ", text_of(most), " within ", patience * how_.deadline, " s");
    f.reason = different + (different.empty() || missing.empty() ? "" : "; ") + missing;
    return f;
  }

  // The share of the deadline after which rank 0 answers, so that all have the answer in time.
  static constexpr double patience = 0.8;

  C inner_;
  check_options how_;
  std::uint64_t plan_hash_;
  i64 sequence_ = 0;
  std::optional<failure> failed_;
};

// An lvalue is referred to, an rvalue is owned.
template <class C>
checked(C&&) -> checked<C>;
template <class C>
checked(C&&, check_options) -> checked<C>;
template <class C>
checked(C&&, check_options, std::uint64_t) -> checked<C>;

}  // namespace limber
