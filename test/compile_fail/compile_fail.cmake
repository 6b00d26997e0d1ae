# SPDX-License-Identifier: Apache-2.0
# Every test/compile_fail/<name>.cpp must not compile, with `// expect: <regex>` of its second line in
# the compiler's errors, and must compile with -DCONTROL: so it fails for the one reason it is about. Of these
# lines, the next ones may say more:
#   // first          the first error is the expected one, in at most 20 lines an error
#   // only           so is every error
#   // flags: ...     flags of the compiler that must fail; -DCONTROL is compiled without

# Most of them include limber.hpp by way of arguments.hpp: g++ parses it once for these.

set(folder ${CMAKE_CURRENT_BINARY_DIR}/compile_fail)
set(check ${CMAKE_COMMAND} -D compiler=${CMAKE_CXX_COMPILER} -D compiler_id=${CMAKE_CXX_COMPILER_ID}
          -D include=${PROJECT_SOURCE_DIR}/include)
set(run -P ${CMAKE_CURRENT_LIST_DIR}/run.cmake)
set(precompiled)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  set(precompiled ${folder}/precompiled.hpp)
  file(CONFIGURE OUTPUT ${precompiled} CONTENT "#include <limber/limber.hpp>\n")
  limber_add_check(compile_fail.precompile LABEL unit COMMAND ${check} -D precompile=${precompiled} ${run})
  set_tests_properties(limber.compile_fail.precompile PROPERTIES FIXTURES_SETUP limber_compile_fail)
endif()

file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_LIST_DIR}/*.cpp)
foreach(source IN LISTS sources)
  cmake_path(GET source STEM name)
  file(STRINGS ${source} shared REGEX "^#include \"arguments.hpp\"")
  set(prefix)
  if(shared AND precompiled)
    set(prefix -D prefix=${precompiled})
  endif()
  limber_add_check(compile_fail.${name} LABEL unit COMMAND ${check} -D source=${source} ${prefix} ${run})
  if(prefix)
    set_tests_properties(limber.compile_fail.${name} PROPERTIES FIXTURES_REQUIRED limber_compile_fail)
  endif()
endforeach()
