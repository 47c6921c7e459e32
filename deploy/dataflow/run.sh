#!/usr/bin/env bash
# Builds a snapshot on Google Cloud Dataflow, with machines that suit the work.
set -euo pipefail

usage() {
    cat <<'USAGE'
usage: run.sh [OPTION…] SOURCE BUILD-OPTION…

Runs `svilm-pipelines build SOURCE BUILD-OPTION… --runner DataflowRunner …`: the build is planned
here and done there. Annotations, videos and --out are in buckets (gs://…), which this machine and
the workers may use. Any option of Beam may follow, and is stronger than those chosen here.

  --project ID         Google Cloud project (default: that of `gcloud config`)
  --region NAME        where the buckets are; traffic out of a region costs (default: likewise)
  --staging gs://DIR   where the job's own files go; needed
  --image IMAGE        workers' image, of deploy/dataflow/Dockerfile; "none" installs the pipelines
                       as each worker starts, in some minutes (default: none)
  --max-workers N      machines at most; Dataflow takes as many as keep busy (default: 50)
  --machine-type TYPE  (default: n2d-standard-8). A process on each core decodes a shard on one
                       thread, so cores count, and 4 GB for each. Eight share a copy of the image
  --disk-gb N          of a machine; each process keeps a video (--max-video-size, 4 GB) and a
                       shard that is being written (default: 60, for eight)
  --detach             end when the job is handed over, not when it is done
  --dry-run            print the command and run nothing

`number_of_worker_harness_threads` is 1 and `resource_hints` min_ram=4GB: one process a core.
Ctrl-C cancels the job, and the same command goes on with the shards that are missing; --detach
leaves it running. Of one --out, run one job at a time.

examples:
  docker build --file deploy/dataflow/Dockerfile --tag europe-docker.pkg.dev/mine/svilm/workers:1 .
  docker push europe-docker.pkg.dev/mine/svilm/workers:1
  deploy/dataflow/run.sh --staging gs://mine/dataflow \
      --image europe-docker.pkg.dev/mine/svilm/workers:1 \
      webvid --annotations gs://mine/results_2M_train.csv --videos gs://mine/videos \
      --out gs://mine/snapshots/webvid

The same as a template, which needs no Python where it is started:
  gcloud dataflow flex-template build gs://mine/templates/svilm.json --sdk-language PYTHON \
      --image europe-docker.pkg.dev/mine/svilm/workers:1 \
      --metadata-file deploy/dataflow/metadata.json
  gcloud dataflow flex-template run webvid-1 --region europe-west4 \
      --template-file-gcs-location gs://mine/templates/svilm.json \
      --worker-machine-type n2d-standard-8 --max-workers 50 --parameters \
      source=webvid,annotations=gs://mine/results_2M_train.csv,videos=gs://mine/videos,\
out=gs://mine/snapshots/webvid,sdk_container_image=europe-docker.pkg.dev/mine/svilm/workers:1
USAGE
}

fail() {
    echo "run.sh: error: $1 (see run.sh --help)" >&2
    exit 2
}

configured() { # NAME: of gcloud's configuration; nothing where there is no gcloud
    { command -v gcloud >/dev/null && gcloud config get-value "$1" 2>/dev/null; } || true
}

project="" region="" staging="" image=none max_workers=50 machine_type=n2d-standard-8 disk_gb=60
detach=() dry_run=
while (($#)); do
    case $1 in
        --help | -h)
            usage
            exit
            ;;
        --dry-run) dry_run=1 ;;
        --detach) detach=(--no_wait_until_finish) ;;
        --project | --region | --staging | --image | --max-workers | --machine-type | --disk-gb)
            (($# > 1)) || fail "$1 wants a value"
            name=${1#--}
            printf -v "${name//-/_}" %s "$2"
            shift
            ;;
        -*) fail "unknown option $1; those of build come after the source" ;;
        *) break ;;
    esac
    shift
done

(($#)) || fail "no source"
[[ $staging == gs://?* ]] || fail "--staging wants gs://BUCKET/FOLDER, not '$staging'"
for count in "$max_workers" "$disk_gb"; do
    [[ $count =~ ^[1-9][0-9]*$ ]] || fail "'$count' is no number of 1 or more"
done
project=${project:-$(configured project)}
region=${region:-$(configured dataflow/region)}
region=${region:-$(configured compute/region)}
[[ -n $project ]] || fail "no --project, and gcloud config has none"
[[ -n $region ]] || fail "no --region, and gcloud config has none"

if [[ $image == none ]]; then
    program=(--setup_file "$(dirname "${BASH_SOURCE[0]}")/setup.py")
else
    program=(--sdk_container_image "$image")
fi
command=(
    svilm-pipelines build "$1"
    --runner DataflowRunner
    --project "$project"
    --region "$region"
    --temp_location "${staging%/}/temp"
    --staging_location "${staging%/}/staging"
    "${program[@]}"
    --machine_type "$machine_type"
    --disk_size_gb "$disk_gb"
    # Videos pass through it: the speed of a standard disk goes by its size.
    --worker_disk_type compute.googleapis.com/projects//zones//diskTypes/pd-ssd
    --autoscaling_algorithm THROUGHPUT_BASED
    --max_num_workers "$max_workers"
    "${detach[@]}"
    "${@:2}"
)
if [[ -n $dry_run ]]; then
    echo "${command[@]@Q}"
    exit
fi
command -v svilm-pipelines >/dev/null ||
    fail "svilm-pipelines is not on the path: make setup, then . .venv/bin/activate"
exec "${command[@]}"
