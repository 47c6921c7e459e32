#!/usr/bin/env bash
# Fills in the template of a JobSet, and prints it or submits it to a Kubernetes cluster.
set -euo pipefail

usage() {
  cat <<'USAGE'
usage: jobset.sh COMMAND TEMPLATE NAME=VALUE… [-- PRETRAIN-OPTION…]

commands:
  render  print the JobSet
  start   kubectl apply it
  logs    follow the output of the first worker
  delete  kubectl delete it

TEMPLATE is deploy/tpu/jobset.yaml or deploy/gpu/jobset.yaml. Its first lines list the required
NAMEs. JobSet must be installed in the cluster (https://jobset.sigs.k8s.io).

Snapshot and run must be in a bucket (gs://…) that the pods' service account may use. It needs
roles/storage.objectUser and storage.buckets.get (roles/storage.legacyBucketReader).

If a worker stops and saves (status 75), is killed, or loses its node, the run restarts and resumes
from its last checkpoint. If a worker fails (1) or is misused (2), the run ends.

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

# Prints a JSON string, which is also a YAML string.
quoted() {
  local text=${1//\\/\\\\}
  text=${text//\"/\\\"}
  [[ $text != *[[:cntrl:]]* ]] || fail 'an option contains a control character: remove it' 2
  printf '"%s"' "$text"
}

if [[ ${1:-} == --help || ${1:-} == -h ]]; then
  usage
  exit 0
fi
(($# >= 2)) || fail 'the command or the template is missing (see --help)' 2
readonly command=$1 template=$2
shift 2
[[ -r $template ]] || fail "the template $template cannot be read: check its path" 2

declare -A values=()
while (($#)) && [[ $1 != -- ]]; do
  [[ $1 =~ ^[A-Z]+=[A-Za-z0-9._/:@-]+$ ]] || fail "$1 is not NAME=VALUE (see --help)" 2
  values[${1%%=*}]=${1#*=}
  shift
done
if (($#)); then shift; fi
options=''
for option in "$@"; do options+=", $(quoted "$option")"; done
values[OPTIONS]=${options#, }

rendered=$(<"$template")
for name in "${!values[@]}"; do
  [[ $rendered == *"@$name@"* ]] || fail "$template has no @$name@: remove $name=…" 2
  rendered=${rendered//"@$name@"/"${values[$name]}"}
done
if [[ $command != logs && $command != delete ]] && [[ $rendered =~ @([A-Z]+)@ ]]; then
  fail "$template requires a value: add ${BASH_REMATCH[1]}=…" 2
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
