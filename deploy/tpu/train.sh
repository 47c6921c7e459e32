#!/usr/bin/env bash
# Trains on a TPU slice that is asked for, waited for, and asked for again when it is preempted.
set -euo pipefail

usage() {
  cat <<'USAGE'
usage: train.sh COMMAND NAME --zone ZONE [OPTION…] [-- PRETRAIN-OPTION…]

commands:
  train   ask for the slice NAME as a queued resource, wait for it, start `svilm-train pretrain
          --coordinator auto` with the PRETRAIN-OPTIONs on all its workers, and show what they
          print. When the slice is preempted, or the run was asked to stop there (status 75), ask
          again: the run goes on from its last checkpoint. At the end the slice is given back.
  logs    show the last lines of every worker
  delete  give the slice back

options:
  --zone ZONE           where, such as us-west4-a (required)
  --project PROJECT     default: gcloud's own
  --accelerator TYPE    of train, such as v5litepod-64 or v5p-64 (required there)
  --image IMAGE         of train: built from deploy/tpu/Dockerfile, in a registry that the slice's
                        service account may read (required there)
  --runtime VERSION     of the machines (default: v2-alpha-tpuv5-lite; v5p: v2-alpha-tpuv5)
  --spot                cheaper, and may be preempted
  --restarts N          give up after N of them (default: 50)
  --poll SECONDS        between looks at a slice that is waited for (default: 60)
  --keep                do not give the slice back at the end
  --dry-run             print the commands instead of running them

Snapshot and run must be in a bucket (gs://…) that the slice's service account may use: with
roles/storage.objectUser, and with storage.buckets.get (roles/storage.legacyBucketReader). Exit
status: that of the first worker that failed; 0 if the run is trained to its end.

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

# Statuses of a worker after which the same command goes on: asked to stop and saved (75), lost its
# peers (134), killed (137, 143), or its machine cannot be reached any more (255).
readonly -a GOES_ON=(75 134 137 143 255)

if [[ ${1:-} == --help || ${1:-} == -h ]]; then
  usage
  exit 0
fi
(($# >= 2)) || fail 'give a command and a name (see --help)' 2
readonly command=$1 name=$2
shift 2

zone='' project='' accelerator='' image='' runtime=v2-alpha-tpuv5-lite
spot=no keep=no dry_run=no restarts=50 poll=60
while (($#)); do
  case $1 in
    --spot) spot=yes ;;
    --keep) keep=yes ;;
    --dry-run) dry_run=yes ;;
    --zone | --project | --accelerator | --image | --runtime | --restarts | --poll)
      (($# >= 2)) || fail "$1 wants a value" 2
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
  || fail "the name $name is not of lower-case letters, digits and hyphens" 2
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

# A queued resource's state: ACTIVE, PROVISIONING, SUSPENDED, …; nothing if there is none.
state() {
  gcloud compute tpus queued-resources describe "$name" "${where[@]}" \
    --format 'value(state.state)' 2>/dev/null || true
}

ask() {
  local -a kind=()
  if [[ $spot == yes ]]; then kind=(--spot); fi
  run gcloud compute tpus queued-resources create "$name" "${where[@]}" --node-id "$name" \
    --accelerator-type "$accelerator" --runtime-version "$runtime" --quiet "${kind[@]}"
}

give_back() {
  run gcloud compute tpus queued-resources delete "$name" "${where[@]}" --force --quiet
}

wait_for_slice() {
  [[ $dry_run == no ]] || return 0
  local now
  while true; do
    now=$(state)
    case $now in
      ACTIVE) return ;;
      FAILED | SUSPENDING | SUSPENDED) # preempted, or never there: a new one must be asked for
        give_back
        ask
        ;;
      '') ask ;;
    esac
    printf 'train.sh: %s is %s\n' "$name" "${now:-asked for}" >&2
    sleep "$poll"
  done
}

train() {
  [[ -n $accelerator ]] || fail 'train wants --accelerator' 2
  [[ -n $image ]] || fail 'train wants --image' 2
  ((${#pretrain[@]})) || fail 'train wants the options of pretrain after --' 2
  local options status=0 again
  printf -v options '%q ' "$image" pretrain --coordinator auto "${pretrain[@]}"
  # Detached, so that a lost connection does not stop it in the middle of a checkpoint.
  local -r command_of_worker="sudo docker rm --force svilm >/dev/null 2>&1
sudo docker run --detach --name svilm --privileged --network host $options >/dev/null || exit
sudo docker logs --follow svilm
exit \"\$(sudo docker wait svilm)\""

  if [[ $dry_run == yes ]]; then ask; fi
  for ((again = 0; again <= restarts; again++)); do
    wait_for_slice
    status=0
    on_all_workers "$command_of_worker" || status=$?
    ((status)) || break
    # A slice that is taken away ends its workers with any status.
    if [[ " ${GOES_ON[*]} " != *" $status "* && $(state) == ACTIVE ]]; then break; fi
    printf 'train.sh: stopped with status %d, restart %d\n' "$status" "$((again + 1))" >&2
  done
  if [[ $keep == no ]]; then give_back; fi
  ((status == 0)) || fail "the run ended with status $status: see what its workers printed" "$status"
}

case $command in
  train) train ;;
  logs) on_all_workers 'sudo docker logs --tail 50 svilm' ;;
  delete) give_back ;;
  *) fail "unknown command $command (see --help)" 2 ;;
esac
