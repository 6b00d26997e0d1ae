// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Writes checkpoints atomically, one file per rank; of several objects with state as of one.

#include <limber/core/state_piece.hpp>
#include <limber/state/folder.hpp>
#include <limber/state/manifest.hpp>
#include <limber/state/tensor_file.hpp>

#include <cstddef>
#include <exception>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

namespace limber::state {

/// A named trivially copyable value in host memory: the state of a sampler or random generator.
template <class T>
  requires std::is_trivially_copyable_v<T>
struct block {
  std::string name;
  T& value;
  kept how = kept::replicated;

  template <class F>
  void visit(F const& f) {
    f(block_piece(name, value, how));
  }
};
template <class T>
block(char const*, T&, kept = kept::replicated) -> block<T>;

/// Visits the pieces of all parts, in their order.
///
///     sampler_state position = data.state();
///     state::composite_state all{opt, state::block{"sampler", position}};
///     save(all, folder, {.step = opt.now().calls});
template <class... V>
struct composite_state {
  std::tuple<V...> of;  ///< references to lvalues, copies of rvalues

  explicit composite_state(V&&... each) : of(std::forward<V>(each)...) {}

  template <class F>
  void visit(F const& f) {
    std::apply([&](auto&... each) { (each.visit(f), ...); }, of);
  }
};
template <class... V>
composite_state(V&&...) -> composite_state<V...>;

/// A type whose visit(f) calls f(piece) for each piece of its state, with piece.name, piece.how and
/// piece.data.
template <class V>
concept visitable = requires(V& v) {
  v.visit([](auto const&) {});
};

struct save_options {
  /// Waits until all ranks have called it; required for more than one rank. It implements its own deadline.
  std::function<void()> barrier{};
  int keep = 2;        ///< checkpoints to keep, including the new one; at least 1
  copier copy{};       ///< copies bytes from the pieces; std::memcpy when empty
  disk_hook before{};  ///< for tests
};

/// The result of a save.
struct saved {
  std::filesystem::path path;
  std::vector<rejection> left;  ///< older checkpoints that could not be removed, and why; on rank 0
};

namespace detail {

/// Views of the replicated pieces, or of all others; their memory belongs to `what`.
template <visitable V>
[[nodiscard]] std::vector<state_piece> pieces_of(V& what, bool replicated) {
  std::vector<state_piece> out;
  what.visit([&](auto const& piece) {
    if ((piece.how == kept::replicated) == replicated) out.push_back({piece.name, piece.how, piece.data});
  });
  return out;
}

/// One rank's part in writing a checkpoint.
class saving {
 public:
  saving(std::filesystem::path folder, checkpoint_id const& at, save_options const& o)
      : folder_(std::move(folder)), at_(at), options_(o), temporary_(unfinished_path(folder_, age())) {
    check(at);
    expects(o.keep >= 1, "save: at least 1 checkpoint must be kept, got ", o.keep);
    expects(!folder_.empty(), "save: the folder is an empty path");
  }

  /// Rank 0: creates the folder into which all ranks write.
  void prepare() const {
    make_folders(folder_, options_.before);
    remove_unfinished(folder_, age(), options_.before);
    make_folder(temporary_, options_.before);
  }

  /// Writes a file of pieces. @return its digest
  [[nodiscard]] file_digest write(std::string_view name, std::string_view role,
                                  std::vector<state_piece> pieces) const {
    file f = file::create((temporary_ / name).string(), options_.before);
    file_digest const out =
        write_tensors(std::move(pieces), metadata_of(at_, role), options_.copy,
                      [&](i64 at, std::span<std::byte const> bytes) { f.write(at, bytes); });
    f.finish();
    return out;
  }
  /// Writes a file from its bytes.
  void write(std::string_view name, std::span<std::byte const> image) const {
    file f = file::create((temporary_ / name).string(), options_.before);
    f.write(0, image);
    f.finish();
  }

  /// Rank 0: writes the manifest of all files, and publishes the folder.
  void publish(file_digest const& model, std::vector<rejection>& left) const {
    manifest m{at_.generation, at_.step, version_text(), model, {}};
    for (int r = 0; r < at_.world; ++r) {
      tensor_file const f = tensor_file::open((temporary_ / worker_name(r)).string());
      expect_id(f, {at_.generation, at_.step, r, at_.world}, "worker");
      m.workers.push_back({f.size(), f.header_hash()});
    }
    std::string const json = print(m);
    write(manifest_name, std::as_bytes(std::span(json)));
    sync_folder(temporary_, options_.before);
    detail::publish(temporary_, path(), options_.before);
    sync_folder(folder_, options_.before);
    // The new checkpoint is complete, even if the clean-up fails.
    try {
      remove_unfinished(folder_, age(), options_.before);
      remove_old(folder_, age(), options_.keep, options_.before);
    } catch (error const& e) { left.push_back({folder_, e.what()}); }
  }
  [[nodiscard]] std::filesystem::path path() const { return folder_ / name_of(age()); }

