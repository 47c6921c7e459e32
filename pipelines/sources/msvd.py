"""MSVD captions: AllVideoDescriptions.txt, with an optional split list.

    -4wsuPCjDBc_5_15 a squirrel is eating a peanut in it's shell

A line is a video's id and a sentence. Lines that begin with "#" are comments. A split list has one
id per line (train_list.txt), or is a CSV with the column video_id.

Each video's file contains only the span in its id, so a clip is a whole file.
"""

import functools
import io
import itertools
from collections.abc import Iterator, Mapping

from pipelines.sources import clip_fields, lines, sentences
from pipelines.sources.clip_request import ClipRequest, RowError, row_order
from pipelines.sources.sentences import Sentence
from protos.v1.manifest_pb2 import Reject, SourceOptions

FORM = (
    "a text file whose lines are a video id, a space and a sentence; optionally, a list of the "
    "split's videos, one id per line"
)
OPTIONS = ()
SUBSETS = ()


def read_all(files: Mapping[str, bytes], options: SourceOptions) -> Iterator[ClipRequest | Reject]:
    """Yield one row per video, with all its sentences."""
    del options
    lists: dict[str, sentences.Listed] = {}
    said: dict[str, dict[str, list[Sentence]]] = {}
    unread: dict[str, list[Reject]] = {}
    for name, data in files.items():
        if _describes(data):
            said[name], unread[name] = _sentences(data, name)
        else:
            lists[name] = sentences.listed(data, name)
    if not said:
        error = RowError("read", "row_columns", "ids without sentences")
        for name, ids in lists.items():
            for number in sorted(itertools.chain.from_iterable(ids.values())):
                yield clip_fields.rejected(error, source_row=f"{name}:{number}")
        return
    for name, of_videos in said.items():
        other = functools.partial(sentences.other_split, lists)
        rows = [*sentences.rows(name, of_videos, other), *unread[name]]
        yield from sorted(rows, key=lambda row: row_order(row.source_row))
    known = {video: None for of_videos in said.values() for video in of_videos}
    yield from sentences.not_annotated(lists, known)


def _lines(data: bytes) -> Iterator[tuple[int, bytes]]:
    numbered = lines.numbered(io.BytesIO(data))
    return ((number, line) for number, line in numbered if not line.startswith(b"#"))


def _describes(data: bytes) -> bool:
    return any(len(line.split()) > 1 for _, line in _lines(data))


def _sentences(data: bytes, name: str) -> tuple[dict[str, list[Sentence]], list[Reject]]:
    """Return each video's sentences, and rejects of the lines without a sentence."""
    said: dict[str, list[Sentence]] = {}
    unread: list[Reject] = []
    for number, line in _lines(data):
        try:
            video, blank, sentence = lines.text(line).partition(" ")
            if not video or not blank:
                raise RowError("read", "row_columns", "the line is not <video> <sentence>")
        except RowError as error:
            source_row = f"{name}:{number}"
            unread.append(
                clip_fields.rejected(error, source_row=source_row, row=lines.excerpt(line))
            )
            continue
        said.setdefault(video, []).append(Sentence(sentence, number))
    return said, unread
