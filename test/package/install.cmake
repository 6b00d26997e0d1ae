# SPDX-License-Identifier: Apache-2.0
# Installs, moves the result elsewhere, and sees that nothing in it remembers where it came from.
cmake_minimum_required(VERSION 3.25)

file(REMOVE_RECURSE ${scratch}/prefix ${scratch}/staged)
execute_process(COMMAND ${CMAKE_COMMAND} --install ${build} --prefix ${scratch}/staged OUTPUT_QUIET
                        COMMAND_ERROR_IS_FATAL ANY)
file(RENAME ${scratch}/staged ${scratch}/prefix)

file(GLOB_RECURSE installed ${scratch}/prefix/*)
list(FILTER installed EXCLUDE REGEX "/liblimber[^/]*$")  # for a debugger it may
foreach(file IN LISTS installed)
  file(READ ${file} text)
  foreach(origin ${build} ${source} ${scratch})
    string(FIND "${text}" "${origin}" at)
    if(NOT at EQUAL -1)
      message(FATAL_ERROR "${file} names ${origin}")
    endif()
  endforeach()
endforeach()

file(GLOB_RECURSE library ${scratch}/prefix/*/liblimber.*)
if(NOT library)
  message(FATAL_ERROR "limber::compiled was not installed")
endif()

file(GLOB_RECURSE in_tree RELATIVE ${source}/include ${source}/include/*.hpp ${source}/include/*.ipp)
if(cuda)
  file(GLOB_RECURSE in_cuda RELATIVE ${source}/cuda ${source}/cuda/*.hpp ${source}/cuda/*.cuh)
endif()
foreach(header IN LISTS in_tree in_cuda)
  if(NOT EXISTS ${scratch}/prefix/include/${header})
    message(FATAL_ERROR "${header} was not installed")
  endif()
endforeach()