  /// Other ranks: checks that their file is part of the published checkpoint.
  void expect_published(file_digest const& mine) const {
    try {
      manifest const m = read_manifest(path(), age());
      if (m.workers.at(static_cast<std::size_t>(at_.rank)) == mine) return;
    } catch (std::exception const&) {  // rank 0 has the reason
    }
    std::string reason = text(path().string(), ": rank 0 did not finish this checkpoint; see its error");
    throw error({"state", "save", 0, 0, {}, std::move(reason)});
  }

  /// Rank 0, after a failure: removes the temporary folder, if possible.
  void discard() const noexcept {
    std::error_code e;
    std::filesystem::remove_all(temporary_, e);
  }

 private:
  [[nodiscard]] instant age() const noexcept { return {at_.generation, at_.step}; }

  std::filesystem::path folder_;
  checkpoint_id at_;
  save_options const& options_;
  std::filesystem::path temporary_;
};

/// One rank's `save`. @param others  the files of ranks 1, 2, … that rank 0 writes, too
template <visitable V>
saved save_rank(V& what, std::filesystem::path const& folder, checkpoint_id const& at,
                save_options const& options, std::span<std::vector<std::byte> const> others) {
  saving const s(folder, at, options);
  expects(at.world == 1 + std::ssize(others) || options.barrier, "save: ", at.world,
          " workers need options.barrier");
  std::exception_ptr failed;
  auto attempt = [&](auto const& f) {
    if (!failed) try {
        f();
      } catch (...) { failed = std::current_exception(); }
  };
  auto barrier = [&] {
    if (options.barrier) options.barrier();
  };
  saved out{s.path(), {}};
  file_digest model, mine;
  if (at.rank == 0) attempt([&] { s.prepare(); });
  barrier();
  attempt([&] { mine = s.write(worker_name(at.rank), "worker", pieces_of(what, false)); });
  for (std::size_t k = 0; k < others.size(); ++k)
    attempt([&] { s.write(worker_name(static_cast<i64>(k) + 1), others[k]); });
  if (at.rank == 0) attempt([&] { model = s.write(model_name, "model", pieces_of(what, true)); });
  barrier();
  if (at.rank == 0) {
    attempt([&] { s.publish(model, out.left); });
    if (failed) s.discard();
  }
  barrier();
  if (at.rank != 0) attempt([&] { s.expect_published(mine); });
  if (failed) std::rethrow_exception(failed);
  return out;
}

}  // namespace detail

/// The bytes of a worker's file, for rank 0 to write where other ranks have no disk (`save_gathered`).
template <visitable V>
[[nodiscard]] std::vector<std::byte> pack(V& what, checkpoint_id const& at, copier const& copy = {}) {
  detail::check(at);
  std::vector<std::byte> out;
  detail::write_tensors(detail::pieces_of(what, false), detail::metadata_of(at, "worker"), copy,
                        [&](i64 place, std::span<std::byte const> bytes) {
                          auto const end = static_cast<std::size_t>(place) + bytes.size();
                          if (out.size() < end) out.resize(end);
                          std::copy(bytes.begin(), bytes.end(), out.begin() + place);
                        });
  return out;
}

}  // namespace limber::state

namespace limber {

/// Writes all state of `what` to `folder`/<generation>-<step>/.
///
///     model.safetensors       replicated pieces, by rank 0
///     worker-<r>.safetensors  all other pieces of rank r
///     manifest.json           sizes and hashes of these files, written last
///
/// The files are written into <generation>-<step>.partial, every file and the folder synced, then the folder
/// is renamed, and its parent synced: at any moment `folder` holds the previous checkpoints, or the new one
/// as well. Then all but the `keep` newest ones are removed.
///
/// Collectives  every rank calls it, with the same folder (one that all can reach), generation, step and
///              world; each calls `options.barrier` three times, also after a failure.
/// Cost         each byte is copied once and hashed, through 1 MB of memory.
/// Choices      state is saved as it is: an unfinished round is continued by the same number of workers, and
///              discarded by another number; finish() before the save completes it.
/// @throws std::invalid_argument for an invalid checkpoint_id, or two pieces of one name
/// @throws limber::error on every rank if one of them failed, naming path, errno and reason; older
///         checkpoints are unchanged then
template <state::visitable V>
state::saved save(V& what, std::filesystem::path const& folder, state::checkpoint_id const& at,
                  state::save_options const& options = {}) {
  return state::detail::save_rank(what, folder, at, options, {});
}

/// The same from one process: `what` is the state of rank 0, and `others` holds the output of `pack` on ranks
/// 1, 2, …
/// @throws as save; limber::error naming the rank whose bytes belong to another rank
template <state::visitable V>
state::saved save_gathered(V& what, std::filesystem::path const& folder, state::checkpoint_id const& at,
                           std::span<std::vector<std::byte> const> others,
                           state::save_options const& options = {}) {
  expects(at.rank == 0, "save_gathered: rank 0 writes, not rank ", at.rank);
  expects(static_cast<std::size_t>(at.world) == others.size() + 1, "save_gathered: ", others.size(),
          " packed workers and rank 0 do not make a world of ", at.world);
  state::save_options alone = options;
  alone.barrier = nullptr;
  return state::detail::save_rank(what, folder, at, alone, others);
}

}  // namespace limber
