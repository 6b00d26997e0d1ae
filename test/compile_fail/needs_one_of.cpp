// SPDX-License-Identifier: Apache-2.0
// expect: limber: optimizer: this strategy needs one of the capabilities in its .needs_one_of.
// only
// Asked for at compile time, of a user's strategy as of the library's.
#include "arguments.hpp"

struct pushed {
  static constexpr capabilities needs_one_of = can_send_receive | can_post;
  [[nodiscard]] sync::exchange parts() const { return sync::allreduce{}.parts(); }
};

int main() {
#ifdef CONTROL
  optimizer const opt{parameters, rule, rate, pushed{}, comm};
#else
  optimizer const opt{parameters, rule, rate, pushed{}, plain_comm};
#endif
}
