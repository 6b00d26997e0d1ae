// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// Collectives and requests of any type, for code that is compiled once: a handle, and an owner.

#include <limber/comm/collective.hpp>
#include <limber/core/config.hpp>
#include <limber/core/piece.hpp>
#include <limber/core/tensor.hpp>

#include <concepts>
#include <cstddef>
#include <new>
#include <optional>
#include <span>
#include <string>
#include <type_traits>
#include <utility>

namespace limber {

/// A request of any engine. Move-only; an empty one counts as completed.
///
/// Memory   holds the engine's request inline, in `room` bytes; never allocates.
/// Errors   as the engine's request, also when it is destroyed before it was waited for.
class any_request {
 public:
  static constexpr std::size_t room = 112;  ///< the largest of this library (MPI, NCCL) have 96 bytes

  any_request() noexcept = default;
  template <class Q>
    requires(!std::same_as<Q, any_request> && request<Q>)
  explicit any_request(Q q) noexcept {
    static_assert(sizeof(Q) <= room && alignof(Q) <= alignof(void*),
                  "limber: the request of this collective does not fit into an any_request: 112 bytes "
                  "(any_request::room) with the alignment of a pointer");
    static_assert(std::is_nothrow_move_constructible_v<Q>,
                  "limber: the move constructor of this collective's request must be noexcept");
    if constexpr (!std::same_as<Q, completed>) {
      ::new (static_cast<void*>(memory_)) Q(std::move(q));
      functions_ = &functions_of<Q>;
    }
  }
  any_request(any_request&& other) noexcept { take(other); }
  any_request& operator=(any_request&& other) noexcept {
    if (this != &other) {
      drop();
      take(other);
    }
    return *this;
  }
  ~any_request() { drop(); }

  /// @throws what the engine's request throws
  void wait() {
    if (functions_ != nullptr) functions_->wait(memory_);
  }
  [[nodiscard]] bool done() { return functions_ == nullptr || functions_->done(memory_); }

 private:
  struct functions {
    void (*wait)(void*);
    bool (*done)(void*);
    void (*relocate)(void* to, void* from) noexcept;  ///< moves, and destroys what is left
    void (*destroy)(void*) noexcept;
  };
  template <class Q>
  static constexpr functions functions_of{[](void* q) { static_cast<Q*>(q)->wait(); },
                                          [](void* q) -> bool { return static_cast<Q*>(q)->done(); },
                                          [](void* to, void* from) noexcept {
                                            ::new (to) Q(std::move(*static_cast<Q*>(from)));
                                            static_cast<Q*>(from)->~Q();
                                          },
                                          [](void* q) noexcept { static_cast<Q*>(q)->~Q(); }};

  void take(any_request& other) noexcept {
    functions_ = std::exchange(other.functions_, nullptr);
    if (functions_ != nullptr) functions_->relocate(memory_, other.memory_);
  }
  void drop() noexcept {
    if (functions_ != nullptr) std::exchange(functions_, nullptr)->destroy(memory_);
  }

