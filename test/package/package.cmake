# SPDX-License-Identifier: Apache-2.0
# The package as strangers meet it: installed, in its build tree, and as a subfolder of their project; header-only
# and compiled, as a static and as a shared library.

set(scratch ${CMAKE_CURRENT_BINARY_DIR}/package)
set(prefix ${scratch}/prefix)
set(common -DCMAKE_CXX_COMPILER=${CMAKE_CXX_COMPILER} -DCMAKE_BUILD_TYPE=Debug -DCMAKE_CXX_FLAGS_DEBUG=-O0)
if(CMAKE_CXX_COMPILER_LAUNCHER)
  list(APPEND common -DCMAKE_CXX_COMPILER_LAUNCHER=${CMAKE_CXX_COMPILER_LAUNCHER})
endif()
add_dependencies(tests-package limber_compiled)  # what is installed

# limber_add_stranger(<name> SOURCE <folder> OPTIONS <cmake option>...): configures, builds and runs a project.
function(limber_add_stranger name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "SOURCE" "OPTIONS")
  limber_add_check(package.${name} LABEL package TIMEOUT 300 COMMAND
                   ${CMAKE_CTEST_COMMAND} --build-and-test ${arg_SOURCE} ${scratch}/${name}
                   --build-generator ${CMAKE_GENERATOR} --build-options ${common} ${arg_OPTIONS}
                   --test-command stranger)
endfunction()

# limber_skip_stranger(<name> <what is absent>): the same, where it cannot be built.
function(limber_skip_stranger name absent)
  limber_add_check(package.${name} LABEL package COMMAND ${CMAKE_COMMAND} -E echo "skipped: not found: ${absent}")
  set_tests_properties(limber.package.${name} PROPERTIES SKIP_REGULAR_EXPRESSION "^skipped:")
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
                 -D scratch=${scratch} -D cuda=$<TARGET_EXISTS:limber_cuda> -P ${CMAKE_CURRENT_LIST_DIR}/install.cmake)
set_tests_properties(limber.package.install PROPERTIES FIXTURES_SETUP limber_installed)

set(stranger ${CMAKE_CURRENT_LIST_DIR}/stranger)
set(from_prefix -DCMAKE_PREFIX_PATH=${prefix} -DEXPECTED_PREFIX=${prefix})
limber_add_stranger(installed SOURCE ${stranger} OPTIONS ${from_prefix})
limber_add_stranger(installed_compiled SOURCE ${stranger} OPTIONS ${from_prefix} -DFORM=compiled)
set(wrong ${CMAKE_CURRENT_LIST_DIR}/refused)
limber_add_refusal(refuses_another_version EXPECT "compatible with requested version \"0.9\"" SOURCE ${wrong}
                   OPTIONS -DCMAKE_PREFIX_PATH=${prefix} -DREQUEST=0.9)
limber_add_refusal(refuses_a_later_range EXPECT "compatible with requested version range \"0.8...0.9\"" SOURCE ${wrong}
                   OPTIONS -DCMAKE_PREFIX_PATH=${prefix} -DREQUEST=0.8...0.9)
limber_add_refusal(refuses_an_earlier_range EXPECT "compatible with requested version range" SOURCE ${wrong}
                   OPTIONS -DCMAKE_PREFIX_PATH=${prefix} -DREQUEST=0.0...<${PROJECT_VERSION})
limber_add_refusal(refuses_an_absent_component EXPECT "without component 'rocm' .has: limber" SOURCE ${wrong}
                   OPTIONS -DCMAKE_PREFIX_PATH=${prefix} "-DREQUEST=${PROJECT_VERSION_MAJOR}.${PROJECT_VERSION_MINOR} COMPONENTS rocm")
set_tests_properties(limber.package.installed limber.package.installed_compiled limber.package.refuses_another_version
                     limber.package.refuses_a_later_range limber.package.refuses_an_earlier_range
                     limber.package.refuses_an_absent_component PROPERTIES FIXTURES_REQUIRED limber_installed)

set(as_cuda -DCMAKE_CUDA_COMPILER=${CMAKE_CUDA_COMPILER} -DCMAKE_CUDA_HOST_COMPILER=${CMAKE_CXX_COMPILER}
            -DCMAKE_CUDA_ARCHITECTURES=90)
set(cuda_project ${CMAKE_CURRENT_LIST_DIR}/cuda)
if(limber_nvcc)
  limber_add_stranger(installed_cuda SOURCE ${cuda_project} OPTIONS -DCMAKE_PREFIX_PATH=${prefix} ${as_cuda})
  limber_add_stranger(subdirectory_cuda SOURCE ${cuda_project} OPTIONS -DLIMBER_TREE=${PROJECT_SOURCE_DIR} ${as_cuda})
else()
  limber_skip_stranger(installed_cuda nvcc)
  limber_skip_stranger(subdirectory_cuda nvcc)
endif()
set_tests_properties(limber.package.installed_cuda PROPERTIES FIXTURES_REQUIRED limber_installed)

limber_add_check(package.cleanup LABEL package COMMAND
                 ${CMAKE_COMMAND} -E rm -rf ${prefix} ${scratch}/installed ${scratch}/installed_compiled
                 ${scratch}/installed_cuda ${scratch}/installed_engines)
