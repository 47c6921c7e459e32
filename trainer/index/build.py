"""The builder of an index: `svilm-train index`.

An index is a function of the run, the snapshots and the type of the vectors. Its files are the same
whether it was built at once, by several processes, after kills, or from an earlier index.
"""

import functools
import os
import pathlib
import shutil
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from trainer.data.folder import in_bucket
from trainer.data.snapshot import Snapshot
from trainer.data.types import Progress
from trainer.index import embed, files, neighbors
from trainer.index.files import SearchIndexError
from trainer.index.quantize import Dtype, dequantize
from trainer.inference import shards
from trainer.inference.encoder import Encoder
from trainer.runs.checkpoint import Loaded
from trainer.runs.provenance import check_joint_space

_QUERIES = 256  # captions that the recall is measured with
_COMMAND = "svilm-train index"


def build(
    run: Loaded,
    snapshots: Sequence[Snapshot],
    out: pathlib.Path,
    progress: Progress,
    *,
    dtype: Dtype = "float16",
    shard_clips: int = 1024,
    process: int = 0,
    processes: int = 1,
    exact_below: int = neighbors.EXACT_BELOW,
) -> bool:
    """Build the index of a run and snapshots, or update the one in a folder.

    An existing index of the same run keeps answering until the new one is complete. Clips whose
    records are in both are not embedded again. All others leave the index.

    Args:
      run: the model.
      snapshots: the clips, in the order of the index.
      out: the folder, shared by all processes.
      progress: called with the clips done and in total, counting this process's missing shards.
      dtype: type of the vectors.
      shard_clips: clips per shard. The last shard of a snapshot has the rest.
      process: this process's number. It writes each `processes`-th shard. Processes need not run at
        the same time, nor know of each other.
      processes: number of processes that share the work.
      exact_below: number of clips from which on searches are approximate.

    Returns:
      True if the index is complete; False if other processes have shards left to write.

    Raises:
      SearchIndexError: the folder holds an index of another run or type of vectors, or a snapshot
        is given twice.
      FeaturesError: another command is writing another index to the folder.
      SnapshotError: a record is damaged, or a snapshot does not suit the model.
      MissingPackageError: the index is large, and FAISS is not installed.
      NonFiniteError: the vectors of a clip are not finite.
    """
    check_joint_space(run.task)
    made_from = _made_from(run, snapshots, dtype, shard_clips)
    _check_distinct(snapshots)
    if sum(map(len, snapshots)) >= exact_below:
        neighbors.check_faiss()
    out.mkdir(parents=True, exist_ok=True)
    claim = out / files.CLAIM
    with shards.claimed(claim, made_from, _COMMAND):
        earlier = files.read_manifest(out) if files.is_index(out) else None
        if earlier:
            _check_same(out, earlier["made_from"], made_from)
        data = out / files.data_name(made_from)
        if earlier is None or earlier["made_from"] != made_from:
            of_shard = embed.sources(snapshots, shard_clips)
            data.mkdir(exist_ok=True)
            make = functools.partial(_shards, run, out, earlier, of_shard, dtype, progress)
            if not shards.write(data, list(of_shard), made_from, make, process, processes):
                return False
            complete(run, snapshots, out, made_from, list(of_shard), dtype, exact_below)
        elif (places := _places(run, snapshots)) != {key: earlier[key] for key in places}:
            files.write_manifest(out, earlier | places)  # the run or a snapshot was moved
        for other in out.glob("data-*"):
            if other != data:
                shutil.rmtree(other)
        claim.unlink(missing_ok=True)
    return True


def _made_from(
    run: Loaded, snapshots: Sequence[Snapshot], dtype: Dtype, shard_clips: int
) -> dict[str, Any]:
    return {
        **shards.model_identity(run),
        "snapshots": [snapshot.manifest_sha256 for snapshot in snapshots],
        "dtype": dtype,
        "shard_clips": shard_clips,
    }


def _check_distinct(snapshots: Sequence[Snapshot]) -> None:
    seen: dict[str, str] = {}
    for snapshot in snapshots:
        if other := seen.get(snapshot.manifest_sha256):
            raise SearchIndexError(
                f"snapshots {other} and {snapshot.folder} are the same: give each once"
            )
        seen[snapshot.manifest_sha256] = snapshot.folder