  functions const* functions_ = nullptr;
  alignas(void*) std::byte memory_[room];
};

/// What a collective can do beyond the concept `collective`: a set of the bits below.
using capabilities = unsigned;
inline constexpr capabilities can_send_receive = 1;     ///< point_to_point
inline constexpr capabilities can_post = 2;             ///< mailbox
inline constexpr capabilities can_split = 4;            ///< splittable
inline constexpr capabilities can_shrink = 8;           ///< shrinkable
inline constexpr capabilities can_revoke = 16;          ///< revocable
inline constexpr capabilities sums_tensor_pieces = 32;  ///< sums_pieces

/// What the type C models. `communicator` and `any_communicator` model everything: ask their can().
template <class C>
inline constexpr capabilities capabilities_of = (point_to_point<C> ? can_send_receive : 0) |
                                                (mailbox<C> ? can_post : 0) |
                                                (splittable<C> ? can_split : 0) |
                                                (shrinkable<C> ? can_shrink : 0) |
                                                (revocable<C> ? can_revoke : 0) |
                                                (sums_pieces<C> ? sums_tensor_pieces : 0);

/// For messages: "a mailbox (post, poll, listen) and splittable groups (split)"; "nothing" for 0.
///
///     if (capabilities const missing = needed & ~comm.can())
///       expects(false, "sync::gossip needs ", describe(missing), ", which this collective lacks");
[[nodiscard]] std::string describe(capabilities what);

class any_communicator;

namespace detail {

/// What a communicator knows of the collective's type: one such object a type. What the type lacks is not
/// called.
struct communicator_functions {
  capabilities models;
  capabilities (*can)(void const*);  ///< null where the type alone decides
  int (*rank)(void const*);
  int (*size)(void const*);
  any_request (*all_reduce)(void*, const_tensor_view, tensor_view, reduction);
  any_request (*all_reduce_pieces)(void*, const_tensor_view, tensor_view, std::span<piece const>);
  any_request (*reduce_scatter)(void*, const_tensor_view, tensor_view);
  any_request (*all_gather)(void*, const_tensor_view, tensor_view);
  any_request (*broadcast)(void*, tensor_view, int);
  void (*barrier)(void*);
  void (*send)(void*, const_tensor_view, int);
  void (*recv)(void*, tensor_view, int);
  void (*post)(void*, int, i64, std::span<std::byte const>);
  std::optional<message> (*poll)(void*, i64);
  void (*listen)(void*);
  void (*revoke)(void*, std::string const&);
  any_communicator (*split)(void*, int);
  any_communicator (*shrink)(void*, std::span<int const>);
};

template <class C>
[[nodiscard]] constexpr communicator_functions functions_of_collective() noexcept;
template <class C>
inline constexpr communicator_functions communicator_functions_of = functions_of_collective<C>();

}  // namespace detail

/// Refers to a collective of any type: two pointers. Copying copies the handle; the collective must
/// outlive it.
///
///     threads::communicator comm = …;
///     communicator handle(comm);
///     handle.all_reduce(in, out).wait();
///
/// Models   every concept of collective.hpp; can() says what the collective itself can do.
/// Cost     one indirect call an operation, and one each for wait, done and the destruction of its request.
/// Memory   allocates only what split and shrink return.
/// Errors   as the collective's. std::invalid_argument from what it cannot do, naming operation and
///          capability, and from an empty handle.
class communicator {
 public:
  /// An empty handle.
  communicator() noexcept = default;
  template <class C>
    requires(!std::same_as<std::remove_const_t<C>, communicator> &&
             !std::same_as<std::remove_const_t<C>, any_communicator> && collective<C>)
  explicit communicator(C& c) noexcept
      : object_(const_cast<void*>(static_cast<void const*>(&c))),
        functions_(&detail::communicator_functions_of<C>) {}
  /// Refers to the collective inside; stays valid when `c` moves, but not when it is assigned to.
  explicit communicator(any_communicator& c) noexcept;

  /// False of an empty handle.
  [[nodiscard]] explicit operator bool() const noexcept { return functions_ != nullptr; }
  /// The collective that it refers to; null of an empty handle.
  [[nodiscard]] void const* object() const noexcept { return object_; }
  /// What operations may be called beyond those of `collective`; 0 of an empty handle. Where the collective
  /// has a can() itself, as wrappers of a communicator may, that decides too.
  [[nodiscard]] capabilities can() const;

  [[nodiscard]] int rank() const { return functions("rank").rank(object_); }
  [[nodiscard]] int size() const { return functions("size").size(object_); }

  [[nodiscard]] any_request all_reduce(const_tensor_view in, tensor_view out,
                                       reduction how = reduction::sum) const {
    return functions("all_reduce").all_reduce(object_, in, out, how);
  }
  /// The plain sum where the collective does not model sums_pieces.
  [[nodiscard]] any_request all_reduce(const_tensor_view in, tensor_view out,
                                       std::span<piece const> pieces) const {
    return functions("all_reduce").all_reduce_pieces(object_, in, out, pieces);
  }
  [[nodiscard]] any_request reduce_scatter(const_tensor_view in, tensor_view out) const {
    return functions("reduce_scatter").reduce_scatter(object_, in, out);
  }
  [[nodiscard]] any_request all_gather(const_tensor_view in, tensor_view out) const {
    return functions("all_gather").all_gather(object_, in, out);
  }
  [[nodiscard]] any_request broadcast(tensor_view data, int root) const {
    return functions("broadcast").broadcast(object_, data, root);
  }
  void barrier() const { functions("barrier").barrier(object_); }

  void send(const_tensor_view in, int peer) const {
    functions("send", can_send_receive).send(object_, in, peer);
  }
  void recv(tensor_view out, int peer) const { functions("recv", can_send_receive).recv(object_, out, peer); }

  void post(int peer, i64 tag, std::span<std::byte const> bytes) const {
    functions("post", can_post).post(object_, peer, tag, bytes);
  }
  [[nodiscard]] std::optional<message> poll(i64 tag) const {
    return functions("poll", can_post).poll(object_, tag);
  }
  void listen() const { functions("listen", can_post).listen(object_); }

  void revoke(std::string const& reason) const { functions("revoke", can_revoke).revoke(object_, reason); }
  [[nodiscard]] any_communicator split(int color) const;
  [[nodiscard]] any_communicator shrink(std::span<int const> lost) const;

 private:
  [[nodiscard]] detail::communicator_functions const& functions(char const* call,
                                                                capabilities needed = 0) const;

