# SPDX-License-Identifier: Apache-2.0
# limber_papers_training: what bench papers and examples/which_strategy share. Its minute is compiled once, and
# the headers that all their files include are parsed once.

if(NOT TARGET limber_papers_training)
  add_library(limber_papers_training OBJECT EXCLUDE_FROM_ALL ${CMAKE_CURRENT_LIST_DIR}/training.cpp)
  set_target_properties(limber_papers_training PROPERTIES COMPILE_WARNING_AS_ERROR ON CXX_EXTENSIONS OFF)
  target_link_libraries(limber_papers_training PUBLIC limber_development limber_compiled limber::sim Eigen3::Eigen)
  target_precompile_headers(limber_papers_training PRIVATE ${CMAKE_CURRENT_LIST_DIR}/training.hpp)
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    target_compile_options(limber_papers_training PUBLIC -fpch-preprocess)  # for ccache
  endif()
endif()

# limber_use_training(<target>)
function(limber_use_training target)
  target_link_libraries(${target} PRIVATE limber_papers_training)
  target_precompile_headers(${target} REUSE_FROM limber_papers_training)
endfunction()
