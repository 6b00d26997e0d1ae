# SPDX-License-Identifier: Apache-2.0
cmake_minimum_required(VERSION 3.25)

file(STRINGS ${source} head LIMIT_COUNT 2 ENCODING UTF-8)
list(GET head 1 expect)
if(NOT expect MATCHES "^// expect: (.+)$")
  message(FATAL_ERROR "${source}: line 2 must be '// expect: <regex>'")
endif()
set(expect "${CMAKE_MATCH_1}")

# Source lines are left out of the diagnostics, or the text of the test itself would match.
set(no_source -fno-diagnostics-show-caret)
if(compiler_id MATCHES "Clang")
  set(no_source -fno-caret-diagnostics)
endif()
set(compile ${compiler} -std=c++20 -fsyntax-only ${no_source} -I${include} ${source})

execute_process(COMMAND ${compile} -DCONTROL RESULT_VARIABLE status ERROR_VARIABLE errors)
if(NOT status EQUAL 0)
  message(FATAL_ERROR "${source}: must compile with -DCONTROL, but:\n${errors}")
endif()

execute_process(COMMAND ${compile} RESULT_VARIABLE status ERROR_VARIABLE errors)
if(status EQUAL 0)
  message(FATAL_ERROR "${source}: compiles, and must not")
endif()
string(REPLACE "${source}" "" errors "${errors}")  # a file name is no match either
if(NOT errors MATCHES "${expect}")
  message(FATAL_ERROR "${source}: fails without saying '${expect}':\n${errors}")
endif()
