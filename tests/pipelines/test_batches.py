"""Rows that are packed for the way between workers come out as they went in."""

import collections

from hypothesis import given
from hypothesis import strategies as st

from pipelines import batches
from pipelines.clip_request import ClipRequest, reject
from pipelines.plan import shard_of
from protos.v1.manifest_pb2 import Reject

SHARDS = 3

requests = st.builds(
    ClipRequest,
    clip_id=st.text(),
    video_id=st.text(alphabet="abc"),
    start_us=st.integers(),
    end_us=st.integers(),
    caption=st.text(),
    labels=st.lists(st.text()).map(tuple),
    source_row=st.just("rows.csv:1"),
    caption_cut_from=st.integers(),
)
refused = st.builds(
    lambda text: reject("read", "row_columns", text, source_row="rows.csv:1"), st.text()
)


def unpacked(packed):
    by_shard, rejects, count = collections.defaultdict(list), [], None
    for batch in packed:
        if isinstance(batch, batches.Requests):
            by_shard[batch.shard] += batches.requests(batch.packed)
        elif isinstance(batch, batches.Rejects):
            rejects += batches.rejects(batch.packed)
        else:
            assert count is None
            count = batch.rows
    return by_shard, rejects, count


@given(st.lists(requests | refused))
def test_rows_come_out_as_they_went_in(rows):
    by_shard, rejects, count = unpacked(batches.of(rows, SHARDS))
    assert count == len(rows)
    assert rejects == [row for row in rows if isinstance(row, Reject)]
    for shard in range(SHARDS):
        assert by_shard[shard] == [
            row
            for row in rows
            if isinstance(row, ClipRequest) and shard_of(row.video_id, SHARDS) == shard
        ]


def test_many_rows_make_several_batches_whose_rejects_are_in_order(monkeypatch):
    monkeypatch.setattr(batches, "_ROWS", 10)
    monkeypatch.setattr(batches, "_REJECTS", 10)
    rows: list[ClipRequest | Reject] = [
        ClipRequest("id", f"video{i}", 0, 1, "a man", (), f"rows.csv:{i}")
        if i % 2
        else reject("read", "row_columns", "2 columns", source_row=f"rows.csv:{i}")
        for i in range(100)
    ]
    packed = list(batches.of(rows, SHARDS))
    by_shard, rejects, count = unpacked(packed)
    assert count == 100
    assert {row for of_shard in by_shard.values() for row in of_shard} == set(rows[1::2])
    assert rejects == rows[::2]
    assert len([batch for batch in packed if isinstance(batch, batches.Requests)]) > SHARDS
    of_rejects = [batch for batch in packed if isinstance(batch, batches.Rejects)]
    assert [(batch.file, batch.row) for batch in of_rejects] == [
        ("rows.csv", first) for first in (0, 20, 40, 60, 80)
    ]
    assert sorted(of_rejects) == of_rejects


def test_an_empty_batch():
    assert list(batches.requests(b"")) == []


@given(
    st.lists(st.tuples(st.text(), st.text(), st.integers(0)), unique_by=lambda file: file[1]),
    st.lists(requests),
)
def test_files_come_out_beside_rows(listing, rows):
    packed = collections.defaultdict(lambda: [b""])
    for batch in batches.of_files(listing, SHARDS):
        packed[batch.shard].append(batch.packed)
    for batch in batches.of(rows, SHARDS):
        if isinstance(batch, batches.Requests):
            packed[batch.shard].append(batch.packed)
    found = {}
    for shard, some in packed.items():
        files = batches.files(some)
        assert all(shard_of(i, SHARDS) == shard for i, path, _ in listing if path in files)
        found |= files
        rows_there = [row for batch in some for row in batches.requests(batch)]
        assert rows_there == [row for row in rows if shard_of(row.video_id, SHARDS) == shard]
    assert found == {path: size for _, path, size in listing}
