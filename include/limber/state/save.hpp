// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Writing checkpoints: each rank its file, all or nothing.

#include <limber/state/folder.hpp>
#include <limber/state/stamp.hpp>
#include <limber/state/tensor_file.hpp>

#include <cstddef>
#include <exception>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace limber::state {

/// Anything that shows its state: visit(f) calls f(piece) with piece.name, piece.how and piece.data.
template <class V>
concept visitable = requires(V& v) {
  v.visit([](auto const&) {});
};

struct save_options {
  /// Waits until all ranks have called it; needed where there are more than one. A deadline is its own.
  std::function<void()> barrier{};
  int keep = 2;        ///< checkpoints that stay, the new one included; at least 1
  copier copy{};       ///< how bytes leave the pieces; std::memcpy when empty
  disk_hook before{};  ///< for tests
};

/// A checkpoint that was written.
struct saved {
  std::filesystem::path path;
  std::vector<rejection> left;  ///< older ones that could not be removed, and why; on rank 0
};

namespace detail {

/// Copies of views to the pieces that `select` picks; the memory is that of what is visited.
template <visitable V, class Select>
[[nodiscard]] std::vector<state_piece> pieces_of(V& what, Select const& select) {
  std::vector<state_piece> out;
  what.visit([&](auto const& piece) {
    if (select(piece.how)) out.push_back({piece.name, piece.how, piece.data});
  });
  return out;
}
[[nodiscard]] constexpr bool is_alike(kept how) noexcept { return how == kept::alike; }
[[nodiscard]] constexpr bool is_own(kept how) noexcept { return how != kept::alike; }

/// One checkpoint while it is written, as one rank sees it.
class saving {
 public:
  saving(std::filesystem::path folder, stamp const& at, save_options const& o)
      : folder_(std::move(folder)), at_(at), options_(o), temporary_(unfinished_path(folder_, age())) {
    check(at);
    expects(o.keep >= 1, "save: at least 1 checkpoint must be kept, got ", o.keep);
    expects(!folder_.empty(), "save: the folder is an empty path");
  }

  /// Rank 0: makes the folder that all write into.
  void prepare() const {
    make_folders(folder_, options_.before);
    remove_unfinished(folder_, age(), options_.before);
    make_folder(temporary_, options_.before);
  }

  /// Writes a file of pieces. @return its seal
  [[nodiscard]] file_seal write(std::string_view name, std::string_view role,
                                std::vector<state_piece> pieces) const {
    file f = file::create((temporary_ / name).string(), options_.before);
    i64 size = 0;
    std::uint64_t const hash = write_tensors(std::move(pieces), metadata_of(at_, role), options_.copy,
                                             [&](i64 at, std::span<std::byte const> bytes) {
                                               f.write(at, bytes);
                                               size = std::max(size, at + static_cast<i64>(bytes.size()));
                                             });
    f.finish();
    return {size, hash};
  }
  /// Writes a file whose bytes are there already.
  void write(std::string_view name, std::span<std::byte const> image) const {
    file f = file::create((temporary_ / name).string(), options_.before);
    f.write(0, image);
    f.finish();
  }

  /// Rank 0: seals what all have written, and lets it appear.
  void publish(file_seal const& model, std::vector<rejection>& left) const {
    manifest m{at_.generation, at_.step, version_text(), model, {}};
    for (int r = 0; r < at_.world; ++r) {
      tensor_file const f = tensor_file::open((temporary_ / worker_name(r)).string());
      expect_stamp(f, {at_.generation, at_.step, r, at_.world}, "worker");
      m.workers.push_back({f.size(), f.header_hash()});
    }
    std::string const json = print(m);
    write(manifest_name, std::as_bytes(std::span(json)));
    sync_folder(temporary_, options_.before);
    detail::publish(temporary_, path(), options_.before);
    sync_folder(folder_, options_.before);
    // The new checkpoint stands, whatever happens to the rest.
    try {
      remove_unfinished(folder_, age(), options_.before);
      remove_old(folder_, age(), options_.keep, options_.before);
    } catch (error const& e) { left.push_back({folder_, e.what()}); }
  }
  [[nodiscard]] std::filesystem::path path() const { return folder_ / name_of(age()); }

  /// Other ranks: what they wrote is part of what has appeared.
  void expect_published(file_seal const& mine) const {
    try {
      manifest const m = read_manifest(path(), age());
      if (m.workers.at(static_cast<std::size_t>(at_.rank)) == mine) return;
    } catch (std::exception const&) {  // rank 0 knows why
    }
    throw error({"state",
                 "save",
                 0,
                 0,
                 {},
                 text(path().string(), ": rank 0 did not finish this checkpoint; it says why")});
  }

