# SPDX-License-Identifier: Apache-2.0
# CMake before 3.25.2 does not know that nvcc compiles C++20 ("cuda_std_20 is not known to CUDA compiler").
# Included in the scope that compiles CUDA; installed, for the projects that find limber::cuda.

if(NOT CMAKE_CUDA_COMPILER_LOADED)
  # The project may still enable the language below; what counts is what the folder says at its end.
  if(NOT limber_cuda_standard_deferred)
    set(limber_cuda_standard_deferred TRUE)
    cmake_language(EVAL CODE "cmake_language(DEFER CALL include [[${CMAKE_CURRENT_LIST_FILE}]])")
  endif()
elseif(CMAKE_CUDA_COMPILER_ID STREQUAL "NVIDIA" AND CMAKE_CUDA_COMPILER_VERSION VERSION_GREATER_EQUAL 12
       AND NOT "cuda_std_20" IN_LIST CMAKE_CUDA_COMPILE_FEATURES)
  list(APPEND CMAKE_CUDA_COMPILE_FEATURES cuda_std_20)
  set(CMAKE_CUDA20_COMPILE_FEATURES cuda_std_20)
  set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION "-std=c++20")
  set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION "-std=c++20")
endif()
