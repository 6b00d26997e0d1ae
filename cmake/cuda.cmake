# SPDX-License-Identifier: Apache-2.0
# limber::cuda: the headers below cuda/, the second include root; they install beside the others.
# limber::nccl: what include/limber/comm/nccl.hpp, which is installed with the base, must be linked with.
# Neither needs nvcc here: the headers are compiled by who includes them.

list(APPEND CMAKE_MODULE_PATH ${PROJECT_SOURCE_DIR}/cmake)  # FindNCCL

if(LIMBER_WITH_CUDA STREQUAL "AUTO")
  find_package(CUDAToolkit QUIET)
elseif(LIMBER_WITH_CUDA OR LIMBER_WITH_NCCL)
  find_package(CUDAToolkit REQUIRED)
endif()

if(LIMBER_WITH_CUDA AND CUDAToolkit_FOUND)
  limber_add_component(cuda BASE cuda HEADERS ${LIMBER_CUDA_HEADERS} LINKS limber_limber CUDA::cudart
                       PACKAGES CUDAToolkit)
  target_compile_features(limber_cuda INTERFACE cuda_std_20)
  if(NOT PROJECT_IS_TOP_LEVEL)
    get_directory_property(parent DIRECTORY ${PROJECT_SOURCE_DIR} PARENT_DIRECTORY)
    cmake_language(EVAL CODE "cmake_language(DEFER DIRECTORY [[${parent}]] CALL include
                                             [[${PROJECT_SOURCE_DIR}/cmake/limber-cuda-standard.cmake]])")
  endif()
endif()

if(LIMBER_WITH_NCCL)
  find_package(NCCL REQUIRED)
  limber_add_component(nccl LINKS limber_limber NCCL::NCCL CUDA::cudart PACKAGES CUDAToolkit NCCL)
endif()
