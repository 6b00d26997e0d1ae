// SPDX-License-Identifier: Apache-2.0
// labels: unit mpi
// needs: MPI
// ranks: 1 2 3
// other ranks: 2
// sanitizers: address
#define BOOST_TEST_MODULE limber.comm.mpi
#include <boost/test/unit_test.hpp>

#include <support/checks.hpp>
#include <support/contract_values.hpp>
#include <support/mpi_main.hpp>

#include <cmath>
#include <cstring>
#include <limits>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace limber::test {

using limber::testing::has;
using limber::testing::message_of;
using limber::testing::on_ranks;
using limber::testing::the_world;

mpi::options const patient{.deadline = 30};

/// The real engine, which counts its calls.
struct counting : mpi::driver {
  using answer = mpi::detail::answer;
  static inline std::map<std::string, int> calls{};

  template <class... A>
  answer all_reduce(A&&... a) {
    return count(driver::all_reduce(std::forward<A>(a)...));
  }
  template <class... A>
  answer reduce(A&&... a) {
    return count(driver::reduce(std::forward<A>(a)...));
  }
  template <class... A>
  answer reduce_scatter(A&&... a) {
    return count(driver::reduce_scatter(std::forward<A>(a)...));
  }
  template <class... A>
  answer all_gather(A&&... a) {
    return count(driver::all_gather(std::forward<A>(a)...));
  }
  template <class... A>
  answer broadcast(A&&... a) {
    return count(driver::broadcast(std::forward<A>(a)...));
  }
  template <class... A>
  answer send(A&&... a) {
    return count(driver::send(std::forward<A>(a)...));
  }
  static answer count(answer a) {
    ++calls[a.function];
    return a;
  }
  /// Calls since the last call of this.
  static int taken(std::string const& function) { return std::exchange(calls[function], 0); }
};
using counted = mpi::basic_communicator<counting>;

BOOST_AUTO_TEST_CASE(the_environment_starts_mpi_once_and_respects_the_host_program) {
  BOOST_TEST(mpi::driver::is_running());
  {
    mpi::environment const inner(mpi::threading::serialized);  // the test program has initialized MPI
    BOOST_TEST(!inner.owns());
  }
  BOOST_TEST(mpi::driver::is_running());
  int given = 0;
  MPI_Query_thread(&given);
  if (given < MPI_THREAD_MULTIPLE) {
    auto const message = message_of([] { mpi::environment const all(mpi::threading::multiple); });
    BOOST_TEST(has(message, "limber: mpi: environment: threads may call MPI at level ",
                   "the host program has to ask MPI_Init_thread"),
               message);
  }
  BOOST_TEST(mpi::driver::is_running());
}

BOOST_AUTO_TEST_CASE(a_communicator_of_the_host_program_is_duplicated_and_stays_its_own) {
  int const world = the_world()->size(), me = the_world()->rank();
  MPI_Comm host = MPI_COMM_NULL;
  MPI_Comm_split(the_world()->control(), 0, world - me, &host);  // in reverse order
  MPI_Comm_set_errhandler(host, MPI_ERRORS_ARE_FATAL);
  {
    mpi::communicator comm(host, patient);
    BOOST_TEST(comm.size() == world);
    BOOST_TEST(comm.rank() == world - 1 - me);
    std::vector<i64> in{i64{1} << me}, out(1);
    auto open = comm.all_reduce(const_view(in), view(out));
    int of_host = 0, mine = 1;
    MPI_Allreduce(&mine, &of_host, 1, MPI_INT, MPI_SUM, host);  // does not match operations of `comm`
    open.wait();
    BOOST_TEST(of_host == world);
    BOOST_TEST(out[0] == (i64{1} << world) - 1);
    MPI_Errhandler handler = MPI_ERRHANDLER_NULL;
    MPI_Comm_get_errhandler(host, &handler);
    BOOST_TEST((handler == MPI_ERRORS_ARE_FATAL));
    MPI_Errhandler_free(&handler);
  }
  int of_host = 0, mine = 2;
  MPI_Allreduce(&mine, &of_host, 1, MPI_INT, MPI_SUM, host);
  BOOST_TEST(of_host == 2 * world);
  MPI_Comm_free(&host);
}

