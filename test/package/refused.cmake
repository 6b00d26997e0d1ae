# SPDX-License-Identifier: Apache-2.0
# Configuring `source` must fail, and say `expect`.
cmake_minimum_required(VERSION 3.25)

file(REMOVE_RECURSE ${binary})
execute_process(COMMAND ${CMAKE_COMMAND} -S ${source} -B ${binary} -G ${generator} ${options}
                RESULT_VARIABLE status OUTPUT_VARIABLE output ERROR_VARIABLE output)
file(REMOVE_RECURSE ${binary})
string(REGEX REPLACE "[ \n]+" " " output "${output}")  # messages are wrapped
if(status EQUAL 0)
  message(FATAL_ERROR "configured, and must not: ${output}")
elseif(NOT output MATCHES "${expect}")
  message(FATAL_ERROR "failed without saying '${expect}': ${output}")
endif()
