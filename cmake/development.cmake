# SPDX-License-Identifier: Apache-2.0
# What tests, examples and benches share and users never see: warnings, threads, OpenMP, paths.

find_package(Threads REQUIRED)

add_library(limber_development INTERFACE)
target_link_libraries(limber_development INTERFACE limber_limber Threads::Threads)
target_compile_options(limber_development INTERFACE -Wall -Wextra -Wpedantic -Wshadow -Wconversion)
target_compile_definitions(limber_development INTERFACE LIMBER_SOURCE_DIR="${PROJECT_SOURCE_DIR}"
                                                        LIMBER_BINARY_DIR="${PROJECT_BINARY_DIR}")

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

# limber_executable(<target> <source>...): warnings are errors; --compile-no-warning-as-error lifts that.
function(limber_executable target)
  add_executable(${target} ${ARGN})
  target_link_libraries(${target} PRIVATE limber_development)
  set_target_properties(${target} PROPERTIES COMPILE_WARNING_AS_ERROR ON CXX_EXTENSIONS OFF)
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
  set(${result})
  foreach(limber_need IN ITEMS ${ARGN})
    if(NOT limber_target_${limber_need})
      message(FATAL_ERROR "limber: no package '${limber_need}' is known to cmake/development.cmake")
    elseif(limber_need STREQUAL "OpenMP")
      if(NOT limber_openmp)
        list(APPEND ${result} OpenMP)
      endif()
    else()
      find_package(${limber_need} QUIET)
      if(NOT TARGET ${limber_target_${limber_need}})
        list(APPEND ${result} ${limber_need})
      endif()
    endif()
  endforeach()
endmacro()
