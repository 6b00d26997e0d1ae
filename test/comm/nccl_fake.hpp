// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// A fake of the parts of NCCL and CUDA that limber::nccl uses, on the host: streams run when they are
/// polled, communicators connect when all ranks have joined, and tests inject failures. Incorrect use (an
/// event recorded before its operation is launched, a handle used after its destruction, pageable memory
/// after a collective) is recorded as misuse.

#include <limber/comm/detail/host_collective.hpp>
#include <limber/comm/detail/nccl_communicator.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace limber::test {

using nccl::answer;
using nccl::unique_id;
using step = nccl::state;

/// Host memory that represents device or pinned memory.
class fake_memory {
 public:
  enum class kind { device, pinned };

  static void* make(std::size_t bytes, kind k, int device = 0) {
    void* const p = std::malloc(bytes == 0 ? 1 : bytes);
    std::memset(p, 0xa5, bytes);
    std::scoped_lock const lock(mutex());
    blocks()[static_cast<char*>(p)] = {bytes, k, device};
    return p;
  }
  static void free(void* p) {
    std::scoped_lock const lock(mutex());
    blocks().erase(static_cast<char*>(p));
    std::free(p);
  }
  struct block {
    std::size_t bytes;
    kind what;
    int device;
  };
  static block const* find(void const* p) {
    std::scoped_lock const lock(mutex());
    auto const at = blocks().upper_bound(static_cast<char const*>(p));
    if (at == blocks().begin()) return nullptr;
    auto const& [start, b] = *std::prev(at);
    return static_cast<char const*>(p) < start + b.bytes ? &b : nullptr;
  }
  static std::size_t count(kind k) {
    std::scoped_lock const lock(mutex());
    return static_cast<std::size_t>(
        std::ranges::count_if(blocks(), [&](auto const& b) { return b.second.what == k; }));
  }

 private:
  static std::mutex& mutex() {
    static std::mutex m;
    return m;
  }
  static std::map<char const*, block>& blocks() {
    static std::map<char const*, block> b;
    return b;
  }
};

struct fake_event {
  int recorded = 0, reached = 0;
};

struct fake_stream {
  std::deque<std::function<bool()>> work;
  int device = 0;
};

struct fake_group;

struct fake_comm {
  std::shared_ptr<fake_group> where;
  int rank = 0;
  int world_rank = 0;
  int busy_polls = 0;  ///< number of polls for which the last call is pending
  std::vector<std::pair<fake_stream*, std::function<bool()>>> launching;  ///< not enqueued yet
  bool grouping = false;
  bool revoked = false, destroyed = false, finalized = false;
  answer error{};
  std::function<bool()>
      pending_init{};  ///< an init, split or shrink in progress: returns true when it is done
  long long started = 0;
  std::map<int, long long> sent{}, received{};
};

struct fake_group {
  struct pending_operation {
    limber::detail::signature what{};
    std::vector<limber::detail::rank_buffers> buffers{};
    std::vector<char> here{};
    bool performed = false;
  };
  explicit fake_group(std::size_t n) : members(n) {}
  std::vector<fake_comm*> members;
  std::size_t joined = 0;
  std::map<long long, pending_operation> operations{};
  std::map<std::string, std::shared_ptr<fake_group>> children{};  ///< by color or list of lost
  std::map<std::string, std::vector<char>> pending_comms{};
  std::map<std::string, std::vector<std::byte>> messages{};
};

/// All machines and GPUs, and the failures that a test injects.
struct fake_world {
  std::mutex mutex;
  std::map<unique_id, std::shared_ptr<fake_group>> groups;
  std::deque<std::unique_ptr<fake_comm>> comms;
  std::deque<std::unique_ptr<fake_stream>> streams;
  std::deque<std::unique_ptr<fake_event>> events;
  std::vector<std::string> misuse;
  std::map<int, std::vector<std::string>> log;  ///< by world rank
  int made_ids = 0;

  int launch_polls = 1;  ///< polls until a call has taken effect
  int devices = 8;
  bool same_gpu = false;  ///< init finds two ranks on one GPU
  bool same_gpu_names = false;
  std::map<int, answer> errors;            ///< asynchronous, by world rank
  std::map<std::string, answer> refusals;  ///< by call: fails at once
  bool revoke_hangs = false;               ///< never becomes idle
  bool revoke_refused = false;

