// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Workers with state of every kind and dtype, and folders for their checkpoints.

#include <limber/core/random.hpp>
#include <limber/core/state_piece.hpp>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <vector>

namespace limber::testing {

namespace fs = std::filesystem;

/// A folder that is removed by the destructor.
struct scratch {
  fs::path path;

  scratch() {
    std::string name = (fs::temp_directory_path() / "limber-state-XXXXXX").string();
    if (::mkdtemp(name.data()) == nullptr) throw std::runtime_error("no temporary folder: " + name);
    path = name;
  }
  scratch(scratch const&) = delete;
  ~scratch() {
    std::error_code e;
    fs::remove_all(path, e);
  }
};

[[nodiscard]] inline std::string read_text(fs::path const& p) {
  std::ifstream in(p, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}
inline void write_text(fs::path const& p, std::string const& s) {
  std::ofstream(p, std::ios::binary).write(s.data(), static_cast<std::streamsize>(s.size()));
}

struct fake_piece {
  std::string name;
  kept how = kept::replicated;
  dtype type = dtype::f32;
  std::vector<std::byte> bytes{};

  [[nodiscard]] i64 length() const { return static_cast<i64>(bytes.size()) / size_of(type); }
  [[nodiscard]] double at(i64 k) const {
    double out = 0;
    with_type(type, [&]<class T>() {
      T x;
      std::memcpy(&x, bytes.data() + static_cast<std::size_t>(k) * sizeof x, sizeof x);
      if constexpr (sizeof(T) == 2)
        out = static_cast<double>(static_cast<float>(x));
      else
        out = static_cast<double>(x);
    });
    return out;
  }
  void put(i64 k, double value) {
    with_type(type, [&]<class T>() {
      T x;
      if constexpr (sizeof(T) == 2)
        x = T(static_cast<float>(value));
      else
        x = static_cast<T>(value);
      std::memcpy(bytes.data() + static_cast<std::size_t>(k) * sizeof x, &x, sizeof x);
    });
  }
};

struct fake_worker {
  std::vector<fake_piece> pieces;

  template <class F>
  void visit(F const& f) {
    for (auto& p : pieces) f(state_piece{p.name, p.how, {p.bytes.data(), p.length(), p.type, {}}});
  }
  void add(std::string name, kept how, dtype type, i64 length) {
    pieces.push_back({std::move(name), how, type, {}});
    pieces.back().bytes.resize(static_cast<std::size_t>(length * size_of(type)));
  }
  [[nodiscard]] fake_piece& operator[](std::string const& name) {
    for (auto& p : pieces)
      if (p.name == name) return p;
    throw std::runtime_error("no piece " + name);
  }
  /// Small numbers that all dtypes hold exactly; replicated pieces do not depend on the rank.
  void fill(std::uint64_t seed, int rank) {
    std::uint64_t stream = 0;
    for (auto& p : pieces) {
      ++stream;
      for (i64 k = 0; k < p.length(); ++k) {
        auto const who = p.how == kept::replicated ? 0u : static_cast<std::uint64_t>(rank + 1);
        auto const bits = random_bits(seed, stream * 64 + who, static_cast<std::uint64_t>(k));
        p.put(k, static_cast<double>(bits % 120) - (is_floating(p.type) ? 60.0 : 0.0));
      }
    }
  }
  void clear() {
    for (auto& p : pieces) std::fill(p.bytes.begin(), p.bytes.end(), std::byte{0xaa});
  }
  [[nodiscard]] bool operator==(fake_worker const& other) const {
    for (std::size_t k = 0; k < pieces.size(); ++k)
      if (pieces[k].bytes != other.pieces[k].bytes) return false;
    return pieces.size() == other.pieces.size();
  }
};

/// Pieces of every kind and dtype; lengths 0, 1 and odd. (No partial sums of integers, which cannot be
/// divided.)
[[nodiscard]] inline fake_worker every_kind(std::uint64_t seed, int rank) {
  fake_worker w;
  for (kept const how : {kept::replicated, kept::per_rank, kept::round, kept::partial})
    for (dtype const t : {dtype::f32, dtype::f64, dtype::bf16, dtype::f16, dtype::int64, dtype::uint8}) {
      if (how == kept::partial && !is_floating(t)) continue;
      std::string const name = text(static_cast<int>(how), "/", limber::name_of(t));
      w.add(name, how, t, 1 + static_cast<i64>(random_bits(7, 1, w.pieces.size()) % 40));
      w.add(name + "/none", how, t, 0);
    }
  w.fill(seed, rank);
  return w;
}

/// A small worker: counters, a model, and per_rank momentum.
[[nodiscard]] inline fake_worker small_worker(std::uint64_t seed, int rank, i64 length = 50) {
  fake_worker w;
  w.add("progress", kept::replicated, dtype::uint8, 24);
  w.add("parameter/w", kept::replicated, dtype::f32, length);
  w.add("seen", kept::per_rank, dtype::int64, 2);
  w.add("momentum/w", kept::per_rank, dtype::f32, length);
  w.fill(seed, rank);
  return w;
}

}  // namespace limber::testing
