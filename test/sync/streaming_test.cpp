// SPDX-License-Identifier: Apache-2.0
// labels: unit property
// sanitizers: address
#define BOOST_TEST_MODULE limber.sync.streaming
#include <limber/comm/threads.hpp>
#include <limber/cuda/executor.hpp>
#include <limber/limber.hpp>
#include <limber/sync/strategies.hpp>

#include <boost/test/unit_test.hpp>

#include <support/checks.hpp>
#include <support/dealing.hpp>
#include <support/toy_model.hpp>

#include <array>
#include <cmath>
#include <functional>
#include <limits>
#include <span>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

using namespace limber;
using namespace limber::literals;
using namespace limber::testing;

namespace {

constexpr int workers = 3;
constexpr std::size_t elements = 21;

// The toy model cut into five tensors: four of five elements each, and one of one.
template <class T>
struct cut_model : toy_model<T> {
  [[nodiscard]] std::vector<tensor> parameters() {
    std::vector<tensor> out;
    for (std::size_t k = 0; k < 4; ++k)
      out.emplace_back("w" + std::to_string(k), std::span<T>(this->w).subspan(5 * k, 5),
                       std::span<T>(this->gw).subspan(5 * k, 5));
    out.emplace_back("b", this->b, this->gb);
    return out;
  }
  void put(std::vector<T> const& x) {
    std::copy_n(x.begin(), this->w.size(), this->w.begin());
    this->b[0] = x.back();
  }
};

// The largest first, to the emptiest: w0 and w3, w1 and the bias, w2.
std::size_t fragment_of(std::size_t element, i64 fragments) {
  if (fragments == 1) return 0;
  BOOST_TEST_REQUIRE(fragments == 3);
  return element == 20 ? 1 : element / 5 % 3;
}

double rate_of(int call) { return 0.02 * std::min(1.0, call / 4.0); }

options with_shares(i64 share = 8) {
  options o;
  o.batch = per_worker{share};
  o.epoch_size = 1000;
  return o;
}
auto const rising = linear_scaling{.base_lr = 0.02, .base_batch = 24} * warmup(4_steps);

// One worker's part of a call.
template <class T, class Opt>
void call(toy_model<T>& m, Opt& opt, dealing const& deal, int t, int rank, i64& first) {
  auto const& now = deal[static_cast<std::size_t>(t) % deal.size()];
  for (std::size_t r = 0; r < now.size(); first += now[r++])
    if (static_cast<int>(r) == rank) m.backward(run_of(first, now[r]));
  opt.step(now[static_cast<std::size_t>(rank)]);
}

template <class T, class R, class S>
std::vector<std::vector<T>> train_cut(S const& strategy, R const& rule, dealing const& deal, int calls,
                                      bool finish = true) {
  std::vector<std::vector<T>> out(workers);
  threads::run(workers, [&](threads::communicator& comm) {
    cut_model<T> m;
    optimizer opt{m.parameters(), rule, rising, strategy, comm, with_shares()};
    i64 first = 0;
    for (int t = 0; t < calls; ++t) call(m, opt, deal, t, comm.rank(), first);
    if (finish) opt.finish();
    out[static_cast<std::size_t>(comm.rank())] = m.all();
  });
  return out;
}

// Streaming DiLoCo by hand, over plain descent, element by element.
struct by_hand {
  sync::streaming_diloco what;
  std::array<std::vector<double>, workers> x;
  std::vector<double> anchor = toy_model<double>{}.all(), m = std::vector<double>(elements), d = m;
  std::array<std::array<double, 3>, workers> n{};  // samples behind each rank's fragment
  std::size_t flying = 3;
  int sent_at = 0;
  double weight = 0;