  void blame(std::string what) { misuse.push_back(std::move(what)); }
  void pump() {
    for (bool moved = true; moved;) {
      moved = false;
      for (auto& s : streams)
        while (!s->work.empty() && s->work.front()()) {
          s->work.pop_front();
          moved = true;
        }
    }
  }
};

/// One rank's view of the world.
class fake_engine {
 public:
  using comm_type = fake_comm*;
  using stream_type = fake_stream*;
  using event_type = fake_event*;
  static constexpr bool can_revoke = true;

  fake_engine() : fake_engine(std::make_shared<fake_world>(), 0) {}
  fake_engine(std::shared_ptr<fake_world> w, int rank) : world_(std::move(w)), me_(rank) {}

  [[nodiscard]] fake_world& world() const { return *world_; }

  answer make_id(unique_id& id) {
    std::scoped_lock const lock(world_->mutex);
    id = {};
    id[0] = static_cast<std::byte>(++world_->made_ids);
    id[1] = static_cast<std::byte>(me_);
    return {};
  }
  answer init(comm_type& comm, int size, unique_id const& id, int rank) {
    std::scoped_lock const lock(world_->mutex);
    if (auto const a = refused("init")) return *a;
    auto& where = world_->groups[id];
    if (!where) where = std::make_shared<fake_group>(static_cast<std::size_t>(size));
    comm = join(where, rank);
    if (world_->same_gpu)
      comm->pending_init = [comm] {
        if (!complete(*comm)) return false;
        comm->error = {step::failed, 5,
                       "ncclCommInitRankConfig: invalid usage: Duplicate GPU detected : rank 0 and rank 1 "
                       "both on CUDA device 1000"};
        return true;
      };
    else
      comm->pending_init = [comm] { return complete(*comm); };
    return {step::pending};
  }
  answer async_state(comm_type comm) {
    std::scoped_lock const lock(world_->mutex);
    if (comm->destroyed) {
      world_->blame("a communicator was asked for its state after its end");
      return {step::failed, 4, "gone"};
    }
    world_->pump();
    if (comm->error.failed()) return comm->error;
    if (auto const e = world_->errors.find(me_); e != world_->errors.end() && !comm->revoked)
      return e->second;
    if (comm->busy_polls > 0 && --comm->busy_polls > 0) return {step::pending};
    if (comm->pending_init) {
      if (!comm->pending_init()) return {step::pending};
      comm->pending_init = nullptr;
      if (comm->error.failed()) return comm->error;
    }
    if (comm->revoked && world_->revoke_hangs) return {step::pending};
    for (auto& [stream, run] : comm->launching) stream->work.push_back(std::move(run));
    comm->launching.clear();
    world_->pump();
    return {};
  }
  answer split(comm_type comm, int color, int key, comm_type& made) {
    std::scoped_lock const lock(world_->mutex);
    if (auto const a = refused("split")) return *a;
    if (color < 0) return {step::failed, 4, "ncclCommSplit: color must not be negative"};
    if (key != comm->rank) world_->blame("split must keep the order of ranks");
    auto& parent = *comm->where;
    std::string const round = text("split ", comm->started++);
    auto& here = parent.pending_comms[round];
    here.resize(parent.members.size(), 127);
    here[static_cast<std::size_t>(comm->rank)] = static_cast<char>(color);
    return begin_init(comm, made, [this, comm, round, color, &made] {
      auto const& all = comm->where->pending_comms[round];
      if (std::ranges::count(all, 127) > 0) return false;
      std::vector<int> members;
      for (std::size_t r = 0; r < all.size(); ++r)
        if (all[r] == color) members.push_back(static_cast<int>(r));
      made = make_child(*comm, text(round, " ", color), members);
      return true;
    });
  }
  answer shrink(comm_type comm, std::span<int const> lost, bool abort, comm_type& made) {
    std::scoped_lock const lock(world_->mutex);
    world_->log[me_].push_back(abort ? "shrink (abort)" : "shrink");
    if (auto const a = refused("shrink")) return *a;
    if (!comm->revoked && !abort) world_->blame("a communicator was shrunk with its operations in flight");
    auto& parent = *comm->where;
    std::vector<int> survivors;
    for (int r = 0; r < static_cast<int>(parent.members.size()); ++r)
      if (!std::ranges::binary_search(lost, r)) survivors.push_back(r);
    std::string round = "shrink";
    for (int const r : lost) round += text(" ", r);
    auto& here = parent.pending_comms[round];
    here.resize(parent.members.size());
    here[static_cast<std::size_t>(comm->rank)] = 1;
    if (abort) comm->error = {};
    return begin_init(comm, made, [this, comm, round, survivors, &made] {
      for (int const r : survivors)
        if (!comm->where->pending_comms[round][static_cast<std::size_t>(r)]) return false;
      made = make_child(*comm, round, survivors);
      return true;
    });
  }
  answer revoke(comm_type comm) {
    std::scoped_lock const lock(world_->mutex);
    world_->log[me_].push_back("revoke");
    if (comm->revoked) world_->blame("a communicator was revoked twice");
    comm->revoked = true;  // its operations end without effect
    remove_pending(*comm);
    comm->pending_init = nullptr;
    if (world_->revoke_refused) return {step::failed, 5, "ncclCommRevoke: invalid usage"};
    comm->busy_polls = 3;
    return {step::pending};
  }
  answer finalize(comm_type comm) {
    std::scoped_lock const lock(world_->mutex);
    world_->log[me_].push_back("finalize");
    if (comm->revoked) world_->blame("a revoked communicator was finalized");
    comm->finalized = true;
    comm->busy_polls = 2;
    return {step::pending};
  }
  answer destroy(comm_type comm) { return end(comm, "destroy"); }
  answer abort(comm_type comm) { return end(comm, "abort"); }

