"""Planned rows as they pass between workers: many in one element.

Beam spends more on an element than it takes to read a row and find its shard, and an engine that
groups in memory keeps what it groups. So rows travel packed, by shard.
"""

import json
import zlib
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from pipelines.clip_request import ClipRequest, row_order
from pipelines.plan import shard_of
from protos.v1.manifest_pb2 import PlanSummary, Reject

_ROWS = 1 << 18  # that wait in memory for others of their shard: some 70 MB
_REJECTS = 1 << 12

_FILES = b"files:"  # begins a batch of files; as no zlib does

_LEVEL = 1  # of zlib: halves a batch in a microsecond a row


class Requests(NamedTuple):
    """Rows of one shard."""

    shard: int
    packed: bytes


class Files(NamedTuple):
    """Video files of one shard's videos, wanted or not."""

    shard: int
    packed: bytes


class Rejects(NamedTuple):
    """Rejects of one file's rows, in order; none of another batch lies between them."""

    file: str
    row: int  # the first one's
    packed: bytes


class Count(NamedTuple):
    """How many rows a file had, counted apart from what became of them."""

    rows: int


def of(
    rows: Iterable[ClipRequest | Reject], num_shards: int
) -> Iterator[Requests | Rejects | Count]:
    """Packs the rows of one file, in constant memory."""
    waiting: dict[int, list[str]] = {}
    rejects: list[Reject] = []
    count = kept = 0
    for row in rows:
        count += 1
        if isinstance(row, Reject):
            rejects.append(row)
            if len(rejects) == _REJECTS:
                yield _pack_rejects(rejects)
                rejects.clear()
            continue
        waiting.setdefault(shard_of(row.video_id, num_shards), []).append(json.dumps(row))
        kept += 1
        if kept % _ROWS == 0:
            yield from _pack_requests(waiting)
            waiting.clear()
    yield from _pack_requests(waiting)
    if rejects:
        yield _pack_rejects(rejects)
    yield Count(count)


def requests(packed: bytes) -> Iterator[ClipRequest]:
    """The rows of a batch; an empty one has none, and one of files."""
    if not packed or packed.startswith(_FILES):
        return
    for line in zlib.decompress(packed).splitlines():
        fields = ClipRequest(*json.loads(line))
        yield fields._replace(labels=tuple(fields.labels))


def of_files(listing: Iterable[tuple[str, str, int]], num_shards: int) -> Iterator[Files]:
    """Packs video files (video id, path, bytes), in constant memory."""
    waiting: dict[int, list[str]] = {}
    for number, (video_id, path, size) in enumerate(listing, 1):
        shard = shard_of(video_id, num_shards)
        waiting.setdefault(shard, []).append(json.dumps((path, size)))
        if number % _ROWS == 0:
            yield from _pack_files(waiting)
            waiting.clear()
    yield from _pack_files(waiting)


def files(packed: Iterable[bytes]) -> dict[str, int]:
    """The paths and bytes of batches, of which those of rows are passed over."""
    lines = (
        line
        for batch in packed
        if batch.startswith(_FILES)
        for line in zlib.decompress(batch.removeprefix(_FILES)).splitlines()
    )
    return dict(map(json.loads, lines))


def rejects(packed: bytes) -> Iterator[Reject]:
    """The rejects of a batch."""
    yield from PlanSummary.FromString(zlib.decompress(packed)).rejects


def _pack_requests(by_shard: dict[int, list[str]]) -> Iterator[Requests]:
    for shard, lines in by_shard.items():
        yield Requests(shard, zlib.compress("\n".join(lines).encode(), _LEVEL))


def _pack_files(by_shard: dict[int, list[str]]) -> Iterator[Files]:
    for shard, lines in by_shard.items():
        yield Files(shard, _FILES + zlib.compress("\n".join(lines).encode(), _LEVEL))


def _pack_rejects(some: list[Reject]) -> Rejects:
    file, row = row_order(some[0].source_row)
    data = PlanSummary(rejects=some).SerializeToString()
    return Rejects(file, row, zlib.compress(data, _LEVEL))