  explicit by_hand(sync::streaming_diloco s) : what(s) {
    for (auto& one : x) one = anchor;
  }
  void descend(dealing const& deal, int t, i64& first) {
    auto const& now = deal[static_cast<std::size_t>(t) % deal.size()];
    for (std::size_t r = 0; r < workers; first += now[r++]) {
      if (now[r] == 0) continue;
      cut_model<double> model;
      model.put(x[r]);
      model.backward(run_of(first, now[r]));
      for (std::size_t k = 0; k < elements; ++k)
        x[r][k] -= rate_of(t) * (k == 20 ? model.gb[0] : model.gw[k]);
      for (double& one : n[r]) one += static_cast<double>(now[r]);
    }
  }
  void send(std::size_t f, int t) {
    flying = f;
    sent_at = t;
    weight = n[0][f] + n[1][f] + n[2][f];
    for (std::size_t k = 0; k < elements; ++k) {
      d[k] = 0;
      for (std::size_t r = 0; r < workers && weight > 0; ++r)
        d[k] += n[r][f] / weight * (anchor[k] - x[r][k]);
    }
  }
  void land(double mixing) {
    for (std::size_t k = 0; k < elements; ++k) {
      if (fragment_of(k, what.fragments) != flying) continue;
      if (weight > 0) {
        m[k] = what.outer_momentum * m[k] + d[k];
        anchor[k] -= what.outer_lr * (d[k] + what.outer_momentum * m[k]);
      }
      for (auto& one : x) one[k] = mixing * one[k] + (1 - mixing) * anchor[k];
    }
    for (auto& one : n) one[flying] *= mixing;
    flying = 3;
  }
  void exchange(int t) {
    auto const late = static_cast<int>(what.late);
    if (flying < 3 && t == sent_at + late) land(what.mixing);
    for (i64 f = 0; f < what.fragments; ++f) {
      if (t % what.period != f * what.period / what.fragments) continue;
      send(static_cast<std::size_t>(f), t);
      if (late == 0) land(what.mixing);
    }
  }
  void finish() {
    if (flying < 3) land(what.mixing);
    for (i64 f = 0; f < what.fragments; ++f) {
      send(static_cast<std::size_t>(f), 0);
      land(0);
    }
  }
};

}  // namespace

BOOST_AUTO_TEST_CASE(tensors_are_dealt_to_the_smallest_fragment_and_equal_ones_in_strides) {
  std::vector<float> memory(100);
  auto const list = [&](std::vector<i64> const& lengths) {
    tensor_list out;
    for (i64 const n : lengths) out.push_back(view(std::span(memory).first(static_cast<std::size_t>(n))));
    return out;
  };
  using dealt = std::vector<std::vector<i64>>;
  BOOST_TEST((sync::deal_fragments(list({7, 7, 7, 7, 7, 7}), {}, 3) == dealt{{0, 3}, {1, 4}, {2, 5}}));
  BOOST_TEST((sync::deal_fragments(list({7, 7, 7, 7}), {3, 2, 1, 0}, 2) == dealt{{1, 3}, {0, 2}}));
  BOOST_TEST((sync::deal_fragments(list({1, 9, 2, 10, 0}), {}, 2) == dealt{{0, 3, 4}, {1, 2}}));
  for (i64 const n : {1, 2, 5, 8}) {
    auto const got = sync::deal_fragments(list({9, 30, 4, 4, 17, 1, 1, 8, 22, 6, 0}), {}, n);
    std::vector<int> seen(11);
    for (auto const& f : got) {
      i64 sum = 0;
      for (i64 const i : f) {
        ++seen[static_cast<std::size_t>(i)];
        sum += list({9, 30, 4, 4, 17, 1, 1, 8, 22, 6, 0})[static_cast<std::size_t>(i)].length;
      }
      BOOST_TEST(sum > 0);
      BOOST_TEST(3 * sum <= std::max<i64>(4 * 102 / n + 3, 90));
    }
    BOOST_TEST((seen == std::vector<int>(11, 1)));
  }
  BOOST_TEST(has(message_of([&] { (void)sync::deal_fragments(list({1, 0}), {}, 2); }), "fragments", "2"));
}

BOOST_AUTO_TEST_CASE(one_fragment_that_lands_at_once_is_diloco_bit_for_bit) {
  auto const same = [](auto scalar, auto const& rule, int calls) {
    using T = decltype(scalar);
    for (auto const at : {sync::moments::keep, sync::moments::average, sync::moments::reset}) {
      sync::streaming_diloco const streamed{
          .period = 4, .fragments = 1, .late = 0, .mixing = 0, .at_merge = at};
      for (bool const finish : {false, true}) {
        auto const got = train_cut<T>(streamed, rule, changing, calls, finish);
        auto const expected =
            train_cut<T>(sync::diloco{.period = 4, .at_merge = at}, rule, changing, calls, finish);
        for (std::size_t r = 0; r < workers; ++r) BOOST_TEST(same_bits(got[r], expected[r]));
      }
    }
  };
  for (int const calls : {20, 22}) {
    same(float{}, adamw{}, calls);
    same(double{}, nesterov, calls);
    same(float{}, ema{nesterov, 0.5}, calls);
  }
}