BOOST_AUTO_TEST_CASE(invalid_communicators_are_refused) {
  BOOST_TEST(has(message_of([] { mpi::communicator c(MPI_COMM_NULL); }), "communicator is MPI_COMM_NULL"));
  auto const refusal = [](mpi::options how) {
    return message_of([&] { mpi::communicator c(MPI_COMM_SELF, how); });
  };
  BOOST_TEST(has(refusal({.deadline = 0}), "deadline must be > 0 s, got 0"));
  BOOST_TEST(has(refusal({.clock = nullptr}), "clock is empty"));
  BOOST_TEST(has(refusal({.pause = nullptr}), "pause is empty"));
  BOOST_TEST(has(refusal({.largest_call = 7}), "largest_call must be >= 8 bytes, got 7"));
  mpi::communicator first(MPI_COMM_SELF);
  mpi::communicator second(std::move(first));
  BOOST_TEST(second.size() == 1);
  BOOST_TEST(has(message_of([&] { (void)first.size(); }), "moved from"));
  if (the_world()->size() < 2) return;
  MPI_Comm mine = MPI_COMM_NULL, bridge = MPI_COMM_NULL;
  bool const left = the_world()->rank() == 0;
  MPI_Comm_split(the_world()->control(), left ? 0 : 1, 0, &mine);
  MPI_Intercomm_create(mine, 0, the_world()->control(), left ? 1 : 0, 5, &bridge);
  BOOST_TEST(has(message_of([&] { mpi::communicator c(bridge); }), "an intercommunicator cannot be used"));
  MPI_Comm_free(&bridge);
  MPI_Comm_free(&mine);
}

// Lengths around multiples of the piece, with the number of MPI calls.
BOOST_AUTO_TEST_CASE(long_views_are_divided_into_calls_that_mpi_can_count) {
  int const n = the_world()->size();
  on_ranks<counted>(n, {.deadline = 30, .largest_call = 80}, [&](counted& comm) {
    int const me = comm.rank();
    for_each_type<float, double, bf16, f16, i64>([&]<class T>() {
      auto const piece = 80 / sizeof(T);
      auto const calls_for = [&](std::size_t length) {
        return length == 0 ? 1 : static_cast<int>((length + piece - 1) / piece);
      };
      for (std::size_t const length :
           {std::size_t{0}, piece - 1, piece, piece + 1, 3 * piece, 7 * piece + 5}) {
        counting::calls.clear();
        auto const all = length * static_cast<std::size_t>(n);
        auto const mine = whole_numbers<T>(me, all);
        auto const expect_sums = [&](std::vector<T> const& got, std::size_t first, char const* what) {
          for (std::size_t i = 0; i < got.size(); ++i) {
            int sum = 0;
            for (int r = 0; r < n; ++r) sum += whole_number(r, first + i);
            demand(number_of(got[i]) == sum, what, " of ", length, ": ", number_of(got[i]), ", not ", sum,
                   " at ", i);
          }
        };
        std::vector<T> sum(length), block(length), gathered(all), data = whole_numbers<T>(me, length);
        comm.all_reduce(const_view(std::span(mine).first(length)), view(sum)).wait();
        expect_sums(sum, 0, "all_reduce");
        demand(counting::taken("MPI_Iallreduce") == calls_for(length), "all_reduce was cut otherwise");

        comm.reduce_scatter(const_view(mine), view(block)).wait();
        expect_sums(block, length * static_cast<std::size_t>(me), "reduce_scatter");
        bool const whole = all <= piece;
        demand(counting::taken("MPI_Ireduce_scatter_block") == (whole ? 1 : 0) &&
                   counting::taken("MPI_Ireduce") == (whole ? 0 : n * calls_for(length)),
               "reduce_scatter was cut otherwise");

        comm.all_gather(const_view(data), view(gathered)).wait();
        demand(counting::taken("MPI_Iallgather") == (whole ? 1 : 0) &&
                   counting::taken("MPI_Ibcast") == (whole ? 0 : n * calls_for(length)),
               "all_gather was cut otherwise");
        for (int r = 0; r < n; ++r) {
          auto const theirs = whole_numbers<T>(r, length);
          demand(length == 0 || std::memcmp(gathered.data() + static_cast<std::size_t>(r) * length,
                                            theirs.data(), length * sizeof(T)) == 0,
                 "all_gather of ", length, " has a wrong block ", r);
        }
        comm.broadcast(view(data), n - 1).wait();
        demand(same_bits(data, whole_numbers<T>(n - 1, length)), "broadcast of ", length, " is wrong");
        demand(counting::taken("MPI_Ibcast") == calls_for(length), "broadcast was cut otherwise");

        if (n == 1) continue;
        if (me == 0) {
          comm.send(const_view(data), 1);
          demand(counting::taken("MPI_Isend") == calls_for(length), "send was cut otherwise");
        }
        if (me == 1) {
          std::vector<T> got(length);
          comm.recv(view(got), 0);
          demand(same_bits(got, data), "recv of ", length, " is wrong");
        }
      }
    });
  });
}

