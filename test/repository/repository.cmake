# SPDX-License-Identifier: Apache-2.0
# Checks that read the tree; self_test.sh shows that each of them can fail.

find_program(LIMBER_BASH bash)
foreach(check includes top_level headers readme documents format)
  limber_add_check(repository.${check} LABEL unit COMMAND
                   ${LIMBER_BASH} ${CMAKE_CURRENT_LIST_DIR}/${check}.sh ${PROJECT_SOURCE_DIR})
endforeach()
limber_add_check(repository.self_test LABEL unit COMMAND ${LIMBER_BASH} ${CMAKE_CURRENT_LIST_DIR}/self_test.sh)
limber_add_check(repository.setup LABEL unit COMMAND ${LIMBER_BASH} ${CMAKE_CURRENT_LIST_DIR}/setup.sh)