BOOST_AUTO_TEST_CASE(a_round_starts_again_after_finish_and_models_are_alike_where_they_are_in_diloco) {
  auto const run = [](auto const& strategy) {
    std::vector<std::vector<double>> out(workers);
    threads::run(workers, [&](threads::communicator& comm) {
      cut_model<double> m;
      optimizer opt{m.parameters(), nesterov, rising, strategy, comm, with_shares()};
      i64 first = 0;
      auto& mine = out[static_cast<std::size_t>(comm.rank())];
      for (int t = 0; t < 15; ++t) {
        call(m, opt, changing, t, comm.rank(), first);
        if (t == 5) opt.finish();
        opt.visit([&](state_piece const& p) {
          if (p.name == "parameter/w0") mine.push_back(p.how == kept::replicated);
        });
        mine.push_back(static_cast<double>(opt.now().samples));
        mine.push_back(m.w[0]);
      }
    });
    return out;
  };
  BOOST_TEST((run(sync::streaming_diloco{.period = 4, .fragments = 1, .late = 0, .mixing = 0}) ==
              run(sync::diloco{.period = 4})));
}

BOOST_AUTO_TEST_CASE(it_follows_the_paper_late_or_not_mixed_or_not) {
  for (i64 const fragments : {1, 3})
    for (i64 const late : {0, 1, 2})
      for (double const mixing : {0.0, 0.25, 0.5})
        for (int const calls : {21, 23}) {
          sync::streaming_diloco const what{
              .period = 7, .fragments = fragments, .late = late, .mixing = mixing};
          by_hand expected(what);
          i64 first = 0;
          for (int t = 0; t < calls; ++t) {
            expected.descend(changing, t, first);
            expected.exchange(t + 1);
          }
          auto const open = train_cut<double>(what, descent{}, changing, calls, false);
          for (std::size_t r = 0; r < workers; ++r)
            BOOST_TEST(distance(open[r], expected.x[r]) < 1e-12,
                       fragments << " fragments, " << late << " late, " << mixing << ", rank " << r);
          expected.finish();
          auto const closed = train_cut<double>(what, descent{}, changing, calls);
          BOOST_TEST(distance(closed[0], expected.x[0]) < 1e-12);
          BOOST_TEST((closed[0] == closed[1] && closed[0] == closed[2]));
        }
}

// Outer rate 1 without momentum: what lands is the mean of what was sent, weighted by samples.
BOOST_AUTO_TEST_CASE(each_fragment_alone_is_local_sgd_at_its_offset) {
  sync::streaming_diloco const what{
      .period = 6, .fragments = 3, .late = 0, .mixing = 0, .outer_lr = 1, .outer_momentum = 0};
  std::array<std::vector<double>, workers> x;
  std::array<std::array<double, 3>, workers> n{};
  for (auto& one : x) one = toy_model<double>{}.all();
  i64 first = 0;
  for (int t = 1; t <= 20; ++t) {
    auto const& now = changing[static_cast<std::size_t>(t - 1) % changing.size()];
    for (std::size_t r = 0; r < workers; first += now[r++]) {
      if (now[r] == 0) continue;
      cut_model<double> model;
      model.put(x[r]);
      model.backward(run_of(first, now[r]));
      for (std::size_t k = 0; k < elements; ++k)
        x[r][k] -= rate_of(t - 1) * (k == 20 ? model.gb[0] : model.gw[k]);
      for (double& one : n[r]) one += static_cast<double>(now[r]);
    }
    for (std::size_t f = 0; f < 3; ++f) {
      if (t % 6 != static_cast<int>(2 * f)) continue;
      double const total = n[0][f] + n[1][f] + n[2][f];
      for (std::size_t k = 0; k < elements; ++k) {
        if (fragment_of(k, 3) != f) continue;
        double const mean = (n[0][f] * x[0][k] + n[1][f] * x[1][k] + n[2][f] * x[2][k]) / total;
        for (auto& one : x) one[k] = mean;
      }
      for (auto& one : n) one[f] = 0;
    }
  }
  auto const got = train_cut<double>(what, descent{}, changing, 20, false);
  for (std::size_t r = 0; r < workers; ++r) BOOST_TEST(distance(got[r], x[r]) < 1e-12);
}

