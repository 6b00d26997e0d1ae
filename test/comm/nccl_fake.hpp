// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// NCCL and CUDA as far as limber::nccl calls them, on the host: streams that run when somebody looks,
/// communicators that connect when all have come, and whatever failure a test asks for. What the real
/// ones would punish (an operation recorded before it was launched, a handle used after its end, pageable
/// memory behind a collective) is counted as misuse.

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

/// Memory that counts as device memory or as pinned.
class fake_memory {
 public:
  enum class kind { device, pinned };

  static void* make(std::size_t bytes, kind k, int device = 0) {
    void* const p = std::malloc(bytes == 0 ? 1 : bytes);
    std::memset(p, 0xa5, bytes);
    std::scoped_lock const lock(door());
    blocks()[static_cast<char*>(p)] = {bytes, k, device};
    return p;
  }
  static void free(void* p) {
    std::scoped_lock const lock(door());
    blocks().erase(static_cast<char*>(p));
    std::free(p);
  }
  struct block {
    std::size_t bytes;
    kind what;
    int device;
  };
  static block const* find(void const* p) {
    std::scoped_lock const lock(door());
    auto const at = blocks().upper_bound(static_cast<char const*>(p));
    if (at == blocks().begin()) return nullptr;
    auto const& [start, b] = *std::prev(at);
    return static_cast<char const*>(p) < start + b.bytes ? &b : nullptr;
  }
  static std::size_t count(kind k) {
    std::scoped_lock const lock(door());
    return static_cast<std::size_t>(
        std::ranges::count_if(blocks(), [&](auto const& b) { return b.second.what == k; }));
  }

 private:
  static std::mutex& door() {
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
  int busy_polls = 0;  ///< what was called last is pending for so many looks
  std::vector<std::pair<fake_stream*, std::function<bool()>>> launching;  ///< not on a stream yet
  bool grouping = false;
  bool revoked = false, gone = false, finalized = false;
  answer error{};
  std::function<bool()> birth{};  ///< a split or shrink under way: true when it is through
  long long started = 0;
  std::map<int, long long> sent{}, received{};
};

struct fake_group {
  struct meeting {
    limber::detail::signature what{};
    std::vector<limber::detail::share> shares{};
    std::vector<char> here{};
    bool performed = false;
  };
  explicit fake_group(std::size_t n) : members(n) {}
  std::vector<fake_comm*> members;
  std::size_t joined = 0;
  std::map<long long, meeting> operations{};
  std::map<std::string, std::shared_ptr<fake_group>> children{};  ///< by color or list of lost
  std::map<std::string, std::vector<char>> births{};
  std::map<std::string, std::vector<std::byte>> letters{};
};

/// All machines with their GPUs; what a test wants to go wrong.
struct fake_world {
  std::mutex door;
  std::map<unique_id, std::shared_ptr<fake_group>> meetings;
  std::deque<std::unique_ptr<fake_comm>> comms;
  std::deque<std::unique_ptr<fake_stream>> streams;
  std::deque<std::unique_ptr<fake_event>> events;
  std::vector<std::string> misuse;
  std::map<int, std::vector<std::string>> log;  ///< by world rank
  int made_ids = 0;

