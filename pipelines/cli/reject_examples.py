"""An example row and a hint for each reject reason, for the terminal."""

import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence

from pipelines.formatting import printable
from pipelines.snapshots import plan_summary, records
from pipelines.sources import SOURCES
from protos.v1.manifest_pb2 import Reject

_MAX_READ = 200_000  # rejects read from plan.json, and again from the shards; takes 1-2 s
_MAX_CHARACTERS = 200  # maximum length of an example

# (option, hint) by reason code. If an option is named, only sources with it get the hint.
_HINTS: Mapping[str, tuple[str, str]] = {
    "row_not_utf8": ("", "save the file as UTF-8: iconv -f latin1 -t utf-8 FILE"),
    "row_columns": ("columns", "check that --columns names the file's columns"),
    "row_quote": ("", "double the quotes within a quoted field"),
    "row_stray_quote": ("", "double the quotes within a quoted field"),
    "row_carriage_return": ("", "quote fields that contain line breaks"),
    "video_id_invalid": ("columns", "use the file's name as id; --video-map lists paths"),
    "time_invalid": ("time_unit", "write a number of --time-unit, or h:m:s"),
    "span_empty": ("columns", "check that end is a time in the video, not a length"),
    "span_past_end": ("time_unit", "for milliseconds, add --time-unit ms"),
    "caption_empty": ("keep_empty_captions", "--keep-empty-captions keeps such rows"),
    "video_missing": ("", "make --videos a path template, or list files in --video-map"),
    "video_ambiguous": (
        "",
        "give each file a unique id, or list one file per id in --video-map",
    ),
    "video_outside_root": ("", "move the links' targets into --videos"),
    "video_undecodable": ("", "--decoder ffmpeg may support more codecs"),
    "video_truncated": ("", "download the file again"),
    "video_too_large": ("", "--max-video-size sets the limit"),
    "decoder_fault": ("", "report this bug; --decoder ffmpeg may avoid it"),
    "decode_timeout": ("", "--decode-timeout sets the limit"),
    "duplicate_differs": ("", "put all annotations of a clip in one row, or in one JSON file"),
    "already_present": ("", "an append does not change the records of earlier versions"),
    "not_annotated": ("", "check that the annotation file is of the same split"),
}


def lines(
    folder: str,
    stems: Sequence[str],
    plan: str,
    rejects: Mapping[str, int],
    source: str,
    unit: str,
) -> Iterator[str]:
    """Yield a line for each reject reason, by descending count: the count, an example, a hint.

    Args:
      folder: folder of a snapshot, complete or not.
      stems: the stem of the file names of each shard that was built.
      plan: name of the file of the rejects of planning.
      rejects: number of rejected rows by reason code.
      source: a key of SOURCES.
      unit: the time unit that the user chose; empty for none.

    Raises:
      SnapshotError: a file of the snapshot is missing or damaged.
    """
    found = _found(folder, stems, plan, rejects)
    for reason, count in sorted(rejects.items(), key=lambda item: (-item[1], item[0])):
        line = f"{count:,} × {reason}"
        if reason in found:
            line += f", for example {shown(found[reason])}"
        option, hint = _HINTS.get(reason, ("", ""))
        if (
            hint
            and (not option or option in SOURCES[source].OPTIONS)
            and (reason != "span_past_end" or not unit)
        ):
            line += f" ({hint})"
        yield line


def shown(reject: Reject) -> str:
    r"""Format a reject for a terminal, with non-printable characters escaped.

    >>> shown(Reject(source_row="a.csv:7", video_id="x\x1b[2J", message="no x"))
    "a.csv:7, video 'x\\x1b[2J': no x"
    """
    text = f"{reject.source_row}"
    if reject.video_id:
        text += f", video {reject.video_id!r}"
    text = f"{text}: {reject.message}"
    plain = printable(text)
    return plain if len(plain) <= _MAX_CHARACTERS else f"{plain[:_MAX_CHARACTERS]}…"


def _found(
    folder: str, stems: Sequence[str], plan: str, reasons: Collection[str]
) -> dict[str, Reject]:
    """Return one reject for each reason found among the first _MAX_READ of plan and shards."""
    found: dict[str, Reject] = {}
    of_shards = (
        reject for summary in records.shard_summaries(folder, stems) for reject in summary.rejects
    )
    for rejects in (plan_summary.rejects(folder, plan), of_shards):
        for reject in itertools.islice(rejects, _MAX_READ):
            if len(found) == len(reasons):
                return found
            if reject.reason in reasons:
                found.setdefault(reject.reason, reject)
    return found
