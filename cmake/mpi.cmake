# SPDX-License-Identifier: Apache-2.0
# limber::mpi: what include/limber/comm/mpi.hpp, which is installed with the base, must be linked with.

# MPI's own C++ bindings are gone from the standard; the language C need not be enabled.
set(MPI_CXX_SKIP_MPICXX ON)
if(LIMBER_WITH_MPI STREQUAL "AUTO")
  find_package(MPI 3.0 QUIET COMPONENTS CXX)
else()
  find_package(MPI 3.0 REQUIRED COMPONENTS CXX)
endif()

if(TARGET MPI::MPI_CXX)
  limber_add_component(mpi LINKS limber_limber MPI::MPI_CXX PACKAGES MPI)
else()
  message(STATUS "limber: mpi skipped: no MPI was found")
endif()

# For tests and benches: what both MPIs need on a machine with few cores, as root, in a container; they leak when
# they end.
set(limber_mpi_environment
    OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
    OMPI_MCA_mpi_yield_when_idle=1 OMPI_MCA_btl_vader_single_copy_mechanism=none UCX_LOG_LEVEL=error
    ASAN_OPTIONS=detect_leaks=0)

# limber_find_other_mpi(): for the tests, where two are installed side by side as Debian does it, the one that was
# not found above. Makes the target limber_other_mpi and sets limber_other_mpiexec.
function(limber_find_other_mpi)
  foreach(kind mpich openmpi)
    find_program(LIMBER_MPICXX_${kind} mpicxx.${kind})
    find_program(LIMBER_MPIEXEC_${kind} mpiexec.${kind})
    mark_as_advanced(LIMBER_MPICXX_${kind} LIMBER_MPIEXEC_${kind})
    if(NOT LIMBER_MPICXX_${kind} OR NOT LIMBER_MPIEXEC_${kind})
      continue()
    endif()
    execute_process(COMMAND ${LIMBER_MPICXX_${kind}} -show OUTPUT_VARIABLE line OUTPUT_STRIP_TRAILING_WHITESPACE
                    ERROR_QUIET)
    separate_arguments(words UNIX_COMMAND "${line}")
    set(folders ${words})
    list(FILTER folders INCLUDE REGEX "^-I")
    list(TRANSFORM folders REPLACE "^-I" "")
    if(NOT folders)
      continue()
    endif()
    list(GET folders 0 first)
    file(REAL_PATH ${first} first)
    set(found FALSE)
    foreach(folder IN LISTS MPI_CXX_INCLUDE_DIRS)
      file(REAL_PATH ${folder} folder)
      if(folder STREQUAL first)
        set(found TRUE)
      endif()
    endforeach()
    if(found)
      continue()
    endif()
    set(libraries ${words})
    list(FILTER libraries INCLUDE REGEX "^-[lL]")
    list(FILTER libraries EXCLUDE REGEX "^-l.*cxx$")
    add_library(limber_other_mpi INTERFACE)
    target_include_directories(limber_other_mpi SYSTEM INTERFACE ${folders})
    target_link_libraries(limber_other_mpi INTERFACE ${libraries})
    set(limber_other_mpiexec ${LIMBER_MPIEXEC_${kind}} PARENT_SCOPE)
    return()
  endforeach()
endfunction()
