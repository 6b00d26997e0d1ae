// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <limber/sync/gossip.hpp>
#include <limber/sync/impl/stage_base.hpp>

#include <algorithm>

namespace limber::sync {

LIMBER_FN int random_below(int n, int rank, std::uint64_t seed, i64 k) noexcept {
  std::uint64_t const bits =
      random_bits(seed, static_cast<std::uint64_t>(k), static_cast<std::uint64_t>(rank)) >> 32;
  return static_cast<int>((bits * static_cast<std::uint64_t>(n)) >> 32);
}

LIMBER_FN int random_other(int rank, int size, std::uint64_t seed, i64 k) {
  expects(size >= 2, "random_other: rank ", rank, " of ", size, " has no others");
  int const other = random_below(size - 1, rank, seed, k);
  return other < rank ? other : other + 1;
}

LIMBER_FN std::vector<int> partners_of(int size, std::uint64_t seed, i64 round) {
  std::vector<std::pair<std::uint64_t, int>> order;
  for (int r = 0; r < size; ++r)
    order.emplace_back(random_bits(seed, static_cast<std::uint64_t>(round), static_cast<std::uint64_t>(r)),
                       r);
  std::ranges::sort(order);
  std::vector<int> out(order.size());
  for (std::size_t k = 0; k < order.size(); ++k)
    out[static_cast<std::size_t>(order[k].second)] = order[(k ^ 1) < order.size() ? k ^ 1 : k].second;
  return out;
}

LIMBER_FN std::vector<crossing> crossings_of(gossip_how how, int size, std::uint64_t seed, i64 round) {
  std::vector<crossing> out;
  if (size < 2) return out;
  if (how == gossip_how::matching) {
    auto const partner = partners_of(size, seed, round);
    for (int r = 0; r < size; ++r)
      if (partner[static_cast<std::size_t>(r)] != r) out.push_back({r, partner[static_cast<std::size_t>(r)]});
    return out;
  }
  for (int r = 0; r < size; ++r) {
    int const other = random_other(r, size, seed, round);
    out.push_back(how == gossip_how::pull ? crossing{other, r} : crossing{r, other});
  }
  return out;
}

LIMBER_FN std::vector<crossing> itinerary(int rank, int size, std::vector<crossing> const& all) {
  std::vector<std::size_t> degree(static_cast<std::size_t>(size));
  std::size_t most = 0;
  for (auto const& m : all)
    for (int const end : {m.from, m.to}) most = std::max(most, ++degree[static_cast<std::size_t>(end)]);
  std::size_t const colours = 2 * most;
  std::vector<char> used(degree.size() * colours);
  std::vector<std::pair<std::size_t, crossing>> own;
  for (auto const& m : all) {
    char* const from = used.data() + static_cast<std::size_t>(m.from) * colours;
    char* const to = used.data() + static_cast<std::size_t>(m.to) * colours;
    std::size_t c = 0;
    while (from[c] != 0 || to[c] != 0) ++c;
    from[c] = to[c] = 1;
    if (m.from == rank || m.to == rank) own.emplace_back(c, m);
  }
  std::ranges::sort(own, {}, &std::pair<std::size_t, crossing>::first);
  std::vector<crossing> out;
  for (auto const& [c, m] : own) out.push_back(m);
  return out;
}

namespace detail {

/// The stage at work.
class gossip_state final : public carrying_stage {
 public:
  gossip_state(gossip const& stage, training_context& at)
      : carrying_stage(at, stage.period, stage.at_merge),
        how_(stage.how),
        seed_(stage.seed),
        sent_(make(at, plan_.where)),
        received_(make(at, plan_.where)) {}

  void attach(training_context& at) override {
    group_ = at.comm;
    agree_on_round();
  }

  /// One round: sends the model as it is, and averages in what is received.
  i64 run(training_context& at) override {
    calls_ = 0;
    int const own = group_.rank(), size = group_.size();
    auto const round = itinerary(own, size, crossings_of(how_, size, seed_, round_++));
    if (round.empty()) return 0;
    i64 parts = at.exec.norm(weighted{1}, out(sent_.parts), in(carried_)).total.finite ? 1 : 0;
    at.exec.synchronize();
    for (auto const& message : round) {
      if (message.from == own) {
        for (auto const& b : plan_.buckets) group_.send(bucket_view(sent_, b), message.to);
        continue;
      }
      for (auto const& b : plan_.buckets) group_.recv(bucket_view(received_, b), message.from);
      if (!at.exec.norm(identity{}, in(received_.parts)).total.finite) continue;
      take_into_mean(at, received_.parts, ++parts);
      at.exec.synchronize();  // the next message is received into the same memory
    }
    model_merged(at);
    return 0;
  }

  void visit(kept shared, piece_visitor f) override { f("round", shared, number_view(round_)); }
  void mix(fingerprint& h) const override { mix_all(h, plan_.hash, period(), how_, seed_, at_merge_); }

 private:
  gossip_how how_;
  std::uint64_t seed_;
  slab sent_, received_;
};

}  // namespace detail

LIMBER_FN limber::detail::owner<model_stage> gossip::start(training_context& at) const {
  return limber::detail::owner<model_stage>(new detail::gossip_state(*this, at));
}

LIMBER_FN exchange gossip::parts() const { return exchange(gradients(every{1}, alone{}), *this); }

}  // namespace limber::sync
