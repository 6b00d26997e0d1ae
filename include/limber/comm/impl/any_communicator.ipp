// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <limber/comm/any_communicator.hpp>

namespace limber {

LIMBER_COLD LIMBER_FN std::string describe(capabilities what) {
  static constexpr struct {
    capabilities bit;
    char const* words;
  } known[] = {{can_send_receive, "point-to-point messages (send, recv)"},
               {can_post, "a mailbox (post, poll, listen)"},
               {can_split, "splittable groups (split)"},
               {can_shrink, "shrinkable groups (shrink)"},
               {can_revoke, "revocable groups (revoke)"},
               {sums_tensor_pieces, "sums of tensor pieces (all_reduce with pieces)"}};
  std::string out;
  for (auto const& k : known) {
    if ((what & k.bit) == 0) continue;
    what &= ~k.bit;
    if (!out.empty()) out += what == 0 ? " and " : ", ";
    out += k.words;
  }
  return out.empty() ? "nothing" : out;
}

LIMBER_FN communicator::communicator(any_communicator& c) noexcept : communicator(c.handle()) {}

LIMBER_FN detail::communicator_functions const& communicator::functions(char const* call,
                                                                        capabilities needed) const {
  expects(functions_ != nullptr, call, ": this communicator is empty: default-constructed, or moved from");
  if ((functions_->models & needed) != needed) [[unlikely]]
    detail::refuse_with("this collective cannot ", call, ": it lacks ",
                        describe(needed & ~functions_->models));
  return *functions_;
}

LIMBER_FN capabilities communicator::can() const {
  if (functions_ == nullptr) return 0;
  return functions_->can != nullptr ? functions_->can(object_) : functions_->models;
}

LIMBER_FN any_communicator communicator::split(int color) const {
  return functions("split", can_split).split(object_, color);
}
LIMBER_FN any_communicator communicator::shrink(std::span<int const> lost) const {
  return functions("shrink", can_shrink).shrink(object_, lost);
}

LIMBER_FN any_communicator& any_communicator::operator=(any_communicator&& other) noexcept {
  any_communicator before(std::move(other));
  std::swap(static_cast<communicator&>(*this), static_cast<communicator&>(before));
  std::swap(owned_, before.owned_);
  std::swap(destroy_, before.destroy_);
  return *this;
}

}  // namespace limber
