// SPDX-License-Identifier: Apache-2.0
#include "training.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <limits>
#include <span>
#include <utility>
#include <variant>
#include <vector>

namespace limber::papers {
namespace {

/// Whose parameters stand for the run.
enum class shown { first, mean, last };

template <class S>
concept has_server = requires(S s) {
  s.server;
};

/// Workers make equally many steps, and wait for each other's.
template <class S>
constexpr bool in_step =
    !has_server<S> && !std::same_as<S, sync::abs_sgd> && !std::same_as<S, sync::asynchronous_gossip>;

template <class S>
constexpr shown shown_of = has_server<S>                                                        ? shown::last
                           : std::same_as<S, sync::allreduce> || std::same_as<S, sync::abs_sgd> ? shown::first
                                                                                                : shown::mean;

/// What the fibers of a run share: they are one thread, and switch in the library only.
class shared_state {
 public:
  shared_state(training const& run, task const& data, bool with_server)
      : run_(run),
        data_(data),
        net_(data.of(run.hidden)),
        order_(data.train_size(), run.seed),
        probe_(data.probe(run.probe)),
        next_probe_(run.probe_every > 0 ? 0 : never) {
    values first(data.of(run.hidden).parameters());
    network::initialize(data.of(run.hidden), first, run.seed);
    models.assign(run.cluster.workers.size() + (with_server ? 1 : 0), first);
    workers_ = run.cluster.workers.size();
    gradients.assign(models.size(), values(first.size(), 0.f));
    if (run.calls > 0) stop_at = run.calls;
    expects(run.calls > 0 || run.done || run.epochs < never || run.seconds < never, "training: has no end");
  }

  /// Deals n samples from the one queue, and adds their mean gradient. @return how many there were
  i64 gradient(std::size_t rank, i64 n) {
    std::array const share{n};
    auto const samples = order_.take(share, 0);
    if (!samples.empty()) (void)data_.run(net_, models[rank], samples, gradients[rank].data());
    dealt_ += static_cast<i64>(samples.size());
    return static_cast<i64>(samples.size());
  }

  /// Undoes the weights of the mean over samples: what comes out is the mean over workers.
  void unweigh(std::size_t rank, i64 n, batch_plan const& plan) {
    auto const factor = static_cast<float>(static_cast<double>(plan.total) /
                                           static_cast<double>(std::max(i64{1}, n) * std::ssize(plan.share)));
    for (float& g : gradients[rank]) g *= factor;
  }

  [[nodiscard]] double epochs() const {
    return static_cast<double>(dealt_) / static_cast<double>(data_.train_size());
  }
  [[nodiscard]] i64 epoch() const { return order_.epoch(); }

  [[nodiscard]] values shown_model(shown what) const {
    if (what != shown::mean) return what == shown::first ? models.front() : models.back();
    std::vector<double> sum(models[0].size(), 0);
    for (std::size_t w = 0; w < workers_; ++w)
      for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += static_cast<double>(models[w][i]);
    values out(sum.size());
    for (std::size_t i = 0; i < sum.size(); ++i)
      out[i] = static_cast<float>(sum[i] / static_cast<double>(workers_));
    return out;
  }

  [[nodiscard]] score score_of(values const& model, std::span<i64 const> samples) {
    return data_.run(net_, model, samples);
  }

  /// Looks at the probe when it is time. @return true if the run is to end
  [[nodiscard]] bool probe_if_due(double now, shown what, outcome& out) {
    bool const late = epochs() >= run_.epochs || now >= run_.seconds;
    if (epochs() < next_probe_ && !(late && run_.probe_every > 0)) return late;
    next_probe_ = epochs() + run_.probe_every;
    double const loss = score_of(shown_model(what), probe_).loss;
    out.curve.push_back({now, epochs(), loss});
    out.diverged = !std::isfinite(loss) || loss > 20;
    if (loss <= run_.target) out.reached = std::min(out.reached, now);
    return late || out.diverged || loss <= run_.target;
  }