  void* object_ = nullptr;
  detail::communicator_functions const* functions_ = nullptr;
};

/// Owns a collective of any type. Move-only; has all operations of `communicator`.
///
///     any_communicator comm(gloo_engine::communicator(rank, size, store));
///     comm = comm.shrink(lost);
///
/// Memory   the collective is moved or copied to the heap once and keeps its address when its owner
///          moves: handles stay valid. Assignment destroys the collective that was there before.
/// Errors   as `communicator`; one that was moved from is empty.
class any_communicator : private communicator {
 public:
  /// Moves from an rvalue, copies an lvalue of a copyable type. Of a `communicator` the handle is copied.
  template <class C>
    requires(!std::same_as<std::remove_cvref_t<C>, any_communicator> && collective<std::remove_cvref_t<C>> &&
             std::constructible_from<std::remove_cvref_t<C>, C>)
  explicit any_communicator(C&& c)
      : any_communicator(std::in_place, new std::remove_cvref_t<C>(std::forward<C>(c))) {}
  any_communicator(any_communicator&& other) noexcept
      : communicator(std::exchange(static_cast<communicator&>(other), communicator())),
        owned_(std::exchange(other.owned_, nullptr)),
        destroy_(other.destroy_) {}
  any_communicator& operator=(any_communicator&& other) noexcept;
  ~any_communicator() {
    if (owned_ != nullptr) destroy_(owned_);
  }

  /// Refers to the collective inside, not to this owner.
  [[nodiscard]] communicator handle() const noexcept { return *this; }

  using communicator::operator bool;
  using communicator::all_gather, communicator::all_reduce, communicator::barrier, communicator::broadcast,
      communicator::reduce_scatter;
  using communicator::can, communicator::rank, communicator::size;
  using communicator::send, communicator::recv, communicator::post, communicator::poll, communicator::listen;
  using communicator::split, communicator::shrink, communicator::revoke;

 private:
  template <class C>
  any_communicator(std::in_place_t, C* c) noexcept
      : communicator(*c), owned_(c), destroy_([](void* p) noexcept { delete static_cast<C*>(p); }) {}

  void* owned_;
  void (*destroy_)(void*) noexcept;
};

namespace detail {

template <class C>
concept has_own_capabilities = requires(C const& c) {
  { c.can() } -> std::same_as<capabilities>;
};

template <class C>
[[nodiscard]] C& collective_at(void* c) noexcept {
  return *static_cast<C*>(c);
}

template <class C>
constexpr communicator_functions functions_of_collective() noexcept {
  communicator_functions t{};
  t.models = capabilities_of<C>;
  if constexpr (has_own_capabilities<C>)
    t.can = [](void const* c) { return capabilities_of<C> & static_cast<C const*>(c)->can(); };
  t.rank = [](void const* c) -> int { return static_cast<C const*>(c)->rank(); };
  t.size = [](void const* c) -> int { return static_cast<C const*>(c)->size(); };
  t.all_reduce = [](void* c, const_tensor_view in, tensor_view out, reduction how) {
    return any_request(collective_at<C>(c).all_reduce(in, out, how));
  };
  t.all_reduce_pieces = [](void* c, const_tensor_view in, tensor_view out,
                           [[maybe_unused]] std::span<piece const> pieces) {
    if constexpr (sums_pieces<C>)
      return any_request(collective_at<C>(c).all_reduce(in, out, pieces));
    else
      return any_request(collective_at<C>(c).all_reduce(in, out));
  };
  t.reduce_scatter = [](void* c, const_tensor_view in, tensor_view out) {
    return any_request(collective_at<C>(c).reduce_scatter(in, out));
  };
  t.all_gather = [](void* c, const_tensor_view in, tensor_view out) {
    return any_request(collective_at<C>(c).all_gather(in, out));
  };
  t.broadcast = [](void* c, tensor_view data, int root) {
    return any_request(collective_at<C>(c).broadcast(data, root));
  };
  t.barrier = [](void* c) { collective_at<C>(c).barrier(); };
  if constexpr (point_to_point<C>) {
    t.send = [](void* c, const_tensor_view in, int peer) { collective_at<C>(c).send(in, peer); };
    t.recv = [](void* c, tensor_view out, int peer) { collective_at<C>(c).recv(out, peer); };
  }
  if constexpr (mailbox<C>) {
    t.post = [](void* c, int peer, i64 tag, std::span<std::byte const> bytes) {
      collective_at<C>(c).post(peer, tag, bytes);
    };
    t.poll = [](void* c, i64 tag) { return collective_at<C>(c).poll(tag); };
    t.listen = [](void* c) { collective_at<C>(c).listen(); };
  }
  if constexpr (revocable<C>)
    t.revoke = [](void* c, std::string const& reason) { collective_at<C>(c).revoke(reason); };
  if constexpr (splittable<C>)
    t.split = [](void* c, int color) { return any_communicator(collective_at<C>(c).split(color)); };
  if constexpr (shrinkable<C>)
    t.shrink = [](void* c, std::span<int const> lost) {
      return any_communicator(collective_at<C>(c).shrink(lost));
    };
  return t;
}

}  // namespace detail
}  // namespace limber

#if !defined(LIMBER_COMPILED)
#include <limber/comm/impl/any_communicator.ipp>
#endif
