// SPDX-License-Identifier: Apache-2.0
// labels: unit state memory
// needs: state
#define BOOST_TEST_MODULE limber.state.header
#include <limber/state/tensor_file.hpp>

#include <boost/test/unit_test.hpp>

#include <support/checks.hpp>

#include <cstring>
#include <locale>
#include <string>
#include <vector>

using namespace limber;
using namespace limber::state;
using namespace limber::testing;

namespace {

std::vector<std::byte> image(std::string const& json, std::size_t data_bytes, std::uint64_t said) {
  std::vector<std::byte> out(8 + json.size() + data_bytes);
  std::memcpy(out.data(), &said, 8);
  if (!json.empty()) std::memcpy(out.data() + 8, json.data(), json.size());
  return out;
}
// What is wrong with a file of this header, which says of itself how long it is.
std::string complaint(std::string const& json, std::size_t data_bytes) {
  auto const bytes = image(json, data_bytes, json.size());
  return message_of([&] { (void)tensor_file::view(bytes, "a file"); });
}
std::string entry(std::string const& dtype, std::string const& shape, std::string const& offsets) {
  return R"({"x":{"dtype":")" + dtype + R"(","shape":)" + shape + R"(,"data_offsets":)" + offsets + "}}";
}

struct wrong_header {
  std::string json;
  std::size_t data_bytes;
  std::string says;  // part of the message
};

}  // namespace

BOOST_AUTO_TEST_CASE(headers_that_others_write_are_read) {
  std::string const json =
      R"({"__metadata__":{"format":"pt"},"b":{"shape":[2,3],"dtype":"F16","data_offsets":[8,20]},)"
      R"("a \"\u00e9\"":{"data_offsets":[0,8],"dtype":"I64","shape":[]},"none":{"dtype":"U8","shape":[4,0],"data_offsets":[20,20]}}   )";
  auto const bytes = image(json, 20, json.size());
  auto const f = tensor_file::view(bytes, "a file");
  BOOST_REQUIRE(f.tensors().size() == 3u);
  BOOST_TEST(f.tensors()[0].name == "a \"\u00e9\"");
  BOOST_TEST(f.tensors()[0].length() == 1);
  BOOST_TEST(f.find("b")->length() == 6);
  BOOST_TEST((f.find("b")->type == dtype::f16));
  BOOST_TEST((f.find("b")->shape == std::vector<i64>{2, 3}));
  BOOST_TEST(f.find("none")->bytes() == 0);
  BOOST_TEST((f.find("c") == nullptr));
  BOOST_TEST(*f.metadata("format") == "pt");
  BOOST_TEST(!f.how(f.tensors()[0]).has_value());
  f.verify();  // there are no hashes to compare
  BOOST_TEST(complaint("{}", 0) == "");
}

