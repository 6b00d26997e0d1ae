// SPDX-License-Identifier: Apache-2.0
// Exits 0 when the gpu executor compiles and links, and, where a device is, fills a tensor.
#include <limber/cuda/cuda_device.cuh>

#include <cstdio>
#include <vector>

struct fill {
  template <class T>
  LIMBER_HD void operator()(T& x) const noexcept {
    x = T(3);
  }
};

struct itself {
  template <class T>
  LIMBER_HD T operator()(T const& x) const noexcept {
    return x;
  }
};

int main() {
  static_assert(__cplusplus >= 202002L);
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
    std::printf("no device: compiled and linked, nothing run\n");
    return 0;
  }
  limber::gpu::stream const stream;
  limber::gpu::executor exec{stream};
  float* const nowhere = nullptr;
  limber::tensor_list const like{{reinterpret_cast<std::byte*>(nowhere), 10000, limber::dtype::f32, "w"}};
  limber::slab const memory = exec.make(limber::layout_of(like));
  exec.each(fill{}, limber::out(memory.parts));
  double const root = exec.norm(itself{}, limber::in(memory.parts)).total.root;
  if (root != 300) std::printf("the norm is %g, not 300\n", root);
  return root == 300 ? 0 : 1;
}
