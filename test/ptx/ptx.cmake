# SPDX-License-Identifier: Apache-2.0
# What nvcc makes of the kernels, read from PTX and from what ptxas says of it. Needs no GPU.

set(folder ${CMAKE_CURRENT_BINARY_DIR}/ptx)
set(script ${CMAKE_CURRENT_LIST_DIR}/check.sh)
set(probe ${CMAKE_CURRENT_LIST_DIR}/probe.cu)
find_program(LIMBER_BASH bash)
limber_add_check(ptx.self_test LABEL ptx COMMAND ${LIMBER_BASH} ${CMAKE_CURRENT_LIST_DIR}/self_test.sh)

set(architectures 80 90 100)
if(NOT limber_nvcc)
  foreach(check sm_80 sm_90 sm_100 no_contraction fast_math device_functions)
    limber_add_check(ptx.${check} LABEL ptx COMMAND ${CMAKE_COMMAND} -E echo "skipped: not found: nvcc")
    set_tests_properties(limber.ptx.${check} PROPERTIES SKIP_REGULAR_EXPRESSION "^skipped:")
  endforeach()
  return()
endif()

cmake_path(GET CMAKE_CUDA_COMPILER PARENT_PATH beside)
find_program(LIMBER_PTXAS ptxas HINTS ${beside} REQUIRED)
execute_process(COMMAND ${CMAKE_CUDA_COMPILER} --list-gpu-arch OUTPUT_VARIABLE known)

# limber_compile_ptx(<name> <architecture> <flag>...): folder/<name>.ptx of the probe, when it is out of date.
set(ptx_files)
function(limber_compile_ptx name architecture)
  set(output ${folder}/${name}.ptx)
  add_custom_command(
    OUTPUT ${output}
    COMMAND ${CMAKE_CUDA_COMPILER} -ccbin ${CMAKE_CXX_COMPILER} -std=c++20 -Werror all-warnings
            -I${PROJECT_SOURCE_DIR}/include -I${PROJECT_SOURCE_DIR}/cuda -arch=compute_${architecture} ${ARGN}
            -MD -MT ${output} -MF ${output}.d -ptx ${probe} -o ${output}
    DEPENDS ${probe}
    DEPFILE ${output}.d
    COMMENT "Compiling the PTX probe: ${name}"
    VERBATIM)
  set(ptx_files ${ptx_files} ${output} PARENT_SCOPE)
endfunction()

file(MAKE_DIRECTORY ${folder})
set(targets)
foreach(architecture IN LISTS architectures)
  if(known MATCHES "compute_${architecture}[ \n]")
    list(APPEND targets sm_${architecture})
    limber_compile_ptx(sm_${architecture} ${architecture})
    limber_add_check(ptx.sm_${architecture} LABEL ptx TIMEOUT 300 COMMAND
                     ${LIMBER_BASH} ${script} ${folder}/sm_${architecture}.ptx --ptxas ${LIMBER_PTXAS} sm_${architecture})
  else()
    limber_add_check(ptx.sm_${architecture} LABEL ptx COMMAND
                     ${CMAKE_COMMAND} -E echo "skipped: this nvcc does not know sm_${architecture}")
    set_tests_properties(limber.ptx.sm_${architecture} PROPERTIES SKIP_REGULAR_EXPRESSION "^skipped:")
  endif()
endforeach()

# Flags that belong to the user; they change the same code for every architecture.
set(flag_no_contraction --fmad=false)
set(flag_fast_math --use_fast_math)
foreach(flag no_contraction fast_math)
  limber_compile_ptx(${flag} 90 ${flag_${flag}})
  limber_add_check(ptx.${flag} LABEL ptx COMMAND ${LIMBER_BASH} ${script} ${folder}/sm_90.ptx
                   --flags ${flag_${flag}} ${folder}/${flag}.ptx)
endforeach()

# Compiled by a test of its own: a probe that does not compile fails the tests of this folder, not every build.
add_custom_target(limber_ptx DEPENDS ${ptx_files})
limber_add_check(ptx.compile LABEL ptx TIMEOUT 900 COMMAND
                 ${CMAKE_COMMAND} --build ${PROJECT_BINARY_DIR} --target limber_ptx ${quiet})
set_tests_properties(limber.ptx.compile PROPERTIES PROCESSORS 2 RESOURCE_LOCK limber_build FIXTURES_SETUP limber_ptx)
foreach(check sm_80 sm_90 sm_100 no_contraction fast_math)
  set_tests_properties(limber.ptx.${check} PROPERTIES FIXTURES_REQUIRED limber_ptx)
endforeach()

# What kernels are made of: rules, schedules, functors, dtypes.
limber_add_check(ptx.device_functions LABEL ptx TIMEOUT 600 COMMAND
                 sh ${PROJECT_SOURCE_DIR}/test/headers/device_probe.sh ${CMAKE_CUDA_COMPILER} ${CMAKE_CXX_COMPILER}
                 ${PROJECT_SOURCE_DIR} ${folder} ${targets})
