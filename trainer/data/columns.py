"""Columns of a snapshot: one value per record, in a file of its own beside the snapshot.

A column is a .safetensors file of any name. Its only tensor, `values`, has one row per record, in
the snapshot's order: float32 or int64 numbers [records], or vectors [records, width]. In its
metadata, `column` is a JSON object:
  format           "svilm-column/1"
  name             the column's name, a word of letters, digits and _
  snapshot         {"dataset", "records", "manifest_sha256": hex, of the snapshot's manifest.json}
  values_sha256    hex, of the tensor's bytes
  made_from        what the values come from, an object
  missing          what NaN means, such as "the clip has no caption". null: NaN is not allowed

Infinite values are never allowed. No record of the snapshot is rewritten. A column of another
version of the snapshot is refused.
"""

import hashlib
import json
import os
import re
from typing import Any, NamedTuple

import numpy as np
import safetensors
from jaxtyping import Float32, Int64

from protos.strict_json import first_line, parse_object
from trainer.data import safetensors_file
from trainer.data.folder import read_file, replacing
from trainer.data.snapshot import Snapshot
from trainer.errors import UserError

_FORMAT = "svilm-column/1"
_TENSOR = "values"
_DTYPES = {"F32": np.dtype("<f4"), "I64": np.dtype("<i8")}
# Words of the expressions of `input.where`.
_RESERVED = ("and", "or", "not", "is", "None", "True", "False")

Values = Float32[np.ndarray, "records *width"] | Int64[np.ndarray, "records *width"]


class ColumnError(UserError, ValueError):
    """A column that is damaged, or does not suit its snapshot or its use."""


class Column(NamedTuple):
    """The values of all records of a snapshot, from one file."""

    path: str
    name: str
    manifest_sha256: str  # identifies the snapshot
    values: Values
    values_sha256: str
    made_from: dict[str, Any]
    missing: str | None  # what NaN means; None: no value is NaN


def check_name(name: str) -> None:
    """Check that an expression can name a column so.

    Raises:
      ColumnError: it cannot.

    >>> check_name("score_2")
    """
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) or name in _RESERVED:
        raise ColumnError(
            f"a column cannot be named {name!r}: use letters, digits and _, not beginning with a "
            f"digit, and none of the words {', '.join(_RESERVED)}"
        )


def write(
    path: str | os.PathLike[str],
    snapshot: Snapshot,
    name: str,
    values: Values,
    made_from: dict[str, Any],
    missing: str | None = None,
) -> None:
    """Write a column of a snapshot, replacing the file at once.

    Args:
      path: the file, on a disk.
      snapshot: the snapshot.
      name: the column's name in expressions.
      values: a value or a vector per record.
      made_from: what the values come from, as JSON.
      missing: what NaN means; None: no value is NaN.

    Raises:
      ColumnError: the name, or a value.
      OSError: the file cannot be written.
    """
    check_name(name)
    values = np.ascontiguousarray(values, values.dtype.newbyteorder("<"))
    if len(values) != len(snapshot):
        raise ColumnError(
            f"column {name} has {len(values):,} values, but {snapshot.folder} has "
            f"{len(snapshot):,} records: give one for each"
        )
    _check_values(values, f"column {name}", missing)
    about = {
        "format": _FORMAT,
        "name": name,
        "snapshot": {
            "dataset": snapshot.manifest.dataset,
            "records": len(snapshot),
            "manifest_sha256": snapshot.manifest_sha256,
        },
        "values_sha256": hashlib.sha256(values.data).hexdigest(),
        "made_from": made_from,
        "missing": missing,
    }
    with replacing(path) as unfinished:
        safetensors_file.save({_TENSOR: values}, unfinished, {"column": json.dumps(about)})


def read(path: str | os.PathLike[str]) -> Column:
    """Read a column, and check its values.

    Args:
      path: the file, on a disk, gs://bucket/file or s3://bucket/file.

    Raises:
      ColumnError: the file is no column, is damaged, or cannot be read.
    """
    where = os.fspath(path)
    try:
        data = read_file(where)
    except OSError as error:
        raise ColumnError(f"column {where} cannot be read: {error.strerror}") from None
    try:
        about, values = _parse(data)
        name, of, sha256 = about["name"], about["snapshot"], about["values_sha256"]
        missing, made_from = about.get("missing"), about.get("made_from", {})
        texts = (name, of["manifest_sha256"], sha256, *([missing] if missing is not None else []))
        if not all(isinstance(text, str) for text in texts) or not isinstance(made_from, dict):
            raise ValueError("a field of its metadata has another type")
        if of["records"] != len(values):
            raise ValueError(f"it has {len(values)} values for {of['records']} records")
        if hashlib.sha256(values.data).hexdigest() != sha256:
            raise ValueError("the sha256 of its values differs from the recorded one")
    except (ValueError, KeyError, TypeError, safetensors.SafetensorError) as error:
        raise ColumnError(
            f"{where} is no column, or is damaged ({first_line(error)}): give a file of "
            "svilm-train columns"
        ) from None
    check_name(name)
    _check_values(values, f"column {where}", missing)
    return Column(where, name, of["manifest_sha256"], values, sha256, made_from, missing)


def _parse(data: bytes) -> tuple[dict[str, Any], Values]:
    """Return the metadata and the values of a file.

    Raises:
      ValueError, KeyError, TypeError, SafetensorError: the file is damaged.
    """
    ((name, tensor),) = safetensors.deserialize(data)
    if name != _TENSOR or tensor["dtype"] not in _DTYPES:
        raise ValueError(f"it has {name!r} of type {tensor['dtype']}, not float32 or int64 values")
    header = parse_object(data[8 : 8 + int.from_bytes(data[:8], "little")])
    about = parse_object(header["__metadata__"]["column"])
    if about.get("format") != _FORMAT:
        raise ValueError(f"its format is {about.get('format')!r:.40}, not {_FORMAT!r}")
    values = np.frombuffer(tensor["data"], _DTYPES[tensor["dtype"]]).reshape(tensor["shape"])
    if values.ndim not in (1, 2):
        raise ValueError(f"its values have shape {values.shape}")
    return about, values


def _check_values(values: Values, what: str, missing: str | None) -> None:
    """Check that each value is finite, or NaN where that has a meaning.

    Raises:
      ColumnError: a value is not.
    """
    if values.dtype.kind != "f":
        return
    wrong = np.isinf(values) if missing else ~np.isfinite(values)
    if wrong.any():
        record = int(np.argwhere(wrong)[0, 0])
        raise ColumnError(
            f"{what}: the value of record {record} is {values[record].max():g}: give finite numbers"
            + ("" if missing else ", or say which clips have none")
        )
