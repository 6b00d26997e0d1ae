// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Small generated files for the loaders, in a folder that goes away.

#include <unistd.h>
#include <zlib.h>

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace limber::test {

/// A fresh folder, removed with all its files at the end of the scope.
class temporary_folder {
 public:
  temporary_folder() {
    std::string name = (std::filesystem::temp_directory_path() / "limber-XXXXXX").string();
    if (mkdtemp(name.data()) == nullptr) throw std::runtime_error("no temporary folder at " + name);
    path_ = name;
  }
  temporary_folder(temporary_folder const&) = delete;
  temporary_folder& operator=(temporary_folder const&) = delete;
  ~temporary_folder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }

  [[nodiscard]] std::filesystem::path const& path() const { return path_; }

  std::filesystem::path write(std::string const& name, std::string_view bytes) const {
    std::ofstream(path_ / name, std::ios::binary) << bytes;
    return path_ / name;
  }

  std::filesystem::path write_gzip(std::string const& name, std::string_view bytes) const {
    auto const path = path_ / name;
    gzFile const file = gzopen(path.c_str(), "wb");
    gzwrite(file, bytes.data(), static_cast<unsigned>(bytes.size()));
    gzclose(file);
    return path;
  }

 private:
  std::filesystem::path path_;
};

/// The bytes of an IDX file with the given magic number, dimensions and content.
[[nodiscard]] inline std::string idx(std::uint32_t magic, std::vector<std::uint32_t> const& dimensions,
                                     std::string_view content) {
  std::string out;
  auto const word = [&](std::uint32_t w) {
    for (int shift = 24; shift >= 0; shift -= 8) out += static_cast<char>(w >> shift & 255u);
  };
  word(magic);
  for (auto const d : dimensions) word(d);
  return out.append(content);
}

/// `count` bytes that differ from one another.
[[nodiscard]] inline std::string pattern(std::size_t count, unsigned modulus = 256) {
  std::string out;
  for (std::size_t i = 0; i < count; ++i) out += static_cast<char>(i * 7 % modulus);
  return out;
}

/// A row of an optdigits file: counts that depend on `row`, then the class row mod 10.
[[nodiscard]] inline std::string csv_row(int row) {
  std::string out;
  for (int c = 0; c < 64; ++c) out += std::to_string((row + c) % 17) + ',';
  return out + std::to_string(row % 10) + '\n';
}

}  // namespace limber::test
