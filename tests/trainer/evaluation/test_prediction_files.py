"""Faults that files of all tasks can have. A message names the position."""

import csv
import os

import pytest

from trainer.evaluation.prediction_files import (
    TaskFileError,
    number,
    read_csv,
    read_json,
    read_objects,
    read_table,
)


@pytest.fixture
def written(tmp_path):
    def write(text):
        path = tmp_path / "given.txt"
        path.write_text(text, encoding="utf-8", newline="")
        return path

    return write


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1,\n "b": {"é": 1, "é": 2}}', r"given\.txt: .*an object has the key 'é' twice"),
        ("[" * 100_000, r"given\.txt: .*recursion"),
        ("9" * 5000, r"given\.txt: .*4300 digits"),
        ("[1,\n", r"given\.txt:2: not JSON"),
    ],
)
def test_json_that_is_not_read(written, text, message):
    with pytest.raises(TaskFileError, match=message):
        read_json(written(text))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("\r\n ", r"given\.txt is empty"),
        ('{"a": 1}\r\n\r\n{"a": 1, "a": 1}\r\n', r"given\.txt:3: .* the key 'a' twice"),
        ('{"a": 1}\n{"a"', r"given\.txt:2: not JSON .*: give a JSON array"),
        ("[{},\n{}\n", r"given\.txt:3: not JSON"),
        ("3", "must be a JSON object, got 3"),
    ],
)
def test_objects_that_are_not_read(written, text, message):
    with pytest.raises(TaskFileError, match=message):
        read_objects(written(text))


@pytest.mark.parametrize("text", ['[{"a": 1}]', '{"a": 1}\n'])
def test_objects_may_come_through_a_pipe(text):
    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as file:
        file.write(text)
    assert [row.values for row in read_objects(f"/dev/fd/{reading}")] == [{"a": 1}]
    os.close(reading)


def test_an_array_may_be_empty(written):
    assert read_objects(written(" []\n")) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"given\.txt is empty"),
        ('a,"b\nc', r"given\.txt:1: not CSV"),
        ('a,b\n"c\nd",1\n2\n', r"given\.txt:4: 1 fields, but the header has 2"),
        ("a,b\n" + "v" * 200_000 + ",1\n", r"given\.txt:2: not CSV \(field larger"),
    ],
)
def test_tables_that_are_not_read(written, text, message):
    limit = csv.field_size_limit(131_072)  # Python's own: other tests of this process may raise it
    try:
        with pytest.raises(TaskFileError, match=message):
            list(read_table(written(text))[1])
    finally:
        csv.field_size_limit(limit)


def test_empty_lines_count_as_lines(written):
    rows = list(read_csv(written("\ufeff\r\na,b\r\n\r\nc,d")))
    assert [(row.where.rpartition(":")[2], row.values) for row in rows] == [
        ("2", ["a", "b"]),
        ("4", ["c", "d"]),
    ]


@pytest.mark.parametrize("value", [10**400, "1e999", True, None, "x", float("inf")])
def test_numbers_are_finite(value):
    with pytest.raises(TaskFileError, match=r"here: .* is not a finite number"):
        number("here", value)


def test_a_table_through_a_pipe_is_read_once():
    readable, writable = os.pipe()
    os.write(writable, b"a,1\nb,\xff\n")
    os.close(writable)
    try:
        rows = read_csv(f"/dev/fd/{readable}")
        assert next(rows).values == ["a", "1"]
        with pytest.raises(TaskFileError, match=rf"/dev/fd/{readable}:2: not UTF-8 text"):
            next(rows)
    finally:
        os.close(readable)
