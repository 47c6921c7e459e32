"""MSVD's captions: AllVideoDescriptions.txt, with a list of the split if there is one.

    -4wsuPCjDBc_5_15 a squirrel is eating a peanut in it's shell

A line is a video's id and a sentence; lines of "#" are comments. A list has an id a line
(train_list.txt), or is a CSV with the column video_id.

The file of each video is the span that its id tells, so that a clip is a whole file.
"""

import functools
import io
from collections.abc import Iterator, Mapping

from pipelines.clip_request import ClipRequest, RowError
from pipelines.sources import lines, row, sentences
from protos.v1.manifest_pb2 import Reject, SourceOptions

FORM = (
    "a text file, on each line a video's id, a blank and a sentence; beside it perhaps a list of "
    "the split's videos, an id a line"
)
OPTIONS = ()


def read_all(files: Mapping[str, bytes], options: SourceOptions) -> Iterator[ClipRequest | Reject]:
    """A row a video, with all its sentences."""
    del options
    lists: dict[str, dict[str, int]] = {}
    said: dict[str, dict[str, list[object]]] = {}
    for name, data in files.items():
        try:
            if _describes(data):
                said[name] = _sentences(data)
            else:
                lists[name] = sentences.listed(data)
        except RowError as error:
            yield row.rejected(error, source_row=f"{name}:1")
    if not said:
        error = RowError("read", "row_columns", "ids without sentences")
        for name, ids in lists.items():
            for number in ids.values():
                yield row.rejected(error, source_row=f"{name}:{number}")
        return
    for name, of_videos in said.items():
        other = functools.partial(sentences.other_split, lists)
        yield from sentences.rows(name, of_videos, other)
    known = {video: None for of_videos in said.values() for video in of_videos}
    yield from sentences.not_annotated(lists, known)


def _lines(data: bytes) -> Iterator[bytes]:
    return (line for line in lines.lines(io.BytesIO(data)) if not line.startswith(b"#"))


def _describes(data: bytes) -> bool:
    return any(len(line.split()) > 1 for line in _lines(data))


def _sentences(data: bytes) -> dict[str, list[object]]:
    said: dict[str, list[object]] = {}
    for line in _lines(data):
        video, _, sentence = lines.text(line).partition(" ")
        said.setdefault(video, []).append(sentence)
    return said
