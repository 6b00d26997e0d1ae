// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <limber/fuse/strategy_functors.hpp>
#include <limber/rule/descent.hpp>
#include <limber/sync/asynchronous_elastic.hpp>
#include <limber/sync/elastic_averaging.hpp>
#include <limber/sync/impl/stage_base.hpp>
#include <limber/sync/tensor_message.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace limber::sync {

namespace detail {

/// The stage at work. The anchor is the centre; `means_` are those of gradient histories.
class elastic_averaging_state final : public anchored_stage {
 public:
  elastic_averaging_state(elastic_averaging const& stage, training_context& at)
      : anchored_stage(at, stage.period, stage.at_merge, any_rule(descent{}).erased()),
        moving_rate_(stage.moving_rate) {
    unifies = false;
    if (at_merge_ == moments::average)
      at.inner.slots([&](slot kind, tensor_list const& list) {
        if (kind == slot::moment) means_.push_back(make_mean(at, list));
      });
  }

  /// One exchange with the centre. @return the samples of all ranks since the last one
  i64 run(training_context& at) override {
    double const alpha = moving_rate_ / static_cast<double>(group_.size());
    bool const finite = pack_difference(at, 1);
    std::array<double, 1> const mine{static_cast<double>(samples_)};
    std::array<double, 1> all{};
    reduce(mine, all, "elastic: samples");
    for (auto& m : means_) m.gather(at.exec, group_, 1);
    buffers_.gather(at.exec, group_, 1);
    // No communication after this point: a rank applies all of an exchange or nothing.
    if (finite)
      at.exec.each(blend{alpha}, inout(model_), in(anchor_.parts));
    else
      at.exec.each(copy{}, out(model_), in(anchor_.parts));
    expect_finite_sum(outer_.step(at.exec, reduced_.parts, alpha, 1, false), at.inner.values(), "elastic",
                      "the centre stays");
    model_merged(at);
    for (auto& m : means_) m.apply(at.exec);
    buffers_.apply(at.exec);
    calls_ = samples_ = 0;
    return static_cast<i64>(all[0]);
  }

  /// Writes the centre to `values`, the mean of buffers to the buffers.
  void average_into(training_context& at, tensor_list const& values) override {
    buffers_.run(at.exec, group_, 1);
    at.exec.each(copy{}, out(values), in(anchor_.parts));
  }

  void visit(kept shared, piece_visitor f) override {
    f("pinned", shared, number_view(pinned_));
    f("samples", kept::round, number_view(samples_));
    visit_list(f, shared, "centre/", anchor_.parts);
  }
  void mix(fingerprint& h) const override { mix_all(h, plan_.hash, period(), moving_rate_, at_merge_); }

 private:
  double moving_rate_;
};

/// The stage at work, with a centre at a server.
class asynchronous_elastic_state final : public model_stage_base {
  struct request_header {
    server_request what = server_request::exchange;
    i64 updates = 0;  // since the worker's last exchange
    i64 samples = 0;  // in them
  };

 public:
  asynchronous_elastic_state(asynchronous_elastic_averaging const& stage, training_context& at)
      : model_stage_base(at, stage.period, stage.at_merge),
        moving_rate_(stage.moving_rate),
        server_(stage.server),
        centre_(make(at, plan_.where)),
        message_(at.exec, layout_of(model_)) {
    unifies = false;  // models still differ after an exchange
    bytes_ += message_.bytes();
  }

  void attach(training_context& at) override {
    group_ = at.comm;
    begin_ = at.now.samples;
    calls_ = 0;  // nobody's round is open, least of all that of a worker that is the server now
    workers_.start(group_, server_);
  }

  /// The centre is the server's model; if the server has died, that of its successor's last exchange.
  void interrupt(training_context& at) override {
    if (serving_) at.exec.each(copy{}, out(centre_.parts), in(model_));
    serving_ = trains_ = false;
    known_ = own_ = 0;
  }

  /// What was counted is still to be reported.
  void start_round(training_context&) override { calls_ = 0; }
  /// The centre starts at the model; a rank that becomes the server takes it over.
  void start_first_round(training_context& at) override {
    if (started_ == 0) {
      started_ = 1;
      at.exec.each(copy{}, out(centre_.parts), in(model_));
    } else if (workers_.serves()) {
      samples_ = 0;
      at.exec.each(copy{}, out(model_), in(centre_.parts));
      at.inner.copy_to_parameters(at.exec);
    }
  }

  void count(i64 own, double rate) override {
    model_stage_base::count(own, rate);
    own_ += own;
    trains_ = true;
  }

  /// @return the samples that all workers reported to the server since this worker's last exchange
  i64 run(training_context& at) override {
    bool const finite = at.exec.norm(weighted{1}, out(message_.parts()), in(model_)).total.finite;
    request_header const q{server_request::exchange, calls_, samples_};
    i64 const known = request(at, finite ? message_.pack(at.exec, q) : header_bytes(q));
    if (finite)
      at.exec.each(blend{alpha()}, inout(model_), in(message_.parts()));
    else
      at.exec.each(copy{}, out(model_), in(message_.parts()));
    // If the server dies, this is the centre to continue with.
    at.exec.each(copy{}, out(centre_.parts), in(message_.parts()));
    model_merged(at);
    calls_ = samples_ = 0;
    return known - std::exchange(known_, known);
  }

