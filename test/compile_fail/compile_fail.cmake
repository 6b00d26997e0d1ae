# SPDX-License-Identifier: Apache-2.0
# Every test/compile_fail/<name>.cpp must not compile, with `// expect: <regex>` of its second line in
# the compiler's errors, and must compile with -DCONTROL: so it fails for the one reason it is about.

file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_LIST_DIR}/*.cpp)
foreach(source IN LISTS sources)
  cmake_path(GET source STEM name)
  limber_add_check(compile_fail.${name} LABEL unit COMMAND
                   ${CMAKE_COMMAND} -D compiler=${CMAKE_CXX_COMPILER} -D compiler_id=${CMAKE_CXX_COMPILER_ID} -D include=${PROJECT_SOURCE_DIR}/include
                   -D source=${source} -P ${CMAKE_CURRENT_LIST_DIR}/run.cmake)
endforeach()
