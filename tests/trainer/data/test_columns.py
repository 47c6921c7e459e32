import json

import numpy as np
import pytest
import safetensors.numpy

from trainer.data import columns
from trainer.data.columns import ColumnError
from trainer.data.snapshot import Snapshot


@pytest.fixture
def snapshot(write_snapshot):
    return Snapshot.open(write_snapshot(clips=5).folder)


@pytest.mark.parametrize(
    "values",
    [
        np.arange(5, dtype=np.int64),
        np.array([0.5, -1, 3e38, 0, 1], np.float32),
        np.arange(10, dtype=np.float32).reshape(5, 2),
    ],
)
def test_a_column_is_read_as_it_was_written(snapshot, tmp_path, values):
    columns.write(tmp_path / "any.name", snapshot, "score", values, {"run": "a"})
    column = columns.read(tmp_path / "any.name")
    assert (column.name, column.manifest_sha256) == ("score", snapshot.manifest_sha256)
    assert column.made_from == {"run": "a"} and column.missing is None
    assert column.values.dtype == values.dtype
    np.testing.assert_array_equal(column.values, values)


@pytest.mark.parametrize(
    ("name", "values", "missing", "message"),
    [
        ("a b", np.zeros(5, np.float32), None, "cannot be named 'a b'"),
        ("not", np.zeros(5, np.float32), None, "cannot be named 'not'"),
        ("a", np.zeros(4, np.float32), None, "has 4 values, but .* has 5 records"),
        ("a", np.array([0, 0, np.nan, 0, 0], np.float32), None, "value of record 2 is nan"),
        ("a", np.array([0, 0, 0, np.inf, 0], np.float32), "no caption", "record 3 is inf"),
    ],
)
def test_a_column_that_could_not_be_used_is_not_written(
    snapshot, tmp_path, name, values, missing, message
):
    with pytest.raises(ColumnError, match=message):
        columns.write(tmp_path / "column", snapshot, name, values, {}, missing)
    assert not (tmp_path / "column").exists()


def test_damaged_files_are_refused(snapshot, tmp_path):
    path = tmp_path / "score.safetensors"
    columns.write(path, snapshot, "score", np.arange(5, dtype=np.float32), {})
    data = path.read_bytes()
    about = json.loads(json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])[
        "__metadata__"]["column"])  # fmt: skip

    def written(values, **changed):
        tensors = {"values": values}
        safetensors.numpy.save_file(tensors, path, {"column": json.dumps(about | changed)})
        return path

    five = np.arange(5, dtype=np.float32)
    assert columns.read(written(five)).values.tolist() == five.tolist()
    for damaged in (b"", data[:20], data[:-1], data[:-1] + b"\xff", b"{}" * 50):
        path.write_bytes(damaged)
        with pytest.raises(ColumnError, match=r"score\.safetensors is no column, or is damaged"):
            columns.read(path)
    for values, changed in (
        (five, {"format": "svilm-column/2"}),
        (five, {"name": 3}),
        (five, {"made_from": None}),
        (five, {"snapshot": {"records": 4, "manifest_sha256": ""}}),
        (five.astype(np.float64), {}),
        (five.reshape(5, 1, 1), {}),
    ):
        with pytest.raises(ColumnError, match="is no column, or is damaged"):
            columns.read(written(values, **changed))
    with pytest.raises(ColumnError, match="cannot be named"):
        columns.read(written(five, name="is"))
    with pytest.raises(ColumnError, match="cannot be read"):
        columns.read(tmp_path / "absent")
