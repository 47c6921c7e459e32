#!/usr/bin/env bash
# Requests a TPU slice, waits for it, trains on it, and requests another after a preemption.
set -euo pipefail

usage() {
  cat <<'USAGE'
usage: train.sh COMMAND NAME --zone ZONE [OPTION…] [-- PRETRAIN-OPTION…]

commands:
  train   request the slice NAME as a queued resource, wait for it, start `svilm-train pretrain
          --coordinator auto` with the PRETRAIN-OPTIONs on all workers, and show their output.
          If the slice is preempted or the run ends with status 75 (stopped and saved, or the
          run's folder in use), request it again: the run resumes from its last checkpoint.
          The slice is deleted at the end, also after an error. Ctrl-C, SIGTERM and a closed
          terminal save and stop the run and delete the slice. With --keep, both continue.
  logs    show the last lines of each worker's output
  delete  delete the slice

options:
  --zone ZONE           zone, such as us-west4-a (required)
  --project PROJECT     Google Cloud project (default: gcloud's)
  --accelerator TYPE    accelerator, such as v5litepod-64 or v5p-64 (required by train)
  --image IMAGE         image of deploy/tpu/Dockerfile, in a registry that the slice's service
                        account may read (required by train)
  --runtime VERSION     runtime of the machines (default: v2-alpha-tpuv5-lite; for v5p, use
                        v2-alpha-tpuv5)
  --spot                request a cheaper slice that may be preempted (default: on demand)
  --restarts N          maximum number of restarts (default: 50)
  --tries N             maximum number of successive failed requests or failed calls of gcloud
                        (default: 10). A rejected request ends the script at once. The time in the
                        queue is unlimited.
  --poll SECONDS        interval between checks of a requested slice (default: 60)
  --keep                keep the slice at the end (default: delete it)
  --dry-run             print the commands instead of running them

Snapshot and run must be in a bucket (gs://…) that the slice's service account may use. It needs
roles/storage.objectUser and storage.buckets.get (roles/storage.legacyBucketReader).

The exit status is 0 after a complete run, 130 after Ctrl-C, else that of the first failed worker.

example:
  train.sh train vcc --zone us-west4-a --accelerator v5litepod-64 --spot \
    --image us-docker.pkg.dev/my-project/svilm/tpu:1 -- \
    --preset paper --snapshot gs://my-bucket/videocc --out gs://my-bucket/runs/paper
USAGE
}

fail() {
  printf 'train.sh: error: %s\n' "$1" >&2
  exit "${2:-1}"
}

# Exit statuses after which the same command resumes: stopped and saved, or folder in use (75), peers
# lost (134), killed (137, 143), machine unreachable (255).
readonly -a RESUMABLE=(75 134 137 143 255)

# Permanent errors of google.rpc.Code: INVALID_ARGUMENT, NOT_FOUND, PERMISSION_DENIED,
# FAILED_PRECONDITION, OUT_OF_RANGE, UNIMPLEMENTED, UNAUTHENTICATED.
readonly -a PERMANENT=(3 5 7 9 11 12 16)

if [[ ${1:-} == --help || ${1:-} == -h ]]; then
  usage
  exit 0
fi
(($# >= 2)) || fail 'the command or the name is missing (see --help)' 2
readonly command=$1 name=$2
shift 2

zone='' project='' accelerator='' image='' runtime=v2-alpha-tpuv5-lite
spot=no keep=no dry_run=no restarts=50 tries=10 poll=60
while (($#)); do
  case $1 in
    --spot) spot=yes ;;
    --keep) keep=yes ;;
    --dry-run) dry_run=yes ;;
    --zone | --project | --accelerator | --image | --runtime | --restarts | --tries | --poll)
      (($# >= 2)) || fail "$1 requires a value" 2
      declare "${1#--}=$2"
      shift
      ;;
    --)
      shift
      break
      ;;
    *) fail "unknown option $1 (see --help)" 2 ;;
  esac
  shift
done
readonly -a pretrain=("$@")
[[ -n $zone ]] || fail '--zone is required' 2
[[ $name =~ ^[a-z]([-a-z0-9]{0,60}[a-z0-9])?$ ]] \
  || fail "the name $name is invalid: use lower-case letters, digits and hyphens" 2
where=(--zone "$zone")
if [[ -n $project ]]; then where+=(--project "$project"); fi

run() {
  if [[ $dry_run == yes ]]; then
    printf '%q ' "$@"
    printf '\n'
  else
    "$@"
  fi
}

on_all_workers() {
  run gcloud compute tpus tpu-vm ssh "$name" "${where[@]}" --worker all --quiet --command "$1"
}

# The queued resource's last known state (ABSENT, UNKNOWN if gcloud failed, or the API's name, such as
# ACTIVE), its reason, and its error code if the state is FAILED.
state=ABSENT why='' code=''

describe() {
  local answer
  if answer=$(gcloud compute tpus queued-resources describe "$name" "${where[@]}" --format \
    'value(state.state, state.failedData.error.code, state.failedData.error.message)' 2>"$said"); then
    IFS=$'\t' read -r state code why <<<"$answer"
    return
  fi
  read -r why <"$said" || true
  case $why in
    *NOT_FOUND*) state=ABSENT why='' ;;
    *PERMISSION_DENIED* | *UNAUTHENTICATED* | *INVALID_ARGUMENT* | *'active account'*)
      fail "gcloud cannot describe $name: $why"
      ;;
    *) state=UNKNOWN ;;
  esac
}