BOOST_AUTO_TEST_CASE(replicas_are_alike_after_finish_with_every_rule_wire_and_policy_of_moments) {
  auto const alike = [](auto const& rule, sync::streaming_diloco const& what) {
    auto const got = train_cut<float>(what, rule, changing, 19);
    BOOST_TEST(same_bits(got[0], got[1]));
    BOOST_TEST(same_bits(got[0], got[2]));
    auto const start = toy_model<float>{}.all();
    BOOST_TEST(distance(got[0], start) > 1e-3);
    BOOST_TEST(std::isfinite(distance(got[0], start)));
  };
  for (auto const wire : {std::optional<dtype>{}, std::optional{dtype::bf16}, std::optional{dtype::f16}})
    for (auto const at : {sync::moments::keep, sync::moments::average, sync::moments::reset}) {
      sync::streaming_diloco const what{
          .period = 6, .fragments = 3, .late = 1, .mixing = 0.5, .wire = wire, .at_merge = at};
      alike(nesterov, what);
      alike(clipped{adamw{}, 1.0}, what);
      alike(ema{master{sgd{.momentum = 0.9}}, 0.5}, what);
    }
}

BOOST_AUTO_TEST_CASE(a_narrow_wire_moves_the_model_by_no_more_than_its_rounding) {
  sync::streaming_diloco what{.period = 6, .fragments = 3, .late = 1, .mixing = 0.5};
  auto const wide = train_cut<float>(what, descent{}, changing, 60)[0];
  what.wire = dtype::bf16;
  auto const narrow = train_cut<float>(what, descent{}, changing, 60)[0];
  BOOST_TEST(!same_bits(wide, narrow));
  BOOST_TEST(distance(narrow, wide) < 0x1p-8);
}

BOOST_AUTO_TEST_CASE(what_happens_to_history_is_a_choice_for_the_tensors_that_land) {
  for (i64 const late : {0, 1}) {
    threads::run(workers, [&](threads::communicator& comm) {
      cut_model<double> m;
      optimizer opt{
          m.parameters(),
          sgd{.momentum = 0.9},
          0.01,
          sync::streaming_diloco{
              .period = 6, .fragments = 3, .late = late, .mixing = 0, .at_merge = sync::moments::reset},
          comm,
          with_shares()};
      opt.freeze("w3");
      i64 first = 0;
      for (int t = 1; t <= 6 + late; ++t) {
        call(m, opt, even, t, comm.rank(), first);
        opt.visit([&](state_piece const& p) {
          auto const at = p.name.find("slot0/");
          if (at == std::string::npos || p.name.find("sync/") != std::string::npos) return;
          auto const name = p.name.substr(at + 6);
          int const fragment = name == "b" || name == "w1" ? 1 : name == "w2" ? 2 : 0;
          bool const lands = (t - late) % 6 == 2 * fragment && t > late;
          bool const zero = p.data.as<double>()[0] == 0;
          LIMBER_CHECK(zero == (lands || name == "w3"));
        });
      }
    });
  }
}

namespace {

// Counts bytes and operations that were started and waited for.
struct counted_request {
  threads::request under;
  i64* waited;
  void wait() {
    under.wait();
    ++*waited;
  }
  [[nodiscard]] bool done() { return under.done(); }
};
struct counting {
  threads::communicator& under;
  i64 bytes = 0, started = 0, waited = 0;
  [[nodiscard]] int rank() const { return under.rank(); }
  [[nodiscard]] int size() const { return under.size(); }
  counted_request all_reduce(const_tensor_view in, tensor_view out, reduction how = reduction::sum) {
    if (in.type != dtype::f64) bytes += in.bytes();
    ++started;
    return {under.all_reduce(in, out, how), &waited};
  }
  auto reduce_scatter(const_tensor_view in, tensor_view out) { return under.reduce_scatter(in, out); }
  auto all_gather(const_tensor_view in, tensor_view out) { return under.all_gather(in, out); }
  auto broadcast(tensor_view data, int root) { return under.broadcast(data, root); }
  void barrier() { under.barrier(); }
};

}  // namespace

