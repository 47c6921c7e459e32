#!/usr/bin/env bash
# Trains on GPUs of a Slurm cluster, a process a GPU. Where svilm-train is on the PATH of all nodes:
#   sbatch --nodes 4 deploy/gpu/train_slurm.sh --preset paper --snapshot DIR --out RUN
# Snapshot and run are on a file system that all nodes share, or in a bucket.
#SBATCH --job-name=svilm
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=TERM@300
set -euo pipefail

if (($# == 0)); then
  printf 'usage: sbatch [--nodes N …] train_slurm.sh PRETRAIN-OPTION…\n' >&2
  exit 2
fi

status=0
srun --kill-on-bad-exit=1 svilm-train pretrain --coordinator auto "$@" || status=$?
case $status in
  75 | 134 | 137 | 143) # stopped and saved, lost its peers, or killed: the same command goes on
    printf 'train_slurm.sh: stopped with status %d: queued again\n' "$status" >&2
    scontrol requeue "${SLURM_JOB_ID:?}"
    ;;
  *) exit "$status" ;;
esac
