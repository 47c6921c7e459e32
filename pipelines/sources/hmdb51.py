"""HMDB51 splits: <class>_test_splitN.txt for each class, or MIL-NCE's hmdb51.csv for all.

    April_09_brush_hair_u_nm_np1_ba_goo_0.avi 1

    video_id,label,split1,split2,split3
    April_09_brush_hair_u_nm_np1_ba_goo_0.avi,brush_hair_test,1,1,2

In split N, 1 marks a training clip, 2 a test clip, and 0 neither. File names contain brackets, "&",
"#" and similar characters.
"""

import functools
import re
from collections.abc import Iterator
from typing import BinaryIO

from pipelines.sources import clip_fields, lines
from pipelines.sources.annotation_file import plain_name
from pipelines.sources.clip_request import ClipRequest, RowError
from protos.v1.manifest_pb2 import Reject, SourceOptions

FORM = (
    "files <class>_test_splitN.txt whose lines are <video>.avi and 0, 1 or 2; or a CSV file with "
    "the columns video_id, label, split1, split2 and split3"
)
OPTIONS = ("subset", "fold")
SUBSETS = ("train", "test")

_USES = {"1": "train", "2": "test"}
_NAME = re.compile(r"(.+)_test_split([1-3])\.txt")


def read(file: BinaryIO, name: str, options: SourceOptions) -> Iterator[ClipRequest | Reject]:
    """Yield one row per clip of the subset (default: train and test), labelled with its class."""
    rows = (
        _text(file, name, options) if plain_name(name).endswith(".txt") else _table(file, options)
    )
    for number, line, fields in rows:
        source_row = f"{name}:{number}"
        yield clip_fields.clip_or_reject(
            functools.partial(_clip, fields, options, source_row),
            source_row=source_row,
            row=lines.excerpt(line),
        )


# A clip's file, its class and its use in the requested split, or an error.
_Fields = tuple[str, str, str] | RowError


def _text(
    file: BinaryIO, name: str, options: SourceOptions
) -> Iterator[tuple[int, bytes, _Fields]]:
    named = _NAME.fullmatch(plain_name(name))
    for number, line in lines.numbered(file):
        try:
            video, _, use = lines.text(line).strip().rpartition(" ")
            if not named or not video or use not in ("0", *_USES):
                raise RowError(
                    "read",
                    "row_columns",
                    "the line is not <video>.avi and 0, 1 or 2"
                    if named
                    else f"{name!r} is not named <class>_test_split<1 to 3>.txt",
                )
            if int(named[2]) != (options.fold or 1):
                raise RowError("plan", "other_split", f"of split {named[2]}")
            yield number, line, (video.strip(), named[1], use)
        except RowError as error:
            yield number, line, error


def _table(file: BinaryIO, options: SourceOptions) -> Iterator[tuple[int, bytes, _Fields]]:
    for number, line, fields in lines.table(file):
        try:
            video, label, use = (
                lines.column(fields, name).strip()
                for name in ("video_id", "label", f"split{options.fold or 1}")
            )
            yield number, line, (video, label.removesuffix("_test"), use)
        except RowError as error:
            yield number, line, error


def _clip(fields: _Fields, options: SourceOptions, source_row: str) -> ClipRequest:
    if isinstance(fields, RowError):
        raise fields
    video, label, number = fields
    use = _USES.get(number, "neither train nor test")
    if use != (options.subset or use) or number not in _USES:
        raise RowError("plan", "other_split", f"{use} in split {options.fold or 1}")
    return clip_fields.whole_video(
        clip_fields.file_name(video), labels=(label,), source_row=source_row
    )
