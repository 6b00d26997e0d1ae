# SPDX-License-Identifier: Apache-2.0
# What tests, examples and benches share and users never see: warnings, threads, OpenMP, nvcc, paths.

find_package(Threads REQUIRED)

add_library(limber_development INTERFACE)
target_link_libraries(limber_development INTERFACE limber_limber Threads::Threads)
target_include_directories(limber_development INTERFACE ${PROJECT_SOURCE_DIR}/cuda)  # what of it needs no nvcc
target_compile_options(limber_development INTERFACE -Wall -Wextra -Wshadow -Wconversion
                                                    $<$<COMPILE_LANGUAGE:CXX>:-Wpedantic>)
target_compile_definitions(limber_development INTERFACE LIMBER_SOURCE_DIR="${PROJECT_SOURCE_DIR}"
                                                        LIMBER_BINARY_DIR="${PROJECT_BINARY_DIR}")

# Tests, examples and benches share one build of the library.
target_compile_options(limber_compiled PRIVATE $<TARGET_PROPERTY:limber_development,INTERFACE_COMPILE_OPTIONS>)
if(CMAKE_BUILD_TYPE STREQUAL "Debug" AND NOT CMAKE_CXX_FLAGS MATCHES "-fsanitize")
  target_compile_options(limber_compiled PRIVATE -O2)
endif()
set_target_properties(limber_compiled PROPERTIES COMPILE_WARNING_AS_ERROR ON)

# GCC sees things that are not so once it inlines a lot or adds a sanitizer's checks.
if(CMAKE_BUILD_TYPE STREQUAL "Release" OR CMAKE_CXX_FLAGS MATCHES "-fsanitize")
  target_compile_options(limber_development INTERFACE $<$<COMPILE_LANG_AND_ID:CXX,GNU>:-Wno-maybe-uninitialized>)
endif()

# GCC collects its garbage less often: a sixth less time, for up to 1.5 GB a compiler.
target_compile_options(limber_development INTERFACE
  $<$<COMPILE_LANG_AND_ID:CXX,GNU>:SHELL:--param ggc-min-expand=300 --param ggc-min-heapsize=1048576>)

if(LIMBER_WITH_OPENMP STREQUAL "AUTO")
  find_package(OpenMP QUIET COMPONENTS CXX)
  if(NOT OpenMP_CXX_FOUND)
    message(STATUS "limber: OpenMP skipped: ${CMAKE_CXX_COMPILER} has none; the host executor stays serial")
  endif()
elseif(LIMBER_WITH_OPENMP)
  find_package(OpenMP REQUIRED COMPONENTS CXX)
endif()
if(OpenMP_CXX_FOUND AND LIMBER_WITH_OPENMP)
  set(limber_openmp TRUE)
  target_link_libraries(limber_development INTERFACE OpenMP::OpenMP_CXX)
endif()

# limber_nvcc is TRUE when .cu files can be compiled; no GPU is needed for that.
set(limber_nvcc FALSE)
if(LIMBER_WITH_CUDA)
  find_program(LIMBER_NVCC nvcc HINTS ${CUDAToolkit_BIN_DIR} ENV CUDA_PATH PATHS /usr/local/cuda/bin)
  set(CMAKE_CUDA_ARCHITECTURES ${LIMBER_CUDA_ARCHITECTURES})
  if(LIMBER_CUDA_ARCHITECTURES STREQUAL "AUTO")
    if(EXISTS /dev/nvidiactl)
      set(CMAKE_CUDA_ARCHITECTURES 90)
    else()
      set(CMAKE_CUDA_ARCHITECTURES 90-virtual)
    endif()
  endif()
  if(LIMBER_NVCC)
    # check_language knows of the environment alone; what the user has set stays.
    if(NOT DEFINED ENV{CUDACXX})
      set(ENV{CUDACXX} ${LIMBER_NVCC})
    endif()
    if(NOT DEFINED ENV{CUDAHOSTCXX})
      set(ENV{CUDAHOSTCXX} ${CMAKE_CXX_COMPILER})
    endif()
    include(CheckLanguage)
    check_language(CUDA)
  endif()
  if(NOT LIMBER_NVCC)
    set(reason "nvcc was not found")
  elseif(NOT CMAKE_CUDA_COMPILER)
    set(reason "${LIMBER_NVCC} does not work with ${CMAKE_CXX_COMPILER}")
  elseif(NOT CUDAToolkit_FOUND)
    set(reason "no CUDA toolkit was found")
  else()
    enable_language(CUDA)
    include(${PROJECT_SOURCE_DIR}/cmake/limber-cuda-standard.cmake)
    set(limber_nvcc TRUE)
    # Without a GPU a Debug build only shows that kernels compile: half the time. What the compiler makes
    # of them is checked by the tests `ptx`, with all optimizations.
    if(CMAKE_CUDA_ARCHITECTURES STREQUAL "90-virtual" AND CMAKE_BUILD_TYPE STREQUAL "Debug")
      include(CheckCompilerFlag)
      check_compiler_flag(CUDA -Ofc=max limber_nvcc_compiles_fast)
      if(limber_nvcc_compiles_fast)
        target_compile_options(limber_development INTERFACE $<$<COMPILE_LANGUAGE:CUDA>:-Ofc=max>)
      endif()
    endif()
  endif()
  if(NOT limber_nvcc AND LIMBER_WITH_CUDA STREQUAL "AUTO")
    message(STATUS "limber: CUDA skipped: ${reason}")
  elseif(NOT limber_nvcc)
    message(FATAL_ERROR "limber: LIMBER_WITH_CUDA=${LIMBER_WITH_CUDA}, but ${reason}")
  endif()
