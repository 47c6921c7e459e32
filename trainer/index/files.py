"""The files of an index, and what its index.json says.

INDEX/index.json is written last and names everything else:

  format     "svilm-index/1"
  made_from  identity: the model (step, sha256 of its parameters and settings), the snapshots
             (sha256 of their manifests), the type of the vectors, clips per shard
  run        the run's folder, and `snapshots` their folders and data sets, when it was built
  data       the folder of all other files, INDEX/data-<sha256 of made_from>
  clips      number of clips, `videos` of videos, `shape` of each kind of vector
  search     {"kind": "exact"}, or {"kind": "ivf", "lists", "probes", "recall_at_10", "queries"}
  files      name, bytes and sha256 of each file in the data folder

The data folder has, in the order of the clips:

  features-*.safetensors  shards with the vectors of each clip: `clip` [E] and `groups` [M, E] in
                          the joint space, L2-normalized, and `windows` [Nt, D]; float16, or int8
                          with float32 scales. Their metadata lists the clips (inference/shards.py)
  clip.npy, clip_scale.npy                            all clip vectors in one file
  start_us.npy, end_us.npy, record.npy                spans and numbers in the snapshot
  snapshot.npy, video.npy, labels.npy, first_label.npy  codes of snapshots, videos and labels
  text.npy, first_byte.npy, key.npy                   JSON texts of the clips; hashes of their ids
  names.json                                          the videos and labels of the codes
  clip.faiss                                          approximate index, from a million clips on

All .npy files are read by memory mapping, never with pickle.
"""

import array
import functools
import hashlib
import json
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int64

from protos.strict_json import parse_object
from trainer.data.folder import replacing, write_file
from trainer.errors import UserError
from trainer.index.quantize import DTYPES

MANIFEST = "index.json"
CLAIM = ".index.json"  # exists while an index is written
NAMES = "names.json"
FAISS = "clip.faiss"

_FORMAT = "svilm-index/1"
_DATA = "data-"
_COLUMNS = {
    "start_us": np.int64,
    "end_us": np.int64,
    "record": np.int64,
    "snapshot": np.int32,
    "video": np.int32,
    "labels": np.int32,
    "first_label": np.int64,
    "text": np.uint8,
    "first_byte": np.int64,
    "key": np.uint64,
}


class SearchIndexError(UserError, RuntimeError):
    """An index that is missing, damaged, incomplete, or of another run or snapshot."""


def data_name(made_from: dict[str, Any]) -> str:
    """Return the name of the folder for the data of an index."""
    text = json.dumps(made_from, sort_keys=True)
    return _DATA + hashlib.sha256(text.encode()).hexdigest()[:16]


def key_of(clip_id: str) -> int:
    """Return a hash of a clip's id: 64 bits of its sha256."""
    return int.from_bytes(hashlib.sha256(clip_id.encode()).digest()[:8], "little")


def is_index(folder: pathlib.Path) -> bool:
    """Return whether a folder holds a complete index."""
    return (folder / MANIFEST).is_file()


