# SPDX-License-Identifier: Apache-2.0
# What a build of this tree may contain. Nothing is ever downloaded.

option(LIMBER_BUILD_TESTS "Build and register the tests (needs Boost.Test)" ${PROJECT_IS_TOP_LEVEL})
option(LIMBER_BUILD_EXAMPLES "Build the examples whose libraries are found" ${PROJECT_IS_TOP_LEVEL})
option(LIMBER_BUILD_BENCH "Build the benches (needs Google Benchmark)" ${PROJECT_IS_TOP_LEVEL})

# limber::compiled is built by whoever links it; at the top level with everything else.
option(LIMBER_WITH_COMPILED "Provide limber::compiled, a library with what is no template" ON)

# The headers look at _OPENMP; this is for limber::compiled, tests, examples and benches.
set(LIMBER_WITH_OPENMP AUTO CACHE STRING "OpenMP in limber::compiled, tests, examples and benches: AUTO, ON or OFF")
set_property(CACHE LIMBER_WITH_OPENMP PROPERTY STRINGS AUTO ON OFF)

# AUTO: limber::cuda when the CUDA toolkit is found, and tests and benches in .cu files when nvcc is.
set(limber_default OFF)
if(PROJECT_IS_TOP_LEVEL)
  set(limber_default AUTO)
endif()
set(LIMBER_WITH_CUDA ${limber_default} CACHE STRING "limber::cuda, and what nvcc compiles: AUTO, ON or OFF")
set_property(CACHE LIMBER_WITH_CUDA PROPERTY STRINGS AUTO ON OFF)
set(LIMBER_CUDA_ARCHITECTURES AUTO CACHE STRING
    "Architectures of tests, examples and benches. AUTO: 90 where there is a GPU, else PTX alone, which compiles faster")

set(LIMBER_WITH_SIM ${limber_default} CACHE STRING "limber::sim, where Boost.Context is found: AUTO, ON or OFF")
set_property(CACHE LIMBER_WITH_SIM PROPERTY STRINGS AUTO ON OFF)

set(LIMBER_WITH_STATE ${limber_default} CACHE STRING "limber::state, where nlohmann-json is found: AUTO, ON or OFF")
set_property(CACHE LIMBER_WITH_STATE PROPERTY STRINGS AUTO ON OFF)

set(LIMBER_WITH_MPI ${limber_default} CACHE STRING "limber::mpi, where an MPI is found: AUTO, ON or OFF")
set_property(CACHE LIMBER_WITH_MPI PROPERTY STRINGS AUTO ON OFF)

option(LIMBER_WITH_NCCL "Provide limber::nccl" OFF)

set(LIMBER_WITH_GLOO ${limber_default} CACHE STRING "limber::gloo, where Gloo is found: AUTO, ON or OFF")
set_property(CACHE LIMBER_WITH_GLOO PROPERTY STRINGS AUTO ON OFF)

foreach(engine TORCH)
  option(LIMBER_WITH_${engine} "Not part of ${PROJECT_VERSION} yet" OFF)
  if(LIMBER_WITH_${engine})
    message(FATAL_ERROR "limber: LIMBER_WITH_${engine}=ON, but this engine is not part of ${PROJECT_VERSION} yet")
  endif()
endforeach()
