# SPDX-License-Identifier: Apache-2.0
# limber::gloo: what include/limber/comm/gloo.hpp, which is installed with the base, must be linked with.

if(LIMBER_WITH_GLOO STREQUAL "AUTO")
  find_package(Gloo CONFIG QUIET)
else()
  find_package(Gloo CONFIG REQUIRED)
endif()

if(TARGET gloo)
  find_package(Threads REQUIRED)
  limber_add_component(gloo LINKS limber_limber gloo Threads::Threads PACKAGES Gloo Threads)
else()
  message(STATUS "limber: gloo skipped: Gloo was not found")
endif()