BOOST_AUTO_TEST_CASE(each_fragment_crosses_once_a_period_and_is_waited_for_when_it_lands) {
  constexpr i64 length = 4096, layers = 8;
  for (auto const wire : {std::optional<dtype>{}, std::optional{dtype::bf16}}) {
    threads::run(2, [&](threads::communicator& comm) {
      std::vector<float> w(layers * length), g(layers * length, 0.5f);
      std::vector<tensor> parameters;
      for (std::size_t k = 0; k < layers; ++k)
        parameters.emplace_back("layer" + std::to_string(k), std::span(w).subspan(k * length, length),
                                std::span(g).subspan(k * length, length));
      counting counted{comm};
      optimizer opt{parameters, sgd{}, 0.01,
                    sync::streaming_diloco{.period = 12, .fragments = 4, .late = 2, .wire = wire}, counted};
      i64 const all = layers * length * (wire ? 2 : 4);
      opt.handshake();
      i64 sum = 0;
      for (int t = 1; t <= 48; ++t) {
        i64 const bytes = counted.bytes, started = counted.started, waited = counted.waited;
        opt.step(1);
        bool const sends = t % 3 == 0, lands = t > 3 && (t - 2) % 3 == 0;
        i64 const crossed = counted.bytes - bytes;
        LIMBER_CHECK(crossed == (sends ? all / 4 : 0));
        LIMBER_CHECK(counted.started - started == (sends ? 2 : 0));  // a bucket and the control values
        LIMBER_CHECK(counted.waited - waited == (lands ? 2 : 0));
        if (t > 12) sum += crossed;
        if (t > 12 && t % 12 == 0) LIMBER_CHECK(sum == (t / 12 - 1) * all);
      }
      auto const said = opt.explain();
      LIMBER_CHECK(has(said, "every 12 calls", "fragment 3, bucket 0"));
      opt.finish();
      LIMBER_CHECK(counted.waited == counted.started);
    });
  }
}

BOOST_AUTO_TEST_CASE(evaluation_sees_the_mean_and_leaves_what_is_in_flight_alone) {
  for (double const mixing : {0.0, 0.5}) {
    sync::streaming_diloco const what{.period = 6, .fragments = 3, .late = 1, .mixing = mixing};
    auto const run = [&](bool evaluate) {
      std::vector<std::vector<double>> out(workers);
      threads::run(workers, [&](threads::communicator& comm) {
        cut_model<double> m;
        std::vector<double> statistics{0};
        std::vector<tensor> const b{{"statistics", statistics}};
        optimizer opt{groups(parameter_group{m.parameters(), nesterov}, buffers{b}), rising, what, comm,
                      with_shares()};
        i64 first = 0;
        for (int t = 1; t <= 15; ++t) {
          statistics[0] += comm.rank();
          call(m, opt, even, t, comm.rank(), first);
          if (!evaluate) continue;
          auto const own = m.all();
          double const own_statistics = statistics[0];
          std::vector<double> all(workers * elements);
          comm.all_gather(const_view(own), view(all)).wait();
          opt.evaluate([&] {
            auto const seen = m.all();
            for (std::size_t k = 0; k < elements; ++k)
              LIMBER_CHECK(std::abs(seen[k] - (all[k] + all[k + elements] + all[k + 2 * elements]) / 3) <
                           1e-12);
          });
          LIMBER_CHECK(m.all() == own);
          LIMBER_CHECK(statistics[0] == own_statistics);
        }
        opt.finish();
        out[static_cast<std::size_t>(comm.rank())] = m.all();
        out[static_cast<std::size_t>(comm.rank())].push_back(statistics[0]);
      });
      return out;
    };
    auto const with = run(true), without = run(false);
    BOOST_TEST((with == without));
    BOOST_TEST((with[0] == with[1] && with[0] == with[2]));
  }
}

