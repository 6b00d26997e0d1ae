// SPDX-License-Identifier: Apache-2.0
#pragma once

/// @file
/// The parameters of an optimizer or a fused step, in the order that everything below uses.

#include <limber/core/tensor.hpp>

#include <string>
#include <string_view>
#include <vector>

namespace limber {

/// All tensors of all groups sorted by name, so that bits do not depend on the order of registration;
/// that order is kept beside, because buckets follow it.
///
/// Owns the names that every view below points to.
struct parameter_lists {
  std::vector<std::string> names;         ///< of the parameters, sorted
  tensor_list values, gradients;          ///< in the order of `names`
  std::vector<std::string> buffer_names;  ///< sorted
  tensor_list buffers;                    ///< in the order of `buffer_names`
  std::vector<i64> use_order;             ///< place in `names` of the first, second, … registered tensor

  /// @param who  for messages: "optimizer"
  /// @throws std::invalid_argument if there is no parameter, one of them is not as `check` wants it, or two
  ///         share memory
  parameter_lists(std::string_view who, std::vector<tensor> const& parameters,
                  std::vector<tensor> const& buffers);
  parameter_lists(parameter_lists&&) = default;
  parameter_lists& operator=(parameter_lists&&) = default;

  /// Place in `names`. @throws std::invalid_argument naming `call` and the name, if there is none
  [[nodiscard]] i64 find(std::string_view call, std::string_view name) const;
  /// Place in `names` of the parameter that was registered as number `index`, counting from 0.
  [[nodiscard]] i64 registered(std::string_view call, i64 index) const;

  /// Gradients are at these addresses from now on, in the order of registration.
  /// @throws std::invalid_argument if lengths or types differ
  void move_gradients(std::vector<tensor_view> const& to);

 private:
  /// Place in `names`; −1: there is no such name.
  [[nodiscard]] i64 place_of(std::string_view name) const noexcept;
};

}  // namespace limber

#if !defined(LIMBER_COMPILED)
#include <limber/fuse/impl/parameter_lists.ipp>
#endif
