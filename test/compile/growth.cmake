# SPDX-License-Identifier: Apache-2.0
# What a unit costs its compiler does not grow unseen: counts, not times, for those of one machine hold on no other.

limber_add_check(compile.growth LABEL repro TIMEOUT 300 COMMAND
                 ${LIMBER_BASH} ${CMAKE_CURRENT_LIST_DIR}/figures.sh ${CMAKE_CXX_COMPILER})