def _check_same(out: pathlib.Path, theirs: dict[str, Any], ours: dict[str, Any]) -> None:
    """Check that an earlier index is of the same run and type."""
    free = ("snapshots", "shard_clips")
    if different := [key for key in shards.differing(theirs, ours) if key not in free]:
        raise SearchIndexError(
            f"{out} has an index of another run or type ({', '.join(different)} differ): give "
            "another --out, or remove it"
        )


def _shards(
    run: Loaded,
    out: pathlib.Path,
    manifest: dict[str, Any] | None,
    of_shard: dict[str, embed.Source],
    dtype: Dtype,
    progress: Progress,
    missing: list[str],
) -> Iterator[shards.Shard]:
    earlier = embed.Earlier()
    if manifest and missing:
        held = {name: about for name, about in manifest["files"].items() if _is_shard(name)}
        folder = out / manifest["data"]
        earlier = embed.Earlier([(folder / name, one["sha256"]) for name, one in held.items()])
    encoder = Encoder(run.config, run.tokenizer, run.params)
    return embed.embed(missing, of_shard, encoder, dtype, earlier, progress)


def _is_shard(name: str) -> bool:
    return name.endswith(".safetensors")


def complete(
    run: Loaded,
    snapshots: Sequence[Snapshot],
    out: pathlib.Path,
    made_from: dict[str, Any],
    names: list[str],
    dtype: Dtype,
    exact_below: int,
) -> None:
    """Write the files that join all shards, then index.json."""
    data = out / files.data_name(made_from)
    rows = ((_snapshot_of(name), row) for name in names for row in embed.read_clips(data / name))
    written = [*names, *files.write_columns(data, rows)]
    stored = _joined(data, names, run.config.joint_width, dtype)
    written += [files.write_array(data / f"{name}.npy", array) for name, array in stored.items()]
    clips, search = len(stored["clip"]), {"kind": "exact"}
    columns = files.Columns(data, clips)
    if clips >= exact_below:
        found = neighbors.build_faiss(
            stored, dtype, _queries(run, columns, stored), data / files.FAISS
        )
        search = {"kind": "ivf", **found._asdict()}
        written.append(files.FAISS)
    video = run.config.video
    values = {
        "made_from": made_from,
        **_places(run, snapshots),
        "data": data.name,
        "clips": clips,
        "videos": len(np.unique(columns.video_keys([one.manifest.dataset for one in snapshots]))),
        "shape": {
            "clip": [run.config.joint_width],
            "groups": [video.group_tokens, run.config.joint_width],
            "windows": [video.windows, video.width],
        },
        "search": search,
        "files": {name: files.describe(data / name) for name in written},
    }
    files.write_manifest(out, values)


def _places(run: Loaded, snapshots: Sequence[Snapshot]) -> dict[str, Any]:
    return {
        "run": None if run.folder is None else _absolute(run.folder),
        "snapshots": [
            {
                "folder": _absolute(snapshot.folder),
                "dataset": snapshot.manifest.dataset,
                "manifest_sha256": snapshot.manifest_sha256,
            }
            for snapshot in snapshots
        ],
    }


def _snapshot_of(name: str) -> int:
    """Return the number of the snapshot of a shard.

    >>> _snapshot_of("features-002-00000-of-00001.safetensors")
    2
    """
    return int(name.split("-")[1])


def _joined(
    data: pathlib.Path, names: list[str], width: int, dtype: Dtype
) -> dict[str, np.ndarray]:
    """Return the clip vectors of all shards, as they store them."""
    parts = [embed.read_tensors(data / name, "clip", dtype) for name in names]
    parts = parts or [embed.quantize("clip", np.zeros((0, width), np.float32), dtype)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _queries(run: Loaded, columns: files.Columns, stored: dict[str, np.ndarray]) -> np.ndarray:
    """Return the embeddings of captions of clips drawn at random.

    Clips without captions are queries themselves if no drawn clip has one.
    """
    clips = len(stored["clip"])
    drawn = np.random.default_rng(0).choice(clips, min(2 * _QUERIES, clips), replace=False)
    captions = [columns.text(row)["caption"] for row in drawn.tolist()]
    if named := list(dict.fromkeys(caption for caption in captions if caption.strip())):
        encoder = Encoder(run.config, run.tokenizer, run.params)
        return encoder.texts(named[:_QUERIES])
    rows = np.sort(drawn[:_QUERIES])
    return dequantize("clip", {name: array[rows] for name, array in stored.items()})


def _absolute(folder: str | os.PathLike[str]) -> str:
    return os.fspath(folder) if in_bucket(folder) else os.path.abspath(folder)
