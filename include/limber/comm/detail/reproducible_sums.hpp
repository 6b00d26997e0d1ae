// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The operations in flight of a `reproducible`, and their progress, in the order that it promises: a MAX is
/// always the last operation in flight.

#include <limber/comm/collective.hpp>
#include <limber/comm/detail/process_group.hpp>
#include <limber/comm/detail/reproducible_codec.hpp>
#include <limber/core/error.hpp>
#include <limber/core/fingerprint.hpp>
#include <limber/core/math.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <exception>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace limber::detail {

/// Adds the values of all ranks in an order that depends only on the values, small ones first, so that
/// permuted ranks and added zeros do not change the result. Sorts `x`. Zero is +0.
[[nodiscard]] inline double ordered_sum(std::span<double> x) {
  double special = 0;
  for (double const v : x)
    if (!math::finite(v)) special += v;
  if (special != special) return std::numeric_limits<double>::quiet_NaN();
  std::ranges::sort(x, [](double a, double b) {
    double const p = std::fabs(a), q = std::fabs(b);
    return p < q || (p == q && a < b);
  });
  double sum = 0;
  for (double const v : x) sum += v;
  return sum;
}

template <class C, class Codec>
class reproducible_sums final : public process_group {
  using engine = std::remove_reference_t<C>;
  using reduction_handle =
      decltype(std::declval<engine&>().all_reduce(const_tensor_view{}, tensor_view{}, reduction::max));
  using scatter_handle = decltype(std::declval<engine&>().reduce_scatter(const_tensor_view{}, tensor_view{}));
  using gather_handle = decltype(std::declval<engine&>().all_gather(const_tensor_view{}, tensor_view{}));

 public:
  enum class phase : std::uint8_t { idle, exponents, integers, gathering, passing, failed };

  /// One operation in flight; its memory is reused.
  struct sum {
    i64 number = 0;
    phase at = phase::idle;
    bool scatters = false;  ///< a reduce_scatter: the result is this rank's piece
    std::optional<reduction_handle> reduced{};
    std::optional<scatter_handle> scattered{};
    std::optional<gather_handle> gathered{};
    const_tensor_view in{};
    tensor_view out{};
    std::vector<piece> pieces{};
    float mark = 0;
    typename Codec::template buffer<float> own_exponents{}, exponents{};
    typename Codec::template buffer<i64> fixed{}, total{};
    typename Codec::template buffer<double> gathered_values{};
    std::vector<double> values{}, column{}, result{};
    std::exception_ptr error{};
  };

  reproducible_sums(C inner, int guard, Codec codec)
      : process_group("reproducible"),
        inner_(std::forward<C>(inner)),
        guard_(guard),
        codec_(std::move(codec)) {}

  [[nodiscard]] int size() const noexcept override { return inner_.size(); }

  [[nodiscard]] engine& inner() noexcept { return inner_; }
  [[nodiscard]] engine const& inner() const noexcept { return inner_; }
  [[nodiscard]] Codec const& codec() const noexcept { return codec_; }

  /// Starts the pending SUM, so that the engine can start its next operation.
  void advance() {
    if (awaiting_exponents_) start_integer_sum(*awaiting_exponents_);
  }
  /// advance() if that does not block. True if no SUM is pending.
  bool try_advance() {
    if (awaiting_exponents_ && awaiting_exponents_->reduced->done()) start_integer_sum(*awaiting_exponents_);
    return !awaiting_exponents_;
  }

