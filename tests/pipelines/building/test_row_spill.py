"""Rows survive the temporary files between workers unchanged."""

import collections

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines.building import row_spill
from pipelines.snapshots.snapshot import shard_of
from pipelines.sources.clip_request import Box, ClipRequest, Question, Segment, reject
from protos.v1.manifest_pb2 import Reject

SHARDS = 3

share = st.floats(0, 1)


def some(strategy):
    return st.lists(strategy, max_size=1).map(tuple)


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
    captions=some(st.text()),
    questions=some(st.builds(Question)),
    segments=some(st.builds(Segment)),
    boxes=some(st.builds(Box, *[st.integers(), *[share] * 4], labels=some(st.text()), score=share)),
    video_duration_us=st.integers(),
)
refused = st.builds(
    lambda text: reject("read", "row_columns", text, source_row="rows.csv:1"), st.text()
)


def written(folder, *files):
    """Write and read files; return rows by shard, rejects, the row count and batches."""
    by_shard, rejects, count = collections.defaultdict(list), [], 0
    wrote = list(row_spill.write(files, SHARDS, str(folder)))
    for batch in wrote:
        if isinstance(batch, row_spill.Requests):
            by_shard[batch.shard] += row_spill.requests(str(folder), [batch.place])
        elif isinstance(batch, row_spill.Rejects):
            rejects += row_spill.rejects(str(folder), batch.place)
        else:
            count += batch.rows
    return by_shard, rejects, count, wrote


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(requests | refused))
def test_rows_are_read_as_written(tmp_path, rows):
    by_shard, rejects, count, _ = written(tmp_path, rows)
    assert count == len(rows)
    assert rejects == [row for row in rows if isinstance(row, Reject)]
    for shard in range(SHARDS):
        assert by_shard[shard] == [
            row
            for row in rows
            if isinstance(row, ClipRequest) and shard_of(row.video_id, SHARDS) == shard
        ]
    row_spill.remove(str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_many_rows_and_files_make_several_batches_whose_rejects_are_in_order(tmp_path, monkeypatch):
    monkeypatch.setattr(row_spill, "_ROWS", 20)
    monkeypatch.setattr(row_spill, "_REJECTS", 10)
    files: list[list[ClipRequest | Reject]] = [
        [
            ClipRequest("id", f"video{i}", 0, 1, "a man", (), f"{name}:{i}")
            if i % 2
            else reject("read", "row_columns", "2 columns", source_row=f"{name}:{i}")
            for i in range(50)
        ]
        for name in ("b.csv", "a.csv")
    ]
    rows = files[0] + files[1]
    by_shard, rejects, count, wrote = written(tmp_path, *files)
    assert count == 100
    assert {row for of_shard in by_shard.values() for row in of_shard} == set(rows[1::2])
    assert rejects == rows[::2]
    of_rejects = [batch for batch in wrote if isinstance(batch, row_spill.Rejects)]
    in_order = [
        reject
        for batch in sorted(of_rejects)
        for reject in row_spill.rejects(str(tmp_path), batch.place)
    ]
    assert in_order == files[1][::2] + files[0][::2]
    assert len(list(tmp_path.iterdir())) == 5


def test_a_shard_without_rows(tmp_path):
    assert list(row_spill.requests(str(tmp_path), [row_spill.NOWHERE])) == []
    assert row_spill.videos(str(tmp_path), [row_spill.NOWHERE]) == {}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(st.text(), st.text(), st.integers(0)), unique_by=lambda file: file[1]),
    st.lists(requests),
)
def test_video_files_are_read_with_rows(tmp_path, listing, rows):
    folder = str(tmp_path)
    places = collections.defaultdict(lambda: [row_spill.NOWHERE])
    for batch in row_spill.write_videos(listing, SHARDS, folder):
        places[batch.shard].append(batch.place)
    for batch in row_spill.write([rows], SHARDS, folder):
        if isinstance(batch, row_spill.Requests):
            places[batch.shard].append(batch.place)
    found = {}
    for shard, some in places.items():
        videos = row_spill.videos(folder, some)
        assert all(shard_of(i, SHARDS) == shard for i, path, _ in listing if path in videos)
        found |= videos
        rows_there = list(row_spill.requests(folder, some))
        assert rows_there == [row for row in rows if shard_of(row.video_id, SHARDS) == shard]
    assert found == {path: size for _, path, size in listing}
    row_spill.remove(folder)
    assert list(tmp_path.iterdir()) == []


def test_other_files_are_kept(tmp_path):
    (tmp_path / "shard-00000-of-00001.tfrecord").touch()
    row_spill.remove(str(tmp_path))
    assert len(list(tmp_path.iterdir())) == 1