  answer group_start() {
    std::scoped_lock const lock(world_->mutex);
    world_->log[me_].push_back("group start");
    grouping() = true;
    return {};
  }
  answer group_end() {
    std::scoped_lock const lock(world_->mutex);
    world_->log[me_].push_back("group end");
    if (auto const a = refused("group_end")) return *a;
    grouping() = false;
    return {step::pending};
  }
  answer all_reduce(void const* in, void* out, std::size_t n, dtype t, reduction how, comm_type c,
                    stream_type s) {
    if (how == reduction::max && is_floating(t)) world_->blame("NCCL's max drops NaN");
    return collective({limber::detail::operation::all_reduce, how, t, static_cast<i64>(n), 0}, in, out, c, s);
  }
  answer reduce_scatter(void const* in, void* out, std::size_t n, dtype t, comm_type c, stream_type s) {
    return collective({limber::detail::operation::reduce_scatter, reduction::sum, t, static_cast<i64>(n), 0},
                      in, out, c, s);
  }
  answer all_gather(void const* in, void* out, std::size_t n, dtype t, comm_type c, stream_type s) {
    return collective({limber::detail::operation::all_gather, reduction::sum, t, static_cast<i64>(n), 0}, in,
                      out, c, s);
  }
  answer broadcast(void const* in, void* out, std::size_t n, dtype t, int root, comm_type c, stream_type s) {
    return collective({limber::detail::operation::broadcast, reduction::sum, t, static_cast<i64>(n), root},
                      in, out, c, s);
  }
  answer send(void const* in, std::size_t n, dtype t, int peer, comm_type c, stream_type s) {
    auto const bytes = n * static_cast<std::size_t>(size_of(t));
    return issue("send", c, s, in, nullptr, bytes,
                 [c, peer, in, bytes, posted = false, key = std::string()]() mutable {
                   if (c->destroyed || c->revoked) return true;
                   if (!posted) {
                     key = text(c->rank, " ", peer, " ", c->sent[peer]++);
                     auto const* const p = static_cast<std::byte const*>(in);
                     c->where->messages[key] = {p, p + bytes};
                     posted = true;
                   }
                   return !c->where->messages.contains(key);
                 });
  }
  answer recv(void* out, std::size_t n, dtype t, int peer, comm_type c, stream_type s) {
    auto const bytes = n * static_cast<std::size_t>(size_of(t));
    return issue("recv", c, s, nullptr, out, bytes, [c, peer, out, bytes] {
      if (c->destroyed || c->revoked) return true;
      std::string const key = text(peer, " ", c->rank, " ", c->received[peer]);
      auto const message = c->where->messages.find(key);
      if (message == c->where->messages.end()) return false;
      if (bytes > 0) std::memcpy(out, message->second.data(), std::min(bytes, message->second.size()));
      c->where->messages.erase(message);
      ++c->received[peer];
      return true;
    });
  }

