# SPDX-License-Identifier: Apache-2.0
# Each header compiles alone, twice in one file, whatever single letters the user has made macros of;
# and the headers that promise to run on a device compile with nvcc.

set(folder ${CMAKE_CURRENT_BINARY_DIR}/headers)
set(header_sources)
set(device_includes)
foreach(header IN LISTS LIMBER_HEADERS)
  string(MAKE_C_IDENTIFIER ${header} name)
  file(CONFIGURE OUTPUT ${folder}/${name}.cpp @ONLY CONTENT [[
// limber: a header must not use these names
#define I )
#define small )
#define B0 )
#include <@header@>
#include <@header@>
]])
  list(APPEND header_sources ${folder}/${name}.cpp)
  if(header MATCHES "^limber/(core|schedule|rule)/")
    string(APPEND device_includes "#include <${header}>\n")
  endif()
endforeach()
file(CONFIGURE OUTPUT ${folder}/device.cu CONTENT "${device_includes}")

# Built by the test, not by `all`: a header that is broken fails this test instead of every build. The
# build system keeps what is up to date.
add_library(limber_header_check OBJECT EXCLUDE_FROM_ALL ${header_sources})
target_link_libraries(limber_header_check PRIVATE limber_development)
target_compile_options(limber_header_check PRIVATE -O0 -g0)
set_target_properties(limber_header_check PROPERTIES COMPILE_WARNING_AS_ERROR ON)
set(quiet)
if(CMAKE_GENERATOR STREQUAL "Ninja")
  set(quiet -- --quiet -k 0)
endif()
limber_add_check(headers.compile_alone LABEL unit TIMEOUT 900 COMMAND
                 ${CMAKE_COMMAND} --build ${PROJECT_BINARY_DIR} --target limber_header_check ${quiet})
set_tests_properties(limber.headers.compile_alone PROPERTIES PROCESSORS 2)

find_program(LIMBER_NVCC nvcc HINTS ENV CUDA_PATH PATHS /usr/local/cuda/bin)
if(LIMBER_NVCC)
  limber_add_check(headers.compile_as_cuda LABEL kernel TIMEOUT 300 COMMAND
                   ${LIMBER_NVCC} -ccbin ${CMAKE_CXX_COMPILER} -std=c++20 -Werror all-warnings
                   -I${PROJECT_SOURCE_DIR}/include -I${PROJECT_SOURCE_DIR}/cuda -c ${folder}/device.cu -o ${folder}/device.o)
elseif(LIMBER_WITH_CUDA)
  message(FATAL_ERROR "limber: LIMBER_WITH_CUDA=ON needs nvcc, which was not found")
else()
  limber_add_check(headers.compile_as_cuda LABEL kernel COMMAND ${CMAKE_COMMAND} -E echo "skipped: nvcc was not found")
  set_tests_properties(limber.headers.compile_as_cuda PROPERTIES SKIP_REGULAR_EXPRESSION "^skipped:")
endif()