BOOST_AUTO_TEST_CASE(progress_counts_what_was_applied_when_its_fragment_has_landed) {
  threads::run(workers, [](threads::communicator& comm) {
    cut_model<float> m;
    optimizer opt{m.parameters(), sgd{},
                  0.01,           sync::streaming_diloco{.period = 6, .fragments = 3, .late = 1},
                  comm,           with_shares()};
    i64 first = 0, applied = 0;
    std::vector<i64> until{0};
    for (int t = 1; t <= 17; ++t) {
      auto const& now = changing[static_cast<std::size_t>(t) % changing.size()];
      i64 counted = 0;
      for (std::size_t r = 0; r < workers; ++r) counted += now[r];
      if (t == 9) {  // rank 1's gradient is bad: 20 of its samples are not applied
        for (std::size_t r = 0; r < workers; first += now[r++])
          if (static_cast<int>(r) == comm.rank()) m.backward(run_of(first, now[r]));
        if (comm.rank() == 1) m.gw[0] = std::numeric_limits<float>::quiet_NaN();
        auto const& did = opt.step(now[static_cast<std::size_t>(comm.rank())]);
        LIMBER_CHECK(did.skipped == (comm.rank() == 1));
        counted -= now[1];
      } else {
        call(m, opt, changing, t, comm.rank(), first);
      }
      applied += counted;
      until.push_back(applied);
      // Sent every other call, known one later; since then as planned, 24 a call.
      int const sent = t < 3 ? 0 : (t - 1) / 2 * 2;
      LIMBER_CHECK(opt.now().samples == until[static_cast<std::size_t>(sent)] + 24 * (t - sent));
      LIMBER_CHECK(opt.now().steps == t);
    }
    opt.finish();
    LIMBER_CHECK(opt.now().samples == applied);
    LIMBER_CHECK(opt.now().steps == 17);
  });
}

// Rank 0's first fragment breaks before or after it would be sent; both end with what rank 1 sent.
BOOST_AUTO_TEST_CASE(a_fragment_that_is_not_finite_is_sent_by_nobody_and_replaced) {
  for (bool const in_flight : {false, true})
    for (double const mixing : {0.0, 0.5}) {
      std::vector<std::vector<double>> sent(2), end(2);
      std::array<i64, 2> samples{};
      threads::run(2, [&](threads::communicator& comm) {
        auto const r = static_cast<std::size_t>(comm.rank());
        cut_model<double> m;
        sync::streaming_diloco const what{
            .period = 6, .fragments = 3, .late = 1, .mixing = mixing, .outer_lr = 1, .outer_momentum = 0};
        optimizer opt{m.parameters(), descent{}, 0.01, what, comm, with_shares()};
        for (int t = 1; t <= 7; ++t) {
          if (t == (in_flight ? 7 : 6) && r == 0) m.w[2] = std::numeric_limits<double>::infinity();
          if (t == 7) sent[r] = m.all();
          if (t < 7) m.backward(run_of(16 * t + 8 * comm.rank(), 8));
          opt.step(t < 7 ? 8 : 0);
        }
        end[r] = m.all();
        samples[r] = opt.now().samples;
      });
      for (std::size_t k : {0U, 2U, 4U, 15U, 19U}) {
        double const landed = in_flight && k != 2 ? (sent[0][k] + sent[1][k]) / 2 : sent[1][k];
        if (in_flight && k == 2)
          BOOST_TEST(std::isfinite(end[0][k]));
        else
          BOOST_TEST(end[0][k] == landed, boost::test_tools::tolerance(1e-13));
        if (mixing == 0) BOOST_TEST(end[1][k] == end[0][k]);
      }
      // Sent at calls 2, 4 and 6: of the last two calls rank 0's share does not count if it broke before.
      BOOST_TEST(samples[0] == 6 * 16 + 16 - (in_flight ? 0 : 16));
      BOOST_TEST(samples[1] == samples[0]);
    }
}