def read_manifest(folder: pathlib.Path) -> dict[str, Any]:
    """Return the values of index.json, after checking their types and the files' sizes.

    Raises:
      SearchIndexError: the index is missing, incomplete, damaged, or of another format.
    """
    path = folder / MANIFEST
    try:
        values = parse_object(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise SearchIndexError(
            f"{folder} has no {MANIFEST}: it is not an index, or is incomplete; run svilm-train "
            "index again, which resumes it"
        ) from None
    except ValueError as error:
        raise _damaged(path, str(error)) from None
    if values.get("format") != _FORMAT:
        raise SearchIndexError(
            f"{path} has the format {values.get('format')!r}, not {_FORMAT}: build the index again"
        )
    _check_types(path, values)
    data = folder / values["data"]
    for name, about in values["files"].items():
        size = (data / name).stat().st_size if (data / name).is_file() else None
        if size != about["bytes"]:
            is_size = "is missing" if size is None else f"has {size} bytes, not {about['bytes']}"
            raise _damaged(data / name, is_size)
    return values


def _check_types(path: pathlib.Path, values: dict[str, Any]) -> None:
    kinds = {
        **{"made_from": dict, "shape": dict, "search": dict, "files": dict},
        **{"snapshots": list, "data": str, "clips": int},
    }
    for key, kind in kinds.items():
        if not isinstance(values.get(key), kind):
            raise _damaged(path, f"its {key!r} is {values.get(key)!r:.100}")
    # A manifest is untrusted input: its names must stay inside the folder.
    for name in (values["data"], *values["files"]):
        if pathlib.PurePath(name).name != name or not name:
            raise _damaged(path, f"it names the file {name!r:.100}")
    try:
        well = all(type(about["bytes"]) is int for about in values["files"].values())
        well &= all(type(one[k]) is str for one in values["snapshots"] for k in _SNAPSHOT)
    except (TypeError, KeyError):
        well = False
    made_from, search = values["made_from"], values["search"]
    well &= made_from.get("dtype") in DTYPES and search.get("kind") in ("exact", "ivf")
    counts = [made_from.get("step"), made_from.get("shard_clips"), values["clips"]]
    well &= all(type(count) is int and count >= 0 for count in counts)
    if not well:
        raise _damaged(path, "its values are incomplete")


_SNAPSHOT = ("folder", "dataset", "manifest_sha256")


def write_manifest(folder: pathlib.Path, values: dict[str, Any]) -> None:
    """Write index.json, whose `files` `describe` returned."""
    text = json.dumps({"format": _FORMAT, **values}, indent=2)
    write_file(folder / MANIFEST, text.encode() + b"\n")


def describe(path: pathlib.Path) -> dict[str, Any]:
    """Return the entry of a file in index.json: its size and sha256."""
    return {"bytes": path.stat().st_size, "sha256": sha256_of(path)}


def sha256_of(path: pathlib.Path) -> str:
    """Return the sha256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_array(path: pathlib.Path, values: np.ndarray) -> str:
    """Write an array as a .npy file, and return the file's name."""
    with replacing(path) as unfinished, unfinished.open("wb") as file:
        np.save(file, values, allow_pickle=False)
    return path.name


def read_array(path: pathlib.Path) -> np.ndarray:
    """Return the array of a .npy file, mapped into memory.

    Raises:
      SearchIndexError: the file is missing or damaged.
    """
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise _damaged(path, str(error)) from None


def write_columns(data: pathlib.Path, rows: Iterable[tuple[int, dict[str, Any]]]) -> list[str]:
    """Write the columns of all clips, and return the names of their files.

    Args:
      data: the data folder.
      rows: the number of each clip's snapshot, and its row of a shard's metadata.
    """
    videos: dict[str, int] = {}
    labels: dict[str, int] = {}
    # Arrays of the standard library grow in place, and take 8 bytes per number.
    columns = {name: array.array("Q" if name == "key" else "q") for name in _COLUMNS}
    columns["first_label"].append(0)
    columns["first_byte"].append(0)
    texts = bytearray()
    for snapshot, row in rows:
        for name in ("start_us", "end_us", "record"):
            columns[name].append(row[name])
        columns["snapshot"].append(snapshot)
        columns["video"].append(videos.setdefault(row["video_id"], len(videos)))
        columns["labels"].extend(labels.setdefault(one, len(labels)) for one in row["labels"])
        columns["first_label"].append(len(columns["labels"]))
        texts += json.dumps({key: row[key] for key in _TEXTS}).encode()
        columns["first_byte"].append(len(texts))
        columns["key"].append(key_of(row["clip_id"]))
    arrays = {name: np.array(values, _COLUMNS[name]) for name, values in columns.items()}
    arrays["text"] = np.frombuffer(texts, np.uint8)
    written = [write_array(data / f"{name}.npy", values) for name, values in arrays.items()]
    names = json.dumps({"videos": list(videos), "labels": list(labels)})
    write_file(data / NAMES, names.encode())
    return [*written, NAMES]


_TEXTS = ("clip_id", "caption", "nouns", "labels")


class Columns:
    """The columns of an index: what is known of each clip besides its vectors."""

    def __init__(self, data: pathlib.Path, clips: int) -> None:
        """Map the columns of `clips` clips into memory.

        Raises:
          SearchIndexError: a file is missing or damaged.
        """
        self._data = data
        self._arrays = {name: read_array(data / f"{name}.npy") for name in _COLUMNS}
        for name, column in self._arrays.items():
            wanted = clips + 1 if name.startswith("first_") else clips
            is_sized = name in ("labels", "text") or len(column) == wanted
            if column.dtype != _COLUMNS[name] or column.ndim != 1 or not is_sized:
                is_other = f"it is {column.dtype} {list(column.shape)}"
                raise _damaged(data / f"{name}.npy", is_other)

    def __getitem__(self, name: str) -> np.ndarray:
        return self._arrays[name]

    @functools.cached_property
    def _names(self) -> dict[str, list[str]]:
        path = self._data / NAMES
        try:
            values = parse_object(path.read_bytes())
            return {kind: list(map(str, values[kind])) for kind in ("videos", "labels")}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise _damaged(path, repr(error)) from None

    @functools.cached_property
    def videos(self) -> list[str]:
        """The id of each video, by its code."""
        return self._names["videos"]

    @functools.cached_property
    def labels(self) -> list[str]:
        """The label of each code."""
        return self._names["labels"]

    @functools.cached_property
    def video_codes(self) -> dict[str, int]:
        """The code of each video, by its id."""
        return {name: code for code, name in enumerate(self.videos)}

    def video_keys(
        self, datasets: Sequence[str], rows: np.ndarray | slice = slice(None)
    ) -> Int64[np.ndarray, " n"]:
        """Return a number for the video of each row. Data sets may share ids, but not videos.

        Args:
          datasets: the data set of each snapshot.
          rows: the clips.
        """
        distinct = sorted(set(datasets))
        dataset = np.array([distinct.index(name) for name in datasets], np.int64)
        codes = self["video"][rows].astype(np.int64)
        return codes * len(distinct) + dataset[self["snapshot"][rows]]

    def text(self, row: int) -> dict[str, Any]:
        """Return the clip_id, caption, nouns and labels of a clip."""
        first, end = self["first_byte"][row : row + 2].tolist()
        try:
            values = parse_object(self["text"][first:end].tobytes())
            return {key: values[key] for key in _TEXTS}
        except (ValueError, KeyError) as error:
            raise _damaged(self._data / "text.npy", repr(error)) from None

    def row_of(self, clip_id: str) -> int | None:
        """Return the first row with a clip's id; None if there is none."""
        for row in np.flatnonzero(self["key"] == np.uint64(key_of(clip_id))).tolist():
            if self.text(row)["clip_id"] == clip_id:
                return row
        return None


def _damaged(path: pathlib.Path, why: str) -> SearchIndexError:
    return SearchIndexError(f"{path} is damaged ({why}): remove the index and build it again")