  /// Keeps the centre until all workers have left.
  void serve(training_context& at, before_update before, on_update after) override {
    std::vector<i64> updates_of(static_cast<std::size_t>(group_.size()));
    i64 const begin = at.now.steps;
    serving_ = true;
    workers_.serve([&](message const& m, bool leaves) {
      if (leaves) return;
      auto const q = tensor_message::header_of<request_header>(m.bytes);
      bool const reads = q.what == server_request::read;
      if (reads || m.bytes.size() == sizeof q) {
        at.exec.each(copy{}, out(message_.parts()), in(model_));
      } else {  // moves the centre towards the worker's model; message_ holds the centre as it was
        message_.unpack(at.exec, m.bytes);
        auto const& centre = at.exec.norm(pull_centre{alpha()}, inout(model_), inout(message_.parts()));
        if (!centre.total.finite)
          throw error({"sync", "asynchronous_elastic", 0, m.source,
                       std::string(at.inner.values()[static_cast<std::size_t>(centre.culprit)].name),
                       text("the centre overflows on its way to the model of rank ", m.source)});
        at.inner.copy_to_parameters(at.exec);
      }
      known_ += q.samples;
      workers_.reply(m.source, message_.pack(at.exec, known_));
      if (reads) return;
      before();
      i64& updates = updates_of[static_cast<std::size_t>(m.source)];
      updates += q.updates;
      // Steps are those of the worker that has made the most.
      outcome o{.calls = 1, .due = true, .samples = q.samples};
      o.steps = std::max(begin + updates - at.now.steps, i64{0});
      o.applied = o.steps > 0;
      after(o);
    });
  }

  /// Ends the round for all: every rank has the centre and progress afterwards.
  void close(training_context& at) override {
    workers_.finish();
    if (workers_.serves()) at.exec.each(copy{}, out(centre_.parts), in(model_));
    serving_ = false;
    progress now = at.now;
    at.exec.synchronize();
    operations_.broadcast(group_, plan_, centre_, bytes_view(now, "asynchronous_elastic: progress"), server_);
    // As at a handshake: progress is the server's, except calls. (A last exchange has not moved samples yet:
    // those that it returned are known to this rank.)
    i64 const unknown = now.samples - begin_ - known_;
    begin_ = now.samples;
    now.calls = at.now.calls;
    now.samples = at.now.samples + unknown;
    at.now = now;
    buffers_.run(at.exec, group_, static_cast<double>(own_));
    known_ = own_ = 0;
    trains_ = false;
  }

  /// Writes the centre to `values`. A worker that trains requests it from the server, one that does not yet
  /// shows that of its last exchange; nobody else need call it. Buffers stay the rank's own.
  void average_into(training_context& at, tensor_list const& values) override {
    if (workers_.serves()) return;  // its parameters are the centre
    if (!trains_) return at.exec.each(copy{}, out(values), in(centre_.parts));
    request(at, header_bytes(request_header{server_request::read}));
    at.exec.each(copy{}, out(values), in(message_.parts()));
  }

  void visit(kept shared, piece_visitor f) override {
    f("pinned", shared, number_view(started_));
    f("samples", kept::round, number_view(samples_));
    visit_list(f, shared, "centre/", centre_.parts);
  }
  void mix(fingerprint& h) const override {
    mix_all(h, plan_.hash, buffers_.hash(), period(), moving_rate_, server_, at_merge_);
  }

 private:
  [[nodiscard]] double alpha() const { return moving_rate_ / (group_.size() - 1); }

  // Asks the server for the centre, which message_ holds then. @return the samples of all workers since it
  // began to serve
  i64 request(training_context& at, std::span<std::byte const> bytes) {
    message const m = workers_.request(bytes);
    message_.unpack(at.exec, m.bytes);
    return tensor_message::header_of<i64>(m.bytes);
  }

  double moving_rate_;
  int server_;
  slab centre_;  // as of this rank's last exchange, the same on all after a finish; the server's model is
                 // newer
  tensor_message message_;
  bucket_operations operations_;
  i64 started_ = 0;      // the centre was set
  i64 own_ = 0;          // samples of this rank since the last finish
  i64 begin_ = 0;        // samples in progress then
  i64 known_ = 0;        // samples of all workers since then, as far as this rank knows
  bool trains_ = false;  // has made updates since then
  bool serving_ = false;
  active_workers workers_;
};

}  // namespace detail

LIMBER_FN limber::detail::owner<model_stage> elastic_averaging::start(training_context& at) const {
  (void)parts();  // checks the members
  return limber::detail::owner<model_stage>(new detail::elastic_averaging_state(*this, at));
}

LIMBER_FN exchange elastic_averaging::parts() const {
  expects(moving_rate >= 0 && moving_rate <= 1, "elastic: moving_rate must be in [0, 1], got ", moving_rate);
  return exchange(gradients(every{1}, alone{}), *this);
}

LIMBER_FN limber::detail::owner<model_stage> asynchronous_elastic_averaging::start(
    training_context& at) const {
  (void)parts();  // checks the members
  return limber::detail::owner<model_stage>(new detail::asynchronous_elastic_state(*this, at));
}

LIMBER_FN exchange asynchronous_elastic_averaging::parts() const {
  char const* const name = "asynchronous_elastic: ";
  expects(moving_rate >= 0 && moving_rate <= 1, name, "moving_rate must be in [0, 1], got ", moving_rate);
  expects(server >= 0, name, "server must be a rank, got ", server);
  expects(at_merge != moments::average, name,
          "at_merge must be keep or reset, got average: a worker meets the centre alone, and that has no "
          "gradient history");
  return exchange(gradients(every{1}, alone{}), *this);
}

}  // namespace limber::sync