// A copy of every piece of state, taken while a fragment is in flight, is all that a later run needs.
BOOST_AUTO_TEST_CASE(training_goes_on_from_its_state_with_a_fragment_in_flight) {
  sync::streaming_diloco const what{.period = 6, .fragments = 3, .late = 1, .wire = dtype::bf16};
  for (int const stop : {8, 9}) {
    std::vector<std::vector<float>> straight(workers), resumed(workers);
    threads::run(workers, [&](threads::communicator& comm) {
      auto const r = static_cast<std::size_t>(comm.rank());
      cut_model<float> m;
      std::vector<std::vector<std::byte>> saved;
      i64 first = 0;
      {
        optimizer opt{m.parameters(), nesterov, 0.01, what, comm, with_shares()};
        for (int t = 0; t < stop; ++t) call(m, opt, changing, t, comm.rank(), first);
        opt.visit(
            [&](state_piece const& p) { saved.emplace_back(p.data.data, p.data.data + p.data.bytes()); });
        i64 const here = first;
        for (int t = stop; t < 16; ++t) call(m, opt, changing, t, comm.rank(), first);
        opt.finish();
        straight[r] = m.all();
        first = here;
      }
      cut_model<float> again;
      optimizer opt{again.parameters(), nesterov, 0.01, what, comm, with_shares()};
      std::size_t k = 0;
      opt.visit([&](state_piece const& p) {
        LIMBER_CHECK(k < saved.size() && static_cast<i64>(saved[k].size()) == p.data.bytes());
        std::ranges::copy(saved[k++], p.data.data);
      });
      LIMBER_CHECK(k == saved.size());
      for (int t = stop; t < 16; ++t) call(again, opt, changing, t, comm.rank(), first);
      opt.finish();
      resumed[r] = again.all();
    });
    for (std::size_t r = 0; r < workers; ++r) BOOST_TEST(same_bits(resumed[r], straight[r]));
  }
}

BOOST_AUTO_TEST_CASE(workers_come_and_go_while_a_fragment_is_in_flight) {
  std::vector<std::vector<double>> end(workers);
  threads::run(workers, [&](threads::communicator& comm) {
    auto const r = static_cast<std::size_t>(comm.rank());
    cut_model<double> m;
    auto few = comm.split(comm.rank() < 2 ? 0 : 1);
    sync::streaming_diloco const what{.period = 6, .fragments = 3, .late = 1};
    optimizer opt{m.parameters(), nesterov, 0.01, what, few, with_shares()};
    auto const train = [&](int from, int to) {
      for (int t = from; t < to; ++t) {
        m.backward(run_of(24 * t + 8 * comm.rank(), 8));
        opt.step(8);
      }
    };
    if (comm.rank() < 2) train(0, 8);  // the last of them sends
    opt.resize(comm);
    opt.handshake();
    std::vector<double> const own = m.all();
    std::vector<double> all(workers * elements);
    comm.all_gather(const_view(own), view(all)).wait();
    for (std::size_t k = 0; k < all.size(); ++k) LIMBER_CHECK(all[k] == all[k % elements]);
    LIMBER_CHECK(opt.now().steps == 8);
    LIMBER_CHECK(opt.now().samples == 8 * 16);
    train(8, 17);
    if (comm.rank() == 2) {
      opt.finish();
      LIMBER_CHECK(opt.now().samples == 8 * 16 + 9 * 24);
    } else {
      opt.resize(few);
      train(17, 25);
      opt.finish();
      LIMBER_CHECK(opt.now().samples == 8 * 16 + 9 * 24 + 8 * 16);
    }
    end[r] = m.all();
  });
  BOOST_TEST((end[0] == end[1]));
  BOOST_TEST((end[0] != end[2]));
}

BOOST_AUTO_TEST_CASE(an_optimizer_may_go_without_finish_and_may_be_moved_in_flight) {
  threads::run(2, [](threads::communicator& comm) {
    cut_model<float> m;
    {
      optimizer first{m.parameters(), sgd{}, 0.01,
                      sync::streaming_diloco{.period = 6, .fragments = 3, .late = 1}, comm};
      for (int t = 1; t <= 4; ++t) first.step(1);
      optimizer opt = std::move(first);
      for (int t = 5; t <= 6; ++t) opt.step(1);
    }
    comm.barrier();  // the group is well
  });
}

BOOST_AUTO_TEST_CASE(it_has_the_bits_of_the_host_on_a_gpus_kernel_bodies) {
  using emulated = gpu::basic_executor<gpu::emulator>;
  for (auto const at : {sync::moments::keep, sync::moments::average, sync::moments::reset}) {
    sync::streaming_diloco const what{
        .period = 6, .fragments = 3, .late = 1, .mixing = 0.25, .wire = dtype::bf16, .at_merge = at};
    auto const run = [&](auto const& executor) {
      std::vector<std::vector<float>> out(workers);
      threads::run(workers, [&](threads::communicator& comm) {
        cut_model<float> m;
        optimizer opt{m.parameters(), master{adamw{}}, rising, what, comm, with_shares(), executor()};
        i64 first = 0;
        for (int t = 0; t < 15; ++t) {
          call(m, opt, changing, t, comm.rank(), first);
          if (t == 10) opt.evaluate([] {});
        }
        opt.finish();
        out[static_cast<std::size_t>(comm.rank())] = m.all();
      });
      return out;
    };
    auto const expected = run([] { return host{}; }), got = run([] { return emulated{}; });
    for (std::size_t r = 0; r < workers; ++r) BOOST_TEST(same_bits(got[r], expected[r]));
  }
}

