// SPDX-License-Identifier: Apache-2.0
// labels: unit sanitize
#define BOOST_TEST_MODULE limber.papers.pool
#include "../../bench/papers/pool.hpp"

#include "core/says.hpp"

#include <boost/test/unit_test.hpp>

#include <numeric>
#include <stdexcept>
#include <vector>

using limber::papers::each_on_all_cores;
using limber::test::says;

BOOST_AUTO_TEST_CASE(every_job_is_done_once_whatever_the_number_of_threads) {
  for (std::size_t const threads : {1u, 2u, 7u}) {
    std::vector<int> done(100, 0);
    std::vector<std::size_t> told;
    each_on_all_cores(
        done.size(), [&](std::size_t i) { ++done[i]; }, [&](std::size_t n) { told.push_back(n); }, threads);
    BOOST_TEST(done == std::vector<int>(100, 1), boost::test_tools::per_element());
    std::vector<std::size_t> counted(100);
    std::iota(counted.begin(), counted.end(), 1);
    BOOST_TEST(told == counted, boost::test_tools::per_element());
  }
}

BOOST_AUTO_TEST_CASE(nothing_to_do_is_no_error) {
  each_on_all_cores(0, [](std::size_t) { BOOST_FAIL("there is no job"); });
}

BOOST_AUTO_TEST_CASE(the_exception_of_a_job_is_thrown_again) {
  for (std::size_t const threads : {1u, 3u})
    BOOST_CHECK_EXCEPTION(each_on_all_cores(
                              50,
                              [](std::size_t i) {
                                if (i == 20) throw std::runtime_error("job 20 failed");
                              },
                              {}, threads),
                          std::runtime_error, says("job 20 failed"));
}