  answer register_buffer(comm_type, void* memory, std::size_t bytes, void*& handle) {
    std::scoped_lock const lock(world_->mutex);
    if (auto const a = refused("enroll")) return *a;
    world_->log[me_].push_back(text("register ", bytes));
    handle = memory;
    return {};
  }
  answer deregister_buffer(comm_type comm, void*) {
    std::scoped_lock const lock(world_->mutex);
    if (comm->destroyed) world_->blame("memory was deregistered from a communicator that is gone");
    world_->log[me_].push_back("deregister");
    return {};
  }
  answer allocate_shared(void*& p, std::size_t n) {
    p = fake_memory::make(n, fake_memory::kind::device);
    return {};
  }
  answer release_shared(void* p) {
    fake_memory::free(p);
    return {};
  }

  answer device_count(int& n) {
    n = world_->devices;
    return {};
  }
  answer device(int& d) {
    d = current();
    return {};
  }
  answer use_device(int d) {
    current() = d;
    return {};
  }
  answer device_name(std::string& name) {
    name = world_->same_gpu_names ? "GPU-5" : text("GPU-", me_);
    return {};
  }
  answer stream_device(stream_type s, int& d) {
    if (s) d = s->device;
    return {};
  }
  answer make_stream(stream_type& s) {
    std::scoped_lock const lock(world_->mutex);
    world_->streams.push_back(std::make_unique<fake_stream>());
    s = world_->streams.back().get();
    s->device = current();
    return {};
  }
  answer drop_stream(stream_type s) {
    std::scoped_lock const lock(world_->mutex);
    world_->pump();
    std::erase_if(world_->streams, [&](auto const& p) { return p.get() == s; });
    return {};
  }
  answer idle(stream_type s) {
    std::scoped_lock const lock(world_->mutex);
    world_->pump();
    return {s->work.empty() ? step::done : step::pending};
  }
  answer make_event(event_type& v) {
    std::scoped_lock const lock(world_->mutex);
    world_->events.push_back(std::make_unique<fake_event>());
    v = world_->events.back().get();
    return {};
  }
  answer drop_event(event_type v) {
    std::scoped_lock const lock(world_->mutex);
    std::erase_if(world_->events, [&](auto const& p) { return p.get() == v; });
    return {};
  }
  answer record(event_type v, stream_type s) {
    std::scoped_lock const lock(world_->mutex);
    world_->log[me_].push_back("record");
    int const number = ++v->recorded;
    s->work.push_back([v, number] {
      v->reached = number;
      return true;
    });
    return {};
  }
  answer wait(stream_type s, event_type v) {
    std::scoped_lock const lock(world_->mutex);
    world_->log[me_].push_back("wait");
    s->work.push_back([v, number = v->recorded] { return v->reached >= number; });
    return {};
  }
  answer query(event_type v) {
    std::scoped_lock const lock(world_->mutex);
    world_->log[me_].push_back("query");
    world_->pump();
    return {v->reached >= v->recorded ? step::done : step::pending};
  }

  answer place_of(void const* p, nccl::memory_place& where) {
    auto const* const b = fake_memory::find(p);
    where.on_device = b && b->what == fake_memory::kind::device;
    where.device = b ? b->device : 0;
    return {};
  }
  answer allocate(void*& p, std::size_t n, stream_type s) {
    std::scoped_lock const lock(world_->mutex);
    if (auto const a = refused("allocate")) return *a;
    p = fake_memory::make(n, fake_memory::kind::device, s->device);
    return {};
  }
  answer release(void* p, stream_type) {
    fake_memory::free(p);
    return {};
  }
  answer allocate_pinned(void*& p, std::size_t n) {
    p = fake_memory::make(n, fake_memory::kind::pinned);
    return {};
  }
  answer release_pinned(void* p) {
    fake_memory::free(p);
    return {};
  }
  answer copy(void* to, void const* from, std::size_t n, stream_type s) {
    std::scoped_lock const lock(world_->mutex);
    world_->log[me_].push_back(text("copy ", n));
    if (!fake_memory::find(to) || !fake_memory::find(from))
      world_->blame("pageable memory was copied on a stream");
    s->work.push_back([=] {
      std::memcpy(to, from, n);
      return true;
    });
    return {};
  }
  answer call(stream_type s, nccl::detail::host_function f, void* p) {
    std::scoped_lock const lock(world_->mutex);
    s->work.push_back([=] {
      f(p);
      return true;
    });
    return {};
  }

