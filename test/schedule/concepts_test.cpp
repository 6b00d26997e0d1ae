// SPDX-License-Identifier: Apache-2.0
// labels: unit
#define BOOST_TEST_MODULE limber.schedule.concepts
#include <limber/schedule/schedules.hpp>

#include <boost/test/unit_test.hpp>

using namespace limber;

namespace {

template <class... S>
inline constexpr bool on_devices = (device_schedule<S> && ...);

static_assert(on_devices<constant, warmup, cosine, cosine_restarts, polynomial, one_cycle, exponential,
                         inverse_sqrt, step_decay, multi_step, linear_scaling, sqrt_scaling, legw, adascale>);
static_assert(on_devices<clamp<constant>, lasting<constant>, product<constant, constant>, base_clock<cosine>,
                         switched<constant, constant>, sequence<lasting<constant>, constant>>);
static_assert(finite_schedule<warmup> && finite_schedule<cosine> && finite_schedule<polynomial> &&
              finite_schedule<one_cycle> && finite_schedule<lasting<constant>>);
static_assert(!finite_schedule<constant> && !finite_schedule<any_schedule>);
static_assert(schedule<any_schedule> && !device_schedule<any_schedule>);
static_assert(!schedule<double> && !schedule<progress> && !schedule<double (*)(i64)>);
static_assert(schedule<double (*)(progress const&)>);
static_assert(std::is_convertible_v<double, any_schedule> && std::is_convertible_v<int, any_schedule> &&
              std::is_convertible_v<cosine, any_schedule> && !std::is_convertible_v<amount, any_schedule>);
static_assert(std::is_nothrow_move_constructible_v<any_schedule>);

}  // namespace

BOOST_AUTO_TEST_CASE(what_a_schedule_is_was_checked_when_this_was_compiled) {}