  void finish(shown what, outcome& out) {
    out.epochs = epochs();
    out.model = shown_model(what);
    if (out.diverged) return;
    out.train_loss = score_of(out.model, probe_).loss;
    out.test = score_of(out.model, data_.held_out());
    auto const mean = shown_model(shown::mean);
    for (std::size_t w = 0; w < workers_; ++w)
      for (std::size_t i = 0; i < mean.size(); ++i)
        out.consensus += std::pow(static_cast<double>(models[w][i]) - static_cast<double>(mean[i]), 2) /
                         static_cast<double>(workers_);
  }

  std::vector<values> models, gradients;
  i64 furthest = 0;         ///< steps that some worker has made
  i64 stop_at = unbounded;  ///< steps that every worker makes
  bool over = false;        ///< nobody begins another step; where workers need not keep step

  static constexpr i64 unbounded = std::numeric_limits<i64>::max();

 private:
  training const& run_;
  task const& data_;
  network net_;
  std::size_t workers_ = 0;
  sampler order_;
  std::vector<i64> probe_;
  i64 dealt_ = 0;
  double next_probe_;
};

template <class S>
outcome train_with(S how, training const& run, task const& data) {
  shared_state all(run, data, has_server<S>);
  outcome out;
  constexpr shown what = shown_of<S>;
  sim::cluster cluster = run.cluster;
  int const servers = has_server<S> ? cluster.size() : -1;
  if constexpr (has_server<S>) {
    how.server = servers;
    cluster.workers.push_back({.seconds_per_sample = 0});
  }
  auto const worker = [&](sim::worker& w) {
    auto const rank = static_cast<std::size_t>(w.rank());
    std::vector<tensor> const parameters{{"model", all.models[rank], all.gradients[rank]}};
    optimizer opt{
        parameters,
        run.rule,
        run.rate,
        how,
        w.comm(),
        {.batch = run.batch, .epoch_size = data.train_size(), .ramp = run.ramp, .clock = w.clock()}};
    if constexpr (has_server<S>)
      if (w.rank() == servers) return opt.serve();
    opt.handshake();
    i64 epoch = 0;
    for (i64 step = 0; step < all.stop_at && !all.over;) {
      double const slower = run.slowness ? run.slowness(w.rank(), all.epoch()) : 1;
      auto const plan = opt.planned();
      i64 const n = all.gradient(rank, plan.share[rank]);
      all.furthest = std::max(all.furthest, ++step);
      w.compute(static_cast<double>(n) * slower);
      if (run.unweighted) all.unweigh(rank, n, plan);
      opt.step(n);
      if (rank != 0) continue;
      if (auto const now = opt.now().samples / data.train_size(); now > epoch) {
        epoch = now;
        out.ends.push_back({w.now(), plan.share});
      }
      bool const ends = all.probe_if_due(w.now(), what, out) || (run.done && run.done(opt.now()));
      if (all.stop_at < shared_state::unbounded || !ends) continue;
      // Others may be ahead by what the strategy lets them be: all end after the same number of steps.
      if constexpr (in_step<S>)
        all.stop_at = all.furthest;
      else
        all.over = true;
    }
    opt.finish();
    if (rank == 0) out.updates = opt.now().steps;
  };
  try {
    out.report = sim::run(cluster, worker);
  } catch (error const&) {
    // Too many updates in a row were not finite: a run that diverges is a result.
    out.diverged = true;
  }
  all.finish(what, out);
  out.models = std::move(all.models);
  out.seconds = out.report.seconds;
  out.bytes = out.report.bytes();
  if (has_server<S> && !out.report.workers.empty()) out.report.workers.pop_back();
  out.utilisation = out.report.utilisation();
  out.samples = out.report.samples();
  return out;
}

}  // namespace

outcome train(training const& run, task const& data) {
  return std::visit([&](auto const& how) { return train_with(how, run, data); }, run.how);
}

}  // namespace limber::papers