  int launch_polls = 1;  ///< looks until a call has taken effect
  int devices = 8;
  bool same_gpu = false;  ///< init finds two ranks on one GPU
  bool gpu_names_alike = false;
  std::map<int, answer> errors;            ///< asynchronous, by world rank
  std::map<std::string, answer> refusals;  ///< by call: it fails at once
  bool revoke_hangs = false;               ///< never becomes quiet
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
    std::scoped_lock const lock(world_->door);
    id = {};
    id[0] = static_cast<std::byte>(++world_->made_ids);
    id[1] = static_cast<std::byte>(me_);
    return {};
  }
  answer init(comm_type& comm, int size, unique_id const& id, int rank) {
    std::scoped_lock const lock(world_->door);
    if (auto const a = refused("init")) return *a;
    auto& where = world_->meetings[id];
    if (!where) where = std::make_shared<fake_group>(static_cast<std::size_t>(size));
    comm = join(where, rank);
    if (world_->same_gpu)
      comm->birth = [comm] {
        if (!complete(*comm)) return false;
        comm->error = {step::failed, 5,
                       "ncclCommInitRankConfig: invalid usage: Duplicate GPU detected : rank 0 and rank 1 "
                       "both on CUDA device 1000"};
        return true;
      };
    else
      comm->birth = [comm] { return complete(*comm); };
    return {step::pending};
  }
  answer async_state(comm_type comm) {
    std::scoped_lock const lock(world_->door);
    if (comm->gone) {
      world_->blame("a communicator was asked for its state after its end");
      return {step::failed, 4, "gone"};
    }
    world_->pump();
    if (comm->error.failed()) return comm->error;
    if (auto const e = world_->errors.find(me_); e != world_->errors.end() && !comm->revoked)
      return e->second;
    if (comm->busy_polls > 0 && --comm->busy_polls > 0) return {step::pending};
    if (comm->birth) {
      if (!comm->birth()) return {step::pending};
      comm->birth = nullptr;
      if (comm->error.failed()) return comm->error;
    }
    if (comm->revoked && world_->revoke_hangs) return {step::pending};
    for (auto& [stream, run] : comm->launching) stream->work.push_back(std::move(run));
    comm->launching.clear();
    world_->pump();
    return {};
  }
  answer split(comm_type comm, int color, int key, comm_type& made) {
    std::scoped_lock const lock(world_->door);
    if (auto const a = refused("split")) return *a;
    if (color < 0) return {step::failed, 4, "ncclCommSplit: color must not be negative"};
    if (key != comm->rank) world_->blame("split must keep the order of ranks");
    auto& parent = *comm->where;
    std::string const round = text("split ", comm->started++);
    auto& here = parent.births[round];
    here.resize(parent.members.size(), 127);
    here[static_cast<std::size_t>(comm->rank)] = static_cast<char>(color);
    return bear(comm, made, [this, comm, round, color, &made] {
      auto const& all = comm->where->births[round];
      if (std::ranges::count(all, 127) > 0) return false;
      std::vector<int> members;
      for (std::size_t r = 0; r < all.size(); ++r)
        if (all[r] == color) members.push_back(static_cast<int>(r));
      made = child(*comm, text(round, " ", color), members);
      return true;
    });
  }
  answer shrink(comm_type comm, std::span<int const> lost, bool abort, comm_type& made) {
    std::scoped_lock const lock(world_->door);
    world_->log[me_].push_back(abort ? "shrink (abort)" : "shrink");
    if (auto const a = refused("shrink")) return *a;
    if (!comm->revoked && !abort) world_->blame("a communicator was shrunk with its operations in flight");
    auto& parent = *comm->where;
    std::vector<int> survivors;
    for (int r = 0; r < static_cast<int>(parent.members.size()); ++r)
      if (!std::ranges::binary_search(lost, r)) survivors.push_back(r);
    std::string round = "shrink";
    for (int const r : lost) round += text(" ", r);
    auto& here = parent.births[round];
    here.resize(parent.members.size());
    here[static_cast<std::size_t>(comm->rank)] = 1;
    if (abort) comm->error = {};
    return bear(comm, made, [this, comm, round, survivors, &made] {
      for (int const r : survivors)
        if (!comm->where->births[round][static_cast<std::size_t>(r)]) return false;
      made = child(*comm, round, survivors);
      return true;
    });
  }
  answer revoke(comm_type comm) {
    std::scoped_lock const lock(world_->door);
    world_->log[me_].push_back("revoke");
    if (comm->revoked) world_->blame("a communicator was revoked twice");
    comm->revoked = true;  // its operations end without effect
    withdraw(*comm);
    comm->birth = nullptr;
    if (world_->revoke_refused) return {step::failed, 5, "ncclCommRevoke: invalid usage"};
    comm->busy_polls = 3;
    return {step::pending};
  }
  answer finalize(comm_type comm) {
    std::scoped_lock const lock(world_->door);
    world_->log[me_].push_back("finalize");
    if (comm->revoked) world_->blame("a revoked communicator was finalized");
    comm->finalized = true;
    comm->busy_polls = 2;
    return {step::pending};
  }
  answer destroy(comm_type comm) { return end(comm, "destroy"); }
  answer abort(comm_type comm) { return end(comm, "abort"); }

