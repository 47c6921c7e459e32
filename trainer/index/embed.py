"""The shards of an index: the vectors of each clip, embedded or taken from an earlier index."""

import hashlib
import json
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import safetensors
import safetensors.numpy
from jaxtyping import Int64

from protos.reading import reading
from protos.v1 import clip_pb2
from trainer.data.snapshot import Snapshot, parse_clip
from trainer.data.types import CLIPS_AT_ONCE, Progress
from trainer.index.files import SearchIndexError, sha256_of
from trainer.index.quantize import Dtype, quantize, tensor_names
from trainer.inference.encoder import EncodedClips, Encoder, embed_clips
from trainer.inference.shards import Shard
from trainer.progress import warn

VECTORS = ("clip", "groups", "windows")  # as EncodedClips names them

_RECORD = "record_sha256"


class Source(NamedTuple):
    """The clips of a shard: records of a snapshot."""

    snapshot: Snapshot
    records: Int64[np.ndarray, " n"]


def sources(snapshots: Sequence[Snapshot], shard_clips: int) -> dict[str, Source]:
    """Return the clips of each shard, by the name of its file, in the order of the index."""
    found = {}
    for place, snapshot in enumerate(snapshots):
        total = -(-len(snapshot) // shard_clips)
        for shard in range(total):
            records = np.arange(shard * shard_clips, min((shard + 1) * shard_clips, len(snapshot)))
            name = f"features-{place:03d}-{shard:05d}-of-{total:05d}.safetensors"
            found[name] = Source(snapshot, records)
    return found


class Earlier:
    """The vectors of an earlier index, by the sha256 of the clip's record."""

    def __init__(self, shards: Sequence[tuple[pathlib.Path, str]] = ()) -> None:
        """Read which clips the shards have, leaving out damaged ones.

        Args:
          shards: files, each with its sha256 in hex.
        """
        self._where: dict[str, tuple[pathlib.Path, int]] = {}
        self._read: tuple[pathlib.Path | None, dict[str, np.ndarray]] = (None, {})
        for path, sha256 in shards:
            if sha256_of(path) != sha256:
                warn(f"index: {path} is damaged: its clips are embedded again")
                continue
            for row, clip in enumerate(read_clips(path)):
                self._where[clip[_RECORD]] = path, row

    def vectors(self, record_sha256: str) -> dict[str, np.ndarray] | None:
        """Return the tensors of a record's clip; None if the earlier index lacks it."""
        if record_sha256 not in self._where:
            return None
        path, row = self._where[record_sha256]
        if self._read[0] != path:
            self._read = path, safetensors.numpy.load_file(path)
        return {name: tensor[row] for name, tensor in self._read[1].items()}


def embed(
    missing: Sequence[str],
    of_shard: dict[str, Source],
    encoder: Encoder,
    dtype: Dtype,
    earlier: Earlier,
    progress: Progress,
) -> Iterator[Shard]:
    """Yield the missing shards.

    All batches have one size, whatever the shard, so that a clip's vectors do not depend on its
    neighbours.

    Raises:
      SnapshotError: a record is damaged, or a snapshot does not suit the model.
      NonFiniteError: a vector is not finite.
    """
    every, done = sum(len(of_shard[name].records) for name in missing), 0
    for name in missing:
        snapshot, records = of_shard[name]
        clips = _describe(snapshot, records)
        found = [earlier.vectors(clip[_RECORD]) for clip in clips]
        new = np.array([row for row, one in enumerate(found) if one is None], np.int64)
        known = done + len(records) - len(new)
        tensors: dict[str, np.ndarray] = {}
        if len(new):

            def shown(embedded: int, _: int, before: int = known) -> None:
                progress(before + embedded, every)

            _, encoded = embed_clips(snapshot, encoder, shown, records[new], CLIPS_AT_ONCE)
            tensors = _quantized(encoded, dtype, [clips[row]["clip_id"] for row in new])
        done += len(records)
        progress(done, every)
        yield Shard(name, _merge(found, new, tensors), clips)


def _describe(snapshot: Snapshot, records: Int64[np.ndarray, " n"]) -> list[dict[str, Any]]:
    """Return the rows of a shard's metadata."""
    rows = []
    for start in range(0, len(records), CLIPS_AT_ONCE):
        numbers = records[start : start + CLIPS_AT_ONCE].tolist()
        for number, data in zip(numbers, snapshot.read(numbers), strict=True):
            clip = parse_clip(snapshot, number, data)
            sha256 = hashlib.sha256(data).hexdigest()
            rows.append({**_row(clip), "record": number, _RECORD: sha256})
    return rows


def _row(clip: clip_pb2.Clip) -> dict[str, Any]:
    return {
        "clip_id": clip.clip_id,
        "video_id": clip.video_id,
        "start_us": clip.start_us,
        "end_us": clip.end_us,
        "caption": clip.caption,
        "nouns": [reading(chunk.text)[0] for chunk in clip.noun_chunks],
        "labels": list(dict.fromkeys(clip.labels)),
    }


def _quantized(
    encoded: EncodedClips, dtype: Dtype, clip_ids: Sequence[str]
) -> dict[str, np.ndarray]:
    tensors = {}
    for name in VECTORS:
        tensors |= quantize(name, getattr(encoded, name).astype(np.float32), dtype, clip_ids)
    return tensors


def _merge(
    found: Sequence[dict[str, np.ndarray] | None],
    new: Int64[np.ndarray, " m"],
    tensors: dict[str, np.ndarray],
) -> dict[str, np.ndarray]:
    """Return the tensors of a shard from those of its known and its new clips."""
    known = [one for one in found if one is not None]
    if not known:
        return tensors
    merged = {
        name: np.empty((len(found), *tensor.shape), tensor.dtype)
        for name, tensor in known[0].items()
    }
    for row, one in enumerate(found):
        for name in merged:
            if one is not None:
                merged[name][row] = one[name]
    for name, tensor in tensors.items():
        merged[name][new] = tensor
    return merged


def read_clips(path: pathlib.Path) -> list[dict[str, Any]]:
    """Return the rows of a shard's metadata.

    Raises:
      SearchIndexError: the shard is damaged.
    """
    try:
        with safetensors.safe_open(path, "numpy") as file:
            return json.loads(file.metadata()["clips"])
    except (OSError, ValueError, TypeError, KeyError, safetensors.SafetensorError) as error:
        raise _damaged(path, error) from None


def read_tensors(path: pathlib.Path, name: str, dtype: Dtype) -> dict[str, np.ndarray]:
    """Return the tensors of a shard that store one kind of vector.

    Raises:
      SearchIndexError: the shard is damaged.
    """
    try:
        with safetensors.safe_open(path, "numpy") as file:
            return {one: file.get_tensor(one) for one in tensor_names(name, dtype)}
    except (OSError, ValueError, safetensors.SafetensorError) as error:
        raise _damaged(path, error) from None


def read_row(path: pathlib.Path, name: str, dtype: Dtype, row: int) -> dict[str, np.ndarray]:
    """Return one row of the tensors of a shard that store one kind of vector.

    Raises:
      SearchIndexError: the shard is damaged.
    """
    try:
        with safetensors.safe_open(path, "numpy") as file:
            return {one: file.get_slice(one)[row] for one in tensor_names(name, dtype)}
    except (OSError, ValueError, IndexError, safetensors.SafetensorError) as error:
        raise _damaged(path, error) from None


def _damaged(path: pathlib.Path, why: Exception) -> SearchIndexError:
    return SearchIndexError(f"{path} is damaged ({why}): remove it and build the index again")
