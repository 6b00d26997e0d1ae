# SPDX-License-Identifier: Apache-2.0
# limber::cuda: the headers below cuda/, the second include root. They install beside the others.

if(NOT LIMBER_CUDA_HEADERS)
  message(NOTICE "limber: the CUDA half is not part of ${PROJECT_VERSION} yet: there is no target limber::cuda; "
                 "the tests compile the host-device headers with nvcc")
  return()
endif()

find_package(CUDAToolkit REQUIRED)
limber_add_component(cuda BASE cuda HEADERS ${LIMBER_CUDA_HEADERS} LINKS limber_limber CUDA::cudart
                     PACKAGES CUDAToolkit)
