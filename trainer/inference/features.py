"""Frozen features of a snapshot's clips, for other programs: `svilm-train embed`.

OUT/features-00000-of-00004.safetensors and so on hold SHARD_CLIPS clips each, in the snapshot's
order. Each has one float32 tensor per kind of feature, with one row per clip:

  clip     [n, E]      f^v, the clip in the joint space, L2-normalized
  groups   [n, D]      group tokens after their last norm, averaged
  windows  [n, Nt, D]  video tokens after the last norm, averaged over each window's patches
  score    [n]         cosine of the clip and its caption; NaN if the caption is empty

The file's metadata holds two JSON texts. `clips` is a list of {"clip_id", "video_id", "start_us",
"end_us"}, one per row. `made_from` is the same object as in features.json.

OUT/features.json is written once all shards exist: {"format": "svilm-features/1", "made_from",
"features": {name: shape of a row}, "clips": total number, "shards": [{"name", "clips"}],
"seen": overlap with the model's training videos (trainer/runs/seen_clips.py)}.
`made_from` identifies the model (sha256 of its parameters, step), the snapshot (its hashes) and the
division into shards. Features of another model in OUT are therefore never resumed.
"""

import functools
import json
import pathlib
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from trainer.data.folder import write_file
from trainer.data.snapshot import Snapshot
from trainer.data.types import Progress
from trainer.inference import shards
from trainer.inference.encoder import Encoder, embed_clips
from trainer.inference.shards import FeaturesError as FeaturesError
from trainer.runs.checkpoint import Loaded
from trainer.runs.seen_clips import of_loaded

Feature = Literal["clip", "groups", "windows", "score"]
FEATURES: tuple[Feature, ...] = ("clip", "groups", "windows", "score")
USUAL: tuple[Feature, ...] = ("clip", "groups", "windows")
MANIFEST = "features.json"

_FORMAT = "svilm-features/1"
_CLAIM = ".made_from.json"  # exists while shards are written


def write(
    run: Loaded,
    snapshot: Snapshot,
    out: pathlib.Path,
    features: tuple[Feature, ...],
    progress: Progress,
    *,
    shard_clips: int = 1024,
    process: int = 0,
    processes: int = 1,
) -> bool:
    """Write the missing shards and, once all shards exist, features.json.

    Args:
      run: the model.
      snapshot: the clips.
      out: folder for the shards, shared by all processes.
      features: the kinds of features to write.
      progress: called with the clips done and in total, counting this process's missing shards.
      shard_clips: clips per shard. The last shard has the rest.
      process: this process's number. It writes each `processes`-th shard. Processes need not run at
        the same time, nor know of each other.
      processes: number of processes that share the work.

    Returns:
      True if all shards of all processes exist.

    Raises:
      FeaturesError: the folder holds features of another model, snapshot or choice.
      SnapshotError: a record is damaged, or the snapshot does not suit the model.
    """
    total = -(-len(snapshot) // shard_clips)
    names = [f"features-{shard:05d}-of-{total:05d}.safetensors" for shard in range(total)]
    ranges = {
        name: np.arange(shard * shard_clips, min((shard + 1) * shard_clips, len(snapshot)))
        for shard, name in enumerate(names)
    }
    made_from = _made_from(run, snapshot, features, shard_clips)
    out.mkdir(parents=True, exist_ok=True)
    with shards.claimed(out / _CLAIM, made_from, "svilm-train embed"):
        make = functools.partial(_shards, run, snapshot, features, ranges, progress)
        if not shards.write(out, names, made_from, make, process, processes):
            return False
        _write_manifest(run, snapshot, out, features, made_from, ranges)
        (out / _CLAIM).unlink(missing_ok=True)
        return True


def _shards(
    run: Loaded,
    snapshot: Snapshot,
    features: tuple[Feature, ...],
    ranges: dict[str, np.ndarray],
    progress: Progress,
    missing: list[str],
) -> Iterator[shards.Shard]:
    """Yield the missing shards, each with the features of its range of clips."""
    encoder = Encoder(run.config, run.tokenizer, run.params)
    every, done = sum(len(ranges[name]) for name in missing), 0
    for name in missing:

        def shown(of_shard: int, _: int, before: int = done) -> None:
            progress(before + of_shard, every)

        texts, clips = embed_clips(snapshot, encoder, shown, ranges[name])
        rows = [
            {
                "clip_id": text.clip_id,
                "video_id": text.video_id,
                "start_us": text.start_us,
                "end_us": text.end_us,
            }
            for text in texts
        ]
        of_clips = {"clip": clips.clip, "groups": clips.pooled, "windows": clips.windows}
        if "score" in features:
            of_clips["score"] = _scores(encoder, [text.caption for text in texts], clips.clip)
        tensors = {kind: of_clips[kind].astype(np.float32) for kind in features}
        yield shards.Shard(name, tensors, rows)
        done += len(texts)


def _scores(
    encoder: Encoder, captions: list[str], clips: Float[np.ndarray, "n e"]
) -> Float[np.ndarray, " n"]:
    """Return the cosine of each clip and its caption; NaN for an empty caption."""
    cosines = (encoder.texts(captions) * clips).sum(axis=1)
    return np.where([bool(caption) for caption in captions], cosines, np.float32(np.nan))


def _write_manifest(
    run: Loaded,
    snapshot: Snapshot,
    out: pathlib.Path,
    features: tuple[Feature, ...],
    made_from: dict[str, Any],
    ranges: dict[str, np.ndarray],
) -> None:
    """Write features.json."""
    video = run.config.video
    shapes = {
        "clip": [run.config.joint_width],
        "groups": [video.width],
        "windows": [video.windows, video.width],
        "score": [],
    }
    manifest = {
        "format": _FORMAT,
        "made_from": made_from,
        "features": {kind: shapes[kind] for kind in features},
        "clips": len(snapshot),
        "shards": [{"name": name, "clips": len(clips)} for name, clips in ranges.items()],
        "seen": of_loaded(run, snapshot).as_json(),
    }
    # Several processes may write the manifest, each the same one.
    write_file(out / MANIFEST, json.dumps(manifest, indent=2).encode() + b"\n")


def _made_from(
    run: Loaded, snapshot: Snapshot, features: tuple[Feature, ...], shard_clips: int
) -> dict[str, Any]:
    manifest = snapshot.manifest
    return {
        **shards.model_identity(run),
        "dataset": manifest.dataset,
        "inputs_sha256": manifest.inputs_sha256,
        "config_sha256": manifest.config_sha256,
        # Versions of a data set may differ in their records alone.
        "manifest_sha256": snapshot.manifest_sha256,
        "features": list(features),
        "shard_clips": shard_clips,
    }
