#!/usr/bin/env bash
# Fills in a JobSet's template, and prints it or hands it to a cluster of Kubernetes.
set -euo pipefail

usage() {
  cat <<'USAGE'
usage: jobset.sh COMMAND TEMPLATE NAME=VALUE… [-- PRETRAIN-OPTION…]

commands:
  render  print the JobSet
  start   kubectl apply it
  logs    follow the first worker's output
  delete  kubectl delete it

TEMPLATE is deploy/tpu/jobset.yaml or deploy/gpu/jobset.yaml; each says at its head which NAMEs it
wants. The cluster has JobSet installed (https://jobset.sigs.k8s.io).

Snapshot and run are in a bucket (gs://…) that the pods' service account may use: with
roles/storage.objectUser, and with storage.buckets.get (roles/storage.legacyBucketReader).

A worker that was stopped and has saved (status 75), was killed, or lost its node restarts the run,
which goes on from its last checkpoint; one that failed (1) or was misused (2) ends it.

example:
  jobset.sh start deploy/tpu/jobset.yaml NAME=vcc IMAGE=us-docker.pkg.dev/p/svilm/tpu:1 \
    ACCELERATOR=tpu-v5-lite-podslice TOPOLOGY=8x8 HOSTS=16 CHIPS=4 RESTARTS=50 -- \
    --preset paper --snapshot gs://my-bucket/videocc --out gs://my-bucket/runs/paper
USAGE
}

fail() {
  printf 'jobset.sh: error: %s\n' "$1" >&2
  exit "${2:-1}"
}

# A JSON string, which is one of YAML too.
quoted() {
  local text=${1//\\/\\\\}
  text=${text//\"/\\\"}
  [[ $text != *[[:cntrl:]]* ]] || fail 'an option has a control character in it' 2
  printf '"%s"' "$text"
}

if [[ ${1:-} == --help || ${1:-} == -h ]]; then
  usage
  exit 0
fi
(($# >= 2)) || fail 'give a command and a template (see --help)' 2
readonly command=$1 template=$2
shift 2
[[ -r $template ]] || fail "$template cannot be read" 2

declare -A values=()
while (($#)) && [[ $1 != -- ]]; do
  [[ $1 =~ ^[A-Z]+=[A-Za-z0-9._/:@-]+$ ]] || fail "$1 is not NAME=VALUE" 2
  values[${1%%=*}]=${1#*=}
  shift
done
if (($#)); then shift; fi
options=''
for option in "$@"; do options+=", $(quoted "$option")"; done
values[OPTIONS]=${options#, }

rendered=$(<"$template")
for name in "${!values[@]}"; do
  [[ $rendered == *"@$name@"* ]] || fail "$template has no @$name@" 2
  rendered=${rendered//"@$name@"/"${values[$name]}"}
done
if [[ $command != logs && $command != delete ]] && [[ $rendered =~ @([A-Z]+)@ ]]; then
  fail "$template wants ${BASH_REMATCH[1]}=…" 2
fi

case $command in
  render) printf '%s\n' "$rendered" ;;
  start) kubectl apply --filename - <<<"$rendered" ;;
  logs)
    kubectl logs --follow --tail 50 \
      --selector "jobset.sigs.k8s.io/jobset-name=${values[NAME]:?},batch.kubernetes.io/job-completion-index=0"
    ;;
  delete) kubectl delete jobset "${values[NAME]:?}" ;;
  *) fail "unknown command $command (see --help)" 2 ;;
esac
