#!/usr/bin/env bash
# Trains on a TPU slice that is asked for, waited for, and asked for again when it is preempted.
set -euo pipefail

usage() {
  cat <<'USAGE'
usage: train.sh COMMAND NAME --zone ZONE [OPTION…] [-- PRETRAIN-OPTION…]

commands:
  train   ask for the slice NAME as a queued resource, wait for it, start `svilm-train pretrain
          --coordinator auto` with the PRETRAIN-OPTIONs on all its workers, and show what they
          print. When the slice is preempted, the run is asked to stop, or an earlier process still
          writes to the run's folder (status 75), ask again: the run resumes from its last
          checkpoint. At the end, also after an error, the slice is given back. Ctrl-C (or
          SIGTERM, or a closed terminal) has the run save and stop, and gives the slice back;
          with --keep, both stay as they are.
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
  --tries N             give up when a slice was asked for N times in a row and failed or was
                        preempted before it was there, or when gcloud failed as often to tell of it
                        (default: 10); at once if what is asked for is refused. Waiting in the queue
                        has no end.
  --poll SECONDS        between looks at a slice that is waited for (default: 60)
  --keep                do not give the slice back at the end
  --dry-run             print the commands instead of running them

Snapshot and run must be in a bucket (gs://…) that the slice's service account may use: with
roles/storage.objectUser, and with storage.buckets.get (roles/storage.legacyBucketReader). Exit
status: that of the first worker that failed; 130 after Ctrl-C; 0 if the run is trained to its end.

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

# Exit statuses after which the same command resumes: stopped and saved, or folder in use (75), lost
# its peers (134), killed (137, 143), machine unreachable (255).
readonly -a GOES_ON=(75 134 137 143 255)

# Codes of google.rpc.Code with which the same request would fail again: INVALID_ARGUMENT, NOT_FOUND,
# PERMISSION_DENIED, FAILED_PRECONDITION, OUT_OF_RANGE, UNIMPLEMENTED, UNAUTHENTICATED.
readonly -a REFUSED=(3 5 7 9 11 12 16)

if [[ ${1:-} == --help || ${1:-} == -h ]]; then
  usage
  exit 0
fi
(($# >= 2)) || fail 'give a command and a name (see --help)' 2
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

# Of the queued resource, as last seen: ABSENT, UNKNOWN (gcloud failed), or the API's own word for it,
# such as ACTIVE; why it is so, and the error's code if it FAILED.
state=ABSENT why='' code=''

look() {
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
      fail "gcloud does not tell of $name: $why"
      ;;
    *) state=UNKNOWN ;;
  esac
}

ask() {
  local -a kind=()
  if [[ $spot == yes ]]; then kind=(--spot); fi
  state=UNKNOWN # until it is looked at: the request may arrive although gcloud is interrupted
  run gcloud compute tpus queued-resources create "$name" "${where[@]}" --node-id "$name" \
    --accelerator-type "$accelerator" --runtime-version "$runtime" --quiet "${kind[@]}"
}

give_back() {
  run gcloud compute tpus queued-resources delete "$name" "${where[@]}" --force --quiet
  state=ABSENT
}

wait_for_slice() {
  [[ $dry_run == no ]] || return 0
  local asked=0 unknown=0
  while true; do
    look
    case $state in
      ACTIVE) return ;;
      UNKNOWN) ((++unknown < tries)) || fail "gcloud does not tell of $name: $why" ;;
      *) unknown=0 ;;
    esac
    printf 'train.sh: %s is %s%s\n' "$name" "$state" "${why:+: $why}" >&2
    case $state in
      FAILED | SUSPENDING | SUSPENDED) # preempted, or never there: a new one must be asked for
        if ((asked)) && [[ " ${REFUSED[*]} " == *" ${code:-none} "* ]]; then
          fail "$name was refused: $why"
        fi
        ((asked < tries)) || fail "$name is $state after it was asked for $tries times${why:+: $why}"
        give_back
        ask
        ((++asked))
        ;;
      ABSENT)
        ((asked < tries)) || fail "$name is not there after it was asked for $tries times"
        ask
        ((++asked))
        ;;
    esac
    sleep "$poll"
  done
}

# However `train` ends, nobody pays for a slice that nobody uses.
leave() {
  local -r status=$?
  trap 'rm -f "$said"' EXIT
  trap 'fail "left at once: the slice $name may still be there"' INT TERM HUP
  if [[ $state == UNKNOWN && $dry_run == no ]]; then look; fi
  [[ $state != ABSENT ]] || exit "$status"
  if [[ $keep == yes ]]; then
    printf 'train.sh: %s is kept, with what runs there: see logs and delete\n' "$name" >&2
    exit "$status"
  fi
  if [[ $running == yes ]]; then
    printf 'train.sh: the run saves and stops; once more to leave at once\n' >&2
    on_all_workers 'sudo docker stop --time 300 svilm >/dev/null' \
      || printf 'train.sh: workers could not be stopped: what they have not saved is lost\n' >&2
  fi
  give_back || fail "the slice $name may still be there: see delete"
  exit "$status"
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

  said=$(mktemp) running=no
  trap leave EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM
  trap 'exit 129' HUP
  if [[ $dry_run == yes ]]; then ask; fi
  for ((again = 0; again <= restarts; again++)); do
    wait_for_slice
    status=0 running=yes
    on_all_workers "$command_of_worker" || status=$?
    if ((status == 130)); then exit 130; fi # gcloud took Ctrl-C, which this may not see (nohup)
    running=no
    ((status)) || break
    # A slice that is taken away ends its workers with any status.
    look
    if [[ " ${GOES_ON[*]} " != *" $status "* && $state == ACTIVE ]]; then break; fi
    printf 'train.sh: stopped with status %d, restart %d\n' "$status" "$((again + 1))" >&2
  done
  ((status == 0)) || fail "the run ended with status $status: see what its workers printed" "$status"
}

case $command in
  train) train ;;
  logs) on_all_workers 'sudo docker logs --tail 50 svilm' ;;
  delete) give_back ;;
  *) fail "unknown command $command (see --help)" 2 ;;
esac
