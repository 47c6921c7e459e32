"""UCF101 splits: trainlist0N.txt or testlist0N.txt, with an optional classInd.txt.

    ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi 1

A line is a path, followed in training lists by the class's number, from 1. The class is the path's
folder. Lines end with CR and LF. classInd.txt ("1 ApplyEyeMakeup") maps numbers to classes.
"""

import functools
import io
import re
from collections.abc import Iterator, Mapping

from pipelines.sources import clip_fields, lines
from pipelines.sources.clip_request import ClipRequest, RowError
from protos.v1.manifest_pb2 import Reject, SourceOptions

FORM = (
    "a text file whose lines are <class>/<video>.avi and optionally the class's number; "
    "optionally, classInd.txt"
)
OPTIONS = ()
SUBSETS = ()

_CLASS = re.compile(r"(\d+) +(\S+)")
_VIDEO = re.compile(r"([^/]+)/([^/]+?)(?: +(\d+))?")


def read_all(files: Mapping[str, bytes], options: SourceOptions) -> Iterator[ClipRequest | Reject]:
    """Yield one row per video, labelled with its class."""
    del options
    classes: dict[str, str] = {}
    listed = []
    for name, data in files.items():
        if found := _classes(data):
            classes |= found
        else:
            listed.append(name)
    for name in listed:
        for number, line in lines.numbered(io.BytesIO(files[name])):
            source_row = f"{name}:{number}"
            yield clip_fields.clip_or_reject(
                functools.partial(_video, line, classes, source_row),
                source_row=source_row,
                row=lines.excerpt(line),
            )


def _classes(data: bytes) -> dict[str, str]:
    """Return each class's number, or an empty dict if the file holds anything else."""
    classes: dict[str, str] = {}
    for _, line in lines.numbered(io.BytesIO(data)):
        match = _CLASS.fullmatch(line.decode(errors="replace").strip())
        if not match:
            return {}
        classes[match[2]] = match[1]
    return classes


def _video(line: bytes, classes: Mapping[str, str], source_row: str) -> ClipRequest:
    match = _VIDEO.fullmatch(lines.text(line).strip())
    if not match:
        raise RowError("read", "row_columns", "the line is not <class>/<video>.avi")
    label, file, number = match.groups()
    if classes and (label not in classes or number not in (None, classes[label])):
        name = f"class {label!r:.100} of number {number or 'none'}"
        raise RowError("plan", "labels_invalid", f"{name} is not in the file of classes")
    return clip_fields.whole_video(
        clip_fields.file_name(file), labels=(label,), source_row=source_row
    )