  answer group_start() {
    std::scoped_lock const lock(world_->door);
    world_->log[me_].push_back("group start");
    grouping() = true;
    return {};
  }
  answer group_end() {
    std::scoped_lock const lock(world_->door);
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
                   if (c->gone || c->revoked) return true;
                   if (!posted) {
                     key = text(c->rank, " ", peer, " ", c->sent[peer]++);
                     auto const* const p = static_cast<std::byte const*>(in);
                     c->where->letters[key] = {p, p + bytes};
                     posted = true;
                   }
                   return !c->where->letters.contains(key);
                 });
  }
  answer recv(void* out, std::size_t n, dtype t, int peer, comm_type c, stream_type s) {
    auto const bytes = n * static_cast<std::size_t>(size_of(t));
    return issue("recv", c, s, nullptr, out, bytes, [c, peer, out, bytes] {
      if (c->gone || c->revoked) return true;
      std::string const key = text(peer, " ", c->rank, " ", c->received[peer]);
      auto const letter = c->where->letters.find(key);
      if (letter == c->where->letters.end()) return false;
      if (bytes > 0) std::memcpy(out, letter->second.data(), std::min(bytes, letter->second.size()));
      c->where->letters.erase(letter);
      ++c->received[peer];
      return true;
    });
  }

  answer enroll(comm_type, void* memory, std::size_t bytes, void*& handle) {
    std::scoped_lock const lock(world_->door);
    if (auto const a = refused("enroll")) return *a;
    world_->log[me_].push_back(text("register ", bytes));
    handle = memory;
    return {};
  }
  answer withdraw(comm_type comm, void*) {
    std::scoped_lock const lock(world_->door);
    if (comm->gone) world_->blame("memory was deregistered from a communicator that is gone");
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
    name = world_->gpu_names_alike ? "GPU-5" : text("GPU-", me_);
    return {};
  }
  answer stream_device(stream_type s, int& d) {
    if (s) d = s->device;
    return {};
  }
  answer make_stream(stream_type& s) {
    std::scoped_lock const lock(world_->door);
    world_->streams.push_back(std::make_unique<fake_stream>());
    s = world_->streams.back().get();
    s->device = current();
    return {};
  }
  answer drop_stream(stream_type s) {
    std::scoped_lock const lock(world_->door);
    world_->pump();
    std::erase_if(world_->streams, [&](auto const& p) { return p.get() == s; });
    return {};
  }
  answer idle(stream_type s) {
    std::scoped_lock const lock(world_->door);
    world_->pump();
    return {s->work.empty() ? step::done : step::pending};
  }
  answer make_event(event_type& v) {
    std::scoped_lock const lock(world_->door);
    world_->events.push_back(std::make_unique<fake_event>());
    v = world_->events.back().get();
    return {};
  }
  answer drop_event(event_type v) {
    std::scoped_lock const lock(world_->door);
    std::erase_if(world_->events, [&](auto const& p) { return p.get() == v; });
    return {};
  }
  answer record(event_type v, stream_type s) {
    std::scoped_lock const lock(world_->door);
    world_->log[me_].push_back("record");
    int const number = ++v->recorded;
    s->work.push_back([v, number] {
      v->reached = number;
      return true;
    });
    return {};
  }
  answer wait(stream_type s, event_type v) {
    std::scoped_lock const lock(world_->door);
    world_->log[me_].push_back("wait");
    s->work.push_back([v, number = v->recorded] { return v->reached >= number; });
    return {};
  }
  answer query(event_type v) {
    std::scoped_lock const lock(world_->door);
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
    std::scoped_lock const lock(world_->door);
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
    std::scoped_lock const lock(world_->door);
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
    std::scoped_lock const lock(world_->door);
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
  comm_type child(fake_comm& parent, std::string const& name, std::vector<int> const& members) {
    auto& where = parent.where->children[name];
    if (!where) where = std::make_shared<fake_group>(members.size());
    auto const mine = std::ranges::find(members, parent.rank) - members.begin();
    auto* const comm = join(where, static_cast<int>(mine));
    comm->birth = [comm] { return complete(*comm); };
    return comm;
  }
  answer bear(comm_type comm, comm_type& made, std::function<bool()> birth) {
    made = nullptr;
    comm->birth = std::move(birth);
    comm->busy_polls = world_->launch_polls;
    return {step::pending};
  }
  /// Its part of what has not happened yet.
  static void withdraw(fake_comm& comm) {
    comm.launching.clear();
    for (auto& [number, op] : comm.where->operations)
      if (!op.performed && !op.here.empty()) op.here[static_cast<std::size_t>(comm.rank)] = 0;
  }
  answer end(comm_type comm, std::string const& how) {
    std::scoped_lock const lock(world_->door);
    world_->log[me_].push_back(how);
    if (how == "destroy" && !comm->finalized)
      world_->blame("a communicator was destroyed that was not finalized");
    if (comm->gone) world_->blame("a communicator ended twice");
    comm->gone = true;
    withdraw(*comm);
    world_->pump();
    return {};
  }

  /// Launches only when polled: until then the stream knows nothing of it.
  answer issue(std::string const& name, comm_type c, stream_type s, void const* in, void* out,
               std::size_t bytes, std::function<bool()> run) {
    std::scoped_lock const lock(world_->door);
    world_->log[me_].push_back(name);
    if (auto const a = refused(name)) return *a;
    if (c->gone) world_->blame("an operation was started on a communicator that is gone");
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
    limber::detail::share const mine{static_cast<std::byte const*>(in), static_cast<std::byte*>(out)};
    auto const bytes = static_cast<std::size_t>(what.count * size_of(what.type));
    return issue(
        std::string(name_of(what.what)), c, s, in, out, bytes, [this, c, what, mine, number = 0LL]() mutable {
          if (c->gone || c->revoked) return true;
          if (number == 0) number = ++c->started;
          auto& group = *c->where;
          auto& op = group.operations[number];
          auto const n = group.members.size(), me = static_cast<std::size_t>(c->rank);
          op.shares.resize(n);
          op.here.resize(n);
          if (!op.here[me]) {
            if (std::ranges::count(op.here, 1) > 0 && op.what != what)
              world_->blame("ranks called different operations");
            op.what = what;
            op.shares[me] = mine;
            op.here[me] = 1;
          }
          if (!op.performed && std::ranges::count(op.here, 1) == static_cast<std::ptrdiff_t>(n)) {
            limber::detail::perform(what, op.shares, 0, limber::detail::extent(what, static_cast<int>(n)));
            op.performed = true;
          }
          return op.performed;
        });
  }

  std::shared_ptr<fake_world> world_;
  int me_;
};

