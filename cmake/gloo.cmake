# SPDX-License-Identifier: Apache-2.0
# limber::gloo: what include/limber/comm/gloo.hpp, which is installed with the base, must be linked with. Gloo reduces,
# and ZeroMQ carries messages.

if(LIMBER_WITH_GLOO STREQUAL "AUTO")
  find_package(Gloo CONFIG QUIET)
  find_package(cppzmq CONFIG QUIET)
else()
  find_package(Gloo CONFIG REQUIRED)
  find_package(cppzmq CONFIG REQUIRED)
endif()

if(TARGET gloo AND TARGET cppzmq)
  find_package(Threads REQUIRED)
  limber_add_component(gloo LINKS limber_limber gloo cppzmq Threads::Threads PACKAGES Gloo cppzmq Threads)
else()
  message(STATUS "limber: gloo skipped: Gloo, or ZeroMQ (cppzmq) was not found")
endif()
