# SPDX-License-Identifier: Apache-2.0
# limber::compiled: the same headers with what is no template in a library. One unit is generated, which
# includes <limber/impl/src.hpp>; whoever links the target sees LIMBER_COMPILED.
# Static by default; shared with BUILD_SHARED_LIBS=ON.

set(limber_unit ${PROJECT_BINARY_DIR}/limber_compiled.cpp)
file(CONFIGURE OUTPUT ${limber_unit} CONTENT "#include <limber/impl/src.hpp>\n")
add_library(limber_compiled ${limber_unit})
add_library(limber::compiled ALIAS limber_compiled)
set_target_properties(limber_compiled PROPERTIES EXPORT_NAME compiled OUTPUT_NAME limber POSITION_INDEPENDENT_CODE ON
                                                 CXX_STANDARD 20 CXX_STANDARD_REQUIRED ON CXX_EXTENSIONS OFF
                                                 VERSION ${PROJECT_VERSION}
                                                 SOVERSION ${PROJECT_VERSION_MAJOR}.${PROJECT_VERSION_MINOR})
target_link_libraries(limber_compiled PUBLIC limber_limber)
target_compile_definitions(limber_compiled PUBLIC LIMBER_COMPILED)
# A rule's arithmetic must not set errno, or its loops are not vectorised.
target_compile_options(limber_compiled PRIVATE $<$<CXX_COMPILER_ID:GNU,Clang,AppleClang>:-fno-math-errno>)
if(NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES)
  target_compile_options(limber_compiled PRIVATE $<$<CXX_COMPILER_ID:GNU,Clang,AppleClang>:-O2>)
endif()

# threads::run starts threads; with OpenMP, host{threads} can have more than one. Who links the static library
# links both.
find_package(Threads REQUIRED)
target_link_libraries(limber_compiled PRIVATE Threads::Threads)
set(limber_compiled_packages)
get_target_property(limber_compiled_type limber_compiled TYPE)
if(limber_compiled_type STREQUAL "STATIC_LIBRARY")
  list(APPEND limber_compiled_packages Threads)
endif()
if(LIMBER_WITH_OPENMP STREQUAL "AUTO")
  find_package(OpenMP QUIET COMPONENTS CXX)
elseif(LIMBER_WITH_OPENMP)
  find_package(OpenMP REQUIRED COMPONENTS CXX)
endif()
if(LIMBER_WITH_OPENMP AND OpenMP_CXX_FOUND)
  target_link_libraries(limber_compiled PRIVATE OpenMP::OpenMP_CXX)
  if(limber_compiled_type STREQUAL "STATIC_LIBRARY")
    list(APPEND limber_compiled_packages OpenMP)
  endif()
endif()

# A project that has this one as a subfolder builds and installs the library only if it links it.
if(NOT PROJECT_IS_TOP_LEVEL)
  set_target_properties(limber_compiled PROPERTIES EXCLUDE_FROM_ALL ON)
  set(limber_compiled_optional OPTIONAL)
endif()
install(TARGETS limber_compiled EXPORT limber-compiled-targets ${limber_compiled_optional})
install(EXPORT limber-compiled-targets NAMESPACE limber:: DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/limber)
export(EXPORT limber-compiled-targets NAMESPACE limber:: FILE ${PROJECT_BINARY_DIR}/limber-compiled-targets.cmake)
set_property(GLOBAL APPEND PROPERTY LIMBER_COMPONENTS compiled)
set_property(GLOBAL APPEND_STRING PROPERTY LIMBER_COMPONENT_PACKAGES "set(limber_compiled_packages ${limber_compiled_packages})\n")