request() {
  local -a kind=()
  if [[ $spot == yes ]]; then kind=(--spot); fi
  state=UNKNOWN # An interrupted gcloud may still have sent the request.
  run gcloud compute tpus queued-resources create "$name" "${where[@]}" --node-id "$name" \
    --accelerator-type "$accelerator" --runtime-version "$runtime" --quiet "${kind[@]}"
}

delete_slice() {
  run gcloud compute tpus queued-resources delete "$name" "${where[@]}" --force --quiet
  state=ABSENT
}

wait_for_slice() {
  [[ $dry_run == no ]] || return 0
  local requests=0 unknown=0
  while true; do
    describe
    case $state in
      ACTIVE) return ;;
      UNKNOWN) ((++unknown < tries)) || fail "gcloud cannot describe $name: $why" ;;
      *) unknown=0 ;;
    esac
    printf 'train.sh: %s is %s%s\n' "$name" "$state" "${why:+: $why}" >&2
    case $state in
      FAILED | SUSPENDING | SUSPENDED) # preempted or never granted: only a new request helps
        if ((requests)) && [[ " ${PERMANENT[*]} " == *" ${code:-none} "* ]]; then
          fail "the request of $name was rejected: $why"
        fi
        ((requests < tries)) || fail "$name is $state after $tries requests${why:+: $why}"
        delete_slice
        request
        ((++requests))
        ;;
      ABSENT)
        ((requests < tries)) || fail "$name does not exist after $tries requests"
        request
        ((++requests))
        ;;
    esac
    sleep "$poll"
  done
}

# Deletes the slice however `train` ends, because an unused slice costs as much as a used one.
leave() {
  local -r status=$?
  trap 'rm -f "$said"' EXIT
  trap 'fail "interrupted: the slice $name may still exist: see the command delete"' INT TERM HUP
  if [[ $state == UNKNOWN && $dry_run == no ]]; then describe; fi
  [[ $state != ABSENT ]] || exit "$status"
  if [[ $keep == yes ]]; then
    printf 'train.sh: %s and its run continue: see the commands logs and delete\n' "$name" >&2
    exit "$status"
  fi
  if [[ $running == yes ]]; then
    printf 'train.sh: the run saves and stops; repeat to exit at once\n' >&2
    on_all_workers 'sudo docker stop --time 300 svilm >/dev/null' \
      || printf 'train.sh: workers could not be stopped: unsaved steps are lost\n' >&2
  fi
  delete_slice || fail "the slice $name may still exist: see the command delete"
  exit "$status"
}

train() {
  [[ -n $accelerator ]] || fail 'train requires --accelerator' 2
  [[ -n $image ]] || fail 'train requires --image' 2
  ((${#pretrain[@]})) || fail 'train requires the options of pretrain after --' 2
  local options status=0 again
  printf -v options '%q ' "$image" pretrain --coordinator auto "${pretrain[@]}"
  # The container is detached, so that a lost connection does not stop it during a checkpoint.
  local -r command_of_worker="sudo docker rm --force svilm >/dev/null 2>&1
sudo docker run --detach --name svilm --privileged --network host $options >/dev/null || exit
sudo docker logs --follow svilm
exit \"\$(sudo docker wait svilm)\""

  said=$(mktemp) running=no
  trap leave EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM
  trap 'exit 129' HUP
  if [[ $dry_run == yes ]]; then request; fi
  for ((again = 0; again <= restarts; again++)); do
    wait_for_slice
    status=0 running=yes
    on_all_workers "$command_of_worker" || status=$?
    if ((status == 130)); then exit 130; fi # Under nohup, only gcloud receives Ctrl-C.
    running=no
    ((status)) || break
    # A preemption ends the workers with any status.
    describe
    if [[ " ${RESUMABLE[*]} " != *" $status "* && $state == ACTIVE ]]; then break; fi
    printf 'train.sh: stopped with status %d, restart %d\n' "$status" "$((again + 1))" >&2
  done
  ((status == 0)) || fail "the run ended with status $status: read its workers' output" "$status"
}

case $command in
  train) train ;;
  logs) on_all_workers 'sudo docker logs --tail 50 svilm' ;;
  delete) delete_slice ;;
  *) fail "unknown command $command (see --help)" 2 ;;
esac