BOOST_AUTO_TEST_CASE(what_is_wrong_is_named) {
  std::string const max = "9223372036854775807";
  for (
      wrong_header const& w : std::vector<wrong_header>{
          {"", 0, "does not begin with '{'"},
          {" {}", 0, "does not begin with '{'"},
          {"\xef\xbb\xbf{}", 0, "does not begin with '{'"},
          {"[]", 0, "does not begin with '{'"},
          {"{", 0, "not JSON, at byte"},
          {"{}x", 0, "not JSON, at byte"},
          {"{}{}", 0, "not JSON, at byte"},
          {std::string("{}\0garbage", 10), 0, "NUL"},
          {"{\"\xff\":1}", 0, "not JSON"},
          {R"({"x":null})", 0, "null"},
          {R"({"x":true})", 0, "boolean"},
          {R"({"x":1})", 0, "a number"},
          {R"({"x":"y"})", 0, "a string"},
          {R"({"x":[]})", 0, "an array"},
          {R"({"x":{}})", 0, "tensor 'x' lacks one of"},
          {R"({"x":{"dtype":"F32","shape":[1]}})", 4, "tensor 'x' lacks one of"},
          {R"({"x":{"dtype":"F32","data_offsets":[0,4]}})", 4, "tensor 'x' lacks one of"},
          {R"({"x":{"shape":[1],"data_offsets":[0,4]}})", 4, "tensor 'x' lacks one of"},
          {R"({"x":{"dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4]}})", 4,
           "tensor 'x' has its dtype twice"},
          {R"({"x":{"dtype":"F32","shape":[1],"shape":[1],"data_offsets":[0,4]}})", 4,
           "tensor 'x' has its shape twice"},
          {R"({"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4],"data_offsets":[0,4]}})", 4,
           "tensor 'x' has its data_offsets twice"},
          {R"({"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4],"more":1}})", 4, "field 'more'"},
          {entry("F31", "[1]", "[0,4]"), 4, "tensor 'x' has dtype 'F31'"},
          {entry("f32", "[1]", "[0,4]"), 4, "tensor 'x' has dtype 'f32'"},
          {R"({"x":{"dtype":7,"shape":[1],"data_offsets":[0,4]}})", 4, "a number"},
          {R"({"x":{"dtype":["F32"],"shape":[1],"data_offsets":[0,4]}})", 4, "an array"},
          {R"({"x":{"dtype":{},"shape":[1],"data_offsets":[0,4]}})", 4, "nesting"},
          {entry("F32", "1", "[0,4]"), 4, "a number"},
          {entry("F32", "\"1\"", "[0,4]"), 4, "a string"},
          {entry("F32", "[[1]]", "[0,4]"), 4, "an array"},
          {entry("F32", "[{}]", "[0,4]"), 4, "nesting"},
          {entry("F32", "[\"1\"]", "[0,4]"), 4, "a string"},
          {entry("F32", "[1.0]", "[0,4]"), 4, "the number 1.0"},
          {entry("F32", "[1e0]", "[0,4]"), 4, "the number 1e0"},
          {entry("F32", "[-1]", "[0,4]"), 4, "negative number -1"},
          {entry("F32", "[null]", "[0,4]"), 4, "null"},
          {entry("F32", "[1]", "[-0,4]"), 4, "negative number"},
          {entry("F32", "[1]", "[0,4,4]"), 4, "3 data_offsets"},
          {entry("F32", "[1]", "[4]"), 4, "1 data_offsets"},
          {entry("F32", "[1]", "[4,0]"), 4, "before it begins"},
          {entry("F32", "[2]", "[0,4]"), 4, "tensor 'x' has 8 bytes by shape and dtype, but 4"},
          {entry("F32", "[]", "[0,8]"), 8, "tensor 'x' has 4 bytes"},
          {entry("F32", "[0]", "[0,4]"), 4, "tensor 'x' has 0 bytes"},
          {entry("F64", "[1]", "[0,4]"), 4, "tensor 'x' has 8 bytes"},
          {entry("F32", "[1]", "[0,18446744073709551615]"), 4, "a number as large as"},
          {entry("F32", "[1]", "[0,18446744073709551616]"), 4, "the number 18446744073709551616"},
          {entry("F32", "[4611686018427387904,4]", "[0,0]"), 0, "more bytes than a file can hold"},
          {entry("F32", "[" + max + "]", "[0,4]"), 4, "more bytes than a file can hold"},
          {entry("U8", "[" + max + "]", "[0," + max + "]"), 4, "truncated"},
          {entry("F32", "[1]", "[0,4]"), 3, "tensor 'x' ends at 4 of 3"},
          {entry("F32", "[1]", "[0,4]"), 5, "1 bytes follow the last tensor"},
          {entry("F32", "[1]", "[4,8]"), 8, "tensor 'x' leaves a gap"},
          {"{}", 1, "1 bytes follow"},
          {R"({"x":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"y":{"dtype":"U8","shape":[4],"data_offsets":[2,6]}})",
           6, "tensor 'y' overlaps"},
          {R"({"x":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"y":{"dtype":"U8","shape":[4],"data_offsets":[6,10]}})",
           10, "tensor 'y' leaves a gap"},
          {R"({"x":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"x":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})",
           2, "tensor 'x' is there twice"},
          {R"({"__metadata__":{"a":"1","a":"2"}})", 0, "'a' twice"},
          {R"({"__metadata__":{},"__metadata__":{}})", 0, "twice"},
          {R"({"__metadata__":{"a":1}})", 0, "a number"},
          {R"({"__metadata__":{"a":{}}})", 0, "nesting"},
          {R"({"__metadata__":{"a":["1"]}})", 0, "an array"},
          {R"({"__metadata__":"a"})", 0, "a string"},
      }) {
    auto const message = complaint(w.json, w.data_bytes);
    BOOST_TEST(has(message, "a file", w.says), w.json << " -> " << message);
  }
}

