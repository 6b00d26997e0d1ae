# SPDX-License-Identifier: Apache-2.0
# Each header compiles alone, twice in one file, whatever single letters the user has made macros of;
# the headers that promise to run on a device compile with nvcc, and so does each that needs it.

set(folder ${CMAKE_CURRENT_BINARY_DIR}/headers)

# limber_header_source(<result> <header> <suffix>): a file that includes the header twice.
function(limber_header_source result header suffix)
  string(MAKE_C_IDENTIFIER ${header} name)
  file(CONFIGURE OUTPUT ${folder}/${name}.${suffix} @ONLY CONTENT [[
// limber: a header must not use these names
#define I )
#define small )
#define B0 )
#include <@header@>
#include <@header@>
]])
  set(${result} ${folder}/${name}.${suffix} PARENT_SCOPE)
endfunction()

set(engines CUDA NCCL)
limber_find_needs(absent ${engines})
set(header_sources)
set(cuda_sources)
set(device_includes)
foreach(header IN LISTS LIMBER_HEADERS LIMBER_CUDA_HEADERS)
  if(header MATCHES "\\.cuh$")
    if(limber_nvcc)
      limber_header_source(source ${header} cu)
      list(APPEND cuda_sources ${source})
    endif()
  elseif(header STREQUAL "limber/comm/nccl.hpp" AND absent)
    message(STATUS "limber: <${header}> is not checked: not found: ${absent}")
  elseif(header MATCHES "^limber/sim/" AND NOT TARGET limber::sim)
    continue()
  else()
    limber_header_source(source ${header} cpp)
    list(APPEND header_sources ${source})
  endif()
  if(header MATCHES "^limber/(core|schedule|rule|cuda)/.*hpp$")
    string(APPEND device_includes "#include <${header}>\n")
  endif()
endforeach()
file(CONFIGURE OUTPUT ${folder}/device.cu CONTENT "${device_includes}")

# Built by the tests, not by `all`: a header that is broken fails its test instead of every build. The
# build system keeps what is up to date; one at a time, for it does not expect company.
set(quiet)
if(CMAKE_GENERATOR STREQUAL "Ninja")
  set(quiet -- --quiet -k 0)
endif()
add_library(limber_header_check OBJECT EXCLUDE_FROM_ALL ${header_sources})
target_link_libraries(limber_header_check PRIVATE limber_development)
target_compile_options(limber_header_check PRIVATE -O0 -g0)
set_target_properties(limber_header_check PROPERTIES COMPILE_WARNING_AS_ERROR ON)
if(TARGET limber::sim)
  target_link_libraries(limber_header_check PRIVATE limber::sim)
endif()
foreach(engine IN LISTS engines)
  if(NOT engine IN_LIST absent)
    target_include_directories(limber_header_check SYSTEM PRIVATE
                               $<TARGET_PROPERTY:${limber_target_${engine}},INTERFACE_INCLUDE_DIRECTORIES>)
  endif()
endforeach()
limber_add_check(headers.compile_alone LABEL unit TIMEOUT 900 COMMAND
                 ${CMAKE_COMMAND} --build ${PROJECT_BINARY_DIR} --target limber_header_check ${quiet})
set_tests_properties(limber.headers.compile_alone PROPERTIES PROCESSORS 2 RESOURCE_LOCK limber_build)

if(limber_nvcc)
  add_library(limber_cuda_header_check OBJECT EXCLUDE_FROM_ALL ${folder}/device.cu ${cuda_sources})
  target_link_libraries(limber_cuda_header_check PRIVATE limber_development)
  set_target_properties(limber_cuda_header_check PROPERTIES COMPILE_WARNING_AS_ERROR ON CUDA_STANDARD 20)
  limber_add_check(headers.compile_as_cuda LABEL kernel TIMEOUT 600 COMMAND
                   ${CMAKE_COMMAND} --build ${PROJECT_BINARY_DIR} --target limber_cuda_header_check ${quiet})
  set_tests_properties(limber.headers.compile_as_cuda PROPERTIES PROCESSORS 2 RESOURCE_LOCK limber_build)
else()
  limber_add_check(headers.compile_as_cuda LABEL kernel COMMAND ${CMAKE_COMMAND} -E echo "skipped: nvcc was not found")
  set_tests_properties(limber.headers.compile_as_cuda PROPERTIES SKIP_REGULAR_EXPRESSION "^skipped:")
endif()
