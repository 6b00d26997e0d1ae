// SPDX-License-Identifier: Apache-2.0
// labels: contract sanitize memory
// optimize: 1
// timeout: 300
#define BOOST_TEST_MODULE limber.comm.threads_contract
#include <limber/comm/threads.hpp>

#include <boost/test/unit_test.hpp>

#include <support/threads_harness.hpp>

#include <tuple>
#include <utility>

using contract_harnesses = std::tuple<limber::test::threads_harness<limber::threads::communicator, 8>>;

#include <support/collective_contract.hpp>
