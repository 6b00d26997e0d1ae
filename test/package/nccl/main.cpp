// SPDX-License-Identifier: Apache-2.0
// Exits 0 when header and library of NCCL are of one version.
#include <limber/comm/nccl.hpp>

#include <nccl.h>

#include <cstdio>

int main() {
  int version = 0;
  bool const same = ncclGetVersion(&version) == ncclSuccess && version == NCCL_VERSION_CODE;
  if (!same) std::printf("nccl.h is of version %d, the library of %d\n", NCCL_VERSION_CODE, version);
  return same ? 0 : 1;
}