 private:
  static int& current() {
    thread_local int device = 0;
    return device;
  }
  static bool& grouping() {
    thread_local bool open = false;
    return open;
  }
  std::optional<answer> refused(std::string const& call) {
    auto const found = world_->refusals.find(call);
    return found == world_->refusals.end() ? std::nullopt : std::optional(found->second);
  }
  comm_type join(std::shared_ptr<fake_group> const& where, int rank) {
    world_->comms.push_back(std::make_unique<fake_comm>());
    auto* const comm = world_->comms.back().get();
    comm->where = where;
    comm->rank = rank;
    comm->world_rank = me_;
    if (where->members[static_cast<std::size_t>(rank)]) world_->blame("a rank joined twice");
    where->members[static_cast<std::size_t>(rank)] = comm;
    ++where->joined;
    return comm;
  }
  static bool complete(fake_comm const& c) { return c.where->joined == c.where->members.size(); }
  comm_type make_child(fake_comm& parent, std::string const& name, std::vector<int> const& members) {
    auto& where = parent.where->children[name];
    if (!where) where = std::make_shared<fake_group>(members.size());
    auto const mine = std::ranges::find(members, parent.rank) - members.begin();
    auto* const comm = join(where, static_cast<int>(mine));
    comm->pending_init = [comm] { return complete(*comm); };
    return comm;
  }
  answer begin_init(comm_type comm, comm_type& made, std::function<bool()> pending_init) {
    made = nullptr;
    comm->pending_init = std::move(pending_init);
    comm->busy_polls = world_->launch_polls;
    return {step::pending};
  }
  /// Removes its part of unfinished operations.
  static void remove_pending(fake_comm& comm) {
    comm.launching.clear();
    for (auto& [number, op] : comm.where->operations)
      if (!op.performed && !op.here.empty()) op.here[static_cast<std::size_t>(comm.rank)] = 0;
  }
  answer end(comm_type comm, std::string const& how) {
    std::scoped_lock const lock(world_->mutex);
    world_->log[me_].push_back(how);
    if (how == "destroy" && !comm->finalized)
      world_->blame("a communicator was destroyed that was not finalized");
    if (comm->destroyed) world_->blame("a communicator ended twice");
    comm->destroyed = true;
    remove_pending(*comm);
    world_->pump();
    return {};
  }

  /// Enqueues an operation, which is launched only when polled.
  answer issue(std::string const& name, comm_type c, stream_type s, void const* in, void* out,
               std::size_t bytes, std::function<bool()> run) {
    std::scoped_lock const lock(world_->mutex);
    world_->log[me_].push_back(name);
    if (auto const a = refused(name)) return *a;
    if (c->destroyed) world_->blame("an operation was started on a communicator that is gone");
    if (c->revoked) return {step::failed, 5, text(name, ": communicator was revoked")};
    if (!c->launching.empty() && !grouping())
      world_->blame("an operation was started before the last had launched");
    for (void const* const p : {in, static_cast<void const*>(out)})
      if (p && bytes > 0) {
        auto const* const b = fake_memory::find(p);
        if (!b || b->what != fake_memory::kind::device)
          world_->blame("NCCL was given memory that is not on a device");
      }
    c->launching.emplace_back(s, std::move(run));
    c->busy_polls = world_->launch_polls;
    return {step::pending};
  }
  answer collective(limber::detail::signature what, void const* in, void* out, comm_type c, stream_type s) {
    limber::detail::rank_buffers const mine{static_cast<std::byte const*>(in), static_cast<std::byte*>(out)};
    auto const bytes = static_cast<std::size_t>(what.count * size_of(what.type));
    return issue(
        std::string(name_of(what.what)), c, s, in, out, bytes, [this, c, what, mine, number = 0LL]() mutable {
          if (c->destroyed || c->revoked) return true;
          if (number == 0) number = ++c->started;
          auto& group = *c->where;
          auto& op = group.operations[number];
          auto const n = group.members.size(), me = static_cast<std::size_t>(c->rank);
          op.buffers.resize(n);
          op.here.resize(n);
          if (!op.here[me]) {
            if (std::ranges::count(op.here, 1) > 0 && op.what != what)
              world_->blame("ranks called different operations");
            op.what = what;
            op.buffers[me] = mine;
            op.here[me] = 1;
          }
          if (!op.performed && std::ranges::count(op.here, 1) == static_cast<std::ptrdiff_t>(n)) {
            limber::detail::perform(what, op.buffers, 0, limber::detail::extent(what, static_cast<int>(n)));
            op.performed = true;
          }
          return op.performed;
        });
  }

  std::shared_ptr<fake_world> world_;
  int me_;
};