BOOST_AUTO_TEST_CASE(other_strategies_say_what_happens_to_history_too) {
  using enum sync::moments;
  auto const differ = [](auto const& with) {
    auto const kept = with(keep);
    BOOST_TEST(distance(with(reset), kept) > 1e-6);
    return std::pair{kept, with(average)};
  };
  auto const diloco = differ([](sync::moments at) {
    return train_cut<double>(sync::diloco{.period = 4, .at_merge = at}, nesterov, changing, 20)[0];
  });
  BOOST_TEST(distance(diloco.first, diloco.second) > 1e-6);
  auto const lookahead = differ([](sync::moments at) {
    return train_cut<double>(sync::lookahead{.period = 4, .at_merge = at}, nesterov, changing, 20)[0];
  });
  BOOST_TEST((lookahead.first == lookahead.second));
  auto const elastic = differ([](sync::moments at) {
    return train_cut<double>(sync::elastic_averaging{.period = 4, .at_merge = at}, nesterov, changing, 20)[0];
  });
  BOOST_TEST(distance(elastic.first, elastic.second) > 1e-6);
}

// After an exchange at call 4: histories alike where they are averaged, zero where they are reset.
BOOST_AUTO_TEST_CASE(elastic_averaging_averages_or_resets_histories_while_models_stay_apart) {
  for (auto const at : {sync::moments::keep, sync::moments::average, sync::moments::reset})
    threads::run(workers, [&](threads::communicator& comm) {
      cut_model<double> m;
      optimizer opt{m.parameters(), nesterov,     0.01, sync::elastic_averaging{.period = 4, .at_merge = at},
                    comm,           with_shares()};
      i64 first = 0;
      for (int t = 0; t < 4; ++t) call(m, opt, even, t, comm.rank(), first);
      std::array<double, 2> own{m.w[0], 0};
      opt.visit([&](state_piece const& p) {
        if (p.name.find("slot0/w0") != std::string::npos) own[1] = p.data.as<double>()[0];
      });
      std::array<double, 2 * workers> all{};
      comm.all_gather(const_view(own), view(all)).wait();
      LIMBER_CHECK(all[0] != all[2]);
      LIMBER_CHECK((all[1] == all[3] && all[1] == all[5]) == (at != sync::moments::keep));
      LIMBER_CHECK((own[1] == 0) == (at == sync::moments::reset));
    });
}

BOOST_AUTO_TEST_CASE(bad_choices_are_refused_by_name) {
  auto const said = [](sync::streaming_diloco s) { return message_of([&] { (void)s.parts(); }); };
  BOOST_TEST(said({}).empty());
  BOOST_TEST(said({.period = 7, .fragments = 3, .late = 2}).empty());
  BOOST_TEST(has(said({.period = 0}), "period", "got 0"));
  BOOST_TEST(has(said({.fragments = 0}), "fragments", "got 0"));
  BOOST_TEST(has(said({.period = 3, .fragments = 4}), "fragments", "got 4"));
  BOOST_TEST(has(said({.period = 6, .fragments = 3, .late = 2}), "late", "6 / 3", "got 2"));
  BOOST_TEST(has(said({.late = -1}), "late", "got -1"));
  BOOST_TEST(has(said({.mixing = 1}), "mixing", "got 1"));
  BOOST_TEST(has(said({.mixing = -0.5}), "mixing", "got -0.5"));
  BOOST_TEST(has(said({.outer_lr = -1}), "rate", "got -1"));
  BOOST_TEST(has(said({.outer_momentum = 1.5}), "momentum", "1.5"));
  BOOST_TEST(has(said({.wire = dtype::f64}), "wire", "f64"));
  cut_model<float> m;
  self comm;
  BOOST_TEST(has(message_of([&] {
                   optimizer opt{m.parameters(), sgd{}, 0.1, sync::streaming_diloco{.fragments = 6}, comm};
                 }),
                 "fragments", "5 tensors", "got 6"));
}