set_tests_properties(limber.package.cleanup PROPERTIES FIXTURES_CLEANUP limber_installed)

set(from_build -Dlimber_DIR=${PROJECT_BINARY_DIR} -DEXPECTED_PREFIX=${PROJECT_SOURCE_DIR})
limber_add_stranger(build_tree SOURCE ${stranger} OPTIONS ${from_build})
limber_add_stranger(build_tree_compiled SOURCE ${stranger} OPTIONS ${from_build} -DFORM=compiled)
set(subdirectory ${CMAKE_CURRENT_LIST_DIR}/subdirectory)
limber_add_stranger(subdirectory SOURCE ${subdirectory} OPTIONS -DLIMBER_TREE=${PROJECT_SOURCE_DIR})
limber_add_stranger(subdirectory_compiled SOURCE ${subdirectory} OPTIONS -DLIMBER_TREE=${PROJECT_SOURCE_DIR}
                    -DFORM=compiled)

# The shared library: configured anew, without engines and tests, and installed.
set(shared_prefix ${scratch}/shared_prefix)
set(plain -DLIMBER_BUILD_TESTS=OFF -DLIMBER_BUILD_EXAMPLES=OFF -DLIMBER_BUILD_BENCH=OFF)
set(engineless -DLIMBER_WITH_CUDA=OFF -DLIMBER_WITH_SIM=OFF -DLIMBER_WITH_MPI=OFF -DLIMBER_WITH_GLOO=OFF
               -DLIMBER_WITH_STATE=OFF)
limber_add_check(package.install_shared LABEL package TIMEOUT 300 COMMAND
                 ${CMAKE_CTEST_COMMAND} --build-and-test ${PROJECT_SOURCE_DIR} ${scratch}/shared
                 --build-generator ${CMAKE_GENERATOR} --build-target install --build-options ${common} ${plain}
                 ${engineless} -DBUILD_SHARED_LIBS=ON -DCMAKE_INSTALL_PREFIX=${shared_prefix})
set_tests_properties(limber.package.install_shared PROPERTIES FIXTURES_SETUP limber_shared)
limber_add_stranger(installed_shared SOURCE ${stranger} OPTIONS -DFORM=compiled
                    -DCMAKE_PREFIX_PATH=${shared_prefix} -DEXPECTED_PREFIX=${shared_prefix})
limber_add_stranger(build_tree_shared SOURCE ${stranger} OPTIONS -DFORM=compiled
                    -Dlimber_DIR=${scratch}/shared -DEXPECTED_PREFIX=${PROJECT_SOURCE_DIR})
set_tests_properties(limber.package.installed_shared limber.package.build_tree_shared
                     PROPERTIES FIXTURES_REQUIRED limber_shared)

limber_add_check(package.by_hand LABEL package TIMEOUT 300 COMMAND
                 ${LIMBER_BASH} ${CMAKE_CURRENT_LIST_DIR}/by_hand.sh ${scratch}/by_hand ${PROJECT_SOURCE_DIR}
                 ${CMAKE_CXX_COMPILER_LAUNCHER} ${CMAKE_CXX_COMPILER})
limber_add_refusal(refuses_an_absent_engine EXPECT "LIMBER_WITH_TORCH=ON, but this engine is not part of" SOURCE
                   ${PROJECT_SOURCE_DIR} OPTIONS -DLIMBER_WITH_TORCH=ON)

# All components of this build that need a library.
set(components)
foreach(component gloo mpi sim state)
  if(TARGET limber_${component})
    list(APPEND components ${component})
  endif()
endforeach()
if(components)
  list(JOIN components "," components)
  limber_add_stranger(installed_engines SOURCE ${CMAKE_CURRENT_LIST_DIR}/engines
                      OPTIONS -DCMAKE_PREFIX_PATH=${prefix} "-DCOMPONENTS=${components}")
  set_tests_properties(limber.package.installed_engines PROPERTIES FIXTURES_REQUIRED limber_installed)
else()
  limber_skip_stranger(installed_engines "Gloo, MPI, Boost.Context, nlohmann-json")
endif()

# With every engine that is here: configured anew, without tests.
limber_find_needs(absent CUDA NCCL)
if(absent)
  limber_skip_stranger(with_nccl "${absent}")
else()
  limber_add_check(package.configure_with_nccl LABEL package COMMAND
                   ${CMAKE_COMMAND} -S ${PROJECT_SOURCE_DIR} -B ${scratch}/engines -G ${CMAKE_GENERATOR} ${common}
                   ${plain} -DLIMBER_WITH_NCCL=ON)
  set_tests_properties(limber.package.configure_with_nccl PROPERTIES FIXTURES_SETUP limber_with_nccl)
  limber_add_stranger(with_nccl SOURCE ${CMAKE_CURRENT_LIST_DIR}/nccl OPTIONS -Dlimber_DIR=${scratch}/engines)
  set_tests_properties(limber.package.with_nccl PROPERTIES FIXTURES_REQUIRED limber_with_nccl)
endif()
