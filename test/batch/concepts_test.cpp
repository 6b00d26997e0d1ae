// SPDX-License-Identifier: Apache-2.0
// labels: unit
#define BOOST_TEST_MODULE limber.batch.concepts
#include <limber/batch/policies.hpp>

#include <boost/test/unit_test.hpp>

using namespace limber;

namespace {

template <class... P>
inline constexpr bool policies = (batch_policy<P> && ...);

using grown = increase_instead_of_decay<fixed>;
static_assert(policies<fixed, per_worker, logical_shards, dbs, noise_scale, goodput, grown, any_policy>);
static_assert(replans<dbs> && replans<noise_scale> && replans<goodput> && replans<grown> &&
              replans<any_policy>);
static_assert(!replans<fixed> && !replans<per_worker> && !replans<logical_shards>);
static_assert(measures_progress<grown> && !measures_progress<dbs> && !measures_progress<fixed>);
static_assert(std::is_convertible_v<dbs, any_policy> && std::is_convertible_v<std::nullptr_t, any_policy> &&
              !std::is_convertible_v<int, any_policy>);
static_assert(std::is_nothrow_move_constructible_v<any_policy>);

}  // namespace

BOOST_AUTO_TEST_CASE(what_a_policy_is_was_checked_when_this_was_compiled) {}
