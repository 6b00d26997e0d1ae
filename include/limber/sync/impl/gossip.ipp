// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <limber/sync/gossip.hpp>
#include <limber/sync/impl/stage_base.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <utility>

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
  bool const matches = how == gossip_how::matching;
  auto const partner = matches ? partners_of(size, seed, round) : std::vector<int>{};
  for (int r = 0; r < size; ++r) {
    int const other = matches ? partner[static_cast<std::size_t>(r)] : random_other(r, size, seed, round);
    if (other != r) out.push_back(how == gossip_how::pull ? crossing{other, r} : crossing{r, other});
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

/// A stage whose ranks hold different models, also after an exchange.
class gossiping_stage : public model_stage_base {
 public:
  /// Writes the mean of all models to `values`, that of buffers to the buffers. A collective call.
  void average_into(training_context& at, tensor_list const& values) override {
    at.exec.each(copy{}, out(values), in(model_));
    mean_.run(at.exec, group_, weight_in_mean());
    buffers_.run(at.exec, group_, 1);
  }
  /// Continues with the round of the others: a rank that joins, or was interrupted within one, may be behind.
  void attach(training_context& at) override {
    group_ = at.comm;
    std::array<i64, 1> mine{round_}, most{};
    group_.all_reduce(const_view(mine, "gossip: round"), view(most, "gossip: round"), reduction::max).wait();
    round_ = most[0];
  }

 protected:
  gossiping_stage(training_context& at, any_timing when, moments at_merge)
      : model_stage_base(at, std::move(when), at_merge), mean_(make_mean(at, at.inner.values())) {
    unifies = false;
  }

  [[nodiscard]] virtual double weight_in_mean() const { return 1; }

  weighted_mean mean_;
  i64 round_ = 0;
};

/// Gossip of the model together with the slots that are averaged with it.
class carrying_stage : public gossiping_stage {
 public:
  void mix(fingerprint& h) const override { mix_all(h, plan_.hash, period(), how_, seed_, at_merge_); }

 protected:
  template <class Stage>
  carrying_stage(training_context& at, Stage const& stage)
      : gossiping_stage(at, stage.period, stage.at_merge),
        how_(stage.how),
        seed_(stage.seed),
        carried_(model_) {
    each_averaged_slot(at.inner, at_merge_, [&](tensor_list const& list) {
      carried_.insert(carried_.end(), list.begin(), list.end());
    });
    plan_ = plan_buckets(carried_, without_wire(at.buckets));
  }

  // carried ← mean of it and x, as the last of `parts`: m ← m + (x − m) / parts. Equal models keep their
  // bits.
  void take_into_mean(training_context& at, tensor_list const& x, i64 parts) {
    if (parts == 1)
      at.exec.each(copy{}, out(carried_), in(x));
    else if (parts == 2)
      at.exec.each(half_and_half{}, inout(carried_), in(x));
    else
      at.exec.each(blend{1 / static_cast<double>(parts)}, inout(carried_), in(x));
  }

  gossip_how how_;
  std::uint64_t seed_;
  tensor_list carried_;
};

/// The stage at work.
class gossip_state final : public carrying_stage {
 public:
  gossip_state(gossip const& stage, training_context& at)
      : carrying_stage(at, stage), sent_(make(at, plan_.where)), received_(make(at, plan_.where)) {}

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

 private:
  slab sent_, received_;
};

}  // namespace detail

LIMBER_FN limber::detail::owner<model_stage> gossip::start(training_context& at) const {
  return limber::detail::owner<model_stage>(new detail::gossip_state(*this, at));
}

LIMBER_FN exchange gossip::parts() const { return exchange(gradients(every{1}, alone{}), *this); }

}  // namespace limber::sync