/// A board in memory.
[[nodiscard]] inline nccl::board memory_board() {
  struct notes {
    std::mutex door;
    std::map<std::string, std::string> all;
  };
  auto const kept = std::make_shared<notes>();
  nccl::board b;
  b.put = [kept](std::string const& name, std::string const& note) {
    std::scoped_lock const lock(kept->door);
    return kept->all.emplace(name, note).second;
  };
  b.get = [kept](std::string const& name) -> std::optional<std::string> {
    std::scoped_lock const lock(kept->door);
    auto const found = kept->all.find(name);
    return found == kept->all.end() ? std::nullopt : std::optional(found->second);
  };
  b.remove = [kept](std::string const& name) {
    std::scoped_lock const lock(kept->door);
    kept->all.erase(name);
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

/// Ranks that have met, all in the hands of one thread, on a clock that `pause` drives.
struct fake_ranks {
  explicit fake_ranks(int n, bool with_notices = true) : notices(memory_board()) {
    std::vector<std::thread> team;
    std::vector<std::optional<fake_communicator>> made(static_cast<std::size_t>(n));
    for (int r = 0; r < n; ++r)
      team.emplace_back([&, r] {
        fake_engine engine(world, r);
        if (with_notices)
          made[static_cast<std::size_t>(r)].emplace(facts_of(r, n), notices, how(), engine);
        else
          made[static_cast<std::size_t>(r)].emplace(
              r, n, [](unique_id const&) { return unique_id{}; }, how(), engine);
      });
    for (auto& t : team) t.join();
    for (auto& m : made) comm.push_back(std::move(*m));
  }

  [[nodiscard]] nccl::options how() const {
    return {.deadline = 6,
            .meeting = 3000,
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
  nccl::board notices;
  std::shared_ptr<std::atomic<double>> time = std::make_shared<std::atomic<double>>(0.0);
  std::vector<fake_communicator> comm;
};

/// What `f` throws.
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
