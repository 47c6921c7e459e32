import json

import numpy as np
import pytest

from trainer.data.column_values import read_values
from trainer.data.columns import ColumnError
from trainer.data.snapshot import Snapshot


@pytest.fixture
def snapshot(write_snapshot):
    return Snapshot.open(write_snapshot(clips=4, shards=2).folder)


@pytest.fixture
def ids(snapshot):
    return snapshot.clip_ids(range(4))


@pytest.fixture
def csv_file(tmp_path):
    def write(*lines, name="values.csv"):
        (tmp_path / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        return tmp_path / name

    return write


def test_rows_may_be_in_any_order(snapshot, ids, csv_file):
    rows = [f"{clip_id},{number}" for number, clip_id in enumerate(ids)]
    found = read_values(csv_file("clip_id,cluster", *reversed(rows)), snapshot)
    assert (found.name, found.missing, found.unknown) == ("cluster", 0, 0)
    assert found.values.dtype == np.int64 and found.values.tolist() == [0, 1, 2, 3]
    scores = [f'{json.dumps(clip_id)},other,"{number / 2}"' for number, clip_id in enumerate(ids)]
    found = read_values(csv_file("\ufeffclip_id,text,score", *scores), snapshot, "score")
    assert found.values.dtype == np.float32 and found.values.tolist() == [0, 0.5, 1, 1.5]


def test_json_lines_have_numbers_booleans_or_vectors(snapshot, ids, csv_file):
    for given, dtype in (
        ([True, False, 7, -3], np.int64),
        ([1, 2.5, 3, 4], np.float32),
        ([[1, 2], [3, 4], [5, 6.5], [7, 8]], np.float32),
    ):
        rows = [json.dumps({"clip_id": one, "v": v}) for one, v in zip(ids, given, strict=True)]
        found = read_values(csv_file(*rows, name="values.jsonl"), snapshot)
        assert found.values.dtype == dtype and found.values.tolist() == given


def test_missing_and_unknown_clips_are_refused_unless_allowed(snapshot, ids, csv_file):
    rows = ["clip_id,v", f"{ids[0]},1", f"{ids[1]},", "unknown,3"]
    with pytest.raises(ColumnError, match=r"values\.csv:4: clip 'unknown' is not in"):
        read_values(csv_file(*rows), snapshot)
    with pytest.raises(ColumnError, match=f"no value for 3 of 4 clips of .*such as {ids[1]}"):
        read_values(csv_file(*rows), snapshot, allow_unknown=True)
    found = read_values(csv_file(*rows), snapshot, allow_missing=True, allow_unknown=True)
    assert (found.missing, found.unknown) == (3, 1)
    assert found.values.dtype == np.float32
    np.testing.assert_array_equal(found.values, [1, np.nan, np.nan, np.nan])
    with pytest.raises(ColumnError, match="the integer 16777217, which is not exact"):
        read_values(csv_file("clip_id,v", f"{ids[0]},16777217"), snapshot, allow_missing=True)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["clip_id,v", "{0},1", "{0},1"], r"csv:3: clip .* occurs twice"),
        (["clip_id,v", "{0},nan"], r"csv:2 has nan, which is no finite number"),
        (["clip_id,v", "{0},1e39"], "has 1e39, which is no finite number"),
        (["clip_id,v", "{0},one"], "has one, which is no finite number"),
        (["clip_id,v", "{0},1,2"], r"csv:2 has 3 cells, but the header 2"),
        (["clip_id,v", '{0},"1'], "is damaged"),
        (["clip_id,a,b", "{0},1,2"], "give one of them with --name"),
        (["id,v", "{0},1"], "requires one clip_id"),
        (["clip_id,v,clip_id"], "requires one clip_id"),
        ([], "of no row"),
        (["clip_id,v", "{0},9007199254740993", "{1},1", "{2},1", "{3},1"], "is not exact"),
        (["clip_id,v", "{0},1", "{1},1", "{2},1", "{3},1152921504606846977"], "is not exact"),
    ],
)
def test_wrong_rows_are_named(snapshot, ids, csv_file, lines, message):
    with pytest.raises(ColumnError, match=message):
        read_values(csv_file(*(line.format(*ids) for line in lines)), snapshot)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (['{"clip_id": "a", "v": 1', "x"], r"jsonl:1 is damaged"),
        (['{"clip_id": "ID", "v": 1}', "[]"], r"jsonl:2 is damaged"),
        (['{"clip_id": "ID", "v": 1}', '{"clip_id": 3, "v": 1}'], r"jsonl:2 lacks clip_id or v"),
        (['{"clip_id": "ID", "v": "1"}'], "no finite number"),
        (['{"clip_id": "ID", "v": NaN}'], "no finite number"),
        (['{"clip_id": "ID", "v": [1, null]}'], "has null in a list"),
        (['{"clip_id": "ID", "v": []}'], "no finite number"),
        (['{"clip_id": "ID", "v": [1]}', '{"clip_id": "I2", "v": [1, 2]}'], "has 2 numbers"),
        (['{"clip_id": "ID", "v": [1]}', '{"clip_id": "I2", "v": 1}'], "give lists"),
        (['{"clip_id": "ID", "v": 1}', '{"clip_id": "I2", "v": [1]}'], "others have another"),
    ],
)
def test_wrong_lines_are_named(snapshot, ids, csv_file, lines, message):
    rows = [line.replace("ID", ids[0]).replace("I2", ids[1]) for line in lines]
    with pytest.raises(ColumnError, match=message):
        read_values(csv_file(*rows, name="values.jsonl"), snapshot)


def test_other_files_are_refused(snapshot, tmp_path):
    (tmp_path / "values.csv").write_bytes(b"clip_id,v\n\xff,1\n")
    with pytest.raises(ColumnError, match=r"values\.csv is damaged"):
        read_values(tmp_path / "values.csv", snapshot)
    with pytest.raises(ColumnError, match=r"neither a \.csv nor a \.jsonl"):
        read_values(tmp_path / "values.parquet", snapshot)