/// A kv_store in memory.
[[nodiscard]] inline nccl::kv_store memory_kv_store() {
  struct entries {
    std::mutex mutex;
    std::map<std::string, std::string> all;
  };
  auto const store = std::make_shared<entries>();
  nccl::kv_store b;
  b.put = [store](std::string const& name, std::string const& value) {
    std::scoped_lock const lock(store->mutex);
    return store->all.emplace(name, value).second;
  };
  b.get = [store](std::string const& name) -> std::optional<std::string> {
    std::scoped_lock const lock(store->mutex);
    auto const found = store->all.find(name);
    return found == store->all.end() ? std::nullopt : std::optional(found->second);
  };
  b.remove = [store](std::string const& name) {
    std::scoped_lock const lock(store->mutex);
    store->all.erase(name);
  };
  b.where = "memory";
  return b;
}

using fake_communicator = nccl::basic_communicator<fake_engine>;
static_assert(nccl::detail::engine<fake_engine>);
static_assert(collective<fake_communicator> && point_to_point<fake_communicator> &&
              splittable<fake_communicator>);
static_assert(revocable<fake_communicator> && shrinkable<fake_communicator> &&
              registers_memory<fake_communicator>);

[[nodiscard]] inline launch_facts facts_of(int rank, int size) {
  launch_facts facts;
  facts.rank = rank;
  facts.size = size;
  return facts;
}

/// Connected ranks, used by one thread, with a clock that `pause` advances.
struct fake_ranks {
  explicit fake_ranks(int n, bool with_notices = true) : notices(memory_kv_store()) {
    std::vector<std::thread> threads;
    std::vector<std::optional<fake_communicator>> made(static_cast<std::size_t>(n));
    for (int r = 0; r < n; ++r)
      threads.emplace_back([&, r] {
        fake_engine engine(world, r);
        if (with_notices)
          made[static_cast<std::size_t>(r)].emplace(facts_of(r, n), notices, how(), engine);
        else
          made[static_cast<std::size_t>(r)].emplace(
              r, n, [](unique_id const&) { return unique_id{}; }, how(), engine);
      });
    for (auto& t : threads) t.join();
    for (auto& m : made) comm.push_back(std::move(*m));
  }

  [[nodiscard]] nccl::options how() const {
    return {.deadline = 6,
            .rendezvous_deadline = 3000,
            .clock = [t = time] { return t->load(); },
            .pause =
                [t = time] {
                  std::this_thread::sleep_for(std::chrono::microseconds(10));
                  *t = t->load() + 0.01;
                },
            .device = 0};
  }
  void advance(double seconds) const { *time = time->load() + seconds; }
  [[nodiscard]] bool called(int rank, std::string const& what) const {
    auto const& log = world->log[rank];
    return std::ranges::find(log, what) != log.end();
  }

  std::shared_ptr<fake_world> world = std::make_shared<fake_world>();
  nccl::kv_store notices;
  std::shared_ptr<std::atomic<double>> time = std::make_shared<std::atomic<double>>(0.0);
  std::vector<fake_communicator> comm;
};

/// The failure that `f` throws.
template <class F>
[[nodiscard]] failure failure_of(F f) {
  try {
    f();
  } catch (error const& e) { return e.where(); }
  return {.reason = "nothing was thrown"};
}
template <class F>
[[nodiscard]] std::string misuse_of(F f) {
  try {
    f();
  } catch (std::invalid_argument const& e) { return e.what(); }
  return "nothing was thrown";
}

/// Memory of one rank on the fake device.
template <class T>
class device_buffer {
 public:
  explicit device_buffer(std::vector<T> const& values, int device = 0)
      : length_(static_cast<i64>(values.size())),
        data_(fake_memory::make(values.size() * sizeof(T), fake_memory::kind::device, device)) {
    if (!values.empty()) std::memcpy(data_, values.data(), values.size() * sizeof(T));
  }
  device_buffer(device_buffer&& other) noexcept
      : length_(other.length_), data_(std::exchange(other.data_, nullptr)) {}
  ~device_buffer() {
    if (data_) fake_memory::free(data_);
  }
  [[nodiscard]] tensor_view view(std::string_view name) {
    return {static_cast<std::byte*>(data_), length_, dtype_of<T>, name};
  }
  [[nodiscard]] std::vector<T> read() const {
    std::vector<T> out(static_cast<std::size_t>(length_));
    if (!out.empty()) std::memcpy(out.data(), data_, out.size() * sizeof(T));
    return out;
  }

 private:
  i64 length_;
  void* data_;
};

}  // namespace limber::test