// A million brackets are no deeper than the first that is refused.
BOOST_AUTO_TEST_CASE(deep_nesting_costs_nothing) {
  BOOST_TEST(complaint("{\"x\":" + std::string(1'000'000, '['), 0).find("an array") != std::string::npos);
  std::string objects;
  for (int k = 0; k < 100'000; ++k) objects += "{\"dtype\":";
  BOOST_TEST(complaint(objects, 0).find("nesting") != std::string::npos);
}

// Only then is memory asked for: the file is too short for what it says.
BOOST_AUTO_TEST_CASE(the_length_of_the_header_is_checked_before_it_is_believed) {
  auto const says = [](std::uint64_t n, std::string const& json) {
    auto const bytes = image(json, 0, n);
    return message_of([&] { (void)tensor_file::view(bytes, "a file"); });
  };
  BOOST_TEST(has(says(3, "{}"), "3 bytes, but ends after 2"));
  BOOST_TEST(has(says(1, "{}"), "not JSON"));
  BOOST_TEST(has(says(99'999'999, "{}"), "but ends after 2"));
  for (std::uint64_t const n :
       {std::uint64_t{100'000'001}, std::uint64_t{1} << 63, ~std::uint64_t{0}, ~std::uint64_t{7}})
    BOOST_TEST(has(says(n, "{}"), "more than 100000000"));
  for (std::size_t n = 0; n < 8; ++n) {
    std::vector<std::byte> const bytes(n);
    BOOST_TEST(has(message_of([&] { (void)tensor_file::view(bytes, "a file"); }), "too few"));
  }
}

// Names come from whoever wrote the file: a terminal must not obey them, a log not drown in them.
BOOST_AUTO_TEST_CASE(names_are_shown_without_harm) {
  auto const message = complaint(
      R"({"\u001b[2J)" + std::string(5000, 'n') + R"(":{"dtype":"F31","shape":[],"data_offsets":[0,0]}})", 0);
  BOOST_TEST(message.find('\x1b') == message.npos);
  BOOST_TEST(has(message, "\\x1b[2J", "..."));
  BOOST_TEST(message.size() < 600u);
}

BOOST_AUTO_TEST_CASE(errors_carry_the_tensor_for_programs) {
  auto const bytes = image(entry("F31", "[1]", "[0,4]"), 4, entry("F31", "[1]", "[0,4]").size());
  try {
    (void)tensor_file::view(bytes, "a file");
    BOOST_FAIL("nothing was thrown");
  } catch (error const& e) {
    BOOST_TEST(e.where().engine == "state");
    BOOST_TEST(e.where().bucket == "x");
  }
}

// A locale that groups digits must not reach the file.
BOOST_AUTO_TEST_CASE(what_is_printed_is_read_back_whatever_the_locale) {
  struct grouping : std::numpunct<char> {
    char do_thousands_sep() const override { return '.'; }
    std::string do_grouping() const override { return "\3"; }
  };
  file_header h;
  h.metadata = {{"a \"b\"\n\\", "\xc3\xa9"}, {"", ""}};
  h.tensors = {{"x\ty", dtype::bf16, {1234567, 2}, 0, 4938268}, {"", dtype::f64, {}, 4938268, 4938276}};
  auto const before = std::locale::global(std::locale(std::locale::classic(), new grouping));
  std::string const json = state::detail::print_header(h);
  std::locale::global(before);
  BOOST_TEST(json.size() % 8 == 0u);
  auto const back = state::detail::parse_header(json, 4938276, "a file");
  BOOST_TEST((back.metadata == h.metadata));
  BOOST_REQUIRE(back.tensors.size() == 2u);
  BOOST_TEST(back.tensors[0].name == "x\ty");
  BOOST_TEST((back.tensors[0].shape == std::vector<i64>{1234567, 2}));
  BOOST_TEST(back.tensors[1].end == 4938276);
}