BOOST_AUTO_TEST_CASE(a_count_never_exceeds_what_mpi_can_count) {
  mpi::options const huge{.largest_call = i64{1} << 40};
  BOOST_TEST(mpi::detail::piece_of(huge, dtype::uint8) == std::numeric_limits<int>::max());
  BOOST_TEST(mpi::detail::piece_of({}, dtype::f64) == i64{1} << 27);
  // 5 · 2^30 elements: indices beyond 32 bits.
  i64 calls = 0, covered = 0;
  mpi::detail::in_pieces(i64{5} << 30, mpi::detail::piece_of({}, dtype::f32), [&](i64 first, int n) {
    ++calls;
    if (first == covered && n > 0) covered += n;
  });
  BOOST_TEST(calls == 20);
  BOOST_TEST(covered == i64{5} << 30);
}

BOOST_AUTO_TEST_CASE(own_reductions_are_commutative_bit_for_bit) {
  auto const bits = []<class T>(T x) {
    std::uint64_t u = 0;
    std::memcpy(&u, &x, sizeof x);
    return u;
  };
  for_each_type<float, double>([&]<class T>() {
    using limits = std::numeric_limits<T>;
    T const one_nan = std::copysign(limits::quiet_NaN(), T(-1));
    std::vector<T> const values{T(0),
                                -T(0),
                                T(1),
                                T(-1),
                                limits::infinity(),
                                -limits::infinity(),
                                limits::max(),
                                limits::denorm_min(),
                                limits::quiet_NaN(),
                                one_nan};
    for (T const a : values)
      for (T const b : values) {
        T const c = limber::detail::pair_max(a, b);
        BOOST_TEST(bits(c) == bits(limber::detail::pair_max(b, a)));
        if (std::isnan(a) || std::isnan(b))
          BOOST_TEST(std::isnan(c));
        else
          BOOST_TEST(c == std::max(a, b));
      }
    BOOST_TEST(!std::signbit(limber::detail::pair_max(-T(0), T(0))));
    BOOST_TEST(std::signbit(limber::detail::pair_max(-T(0), -T(0))));
  });
  for_each_type<bf16, f16>([&]<class T>() {
    std::vector<T> values;
    for (unsigned u = 0; u < 0x10000; u += 97) {
      T x;
      x.bits = static_cast<std::uint16_t>(u);
      values.push_back(x);
    }
    for (unsigned u : {0x7c01u, 0x7e00u, 0xfe01u, 0x7f81u, 0x7fc0u, 0xffc1u, 0x7f80u, 0xff80u}) {
      T x;
      x.bits = static_cast<std::uint16_t>(u);
      values.push_back(x);
    }
    bool equal = true, right = true;
    for (T const a : values)
      for (T const b : values) {
        T const c = limber::detail::pair_sum(a, b);
        equal &= c.bits == limber::detail::pair_sum(b, a).bits;
        float const sum = static_cast<float>(a) + static_cast<float>(b);
        right &= std::isnan(sum) ? std::isnan(static_cast<float>(c)) : c.bits == T(sum).bits;
      }
    BOOST_TEST(equal);
    BOOST_TEST(right);
  });
}

