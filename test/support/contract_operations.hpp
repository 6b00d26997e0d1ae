// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The collective contract: what every engine does. Included by collective_contract.hpp.

#include <support/contract_helpers.hpp>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstddef>
#include <deque>
#include <limits>
#include <stdexcept>
#include <string>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

namespace limber::test {

BOOST_AUTO_TEST_SUITE(contract)

BOOST_AUTO_TEST_CASE_TEMPLATE(all_reduce_sums_every_type_and_length_and_leaves_its_input_alone, H,
                              contract_harnesses) {
  in_every_world<H>([](auto& comm) {
    for_each_type<float, double, bf16, f16, i64>([&]<class T>() {
      for (std::size_t const n : contract_lengths) {
        auto const result = all_reduced<H>(comm, whole_numbers<T>(comm.rank(), n));
        for (std::size_t i = 0; i < n; ++i) {
          int expected = 0;
          for (int r = 0; r < comm.size(); ++r) expected += whole_number(r, i);
          demand(number_of(result[i]) == expected, "rank ", comm.rank(), " of ", comm.size(), ": sum of ",
                 name_of(dtype_of<T>), " is ", number_of(result[i]), ", not ", expected, " at ", i, " of ",
                 n);
        }
      }
    });
  });
}

BOOST_AUTO_TEST_CASE_TEMPLATE(all_reduce_takes_the_largest, H, contract_harnesses) {
  in_every_world<H>([](auto& comm) {
    for_each_type<float, double, i64>([&]<class T>() {
      for (std::size_t const n : contract_lengths) {
        auto const result = all_reduced<H>(comm, whole_numbers<T>(comm.rank(), n), reduction::max);
        for (std::size_t i = 0; i < n; ++i) {
          int expected = whole_number(0, i);
          for (int r = 1; r < comm.size(); ++r) expected = std::max(expected, whole_number(r, i));
          demand(number_of(result[i]) == expected, "rank ", comm.rank(), ": max is ", number_of(result[i]),
                 ", not ", expected, " at ", i);
        }
      }
      T const low = std::numeric_limits<T>::lowest(), high = std::numeric_limits<T>::max();
      auto const ends =
          all_reduced<H>(comm, std::vector<T>{comm.rank() == 0 ? high : low, low}, reduction::max);
      demand(ends[0] == high && ends[1] == low, "max does not keep the ends of ", name_of(dtype_of<T>));
    });
  });
}

BOOST_AUTO_TEST_CASE_TEMPLATE(uneven_values_give_the_same_bits_on_every_rank_and_repetition, H,
                              contract_harnesses) {
  in_every_world<H>([](auto& comm) {
    for_each_type<float, double, bf16, f16>([&]<class T>() {
      bool const large = std::is_same_v<T, float> || comm.size() == 3;
      for (std::size_t const n : {std::size_t{1}, std::size_t{4099}, large_length}) {
        if (n == large_length && !large) continue;
        auto const values = uneven_values<T>(comm.rank(), n);
        auto const first = all_reduced<H>(comm, values);
        demand(same_everywhere<H>(comm, checksum(first)), "sums of ", n, " ", name_of(dtype_of<T>),
               " differ between ", comm.size(), " ranks");
        demand(same_bits(all_reduced<H>(comm, values), first), "sums of ", n, " ", name_of(dtype_of<T>),
               " differ when repeated");
        if constexpr (H::rank_order)
          demand(same_bits(first, summed_in_rank_order<T>(comm.size(), n)), "rank ", comm.rank(), " of ",
                 comm.size(), ": ", n, " ", name_of(dtype_of<T>), " were not added in rank order");
      }
    });
  });
}

BOOST_AUTO_TEST_CASE_TEMPLATE(bits_do_not_depend_on_how_a_buffer_is_cut_where_the_order_is_known, H,
                              contract_harnesses) {
  if constexpr (!H::rank_order)
    skip("bits and cutting", "of known order");
  else
    in_every_world<H>([](auto& comm) {
      for_each_type<float, double, bf16, f16>([&]<class T>() {
        std::size_t const n = 70'001;
        auto const values = uneven_values<T>(comm.rank(), n);
        auto const whole = all_reduced<H>(comm, values);
        std::size_t first = 0;
        for (std::size_t const piece : {1u, 7u, 1023u, 4096u, 20'000u, 33u, 44'841u}) {
          auto const at = values.begin() + static_cast<std::ptrdiff_t>(first);
          auto const part = all_reduced<H>(comm, std::vector<T>(at, at + static_cast<std::ptrdiff_t>(piece)));
          for (std::size_t i = 0; i < piece; ++i)
            demand(same_bits(part[i], whole[first + i]), "a piece of ", piece,
                   " has other bits than the whole at ", i);
          first += piece;
        }
        demand(first == n, "the pieces must cover the buffer");
      });
    });
}

BOOST_AUTO_TEST_CASE_TEMPLATE(signed_zeros_infinities_and_nans_are_summed_as_numbers_are, H,
                              contract_harnesses) {
  if constexpr (requires { H::sums_by_blocks; })
    return skip("special values", "one that adds element by element");
  in_every_world<H>([](auto& comm) {
    for_each_type<float, double, bf16, f16>([&]<class T>() {
      double const inf = std::numeric_limits<double>::infinity(),
                   nan = std::numeric_limits<double>::quiet_NaN();
      bool const last = comm.rank() == comm.size() - 1;
      std::vector<double> const mine{-0.0,
                                     last ? inf : 1,
                                     last ? -inf : 1,
                                     last ? nan : 1,
                                     comm.rank() == 0 ? nan : inf,
                                     last && !(comm.rank() == 0) ? -inf : inf};
      auto const out = all_reduced<H>(comm, converted<T>(mine));
      demand(number_of(out[0]) == 0 && std::signbit(number_of(out[0])), "-0 + -0 must be -0, got ",
             number_of(out[0]));
      demand(number_of(out[1]) == inf, "1 + inf is ", number_of(out[1]));
      demand(number_of(out[2]) == -inf, "1 - inf is ", number_of(out[2]));
      demand(std::isnan(number_of(out[3])) && std::isnan(number_of(out[4])), "a NaN was lost");
      demand(comm.size() == 1 ? number_of(out[5]) == inf : std::isnan(number_of(out[5])), "inf - inf is ",
             number_of(out[5]));
      demand(same_everywhere<H>(comm, checksum(out)), "special values differ between ranks");
    });
  });
}

BOOST_AUTO_TEST_CASE_TEMPLATE(every_root_broadcasts_every_type, H, contract_harnesses) {
  in_every_world<H>([](auto& comm) {
    for_each_type<float, double, bf16, f16, i64, std::uint8_t>([&]<class T>() {
      for (std::size_t const n : contract_lengths)
        for (int root = 0; root < comm.size(); ++root) {
          typename H::template buffer<T> data(any_bytes<T>(comm.rank(), n));
          comm.broadcast(data.view("data"), root).wait();
          demand(same_bits(data.read(), any_bytes<T>(root, n)), "rank ", comm.rank(),
                 " got other bytes from root ", root);
        }
    });
  });
}

BOOST_AUTO_TEST_CASE_TEMPLATE(all_gather_puts_every_type_in_rank_order, H, contract_harnesses) {
  in_every_world<H>([](auto& comm) {
    for_each_type<float, double, bf16, f16, i64, std::uint8_t>([&]<class T>() {
      for (std::size_t const n : contract_lengths) {
        auto const mine = any_bytes<T>(comm.rank(), n);
        typename H::template buffer<T> in(mine),
            out(std::vector<T>(n * static_cast<std::size_t>(comm.size())));
        comm.all_gather(in.view("in"), out.view("out")).wait();
        std::vector<T> expected;
        for (int r = 0; r < comm.size(); ++r)
          for (T const& x : any_bytes<T>(r, n)) expected.push_back(x);
        demand(same_bits(out.read(), expected), "rank ", comm.rank(), " gathered other bytes, ", n,
               " a rank");
        demand(same_bits(in.read(), mine), "the input of all_gather changed");
      }
    });
  });
}

BOOST_AUTO_TEST_CASE_TEMPLATE(reduce_scatter_gives_each_rank_its_block_of_the_sum, H, contract_harnesses) {
  in_every_world<H>([](auto& comm) {
    for_each_type<float, double, bf16, f16, i64>([&]<class T>() {
      for (std::size_t const n : contract_lengths) {
        auto const all = n * static_cast<std::size_t>(comm.size());
        auto const mine = whole_numbers<T>(comm.rank(), all);
        typename H::template buffer<T> in(mine), out(std::vector<T>{std::vector<T>(n)});
        comm.reduce_scatter(in.view("in"), out.view("out")).wait();
        auto const block = out.read();
        for (std::size_t i = 0; i < n; ++i) {
          int expected = 0;
          for (int r = 0; r < comm.size(); ++r)
            expected += whole_number(r, static_cast<std::size_t>(comm.rank()) * n + i);
          demand(number_of(block[i]) == expected, "rank ", comm.rank(), ": element ", i, " of its block is ",
                 number_of(block[i]), ", not ", expected);
        }
        demand(same_bits(in.read(), mine), "the input of reduce_scatter changed");
      }
    });
  });
}

BOOST_AUTO_TEST_CASE_TEMPLATE(several_operations_may_be_in_flight_and_be_waited_for_in_any_order, H,
                              contract_harnesses) {
  for (bool const backwards : {false, true})
    in_every_world<H>([=](auto& comm) {
      using request_type = decltype(comm.all_reduce(const_tensor_view{}, tensor_view{}));
      for (int round = 0; round < 3; ++round) {
        std::deque<typename H::template buffer<float>> in, out;
        std::deque<request_type> open;
        for (std::size_t k = 0; k < 9; ++k) {
          in.emplace_back(whole_numbers<float>(comm.rank() + static_cast<int>(k), 100 * k));
          out.emplace_back(std::vector<float>(100 * k));
        }
        typename H::template buffer<double> control(std::vector<double>{1.0 * comm.rank()}),
            sum(std::vector<double>{0});
        typename H::template buffer<i64> word(std::vector<i64>{comm.rank() == comm.size() - 1 ? 42 : 0});
        for (std::size_t k = 0; k < 9; ++k)
          open.push_back(comm.all_reduce(in[k].view("bucket"), out[k].view("sum")));
        auto control_sum = comm.all_reduce(control.view("control"), sum.view("control sum"));
        auto last = comm.broadcast(word.view("word"), comm.size() - 1);
        if (backwards) {
          last.wait();
          control_sum.wait();
          for (; !open.empty(); open.pop_back()) open.back().wait();
        } else {
          for (auto& q : open) q.wait();
          control_sum.wait();
          last.wait();
        }
        for (std::size_t k = 0; k < 9; ++k) {
          auto const result = out[k].read();
          for (std::size_t i = 0; i < result.size(); ++i) {
            int expected = 0;
            for (int r = 0; r < comm.size(); ++r) expected += whole_number(r + static_cast<int>(k), i);
            demand(result[i] == static_cast<float>(expected), "bucket ", k, " is wrong at ", i);
          }
        }
        demand(sum.read()[0] == 0.5 * comm.size() * (comm.size() - 1), "the control bucket is wrong");
        demand(word.read()[0] == 42, "the broadcast after the buckets is wrong");
      }
    });
}

BOOST_AUTO_TEST_CASE_TEMPLATE(done_turns_true_and_a_moved_request_can_be_waited_for, H, contract_harnesses) {
  in_every_world<H>([](auto& comm) {
    typename H::template buffer<float> in(std::vector<float>(5000, 1)), out(std::vector<float>(5000));
    auto first = comm.all_reduce(in.view("in"), out.view("out"));
    auto second = std::move(first);
    while (!second.done()) std::this_thread::sleep_for(std::chrono::microseconds(100));
    second.wait();
    demand(out.read()[4999] == static_cast<float>(comm.size()), "the sum is not there though done was true");
  });
}

BOOST_AUTO_TEST_CASE_TEMPLATE(barriers_between_operations_change_nothing, H, contract_harnesses) {
  in_every_world<H>([](auto& comm) {
    for (int round = 0; round < 20; ++round) {
      comm.barrier();
      auto const sum = all_reduced<H>(comm, std::vector<i64>{round, comm.rank()});
      demand(sum[0] == round * comm.size(), "an operation from another round was matched");
      comm.barrier();
    }
  });
}

BOOST_AUTO_TEST_CASE_TEMPLATE(misuse_is_refused_before_anything_is_sent, H, contract_harnesses) {
  in_every_world<H>([](auto& comm) {
    auto const refused = [&](char const* part, auto&& call) {
      std::string message;
      try {
        call();
      } catch (std::invalid_argument const& e) { message = e.what(); }
      demand(message.find(part) != std::string::npos, "expected '", part, "' to be refused, got '", message,
             "'");
    };
    typename H::template buffer<float> four(std::vector<float>(4)), five(std::vector<float>(5));
    typename H::template buffer<double> doubles(std::vector<double>(4));
    typename H::template buffer<std::uint8_t> a(std::vector<std::uint8_t>(4)),
        b(std::vector<std::uint8_t>(4));
    typename H::template buffer<bf16> c(std::vector<bf16>(4)), d(std::vector<bf16>(4));
    auto const in = four.view("w");
    refused("all_reduce of 'w': in has 4 elements but out 5",
            [&] { comm.all_reduce(in, five.view("x")).wait(); });
    refused("all_reduce of 'w': in is f32 but out is f64",
            [&] { comm.all_reduce(in, doubles.view("x")).wait(); });
    refused("all_reduce of 'w': in and out overlap", [&] { comm.all_reduce(in, in).wait(); });
    refused("all_reduce of 'w': out is a null pointer", [&] {
      comm.all_reduce(in, tensor_view{nullptr, 4}).wait();
    });
    refused("all_reduce of 'u': no sum of uint8", [&] { comm.all_reduce(a.view("u"), b.view("v")).wait(); });
    refused("all_reduce of 'u': no max of bf16",
            [&] { comm.all_reduce(c.view("u"), d.view("v"), reduction::max).wait(); });
    refused("reduce_scatter of 'w': in has 4 elements, not",
            [&] { comm.reduce_scatter(in, five.view("x")).wait(); });
    refused("all_gather of 'w': out has 5 elements, not", [&] {
      tensor_view const small = four.view("w").sub(0, comm.size() == 5 ? 2 : 4);
      comm.all_gather(small, five.view("x")).wait();
    });
    refused("broadcast: root must lie in [0, ", [&] { comm.broadcast(in, comm.size()).wait(); });
    refused("broadcast: root must lie in [0, ", [&] { comm.broadcast(in, -1).wait(); });
    if constexpr (point_to_point<std::remove_reference_t<decltype(comm)>>) {
      refused("send: peer must lie in [0, ", [&] { comm.send(in, comm.size()); });
      refused("recv: peer must lie in [0, ", [&] { comm.recv(in, -1); });
    }
    if constexpr (mailbox<std::remove_reference_t<decltype(comm)>>)
      refused("post: peer must lie in [0, ", [&] { comm.post(comm.size(), 0, {}); });
    // All of that was refused before it counted as a call.
    demand(all_reduced<H>(comm, std::vector<i64>{1})[0] == comm.size(), "misuse left its mark");
  });
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace limber::test
