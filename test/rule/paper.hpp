// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Trajectories of a rule beside a formula that is typed in the test, in double.

#include <boost/test/unit_test.hpp>

#include <support/all_rules.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <functional>
#include <limits>
#include <stdexcept>
#include <string>
#include <tuple>
#include <vector>

namespace limber::testing {

using scalars = std::tuple<float, double>;
using vector = std::vector<double>;

inline constexpr i64 trajectory_length = 300;

/// Exact in float, of both signs, over two decades.
inline vector const start{1, -2, 0.5, 3, -0.25, 8, 0.125};

/// State of a formula at its beginning.
[[nodiscard]] inline vector zeros() { return vector(start.size(), 0.0); }

/// Gradients that depend on step and element; exact in float and never close to zero.
[[nodiscard]] inline vector gradient_at(i64 t, std::size_t n) {
  vector g(n);
  for (std::size_t i = 0; i < n; ++i) {
    double const x = std::sin(0.7 * static_cast<double>(t) + 1.3 * static_cast<double>(i));
    g[i] = static_cast<double>(static_cast<float>(x + (x < 0 ? -0.05 : 0.05)));
  }
  return g;
}

/// Rates that warm up, jump by 16 both ways, and then decay: never 0.
[[nodiscard]] inline double rate_at(i64 t) {
  auto const x = static_cast<double>(t);
  if (t <= 20) return x / 20;
  if (t > 80 && t <= 120) return 16;
  return 0.55 + 0.45 * std::cos(x / 40);
}

/// What a rule is compared with: changes p in place, keeps its state in its captures.
struct occasion {
  i64 t;
  double rate;
  double previous_rate;  ///< of the update before; at t = 1 the same as rate
};
using formula = std::function<void(occasion, vector g, vector& p)>;

template <class T>
[[nodiscard]] std::vector<T> as(vector const& x) {
  std::vector<T> y;
  for (double const v : x) y.push_back(static_cast<T>(v));
  return y;
}

/// The largest error of an element over the trajectory, in units of the last place (ε of T) of the
/// largest value that the element has had so far.
template <class T, update_rule R>
[[nodiscard]] double worst_error(R const& rule, double rate_scale, formula const& paper) {
  drive<R, T> run(rule, as<T>(start));
  vector q = start, size = start;
  double worst = 0;
  for (i64 t = 1; t <= trajectory_length; ++t) {
    vector const g = gradient_at(t, q.size());
    double const rate = rate_scale * rate_at(t);
    run.step(as<T>(g), rate);
    paper({t, rate, t == 1 ? rate : rate_scale * rate_at(t - 1)}, g, q);
    for (std::size_t i = 0; i < q.size(); ++i) {
      size[i] = std::max(std::abs(size[i]), std::abs(q[i]));
      double const error = std::abs(static_cast<double>(run.p()[i]) - q[i]) / size[i];
      worst = std::isfinite(error) ? std::max(worst, error) : error;
      if (!std::isfinite(worst)) return worst;
    }
  }
  return worst / double{std::numeric_limits<T>::epsilon()};
}

/// What rounding may add up to over a trajectory: in double 1e-12, in float 24 units of the last place
/// (a random walk of 300 half units, and room for the second rounding of decay and momentum).
template <class T>
inline constexpr double error_limit = 24;
template <>
inline constexpr double error_limit<double> = 1e-12 / std::numeric_limits<double>::epsilon();

/// Checks a rule against its formula.
///
/// `paper` makes the formula afresh, with its state at the beginning.
template <class T, update_rule R>
void check_follows(R const& rule, double rate_scale, std::function<formula()> const& paper) {
  double const error = worst_error<T>(rule, rate_scale, paper());
  BOOST_TEST(error <= error_limit<T>, name_of_rule(rule) << ": error of " << error << " ulp");
}

/// Checks that check() refuses the rule and says all of `parts`.
template <update_rule R>
void check_refused(R const& rule, std::vector<std::string> const& parts) {
  BOOST_CHECK_EXCEPTION(limber::check(rule), std::invalid_argument, [&](std::invalid_argument const& e) {
    std::string const message = e.what();
    for (auto const& part : parts)
      BOOST_TEST(message.find(part) != std::string::npos,
                 "'" << message << "' does not say '" << part << "'");
    return true;
  });
}

inline constexpr double not_a_number = std::numeric_limits<double>::quiet_NaN();
inline constexpr double infinity = std::numeric_limits<double>::infinity();

}  // namespace limber::testing