  /// Starts a sum of the pieces by blocks; for a reduce_scatter the pieces are the parts of the ranks. The
  /// MAX is in flight afterwards.
  sum& start_sum(const_tensor_view in, tensor_view out, std::span<piece const> pieces, bool scatters) {
    return begin(in, out, scatters, [&](sum& s) {
      s.pieces.assign(pieces.begin(), pieces.end());
      for (int r = 0; scatters && r < inner().size(); ++r) s.pieces.push_back({r * out.length, out.length});
      // Two words in front detect ranks whose sums differ but have the same number of blocks: the maxima of h
      // and −h are h and −h only if all h are equal.
      i64 const words = marks + blocks_of(s.pieces);
      float* const mine = codec_.reserve(s.own_exponents, words);
      float* const all = codec_.reserve(s.exponents, words);
      s.mark = mark_of(s);
      codec_.put_marks(mine, s.mark);
      codec_.scan(in, s.pieces, mine + marks);
      codec_.settle();
      s.reduced.emplace(inner().all_reduce({bytes(mine), words, dtype::f32, name_of(s)},
                                           {bytes(all), words, dtype::f32, name_of(s)}, reduction::max));
      s.at = phase::exponents;
      awaiting_exponents_ = &s;
    });
  }

  /// A short sum of doubles, by gathering all values.
  sum& gather(const_tensor_view in, tensor_view out, bool scatters) {
    return begin(in, out, scatters, [&](sum& s) {
      i64 const all = in.length * inner().size();
      s.values.resize(static_cast<std::size_t>(all));
      double* const to = codec_.reserve(s.gathered_values, all);
      codec_.settle();
      s.gathered.emplace(inner().all_gather(in, {bytes(to), all, dtype::f64, name_of(s)}));
      s.at = phase::gathering;
    });
  }

  /// An operation that the engine does reproducibly.
  sum& pass(const_tensor_view in, tensor_view out, reduction how, bool scatters) {
    return begin(in, out, scatters, [&](sum& s) {
      if (scatters)
        s.scattered.emplace(inner().reduce_scatter(in, out));
      else
        s.reduced.emplace(inner().all_reduce(in, out, how));
      s.at = phase::passing;
    });
  }

  void finish(group_call& c) override {
    sum& s = at(c);
    if (&s == awaiting_exponents_) start_integer_sum(s);
    if (s.at == phase::failed) std::rethrow_exception(s.error);
    try {
      complete(s);
    } catch (...) {
      fail(s);
      throw;
    }
    release(s);
  }
  [[nodiscard]] bool done(group_call& c) override {
    sum& s = at(c);
    if (s.at == phase::failed) return true;
    if (&s == awaiting_exponents_ && (!try_advance() || s.at == phase::failed)) return s.at == phase::failed;
    if (s.reduced) return s.reduced->done();
    return s.scattered ? s.scattered->done() : s.gathered->done();
  }
  /// The engine's request, if there is one, ends the group.
  void drop(group_call& c, bool) noexcept override { release(at(c)); }

 private:
  static constexpr i64 marks = 2;

  [[nodiscard]] sum& at(group_call const& c) noexcept { return sums_[static_cast<std::size_t>(c.sequence)]; }
  /// Releases `s`, finished or not.
  void release(sum& s) noexcept {
    if (&s == awaiting_exponents_) awaiting_exponents_ = nullptr;
    drop_handles(s);
    s.error = nullptr;
    s.at = phase::idle;
  }

  template <class T>
  [[nodiscard]] static std::byte* bytes(T* p) noexcept {
    return reinterpret_cast<std::byte*>(p);
  }
  [[nodiscard]] static std::string_view name_of(sum const& s) noexcept {
    return s.in.name.empty() ? s.out.name : s.in.name;
  }

