// SPDX-License-Identifier: Apache-2.0
// labels: unit
// needs: ZLIB
#define BOOST_TEST_MODULE limber.examples.digits
#include "../../examples/language_model/digits.hpp"

#include "core/says.hpp"
#include "files.hpp"

#include <boost/test/unit_test.hpp>

#include <filesystem>
#include <string>

using example::bad_input;
using limber::test::csv_row;
using limber::test::idx;
using limber::test::pattern;
using limber::test::says;
using limber::test::temporary_folder;

namespace {

constexpr std::uint32_t images = 0x0803, labels = 0x0801;

std::string rows(int first, int count) {
  std::string out;
  for (int r = first; r < first + count; ++r) out += csv_row(r);
  return out;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(idx_files)

BOOST_AUTO_TEST_CASE(plain_and_compressed_files_hold_the_same) {
  temporary_folder const folder;
  auto const bytes = idx(images, {5, 4, 3}, pattern(60));
  for (auto const& path : {folder.write("plain", bytes), folder.write_gzip("packed.gz", bytes)}) {
    auto const read = example::read_idx(path, 3);
    BOOST_TEST(read.dimensions == (std::vector<limber::i64>{5, 4, 3}), boost::test_tools::per_element());
    BOOST_TEST(std::string(read.bytes.begin(), read.bytes.end()) == pattern(60));
  }
}

BOOST_AUTO_TEST_CASE(a_missing_file_is_named) {
  BOOST_CHECK_EXCEPTION((void)example::read_idx("no-such-idx", 3), bad_input,
                        says("--data no-such-idx", "opened"));
}

BOOST_AUTO_TEST_CASE(a_wrong_magic_number_is_named_beside_the_right_one) {
  temporary_folder const folder;
  auto const path = folder.write("labels", idx(labels, {3}, "abc"));
  BOOST_CHECK_EXCEPTION((void)example::read_idx(path, 3), bad_input,
                        says("labels: magic number 2049, expected 2051"));
  auto const text = folder.write("text", "this is no IDX file");
  BOOST_CHECK_EXCEPTION((void)example::read_idx(text, 1), bad_input,
                        says("text: magic number", "expected 2049"));
}

BOOST_AUTO_TEST_CASE(a_file_that_ends_anywhere_is_an_error) {
  temporary_folder const folder;
  auto const whole = idx(images, {2, 3, 3}, pattern(18));
  for (std::size_t length = 0; length < whole.size(); ++length) {
    auto const cut = folder.write("cut", std::string_view(whole).substr(0, length));
    BOOST_CHECK_EXCEPTION((void)example::read_idx(cut, 3), bad_input, says("--data", "cut: "));
  }
  auto const cut = folder.write("cut", std::string_view(whole).substr(0, whole.size() - 1));
  BOOST_CHECK_EXCEPTION((void)example::read_idx(cut, 3), bad_input, says("announces 18 bytes but holds 17"));
  auto const header = folder.write("header", std::string_view(whole).substr(0, 7));
  BOOST_CHECK_EXCEPTION((void)example::read_idx(header, 3), bad_input, says("ends inside its header"));
}

BOOST_AUTO_TEST_CASE(a_file_that_goes_on_is_an_error) {
  temporary_folder const folder;
  auto const path = folder.write("more", idx(labels, {3}, "abcd"));
  BOOST_CHECK_EXCEPTION((void)example::read_idx(path, 1), bad_input, says("goes on after the 3 bytes"));
}

BOOST_AUTO_TEST_CASE(a_cut_off_gzip_stream_is_an_error) {
  temporary_folder const folder;
  auto const path = folder.write_gzip("cut.gz", idx(labels, {4000}, pattern(4000)));
  for (auto const keep : {std::filesystem::file_size(path) / 2, std::filesystem::file_size(path) - 4}) {
    auto const packed = example::read_file(path, "test");
    auto const cut = folder.write("shorter.gz", std::string_view(packed).substr(0, keep));
    BOOST_CHECK_EXCEPTION((void)example::read_idx(cut, 1), bad_input, says("shorter.gz", "cut off"));
  }
}

BOOST_AUTO_TEST_CASE(a_corrupt_gzip_stream_is_an_error) {
  temporary_folder const folder;
  auto const path = folder.write_gzip("good.gz", idx(labels, {4000}, pattern(4000)));
  auto packed = example::read_file(path, "test");
  packed[packed.size() - 6] ^= 0x55;  // inside the checksum
  auto const corrupt = folder.write("corrupt.gz", packed);
  BOOST_CHECK_EXCEPTION((void)example::read_idx(corrupt, 1), bad_input,
                        says("corrupt.gz", "stream is corrupt"));
}

BOOST_AUTO_TEST_CASE(dimensions_that_cannot_be_are_errors) {
  temporary_folder const folder;
  auto const empty = folder.write("empty", idx(images, {0, 8, 8}, ""));
  BOOST_CHECK_EXCEPTION((void)example::read_idx(empty, 3), bad_input, says("dimension 1 is 0"));
  auto const wide = folder.write("wide", idx(images, {1, 8, 5000}, ""));
  BOOST_CHECK_EXCEPTION((void)example::read_idx(wide, 3), bad_input, says("dimension 3 is 5000"));
  // The memory of 64 PiB is not asked for.
  auto const huge = folder.write("huge", idx(images, {0xffffffffu, 4096, 4096}, "abc"));
  BOOST_CHECK_EXCEPTION((void)example::read_idx(huge, 3), bad_input, says("holds 3"));
}

BOOST_AUTO_TEST_CASE(pixels_are_scaled_and_keep_their_labels) {
  temporary_folder const folder;
  auto const x = folder.write("x", idx(images, {3, 1, 2}, std::string("\x00\xff\x33\x66\x99\xcc", 6)));
  auto const y = folder.write("y", idx(labels, {3}, std::string("\x07\x00\x09", 3)));
  auto const d = example::load_idx(x, y);
  BOOST_TEST(d.features == 2);
  BOOST_TEST(d.size() == 3);
  BOOST_TEST(d.image(0)[1] == 1.f);
  BOOST_TEST(d.image(1)[0] == 0.2f);
  BOOST_TEST(int{d.target(0)} == 7);
  BOOST_TEST(int{d.target(2)} == 9);
}

BOOST_AUTO_TEST_CASE(as_many_labels_as_images_are_needed) {
  temporary_folder const folder;
  auto const x = folder.write("x", idx(images, {3, 1, 2}, pattern(6)));
  auto const y = folder.write("y", idx(labels, {2}, std::string("\x01\x02", 2)));
  BOOST_CHECK_EXCEPTION((void)example::load_idx(x, y), bad_input, says("y: 2 labels but 3 images in x"));
}

BOOST_AUTO_TEST_CASE(a_label_that_is_no_digit_is_named) {
  temporary_folder const folder;
  auto const x = folder.write("x", idx(images, {2, 1, 2}, pattern(4)));
  auto const y = folder.write("y", idx(labels, {2}, std::string("\x01\x0a", 2)));
  BOOST_CHECK_EXCEPTION((void)example::load_idx(x, y), bad_input,
                        says("y: label 10 of sample 2 is not a digit"));
}

BOOST_AUTO_TEST_SUITE_END()

BOOST_AUTO_TEST_SUITE(csv_files)

BOOST_AUTO_TEST_CASE(rows_become_samples_whatever_ends_the_lines) {
  temporary_folder const folder;
  auto text = rows(0, 12);
  std::string windows;
  for (char const c : text) windows += c == '\n' ? std::string("\r\n") : std::string(1, c);
  auto const open_end = text.substr(0, text.size() - 1);
  for (auto const& form : {text, windows, open_end, text + "\n"}) {
    auto const d = example::load_csv(folder.write("d.tra", form));
    BOOST_TEST(d.size() == 12);
    BOOST_TEST(d.features == 64);
    BOOST_TEST(d.image(5)[3] == 8.f / 16);
    BOOST_TEST(int{d.target(11)} == 1);
  }
}

BOOST_AUTO_TEST_CASE(a_short_or_long_row_is_named_with_its_line) {
  temporary_folder const folder;
  auto const shorter = folder.write("d.tra", rows(0, 2) + "1,2,3\n" + rows(0, 2));
  BOOST_CHECK_EXCEPTION((void)example::load_csv(shorter), bad_input, says("d.tra:3: 3 fields, expected 65"));
  auto const longer = folder.write("d.tra", rows(0, 1) + "0," + csv_row(1));
  BOOST_CHECK_EXCEPTION((void)example::load_csv(longer), bad_input, says("d.tra:2: 66 fields, expected 65"));
}

BOOST_AUTO_TEST_CASE(a_field_that_is_no_number_is_named_with_its_line) {
  temporary_folder const folder;
  for (std::string const field : {"x", "", "1.5", "3 ", "99999999999999999999"}) {
    auto const path = folder.write("d.tes", csv_row(0) + field + csv_row(17).substr(1));
    BOOST_CHECK_EXCEPTION((void)example::load_csv(path), bad_input,
                          says("d.tes:2: field 1 is '", field.c_str(), "not a number"));
  }
}

BOOST_AUTO_TEST_CASE(a_number_out_of_range_is_named_with_its_line) {
  temporary_folder const folder;
  auto const count = folder.write("d.tes", rows(0, 3) + "17" + csv_row(17).substr(1));
  BOOST_CHECK_EXCEPTION((void)example::load_csv(count), bad_input,
                        says("d.tes:4: field 1 is 17, must lie in 0..16"));
  auto row = csv_row(0);
  row.replace(row.size() - 2, 1, "10");
  BOOST_CHECK_EXCEPTION((void)example::load_csv(folder.write("d.tes", row)), bad_input,
                        says("d.tes:1: field 65 is 10, must lie in 0..9"));
  row.replace(row.size() - 3, 2, "-1");
  BOOST_CHECK_EXCEPTION((void)example::load_csv(folder.write("d.tes", row)), bad_input,
                        says("field 65 is -1"));
}

BOOST_AUTO_TEST_CASE(a_file_without_rows_is_named) {
  temporary_folder const folder;
  BOOST_CHECK_EXCEPTION((void)example::load_csv(folder.write("d.tra", "\n\n")), bad_input,
                        says("d.tra: holds no rows"));
}

BOOST_AUTO_TEST_SUITE_END()

BOOST_AUTO_TEST_SUITE(folders)

BOOST_AUTO_TEST_CASE(a_folder_must_exist_and_hold_digits) {
  BOOST_CHECK_EXCEPTION((void)example::load_digits("nowhere"), bad_input,
                        says("--data nowhere: no such folder"));
  temporary_folder const folder;
  BOOST_CHECK_EXCEPTION((void)example::load_digits(folder.path()), bad_input,
                        says(folder.path().c_str(), "*.tra", "train-images-idx3-ubyte"));
}

BOOST_AUTO_TEST_CASE(the_test_file_is_held_out) {
  temporary_folder const folder;
  folder.write("a.tra", rows(0, 30));
  folder.write("a.tes", rows(100, 7));
  auto const d = example::load_digits(folder.path());
  BOOST_TEST(d.train_size() == 30);
  BOOST_TEST(d.size() == 37);
  BOOST_TEST(int{d.target(36)} == 6);
  BOOST_TEST(d.image(30)[0] == 15.f / 16);
}

BOOST_AUTO_TEST_CASE(of_one_file_every_tenth_sample_is_held_out) {
  temporary_folder const folder;
  folder.write("a.tes", rows(0, 45));
  auto const d = example::load_digits(folder.path());
  BOOST_TEST(d.train_size() == 41);
  BOOST_TEST(d.size() == 45);
  for (limber::i64 i = 41; i < 45; ++i) BOOST_TEST(int{d.target(i)} == 9);
  for (limber::i64 i = 0; i < 41; ++i) BOOST_TEST(int{d.target(i)} != 9);
}

BOOST_AUTO_TEST_CASE(idx_pairs_are_found_by_their_names) {
  temporary_folder const folder;
  folder.write_gzip("t10k-images-idx3-ubyte.gz", idx(images, {5, 2, 2}, pattern(20)));
  folder.write("t10k-labels.idx1-ubyte", idx(labels, {5}, pattern(5, 10)));
  BOOST_CHECK_EXCEPTION((void)example::load_digits(folder.path()), bad_input,
                        says("holds 5 samples, needs at least 20"));
  folder.write("train-images-idx3-ubyte", idx(images, {25, 2, 2}, pattern(100)));
  BOOST_CHECK_EXCEPTION((void)example::load_digits(folder.path()), bad_input,
                        says("train-images without train-labels"));
  folder.write_gzip("train-labels-idx1-ubyte.gz", idx(labels, {25}, pattern(25, 10)));
  auto const d = example::load_digits(folder.path());
  BOOST_TEST(d.train_size() == 25);
  BOOST_TEST(d.size() == 30);
  BOOST_TEST(d.features == 4);
}

BOOST_AUTO_TEST_CASE(training_and_test_images_must_be_of_one_size) {
  temporary_folder const folder;
  folder.write("t10k-images-idx3-ubyte", idx(images, {5, 2, 3}, pattern(30)));
  folder.write("t10k-labels-idx1-ubyte", idx(labels, {5}, pattern(5, 10)));
  folder.write("train-images-idx3-ubyte", idx(images, {25, 2, 2}, pattern(100)));
  folder.write("train-labels-idx1-ubyte", idx(labels, {25}, pattern(25, 10)));
  BOOST_CHECK_EXCEPTION((void)example::load_digits(folder.path()), bad_input,
                        says("training images have 4 pixels but test images 6"));
}

BOOST_AUTO_TEST_CASE(two_training_files_are_one_too_many) {
  temporary_folder const folder;
  folder.write("a.tra", rows(0, 30));
  folder.write("b.tra", rows(0, 30));
  BOOST_CHECK_EXCEPTION((void)example::load_digits(folder.path()), bad_input, says("more than one *.tra"));
}

BOOST_AUTO_TEST_SUITE_END()
