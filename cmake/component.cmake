# SPDX-License-Identifier: Apache-2.0
# Header-only components, and the package of all. A component is one INTERFACE target, one list of headers
# and one export set, so that an installed copy can lack any of them but the base.

include(CMakePackageConfigHelpers)
include(GNUInstallDirs)

# limber_add_component(<name> [BASE <folder> HEADERS <file>...] [LINKS <target>...] [PACKAGES <package>...])
#
# Makes limber_<name>, alias limber::<name>. HEADERS are relative to BASE; without them the component is
# what headers of another one must be linked with. PACKAGES are what a user of the installed copy must
# have, found only when the component is asked for.
function(limber_add_component name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "BASE" "HEADERS;LINKS;PACKAGES")
  set(target limber_${name})

  add_library(${target} INTERFACE)
  add_library(limber::${name} ALIAS ${target})
  set_target_properties(${target} PROPERTIES EXPORT_NAME ${name})
  target_link_libraries(${target} INTERFACE ${arg_LINKS})

  set(export limber-${name}-targets)
  if(arg_HEADERS)
    set(base ${PROJECT_SOURCE_DIR}/${arg_BASE})
    list(TRANSFORM arg_HEADERS PREPEND ${base}/)
    target_sources(${target} INTERFACE FILE_SET HEADERS BASE_DIRS ${base} FILES ${arg_HEADERS})
    install(TARGETS ${target} EXPORT ${export} FILE_SET HEADERS)
  else()
    install(TARGETS ${target} EXPORT ${export})
  endif()
  install(EXPORT ${export} NAMESPACE limber:: DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/limber)
  # Also for the build tree: otherwise a project that adds this one as a subfolder cannot export() a
  # target of its own that links it.
  export(EXPORT ${export} NAMESPACE limber:: FILE ${PROJECT_BINARY_DIR}/${export}.cmake)

  set_property(GLOBAL APPEND PROPERTY LIMBER_COMPONENTS ${name})
  set_property(GLOBAL APPEND_STRING PROPERTY LIMBER_COMPONENT_PACKAGES
                                             "set(limber_${name}_packages ${arg_PACKAGES})\n")
endfunction()

# Writes limber-config.cmake and its version file for both trees; after all components.
function(limber_install_package)
  get_property(LIMBER_COMPONENTS GLOBAL PROPERTY LIMBER_COMPONENTS)
  get_property(LIMBER_COMPONENT_PACKAGES GLOBAL PROPERTY LIMBER_COMPONENT_PACKAGES)
  set(folder ${CMAKE_INSTALL_LIBDIR}/cmake/limber)
  configure_package_config_file(
    ${PROJECT_SOURCE_DIR}/cmake/limber-config.cmake.in ${PROJECT_BINARY_DIR}/limber-config.cmake
    INSTALL_DESTINATION ${folder} NO_SET_AND_CHECK_MACRO NO_CHECK_REQUIRED_COMPONENTS_MACRO)
  # CMake's own file of this kind, SameMinorVersion, refuses ranges that hold several minor versions.
  configure_file(${PROJECT_SOURCE_DIR}/cmake/limber-config-version.cmake.in
                 ${PROJECT_BINARY_DIR}/limber-config-version.cmake @ONLY)
  foreach(module limber-cuda-standard.cmake FindNCCL.cmake)
    configure_file(${PROJECT_SOURCE_DIR}/cmake/${module} ${PROJECT_BINARY_DIR}/${module} COPYONLY)
    install(FILES ${PROJECT_SOURCE_DIR}/cmake/${module} DESTINATION ${folder})
  endforeach()
  install(FILES ${PROJECT_BINARY_DIR}/limber-config.cmake ${PROJECT_BINARY_DIR}/limber-config-version.cmake
          DESTINATION ${folder})
  install(FILES ${PROJECT_SOURCE_DIR}/LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR})
endfunction()