  /// Starts an operation of the engine, by start(sum&); it is released if that throws.
  template <class F>
  sum& begin(const_tensor_view in, tensor_view out, bool scatters, F const& start) {
    advance();
    auto const free = std::ranges::find(sums_, phase::idle, &sum::at);
    i64 const number = free - sums_.begin();
    sum& s = free == sums_.end() ? sums_.emplace_back() : *free;
    s.number = number;
    s.in = in;
    s.out = out;
    s.scatters = scatters;
    try {
      start(s);
    } catch (...) {
      release(s);
      throw;
    }
    return s;
  }
  static void drop_handles(sum& s) noexcept {
    s.reduced.reset();
    s.scattered.reset();
    s.gathered.reset();
  }
  static void fail(sum& s) noexcept {
    drop_handles(s);
    s.error = std::current_exception();
    s.at = phase::failed;
  }
  // 24 bits, which a float represents exactly.
  [[nodiscard]] float mark_of(sum const& s) const {
    fingerprint h;
    h.mix(static_cast<i64>(s.in.type));
    h.mix(i64{s.scatters});
    h.mix(i64{guard_});
    for (auto const& p : s.pieces) {
      h.mix(p.offset);
      h.mix(p.length);
    }
    return static_cast<float>(h.value() % (1u << 24));
  }

  // Waits for the MAX and starts the SUM. Errors are thrown by finish().
  void start_integer_sum(sum& s) {
    awaiting_exponents_ = nullptr;
    try {
      s.reduced->wait();
      s.reduced.reset();
      float const* const exponents = s.exponents.data();
      if (codec_.marks(exponents) != std::pair(s.mark, -s.mark))
        throw error({"reproducible", s.scatters ? "reduce_scatter" : "all_reduce", 0, -1,
                     std::string(name_of(s)),
                     text("the ranks differ in type, length, places of the tensors or most_ranks; rank ",
                          inner().rank(), " has ", s.pieces.size(), " tensors of ", elements_of(s.pieces),
                          " ", limber::name_of(s.in.type), " in all and ", guard_,
                          " guard bits (checked<C> would name the rank)")});
      i64 const all = elements_of(s.pieces), mine = s.scatters ? s.out.length : all;
      i64* const fixed = codec_.reserve(s.fixed, all);
      i64* const total = codec_.reserve(s.total, mine);
      codec_.encode(s.in, s.pieces, exponents + marks, guard_, fixed);
      codec_.settle();
      const_tensor_view const from{bytes(fixed), all, dtype::int64, name_of(s)};
      tensor_view const to{bytes(total), mine, dtype::int64, name_of(s)};
      if (s.scatters)
        s.scattered.emplace(inner().reduce_scatter(from, to));
      else
        s.reduced.emplace(inner().all_reduce(from, to, reduction::sum));
      s.at = phase::integers;
    } catch (...) { fail(s); }
  }

  void complete(sum& s) {
    if (s.reduced) s.reduced->wait();
    if (s.scattered) s.scattered->wait();
    if (s.gathered) s.gathered->wait();
    if (s.at == phase::integers) {
      std::span<piece const> pieces = s.pieces;
      float const* exponents = s.exponents.data() + marks;
      piece const whole{0, s.out.length};
      if (s.scatters) {
        exponents += inner().rank() * blocks_of({&whole, 1});
        pieces = {&whole, 1};
      }
      codec_.decode(s.total.data(), pieces, exponents, guard_, s.out);
      codec_.settle();
    }
    if (s.at == phase::gathering) add(s);
  }

  void add(sum& s) {
    auto const ranks = static_cast<std::size_t>(inner().size()), n = static_cast<std::size_t>(s.in.length);
    std::size_t const first = s.scatters ? static_cast<std::size_t>(inner().rank() * s.out.length) : 0;
    codec_.read(s.gathered_values.data(), s.values);
    s.column.resize(ranks);
    s.result.resize(static_cast<std::size_t>(s.out.length));
    for (std::size_t i = 0; i < s.result.size(); ++i) {
      for (std::size_t r = 0; r < ranks; ++r) s.column[r] = s.values[r * n + first + i];
      s.result[i] = ordered_sum(s.column);
    }
    codec_.write(s.result, reinterpret_cast<double*>(s.out.data));
  }

  C inner_;
  int guard_;
  Codec codec_;
  std::deque<sum> sums_;
  sum* awaiting_exponents_ = nullptr;  // the sum whose SUM is not started
};

}  // namespace limber::detail
