# SPDX-License-Identifier: Apache-2.0
# limber::sim: what the headers of include/limber/sim/, which are installed with the base, must be linked with.

if(LIMBER_WITH_SIM STREQUAL "AUTO")
  find_package(boost_context 1.74 CONFIG QUIET)
else()
  find_package(boost_context 1.74 CONFIG REQUIRED)
endif()

if(TARGET Boost::context)
  find_package(Threads REQUIRED)
  limber_add_component(sim LINKS limber_limber Boost::context Threads::Threads PACKAGES boost_context Threads)
else()
  message(STATUS "limber: sim skipped: Boost.Context was not found")
endif()