endif()

# limber_executable(<target> [HEADER_ONLY] <source>...): of the compiled form, unless it is said otherwise. Warnings
# are errors; --compile-no-warning-as-error lifts that. The CUDA runtime is linked statically: nothing of it is looked
# for when the program starts.
function(limber_executable target)
  cmake_parse_arguments(PARSE_ARGV 1 arg "HEADER_ONLY" "" "")
  add_executable(${target} ${arg_UNPARSED_ARGUMENTS})
  target_link_libraries(${target} PRIVATE limber_development)
  if(NOT arg_HEADER_ONLY)
    target_link_libraries(${target} PRIVATE limber_compiled)
  endif()
  set_target_properties(${target} PROPERTIES COMPILE_WARNING_AS_ERROR ON CXX_EXTENSIONS OFF CUDA_STANDARD 20
                                             CUDA_STANDARD_REQUIRED ON CUDA_EXTENSIONS OFF CUDA_RUNTIME_LIBRARY Static)
endfunction()

# limber_find_needs(<result> <package>...): looks for each package; the result lists what is absent.
# The packages' targets are then available as limber_target_<package>.
macro(limber_find_needs result)
  set(limber_target_Eigen3 Eigen3::Eigen)
  set(limber_target_CLI11 CLI11::CLI11)
  set(limber_target_nlohmann_json nlohmann_json::nlohmann_json)
  set(limber_target_ZLIB ZLIB::ZLIB)
  set(limber_target_OpenMP OpenMP::OpenMP_CXX)
  set(limber_target_benchmark benchmark::benchmark)
  set(limber_target_CUDA CUDA::cudart_static)
  set(limber_target_cuBLAS CUDA::cublas)
  set(limber_target_NCCL NCCL::NCCL)
  set(limber_target_MPI limber::mpi)
  set(limber_target_context limber::sim)
  set(limber_target_gloo limber::gloo)
  set(limber_target_state limber::state)
  set(limber_target_late_cuda limber_late_cuda)  # a stand-in for the runtime, of the tests
  set(${result})
  foreach(limber_need IN ITEMS ${ARGN})
    if(limber_need STREQUAL "nvcc")
      if(NOT limber_nvcc)
        list(APPEND ${result} nvcc)
      endif()
    elseif(NOT limber_target_${limber_need})
      message(FATAL_ERROR "limber: no package '${limber_need}' is known to cmake/development.cmake")
    elseif(limber_need STREQUAL "OpenMP")
      if(NOT limber_openmp)
        list(APPEND ${result} OpenMP)
      endif()
    elseif(NOT LIMBER_WITH_CUDA AND limber_need MATCHES "^(CUDA|cuBLAS|NCCL)$")
      list(APPEND ${result} ${limber_need})
    elseif(limber_need MATCHES "^(CUDA|cuBLAS|MPI|gloo|state|context)$")
      if(NOT TARGET ${limber_target_${limber_need}})  # looked for by cmake/cuda.cmake and cmake/sim.cmake
        list(APPEND ${result} ${limber_need})
      endif()
    else()
      find_package(${limber_need} QUIET)
      if(NOT TARGET ${limber_target_${limber_need}})
        list(APPEND ${result} ${limber_need})
      endif()
    endif()
  endforeach()
endmacro()
