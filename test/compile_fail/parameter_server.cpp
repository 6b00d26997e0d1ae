// SPDX-License-Identifier: Apache-2.0
// expect: a parameter server needs a collective that models limber::mailbox
// Asked for at compile time: a collective without messages cannot have a server.
#include <limber/limber.hpp>

#include <vector>

// All that a collective needs, and nothing else.
struct plain {
  limber::self own;
  int rank() const { return own.rank(); }
  int size() const { return own.size(); }
  auto all_reduce(limber::const_tensor_view in, limber::tensor_view out,
                  limber::reduction how = limber::reduction::sum) {
    return own.all_reduce(in, out, how);
  }
  auto reduce_scatter(limber::const_tensor_view in, limber::tensor_view out) {
    return own.reduce_scatter(in, out);
  }
  auto all_gather(limber::const_tensor_view in, limber::tensor_view out) { return own.all_gather(in, out); }
  auto broadcast(limber::tensor_view data, int root) { return own.broadcast(data, root); }
  void barrier() { own.barrier(); }
};

#ifdef CONTROL
using communicator = limber::self;
#else
using communicator = plain;
#endif

int main() {
  communicator comm;
  std::vector<float> w(3), g(3);
  limber::optimizer opt{std::vector<limber::tensor>{{"w", w, g}}, limber::sgd{}, 0.1,
                        limber::sync::parameter_server{}, comm};
  opt.step(1);
}