// Both libraries must use these reductions where necessary, on real data.
BOOST_AUTO_TEST_CASE(
    the_maximum_keeps_nans_and_the_sign_of_zero_and_sums_of_16_bits_are_rounded_once_a_pair) {
  int const n = the_world()->size();
  on_ranks(n, patient, [&](mpi::communicator& comm) {
    for_each_type<float, double>([&]<class T>() {
      T const nan = std::numeric_limits<T>::quiet_NaN();
      for (int where = 0; where < n; ++where)
        for (std::size_t const length : {2u, 50'000u}) {
          std::vector<T> in(length, comm.rank() == where ? nan : T(1)), out(length);
          in[0] = comm.rank() == where ? T(0) : -T(0);
          comm.all_reduce(const_view(in), view(out), reduction::max).wait();
          demand(out[0] == 0 && !std::signbit(out[0]), "+0 does not beat -0");
          demand(std::isnan(out[1]) && std::isnan(out.back()), "the NaN of rank ", where, " was lost");
        }
    });
    if (n != 2) return;
    for_each_type<bf16, f16>([&]<class T>() {
      std::vector<T> in, out(4099), other = uneven_values<T>(1 - comm.rank(), 4099);
      in = uneven_values<T>(comm.rank(), 4099);
      comm.all_reduce(const_view(in), view(out)).wait();
      for (std::size_t i = 0; i < in.size(); ++i)
        demand(out[i].bits == T(static_cast<float>(in[i]) + static_cast<float>(other[i])).bits,
               "a sum of two ", name_of(dtype_of<T>), " is not the rounded sum of floats at ", i);
    });
  });
}

BOOST_AUTO_TEST_CASE(large_messages_are_sent_at_once_and_arrive_in_order_among_small_ones) {
  int const n = the_world()->size();
  on_ranks(n, patient, [&](mpi::communicator& comm) {
    std::size_t const lengths[] = {3, 3'000'000, 0, 100'000, 8};
    std::size_t seen = 0;
    for (int peer = 0; peer < n; ++peer)
      for (std::size_t const length : lengths) {
        std::vector<std::byte> const bytes(length, std::byte(comm.rank() + 1));
        comm.post(peer, -1, bytes);  // would block if it waited for the reader
      }
    std::vector<std::size_t> next(static_cast<std::size_t>(n));
    while (seen < 5 * static_cast<std::size_t>(n)) {
      auto const m = comm.poll(-1);
      if (!m) {
        comm.listen();
        continue;
      }
      ++seen;
      auto const k = next[static_cast<std::size_t>(m->source)]++;
      demand(m->bytes.size() == lengths[k], "message ", k, " of rank ", m->source, " has ", m->bytes.size(),
             " bytes");
      for (auto const b : m->bytes) demand(b == std::byte(m->source + 1), "a byte is wrong");
    }
    comm.barrier();
  });
}

BOOST_AUTO_TEST_CASE(unread_messages_do_not_block_other_calls) {
  int const n = the_world()->size();
  on_ranks(n, patient, [&](mpi::communicator& comm) {
    std::vector<std::byte> const bytes(1'000'000);
    for (int peer = 0; peer < n; ++peer) comm.post(peer, 1, bytes);
    comm.barrier();
  });
  on_ranks(n, patient, [](mpi::communicator& comm) {
    demand(!comm.poll(1), "a message came to another communicator");
    comm.barrier();
  });
}

// MPI reuses the context of a freed communicator, with its messages in transit.
BOOST_AUTO_TEST_CASE(unread_messages_of_a_former_communicator_do_not_disturb_the_next) {
  int const n = the_world()->size();
  for (int round = 0; round < 4; ++round) {
    std::optional<mpi::communicator> comm(std::in_place, the_world()->control(), patient);
    auto const post = [&](int what) { comm->post(0, 1, std::as_bytes(std::span(&what, 1))); };
    int const messages = 6, me = comm->rank();
    for (int k = 0; k < messages && me != 0; ++k) post(100 * round + k);
    std::map<int, int> next;
    for (int arrived = 0; arrived < messages * (n - 1) && me == 0;) {
      auto const m = comm->poll(1);
      if (!m) {
        comm->listen();
        continue;
      }
      int what = 0;
      std::memcpy(&what, m->bytes.data(), sizeof what);
      BOOST_REQUIRE(what == 100 * round + next[m->source]++);
      ++arrived;
    }
    // The last messages arrive when the reader has left.
    if (me == 0) comm.reset();
    the_world()->meet();
    for (int k = 0; k < 3 && me != 0; ++k) post(-1);
  }
}

BOOST_AUTO_TEST_CASE(tags_of_64_bits_are_distinguished) {
  on_ranks(the_world()->size(), patient, [](mpi::communicator& comm) {
    std::vector<i64> const tags{0, 1, i64{1} << 32, std::numeric_limits<i64>::max(),
                                std::numeric_limits<i64>::min()};
    for (i64 const tag : tags) comm.post(comm.rank(), tag, std::as_bytes(std::span(&tag, 1)));
    for (auto tag = tags.rbegin(); tag != tags.rend(); ++tag) {
      auto m = comm.poll(*tag);
      for (; !m; m = comm.poll(*tag)) comm.listen();
      demand(m->bytes.size() == 8 && std::memcmp(m->bytes.data(), &*tag, 8) == 0, "tags are mixed up");
    }
  });
}

BOOST_AUTO_TEST_CASE(parts_of_a_world_use_it_while_others_do_something_else) {
  int const n = the_world()->size();
  for (int first = 1; first <= n; ++first)
    on_ranks(first, patient, [&](mpi::communicator& comm) {
      demand(comm.size() == first, "a part has ", comm.size(), " ranks, not ", first);
      auto same = comm.split(comm.rank() < 2 ? std::numeric_limits<int>::min() : 2147483647);
      demand(same.size() == (comm.rank() < 2 ? std::min(first, 2) : first - 2),
             "extreme colors are mixed up");
      std::vector<float> in{1}, out(1);
      same.all_reduce(const_view(in), view(out)).wait();
      demand(out[0] == static_cast<float>(same.size()), "a split group sums others' values");
    });
}

BOOST_AUTO_TEST_CASE(what_one_rank_throws_is_seen_on_every_rank) {
  int const n = the_world()->size();
  auto const message = message_of([&] {
    on_ranks(n, patient, [&](mpi::communicator& comm) { demand(comm.rank() != n - 1, "on purpose"); });
  });
  BOOST_TEST(message == text("rank ", n - 1, ": contract broken: on purpose"));
}

}  // namespace limber::test
