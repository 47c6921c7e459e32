#!/usr/bin/env bash
# Trains on GPUs of a Slurm cluster, a process a GPU, and queues the job again until it is trained.
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

Starts `svilm-train pretrain --coordinator auto` with the PRETRAIN-OPTIONs, a process a GPU.
svilm-train is on the PATH of all nodes; snapshot and run are on a file system that all nodes share,
or in a bucket (gs://…).

The job is queued again, and the run resumes from its last checkpoint, after status 75 (stopped and
saved, as five minutes before the job's time is over; or an earlier process still writes to the
run's folder) and when a signal ended a process. A process that fails (1), is misused (2) or ends
with any other status ends the job, however others end.

options:
  --restarts N  give up after N of them, Slurm's own (preemption, node failure) among them; comes
                before the PRETRAIN-OPTIONs (default: 50)

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
  [[ ${2:-} =~ ^(0|[1-9][0-9]{0,8})$ ]] || fail "--restarts wants a whole number, not '${2:-}'" 2
  restarts=$2
  shift 2
fi
(($#)) || fail 'give the options of pretrain (see --help)' 2

# srun's own status does not tell a failure: a task that fails has the others killed, and a signal
# goes before every status. But srun says of each task how it ended.
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
# How often Slurm has started this job anew; not set at first.
if ((${SLURM_RESTART_COUNT:-0} >= restarts)); then
  fail "stopped with status $status after $restarts restarts: not queued again" "$status"
fi
printf 'train_slurm.sh: stopped with status %d: queued again\n' "$status" >&2
scontrol requeue "${SLURM_JOB_ID:?}"
