# SPDX-License-Identifier: Apache-2.0
# The package as strangers meet it: installed, in its build tree, and as a subfolder of their project.

set(scratch ${CMAKE_CURRENT_BINARY_DIR}/package)
set(prefix ${scratch}/prefix)
set(common -DCMAKE_CXX_COMPILER=${CMAKE_CXX_COMPILER} -DCMAKE_BUILD_TYPE=Debug)

# limber_add_stranger(<name> SOURCE <folder> OPTIONS <cmake option>...): configures, builds and runs a project.
function(limber_add_stranger name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "SOURCE" "OPTIONS")
  limber_add_check(package.${name} LABEL package TIMEOUT 120 COMMAND
                   ${CMAKE_CTEST_COMMAND} --build-and-test ${arg_SOURCE} ${scratch}/${name}
                   --build-generator ${CMAKE_GENERATOR} --build-options ${common} ${arg_OPTIONS}
                   --test-command stranger)
endfunction()

# limber_add_refusal(<name> EXPECT <regex> SOURCE <folder> OPTIONS ...): configuring fails and says why.
function(limber_add_refusal name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "EXPECT;SOURCE" "OPTIONS")
  limber_add_check(package.${name} LABEL package COMMAND
                   ${CMAKE_COMMAND} -D expect=${arg_EXPECT} -D source=${arg_SOURCE} -D binary=${scratch}/${name}
                   -D generator=${CMAKE_GENERATOR} "-D options=${common};${arg_OPTIONS}"
                   -P ${CMAKE_CURRENT_FUNCTION_LIST_DIR}/refused.cmake)
endfunction()

limber_add_check(package.install LABEL package COMMAND
                 ${CMAKE_COMMAND} -D build=${PROJECT_BINARY_DIR} -D source=${PROJECT_SOURCE_DIR}
                 -D scratch=${scratch} -P ${CMAKE_CURRENT_LIST_DIR}/install.cmake)
set_tests_properties(limber.package.install PROPERTIES FIXTURES_SETUP limber_installed)

limber_add_stranger(installed SOURCE ${CMAKE_CURRENT_LIST_DIR}/stranger
                    OPTIONS -DCMAKE_PREFIX_PATH=${prefix} -DEXPECTED_PREFIX=${prefix})
set(wrong ${CMAKE_CURRENT_LIST_DIR}/refused)
limber_add_refusal(refuses_another_version EXPECT "compatible with requested version \"0.9\"" SOURCE ${wrong}
                   OPTIONS -DCMAKE_PREFIX_PATH=${prefix} -DREQUEST=0.9)
limber_add_refusal(refuses_an_absent_component EXPECT "without component 'rocm' .has: limber" SOURCE ${wrong}
                   OPTIONS -DCMAKE_PREFIX_PATH=${prefix} "-DREQUEST=${PROJECT_VERSION_MAJOR}.${PROJECT_VERSION_MINOR} COMPONENTS rocm")
set_tests_properties(limber.package.installed limber.package.refuses_another_version
                     limber.package.refuses_an_absent_component PROPERTIES FIXTURES_REQUIRED limber_installed)

limber_add_check(package.cleanup LABEL package COMMAND
                 ${CMAKE_COMMAND} -E rm -rf ${prefix} ${scratch}/installed)
set_tests_properties(limber.package.cleanup PROPERTIES FIXTURES_CLEANUP limber_installed)

limber_add_stranger(build_tree SOURCE ${CMAKE_CURRENT_LIST_DIR}/stranger
                    OPTIONS -Dlimber_DIR=${PROJECT_BINARY_DIR} -DEXPECTED_PREFIX=${PROJECT_SOURCE_DIR})
limber_add_stranger(subdirectory SOURCE ${CMAKE_CURRENT_LIST_DIR}/subdirectory
                    OPTIONS -DLIMBER_TREE=${PROJECT_SOURCE_DIR})
limber_add_refusal(refuses_an_absent_engine EXPECT "LIMBER_WITH_NCCL=ON, but this engine is not part of" SOURCE
                   ${PROJECT_SOURCE_DIR} OPTIONS -DLIMBER_WITH_NCCL=ON)
