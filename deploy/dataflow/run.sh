#!/usr/bin/env bash
# Builds a snapshot on Google Cloud Dataflow, with suitable machines.
set -euo pipefail

usage() {
    cat <<'USAGE'
usage: run.sh [OPTION…] SOURCE BUILD-OPTION…

Runs `svilm-pipelines build SOURCE BUILD-OPTION… --runner DataflowRunner …`. This machine plans the
build, and Dataflow runs it. Annotations, videos and --out must be in buckets (gs://…) that this
machine and the workers may access. Options of Beam may follow, and override the ones chosen here.

  --project ID         Google Cloud project (default: that of `gcloud config`)
  --region NAME        region of the buckets, because traffic between regions costs money (default:
                       that of `gcloud config`)
  --staging gs://DIR   folder for the job's temporary files (required)
  --image IMAGE        workers' image, built from deploy/dataflow/Dockerfile; "none" installs the
                       pipelines at each worker's start, which takes minutes (default: none)
  --max-workers N      maximum number of machines; Dataflow scales up to it (default: 50)
  --machine-type TYPE  machine type; each core runs one single-threaded process and needs 4 GB of
                       memory (default: n2d-standard-8)
  --disk-gb N          disk size of a machine in GB; each process stores one video
                       (--max-video-size, 4 GB) and one unfinished shard (default: 60)
  --detach             exit once the job is submitted (default: wait for its end)
  --dry-run            print the command without running it

The script sets `number_of_worker_harness_threads` to 1 and `resource_hints` to min_ram=4GB, which
gives one process per core. Ctrl-C cancels the job, unless --detach is set. The same command then
builds the missing shards. Run only one job at a time for an --out.

examples:
  docker build --file deploy/dataflow/Dockerfile --tag europe-docker.pkg.dev/mine/svilm/workers:1 .
  docker push europe-docker.pkg.dev/mine/svilm/workers:1
  deploy/dataflow/run.sh --staging gs://mine/dataflow \
      --image europe-docker.pkg.dev/mine/svilm/workers:1 \
      webvid --annotations gs://mine/results_2M_train.csv --videos gs://mine/videos \
      --out gs://mine/snapshots/webvid

The flex template starts without Python:
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

configured() { # Prints the value NAME of gcloud's configuration, or nothing without gcloud.
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
            (($# > 1)) || fail "$1 requires a value"
            name=${1#--}
            printf -v "${name//-/_}" %s "$2"
            shift
            ;;
        -*) fail "unknown option $1: put options of build after the source" ;;
        *) break ;;
    esac
    shift
done

(($#)) || fail "the source is missing"
[[ $staging == gs://?* ]] || fail "--staging must be gs://BUCKET/FOLDER, not '$staging'"
for count in "$max_workers" "$disk_gb"; do
    [[ $count =~ ^[1-9][0-9]*$ ]] || fail "'$count' is not a positive integer"
done
project=${project:-$(configured project)}
region=${region:-$(configured dataflow/region)}
region=${region:-$(configured compute/region)}
[[ -n $project ]] || fail "the project is missing: add --project or set it in gcloud config"
[[ -n $region ]] || fail "the region is missing: add --region or set it in gcloud config"

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
    # Videos pass through the disk, and a small standard disk is slow.
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
    fail "svilm-pipelines is not on the PATH: run make setup and . .venv/bin/activate"
exec "${command[@]}"
