#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# launched.sh KIND PROGRAM: three processes of examples/launched under a launcher that is installed here (77: it
# is not), or with the words that torchrun and srun set.
set -euo pipefail
kind=$1 program=$2
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
arguments=("$program" --meet "$folder" --deadline 20)

# by_hand NAME=VALUE-with-%...: one process for each rank, which takes the place of %.
by_hand() {
  local rank pids=() status=0
  for rank in 0 1 2; do
    env "${@//%/$rank}" "${arguments[@]}" &
    pids+=($!)
  done
  for rank in "${pids[@]}"; do wait "$rank" || status=1; done
  return $status
}
first_of() {  # the first that is installed
  local name
  for name in "$@"; do command -v "$name" && return; done
  echo "skipped: none of $* is installed" >&2
  exit 77
}

case $kind in
  openmpi | mpich)
    launcher=$(first_of "mpiexec.$kind")
    said=$("$launcher" -n 3 "${arguments[@]}") ;;
  torchrun)
    launcher=$(first_of torchrun)
    said=$("$launcher" --standalone --nproc-per-node 3 --no-python "${arguments[@]}") ;;
  srun)
    launcher=$(first_of srun)
    said=$("$launcher" -n 3 "${arguments[@]}") ;;
  torchrun_words)
    said=$(by_hand RANK=% WORLD_SIZE=3 LOCAL_RANK=% MASTER_ADDR=127.0.0.1 MASTER_PORT=29400 \
      TORCHELASTIC_RUN_ID=run TORCHELASTIC_RESTART_COUNT=0) ;;
  srun_words)
    said=$(by_hand SLURM_PROCID=% SLURM_NTASKS=3 SLURM_LOCALID=% SLURM_JOB_ID=7 SLURM_STEP_ID=0 \
      SLURM_STEP_NUM_TASKS=3) ;;
esac
echo "$said"
[[ $said == *": 3 processes agree on y = "* ]]
