// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The collective contract: what an engine may offer besides. Included by collective_contract.hpp.

#include <support/contract_helpers.hpp>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <map>
#include <span>
#include <string>
#include <thread>
#include <type_traits>
#include <vector>

namespace limber::test {

BOOST_AUTO_TEST_SUITE(contract)

BOOST_AUTO_TEST_CASE_TEMPLATE(messages_between_two_ranks_arrive_in_order, H, contract_harnesses) {
  if constexpr (!point_to_point<typename H::communicator>) {
    skip("send and recv", "point_to_point");
  } else {
    in_every_world<H>([](auto& comm) {
      int const n = comm.size(), me = comm.rank();
      if (n == 1) return;
      // Pairs first, so that engines whose send waits for the receiver pass as well.
      for_each_type<float, double, bf16, f16, i64, std::uint8_t>([&]<class T>() {
        for (int sender = 0; sender < n; ++sender)
          for (std::size_t const length : contract_lengths) {
            int const receiver = (sender + 1) % n;
            if (me == sender)
              for (int k = 0; k < 3; ++k) {
                typename H::template buffer<T> data(any_bytes<T>(sender + k, length));
                comm.send(data.view("letter"), receiver);
              }
            if (me == receiver)
              for (int k = 0; k < 3; ++k) {
                typename H::template buffer<T> data{std::vector<T>(length)};
                comm.recv(data.view("letter"), sender);
                demand(same_bits(data.read(), any_bytes<T>(sender + k, length)), "rank ", me, " got letter ",
                       k, " of ", length, " ", name_of(dtype_of<T>), " with other bytes");
              }
          }
      });
    });
  }
}

BOOST_AUTO_TEST_CASE_TEMPLATE(a_group_splits_by_color_in_rank_order_and_again, H, contract_harnesses) {
  if constexpr (!splittable<typename H::communicator>) {
    skip("split", "splittable");
  } else {
    in_every_world<H>([](auto& comm) {
      int const me = comm.rank(), n = comm.size();
      int const color = me % 3;
      auto part = comm.split(color);
      int const members = (n - color + 2) / 3;
      demand(part.size() == members && part.rank() == me / 3, "rank ", me, " of ", n, " became ", part.rank(),
             " of ", part.size());
      // Groups of one world are independent: different numbers of operations in each.
      for (int round = 0; round <= color; ++round) {
        auto const sum = all_reduced<H>(part, std::vector<i64>{me});
        i64 expected = 0;
        for (int r = color; r < n; r += 3) expected += r;
        demand(sum[0] == expected, "group ", color, " sums to ", sum[0], ", not ", expected);
      }
      auto alone = part.split(me);
      demand(alone.size() == 1 && alone.rank() == 0, "a group of one has ", alone.size(), " ranks");
      demand(all_reduced<H>(alone, std::vector<i64>{me})[0] == me, "a group of one sums others' values");
      auto all = comm.split(-7);
      demand(all.size() == n && all.rank() == me, "one color for all must give the same ranks");
      // Inner, outer and new groups in turn.
      auto const in_all = all_reduced<H>(all, std::vector<i64>{1});
      auto const in_part = all_reduced<H>(part, std::vector<i64>{1});
      auto const in_comm = all_reduced<H>(comm, std::vector<i64>{1});
      demand(in_all[0] == n && in_part[0] == members && in_comm[0] == n,
             "groups used in turn disturb each other");
    });
  }
}

BOOST_AUTO_TEST_CASE_TEMPLATE(the_mailbox_keeps_the_order_of_each_sender_and_tag, H, contract_harnesses) {
  if constexpr (!mailbox<typename H::communicator>) {
    skip("post and poll", "a mailbox");
  } else {
    in_every_world<H>([](auto& comm) {
      int const n = comm.size();
      std::uint8_t const letters = 10;
      demand(!comm.poll(3), "an empty mailbox has a message");
      comm.barrier();
      for (std::uint8_t k = 0; k < letters; ++k)
        for (int peer = 0; peer < n; ++peer)
          for (i64 const tag : {i64{3}, i64{-4}}) {
            std::byte const bytes[] = {std::byte{k}, std::byte(comm.rank()), std::byte(tag & 0xff)};
            comm.post(peer, tag, std::span(bytes).first(k == 9 ? 0 : 3));
          }
      for (i64 const tag : {i64{-4}, i64{3}}) {
        std::map<int, int> next;
        for (int arrived = 0; arrived < n * letters;) {
          auto const m = comm.poll(tag);
          if (!m) {
            comm.listen();
            continue;
          }
          ++arrived;
          int const k = next[m->source]++;
          if (k == 9) {
            demand(m->bytes.empty(), "the empty message has ", m->bytes.size(), " bytes");
            continue;
          }
          demand(m->bytes.size() == 3 && m->bytes[0] == std::byte(k), "message ", k, " of rank ", m->source,
                 " came out of order");
          demand(m->bytes[1] == std::byte(m->source), "a message has a wrong source");
          demand(m->bytes[2] == std::byte(tag & 0xff), "a message came under another tag");
        }
        demand(static_cast<int>(next.size()) == n, "messages came from ", next.size(), " of ", n, " ranks");
        demand(!comm.poll(tag), "a message came twice");
      }
      comm.barrier();
    });
  }
}

BOOST_AUTO_TEST_CASE_TEMPLATE(a_revoked_group_throws_the_reason_on_every_rank, H, contract_harnesses) {
  if constexpr (!revocable<typename H::communicator>) {
    skip("revoke", "revocable");
  } else {
    in_every_world<H>([](auto& comm) {
      bool const ends_it = comm.rank() == comm.size() - 1;
      if (ends_it) comm.revoke("the tide came in");
      // The others are in the operation, or come to it later.
      for (int attempt = 0; attempt < 2; ++attempt) {
        std::string message;
        try {
          (void)all_reduced<H>(comm, std::vector<float>(10));
        } catch (error const& e) {
          message = e.what();
          demand(e.where().call == "all_reduce", "the call is named '", e.where().call, "'");
          demand(e.where().bucket == "in", "the bucket is named '", e.where().bucket, "'");
        }
        demand(message.find("the tide came in") != std::string::npos, "rank ", comm.rank(), " got '", message,
               "'");
      }
    });
  }
}

BOOST_AUTO_TEST_CASE_TEMPLATE(survivors_shrink_a_group_and_go_on, H, contract_harnesses) {
  if constexpr (!shrinkable<typename H::communicator>) {
    skip("shrink", "shrinkable");
  } else {
    for (int n = 2; n <= H::largest_world; ++n)
      for (bool const revoked_before : {false, true})
        H::run(n, [=](auto& comm) {
          using C = std::remove_reference_t<decltype(comm)>;
          std::vector<int> lost{n / 2};
          if (n > 4) lost.push_back(n - 1);
          if (revoked_before) {
            if constexpr (revocable<C>) {
              if (comm.rank() == 0) comm.revoke("somebody died");
            }
          }
          if (std::ranges::find(lost, comm.rank()) != lost.end()) return;
          auto rest = comm.shrink(lost);
          demand(rest.size() == n - static_cast<int>(lost.size()), n, " ranks less ", lost.size(), " are ",
                 rest.size());
          auto const ranks =
              all_reduced<H>(rest, std::vector<i64>{i64{1} << comm.rank(), i64{1} << rest.rank()});
          i64 expected = (i64{1} << n) - 1;
          for (int const r : lost) expected -= i64{1} << r;
          demand(ranks[0] == expected, "other ranks survived");
          demand(ranks[1] == (i64{1} << rest.size()) - 1, "the survivors are not numbered from 0");
        });
  }
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace limber::test
