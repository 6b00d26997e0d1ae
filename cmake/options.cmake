# SPDX-License-Identifier: Apache-2.0
# What a build of this tree may contain. Nothing is ever downloaded.

option(LIMBER_BUILD_TESTS "Build and register the tests (needs Boost.Test)" ${PROJECT_IS_TOP_LEVEL})
option(LIMBER_BUILD_EXAMPLES "Build the examples whose libraries are found" ${PROJECT_IS_TOP_LEVEL})
option(LIMBER_BUILD_BENCH "Build the benches (needs Google Benchmark)" ${PROJECT_IS_TOP_LEVEL})

# OpenMP changes only how tests, examples and benches are compiled: the headers look at _OPENMP.
set(LIMBER_WITH_OPENMP AUTO CACHE STRING "OpenMP in tests, examples and benches: AUTO, ON or OFF")
set_property(CACHE LIMBER_WITH_OPENMP PROPERTY STRINGS AUTO ON OFF)

option(LIMBER_WITH_CUDA "Provide limber::cuda, and compile the headers as CUDA in the tests" OFF)

foreach(engine NCCL MPI GLOO TORCH)
  option(LIMBER_WITH_${engine} "Not part of ${PROJECT_VERSION} yet" OFF)
  if(LIMBER_WITH_${engine})
    message(FATAL_ERROR "limber: LIMBER_WITH_${engine}=ON, but this engine is not part of ${PROJECT_VERSION} yet")
  endif()
endforeach()