  /// Rank 0, after a failure: gives the disk's space back as far as that is possible.
  void give_up() const noexcept {
    std::error_code e;
    std::filesystem::remove_all(temporary_, e);
  }

 private:
  [[nodiscard]] instant age() const noexcept { return {at_.generation, at_.step}; }

  std::filesystem::path folder_;
  stamp at_;
  save_options const& options_;
  std::filesystem::path temporary_;
};

}  // namespace detail

/// The bytes of a worker's file: for rank 0 to write where others reach no disk (`save_gathered`).
template <visitable V>
[[nodiscard]] std::vector<std::byte> pack(V& what, stamp const& at, copier const& copy = {}) {
  detail::check(at);
  std::vector<std::byte> out;
  detail::write_tensors(detail::pieces_of(what, detail::is_own), detail::metadata_of(at, "worker"), copy,
                        [&](i64 place, std::span<std::byte const> bytes) {
                          auto const end = static_cast<std::size_t>(place) + bytes.size();
                          if (out.size() < end) out.resize(end);
                          std::copy(bytes.begin(), bytes.end(), out.begin() + place);
                        });
  return out;
}

}  // namespace limber::state

namespace limber {

/// Writes a checkpoint of whatever `what` shows to `folder`/<generation>-<step>/.
///
///     model.safetensors       pieces that are alike on all ranks, by rank 0
///     worker-<r>.safetensors  all others of rank r
///     manifest.json           sizes and hashes of these, last
///
/// Written into <generation>-<step>.partial, every file and the folder synced, then renamed, and the parent
/// synced: at any moment the folder holds the checkpoints it held before, or the new one too. Then all but
/// the `keep` newest go.
///
/// Collectives  every rank calls it, with the same folder (one that all reach), generation, step and world;
///              `options.barrier` is called three times by each, also by one that fails.
/// Cost         each byte is copied once and hashed, through 1 MB of memory.
/// Choices      state is saved as it stands: an open round is carried on by as many workers, and given up by
///              another number of them; finish() before closes it.
/// @throws std::invalid_argument for a stamp that cannot be, or pieces of one name
/// @throws limber::error on every rank if one of them failed, naming path, errno and reason; older
///         checkpoints are untouched then
template <state::visitable V>
state::saved save(V& what, std::filesystem::path const& folder, state::stamp const& at,
                  state::save_options const& options = {}) {
  state::detail::saving const s(folder, at, options);
  expects(at.world == 1 || options.barrier, "save: ", at.world, " workers need options.barrier");
  std::exception_ptr failed;
  auto attempt = [&](auto const& f) {
    if (!failed) try {
        f();
      } catch (...) { failed = std::current_exception(); }
  };
  auto meet = [&] {
    if (options.barrier) options.barrier();
  };
  state::saved out{s.path(), {}};
  state::file_seal model, mine;
  if (at.rank == 0) attempt([&] { s.prepare(); });
  meet();
  using namespace state::detail;
  attempt([&] { mine = s.write(state::worker_name(at.rank), "worker", pieces_of(what, is_own)); });
  if (at.rank == 0) attempt([&] { model = s.write(state::model_name, "model", pieces_of(what, is_alike)); });
  meet();
  if (at.rank == 0) {
    attempt([&] { s.publish(model, out.left); });
    if (failed) s.give_up();
  }
  meet();
  if (at.rank != 0) attempt([&] { s.expect_published(mine); });
  if (failed) std::rethrow_exception(failed);
  return out;
}

/// The same by one process alone: `what` is rank 0's, and `others` what ranks 1, 2, … have packed.
/// @throws as save; limber::error naming the rank whose bytes are not its own
template <state::visitable V>
state::saved save_gathered(V& what, std::filesystem::path const& folder, state::stamp const& at,
                           std::span<std::vector<std::byte> const> others,
                           state::save_options const& options = {}) {
  expects(at.rank == 0, "save_gathered: rank 0 writes, not rank ", at.rank);
  expects(static_cast<std::size_t>(at.world) == others.size() + 1, "save_gathered: ", others.size(),
          " packed workers and rank 0 do not make a world of ", at.world);
  state::detail::saving const s(folder, at, options);
  state::saved out{s.path(), {}};
  try {
    s.prepare();
    using namespace state::detail;
    (void)s.write(state::worker_name(0), "worker", pieces_of(what, is_own));
    for (std::size_t k = 0; k < others.size(); ++k)
      s.write(state::worker_name(static_cast<i64>(k) + 1), others[k]);
    s.publish(s.write(state::model_name, "model", pieces_of(what, is_alike)), out.left);
  } catch (...) {
    s.give_up();
    throw;
  }
  return out;
}

}  // namespace limber
