# SPDX-License-Identifier: Apache-2.0
# Every test/compile_fail/<name>.cpp must not compile, with `// expect: <regex>` of its second line in
# the compiler's errors, and must compile with -DCONTROL: so it fails for the one reason it is about. Of these
# lines, the next ones may say more:
#   // first          the first error is the expected one, in at most 20 lines an error
#   // only           so is every error
#   // flags: ...     flags of the compiler that must fail; -DCONTROL is compiled without

file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_LIST_DIR}/*.cpp)
foreach(source IN LISTS sources)
  cmake_path(GET source STEM name)
  limber_add_check(compile_fail.${name} LABEL unit COMMAND
                   ${CMAKE_COMMAND} -D compiler=${CMAKE_CXX_COMPILER} -D compiler_id=${CMAKE_CXX_COMPILER_ID} -D include=${PROJECT_SOURCE_DIR}/include
                   -D source=${source} -P ${CMAKE_CURRENT_LIST_DIR}/run.cmake)
endforeach()
