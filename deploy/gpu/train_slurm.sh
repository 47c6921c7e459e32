#!/usr/bin/env bash
# Trains on the GPUs of a Slurm cluster, one process per GPU, and requeues the job until it is done.
#SBATCH --job-name=svilm
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=TERM@300
set -euo pipefail

usage() {
  cat <<'USAGE'
usage: sbatch [SBATCH-OPTION…] train_slurm.sh [--restarts N] PRETRAIN-OPTION…

Starts `svilm-train pretrain --coordinator auto` with the PRETRAIN-OPTIONs, one process per GPU.
svilm-train must be on the PATH of all nodes. Snapshot and run must be on a file system that all
nodes share, or in a bucket (gs://…).

The job is requeued, and the run resumes from its last checkpoint, after status 75 and after a
signal. Status 75 means that the run stopped and saved, as five minutes before the job's time limit,
or that another process writes to its folder. A process that ends with any other status, such as
1 (failed) or 2 (misused), ends the job.

options:
  --restarts N  maximum number of restarts, including Slurm's own after preemption or node failure;
                must precede the PRETRAIN-OPTIONs (default: 50)

example:
  sbatch --nodes 4 deploy/gpu/train_slurm.sh --preset paper --snapshot DIR --out RUN
USAGE
}

fail() {
  printf 'train_slurm.sh: error: %s\n' "$1" >&2
  exit "${2:-1}"
}

if [[ ${1:-} == --help || ${1:-} == -h ]]; then
  usage
  exit 0
fi
restarts=50
if [[ ${1:-} == --restarts ]]; then
  [[ ${2:-} =~ ^(0|[1-9][0-9]{0,8})$ ]] || fail "--restarts requires an integer, not '${2:-}'" 2
  restarts=$2
  shift 2
fi
(($#)) || fail 'the options of pretrain are missing (see --help)' 2

# srun's own status hides failures: a failed task has the others killed, and a signal takes
# precedence over every status. But srun reports the status of each task.
said=$(mktemp)
trap 'rm -f "$said"' EXIT
status=0
{
  srun --kill-on-bad-exit=1 svilm-train pretrain --coordinator auto "$@" 2>&1 >&3 \
    | tee "$said" >&2
} 3>&1 || status=$?
mapfile -t exited < <(sed -nE 's/^srun: error: .*: Exited with exit code ([0-9]+)$/\1/p' "$said")
for each in "${exited[@]}" "$status"; do
  case $each in
    75 | 134 | 137 | 143) ;; # stopped and saved, or RUN in use; lost its peers, or killed
    *) exit "$each" ;;
  esac
done
# SLURM_RESTART_COUNT is unset until the first restart.
if ((${SLURM_RESTART_COUNT:-0} >= restarts)); then
  fail "stopped with status $status after $restarts restarts: not requeued" "$status"
fi
printf 'train_slurm.sh: stopped with status %d: requeued\n' "$status" >&2
scontrol requeue "${SLURM_JOB_ID:?}"
