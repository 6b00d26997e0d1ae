// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Safetensors files: written from pieces of state, read tensor by tensor, and copies of one tensor combined.

#include <limber/core/dtype.hpp>
#include <limber/core/math.hpp>
#include <limber/core/state_piece.hpp>
#include <limber/state/content_hash.hpp>
#include <limber/state/file.hpp>
#include <limber/state/json.hpp>

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace limber::state {

static_assert(std::endian::native == std::endian::little, "safetensors files are little-endian");

/// Copies bytes synchronously. For pieces in device memory: cudaMemcpy with cudaMemcpyDefault, since some
/// pieces are in host memory there too; wait for work on other streams before.
using copier = std::function<void(void* to, void const* from, std::size_t bytes)>;

[[nodiscard]] constexpr std::string_view name_of(kept how) noexcept {
  constexpr std::array<std::string_view, 4> names{"replicated", "per_rank", "round", "partial"};
  return names[static_cast<std::size_t>(how)];
}

/// The name of a kind of state in the metadata of a file. Part of the file format, which keeps older names.
[[nodiscard]] constexpr std::string_view stored_name_of(kept how) noexcept {
  constexpr std::array<std::string_view, 4> names{"alike", "apart", "round", "dealt"};
  return names[static_cast<std::size_t>(how)];
}

/// Size and header hash of a file. The header holds a hash of every tensor, so both cover every byte.
struct file_digest {
  i64 bytes = 0;
  std::uint64_t header_hash = 0;

  friend bool operator==(file_digest const&, file_digest const&) = default;
};

namespace detail {

inline constexpr std::size_t chunk_bytes = std::size_t{1} << 20;

inline void copy_bytes(copier const& copy, void* to, void const* from, std::size_t n) {
  if (n == 0) return;
  if (copy)
    copy(to, from, n);
  else
    std::memcpy(to, from, n);
}

/// Calls f(place, chunk) for consecutive portions of so many bytes; `chunk` is memory to use, of zeros at
/// first.
template <class F>
void each_chunk(i64 bytes, F const& f) {
  std::vector<std::byte> chunk(std::min(chunk_bytes, static_cast<std::size_t>(bytes)));
  for (i64 at = 0; at < bytes; at += std::ssize(chunk)) {
    chunk.resize(std::min(chunk.size(), static_cast<std::size_t>(bytes - at)));
    f(at, std::span(chunk));
  }
}

// The metadata entry of a tensor: its kind, and the hash of its bytes.
[[nodiscard]] inline std::string piece_key(std::string_view name) { return "piece:" + std::string(name); }
[[nodiscard]] inline std::string piece_value(kept how, std::uint64_t hash) {
  return std::string(stored_name_of(how)) + " " + print_hash(hash);
}

/// Receives the bytes of a file.
using sink = std::function<void(i64 at, std::span<std::byte const>)>;

/// Writes pieces as one safetensors file, the data before the header.
///
/// Wider elements come first, so that every tensor is aligned; otherwise the order of pieces is kept.
/// @throws std::invalid_argument naming a piece that is named twice, or not in UTF-8
inline file_digest write_tensors(std::vector<state_piece> pieces, string_map metadata, copier const& copy,
                                 sink const& to) {
  std::ranges::stable_sort(pieces, std::greater{}, [](state_piece const& p) { return size_of(p.data.type); });
  file_header h{{}, std::move(metadata)};
  i64 end = 0;
  for (auto const& p : pieces) {
    expects(p.name != "__metadata__", "state: '__metadata__' is not a name for a piece of state");
    expects(p.data.length >= 0, "state: '", printable(p.name), "' has length ", p.data.length);
    h.tensors.push_back({p.name, p.data.type, {p.data.length}, end, end + p.data.bytes()});
    end = h.tensors.back().end;
    bool const added = h.metadata.emplace(piece_key(p.name), piece_value(p.how, 0)).second;
    expects(added, "state: two pieces are named '", printable(p.name), "'");
  }
  i64 at = 8 + static_cast<i64>(print_header(h).size());
  expects(at - 8 <= max_header_bytes, "state: names of ", pieces.size(), " pieces make a header of ", at - 8,
          " bytes, more than readers take");
  for (auto const& p : pieces) {
    content_hash hash;
    each_chunk(p.data.bytes(), [&](i64 from, std::span<std::byte> chunk) {
      copy_bytes(copy, chunk.data(), p.data.data + from, chunk.size());
      hash.update(chunk);
      to(at + from, chunk);
    });
    at += p.data.bytes();
    h.metadata[piece_key(p.name)] = piece_value(p.how, hash.value());
  }
  std::string const json = print_header(h);
  std::uint64_t const length = json.size();
  std::string const head = std::string(reinterpret_cast<char const*>(&length), sizeof length) + json;
  to(0, std::as_bytes(std::span(head)));
  return {at, hash_of(head)};
}

}  // namespace detail

/// A safetensors file, or its bytes in memory, with its header parsed and checked.
///
/// Memory   the header and its parsed form: at most a fixed multiple of the file's size.
/// Errors   limber::error naming the path and the tensor
class tensor_file {
 public:
  /// Opens a file.
  [[nodiscard]] static tensor_file open(std::string path) {
    auto f = std::make_shared<detail::file>(detail::file::open(std::move(path)));
    return {f->path(), f->size(), [f](i64 at, std::span<std::byte> to) { f->read(at, to); }};
  }
  /// Opens the bytes of a file. @param bytes must outlive this object
  [[nodiscard]] static tensor_file view(std::span<std::byte const> bytes, std::string name) {
    return {std::move(name), static_cast<i64>(bytes.size()), [bytes](i64 at, std::span<std::byte> to) {
              if (!to.empty()) std::memcpy(to.data(), bytes.data() + at, to.size());
            }};
  }

  tensor_file(tensor_file&&) = default;
  tensor_file& operator=(tensor_file&&) = default;

  [[nodiscard]] std::string const& path() const noexcept { return path_; }
  [[nodiscard]] i64 size() const noexcept { return size_; }
  [[nodiscard]] std::uint64_t header_hash() const noexcept { return header_hash_; }
  [[nodiscard]] std::vector<tensor_entry> const& tensors() const noexcept { return header_.tensors; }

  /// The tensor of that name, or nullptr.
  [[nodiscard]] tensor_entry const* find(std::string_view name) const {
    auto const at = place_.find(name);
    return at == place_.end() ? nullptr : &header_.tensors[at->second];
  }
  /// A string of the metadata, or nullptr.
  [[nodiscard]] std::string const* metadata(std::string const& key) const {
    auto const at = header_.metadata.find(key);
    return at == header_.metadata.end() ? nullptr : &at->second;
  }
  /// The kind of the tensor; empty in files of other programs.
  [[nodiscard]] std::optional<kept> how(tensor_entry const& t) const {
    if (std::string const* const s = metadata(detail::piece_key(t.name)))
      for (kept const k : {kept::replicated, kept::per_rank, kept::round, kept::partial})
        if (s->starts_with(std::string(stored_name_of(k)) + " ")) return k;
    return {};
  }

  /// Reads bytes [at, at + to.size()) of the tensor.
  void read(tensor_entry const& t, i64 at, std::span<std::byte> to) const { read_(data_ + t.begin + at, to); }

  /// Throws if the hash of the tensor differs from the saved one.
  void expect_hash(tensor_entry const& t, content_hash const& found) const {
    std::string const* const said = metadata(detail::piece_key(t.name));
    if (said == nullptr) return;
    auto const hash =
        said->size() > 16 ? read_hash(std::string_view(*said).substr(said->size() - 16)) : std::nullopt;
    if (!hash) detail::throw_corrupt(path_, t.name, text("has no hash, but '", printable(*said), "'"));
    if (*hash != found.value())
      detail::throw_corrupt(path_, t.name, "is not what was saved: its hash differs");
  }

  /// Reads the tensor through a buffer: calls f(place, bytes) for its portions, then compares the hash.
  template <class F>
  void each_portion(tensor_entry const& t, F const& f) const {
    content_hash hash;
    detail::each_chunk(t.bytes(), [&](i64 at, std::span<std::byte> chunk) {
      read(t, at, chunk);
      hash.update(chunk);
      f(at, std::span<std::byte const>(chunk));
    });
    expect_hash(t, hash);
  }
  /// Compares the tensor's bytes with its hash.
  void verify(tensor_entry const& t) const {
    each_portion(t, [](i64, std::span<std::byte const>) {});
  }
  void verify() const {
    for (auto const& t : tensors()) verify(t);
  }

 private:
  using reader = std::function<void(i64 at, std::span<std::byte> to)>;

  tensor_file(std::string path, i64 size, reader read)
      : path_(std::move(path)), size_(size), read_(std::move(read)) {
    if (size_ < 8)
      detail::throw_corrupt(path_, {}, text("has ", size_, " bytes, too few for a safetensors file"));
    std::array<std::byte, 8> length{};
    read_(0, length);
    auto const n = std::bit_cast<std::uint64_t>(length);
    if (n > static_cast<std::uint64_t>(max_header_bytes))
      detail::throw_corrupt(path_, {},
                            text("says its header has ", n, " bytes, more than ", max_header_bytes));
    if (static_cast<i64>(n) > size_ - 8)
      detail::throw_corrupt(path_, {}, text("says its header has ", n, " bytes, but ends after ", size_ - 8));
    data_ = 8 + static_cast<i64>(n);
    std::string head(static_cast<std::size_t>(data_), '\0');
    read_(0, std::as_writable_bytes(std::span(head)));
    header_hash_ = hash_of(head);
    header_ = detail::parse_header(std::string_view(head).substr(8), size_ - data_, path_);
    for (std::size_t k = 0; k < header_.tensors.size(); ++k) place_.emplace(header_.tensors[k].name, k);
  }

  std::string path_;
  i64 size_ = 0;
  reader read_;
  i64 data_ = 8;  // where the data begin
  std::uint64_t header_hash_ = 0;
  file_header header_;
  std::map<std::string_view, std::size_t, std::less<>> place_;
};

namespace detail {

/// Reads a tensor from several files in step: calls f(place, bytes) with consecutive portions of x, where
/// each element is
///
///     x = (Σ wᵣ xᵣ) / d
///
/// in double, in rank order, then rounded. Compares the hashes afterwards.
/// @pre every file has the tensor, with the same floating dtype and length
template <class F>
void each_sum(std::vector<tensor_file const*> const& files, std::string_view name,
              std::vector<double> const& weights, double divisor, F const& f) {
  tensor_entry const& first = *files.front()->find(name);
  std::vector<content_hash> hashes(files.size());
  auto const size = static_cast<std::size_t>(size_of(first.type));
  std::vector<double> sum;
  each_chunk(first.bytes(), [&](i64 at, std::span<std::byte> chunk) {
    sum.assign(chunk.size() / size, 0);
    with_type(first.type, [&]<class T>() {
      using number = std::conditional_t<sizeof(T) == 2, float, T>;
      for (std::size_t r = 0; r < files.size(); ++r) {
        files[r]->read(*files[r]->find(name), at, chunk);
        hashes[r].update(chunk);
        for (std::size_t k = 0; k < sum.size(); ++k) {
          T x;
          std::memcpy(&x, chunk.data() + k * size, size);
          sum[k] = math::fma(weights[r], static_cast<double>(static_cast<number>(x)), sum[k]);
        }
      }
      for (std::size_t k = 0; k < sum.size(); ++k) {
        T const x = T(static_cast<number>(math::div(sum[k], divisor)));
        std::memcpy(chunk.data() + k * size, &x, size);
      }
    });
    f(at, std::span<std::byte const>(chunk));
  });
  for (std::size_t r = 0; r < files.size(); ++r) files[r]->expect_hash(*files[r]->find(name), hashes[r]);
}

}  // namespace detail
}  // namespace limber::state
