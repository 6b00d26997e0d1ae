// SPDX-License-Identifier: Apache-2.0
// labels: unit memory
#define BOOST_TEST_MODULE limber.core.error
#include <limber/core/error.hpp>

#include <boost/test/unit_test.hpp>

#include <string>
#include <type_traits>

using namespace limber;

BOOST_AUTO_TEST_CASE(misuse_throws_a_message_of_all_its_parts) {
  BOOST_CHECK_NO_THROW(expects(true, "never said"));
  auto const exactly = [](std::string text) {
    return [text](std::exception const& e) { return text == e.what(); };
  };
  BOOST_CHECK_EXCEPTION(expects(false, "sgd: momentum must lie in [0, 1), got ", 1.5), std::invalid_argument,
                        exactly("limber: sgd: momentum must lie in [0, 1), got 1.5"));
  BOOST_CHECK_EXCEPTION(expects(false, "batch ", 3, " is smaller than ", i64{4}, " workers"),
                        std::invalid_argument, exactly("limber: batch 3 is smaller than 4 workers"));
  BOOST_CHECK_EXCEPTION(expects(false), std::invalid_argument, exactly("limber: "));
}

BOOST_AUTO_TEST_CASE(values_in_messages_keep_twelve_digits) {
  BOOST_TEST(text(0.123456789012345) == "0.123456789012");
  BOOST_TEST(text(i64{9'007'199'254'740'993}) == "9007199254740993");
  BOOST_TEST(text(1e-30, ' ', true, ' ', -7) == "1e-30 1 -7");
}

BOOST_AUTO_TEST_CASE(a_text_may_have_any_number_of_parts) {
  BOOST_TEST(text().empty());
  BOOST_TEST(text(1, 2, 3, 4, 5, 6, 7, 8, 9, "a", "b", "c", "d", "e", "f") == "123456789abcdef");
  BOOST_TEST(text(1, 2, 3, 4, 5, 6, 7, 8, 9, "a", "b", "c", "d", "e", "f", 0) == "123456789abcdef0");
  BOOST_TEST(text(1, 2, 3, 4, 5, 6, 7, 8, 9, "a", "b", "c", "d", "e", "f", 0, std::string("g"), 'h', 1.5) ==
             "123456789abcdef0gh1.5");
}

BOOST_AUTO_TEST_CASE(an_engine_error_says_everything_it_knows) {
  error const e({.engine = "mpi",
                 .call = "all_reduce",
                 .code = 15,
                 .rank = 3,
                 .bucket = "bucket 2",
                 .reason = "rank 3 did not arrive within 30 s"});
  BOOST_TEST(e.what() == std::string("limber: mpi: all_reduce: rank 3 did not arrive within 30 s"
                                     " [code 15] [rank 3] [bucket 2]"));
  BOOST_TEST(e.where().engine == "mpi");
  BOOST_TEST(e.where().call == "all_reduce");
  BOOST_TEST(e.where().code == 15);
  BOOST_TEST(e.where().rank == 3);
  BOOST_TEST(e.where().bucket == "bucket 2");
  BOOST_TEST(e.where().reason == "rank 3 did not arrive within 30 s");
}

BOOST_AUTO_TEST_CASE(an_engine_error_leaves_out_what_does_not_apply) {
  error const e({.engine = "threads", .call = "barrier", .reason = "closed"});
  BOOST_TEST(e.what() == std::string("limber: threads: barrier: closed"));
  BOOST_TEST(e.where().rank == -1);
  error const first({.engine = "threads", .call = "barrier", .rank = 0, .reason = "closed"});
  BOOST_TEST(first.what() == std::string("limber: threads: barrier: closed [rank 0]"));
}

BOOST_AUTO_TEST_CASE(misuse_and_engine_failures_can_be_told_apart) {
  static_assert(std::is_base_of_v<std::runtime_error, error>);
  static_assert(!std::is_base_of_v<std::invalid_argument, error>);
  try {
    throw error({.engine = "self", .call = "send", .reason = "no peer"});
  } catch (std::runtime_error const& e) {
    BOOST_TEST(std::string(e.what()).find("no peer") != std::string::npos);
  }
}
