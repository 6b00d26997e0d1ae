# SPDX-License-Identifier: Apache-2.0
# limber::state: what the headers of include/limber/state/, which are installed with the base, must be linked with.

if(LIMBER_WITH_STATE STREQUAL "AUTO")
  find_package(nlohmann_json 3.7 CONFIG QUIET)
else()
  find_package(nlohmann_json 3.7 CONFIG REQUIRED)
endif()

if(TARGET nlohmann_json::nlohmann_json)
  limber_add_component(state LINKS limber_limber nlohmann_json::nlohmann_json PACKAGES nlohmann_json)
else()
  message(STATUS "limber: state skipped: nlohmann-json was not found")
endif()
