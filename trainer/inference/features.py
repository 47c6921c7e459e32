"""Frozen features of a snapshot's clips, for other programs: `svilm-train embed`.

OUT/features-00000-of-00004.safetensors and so on hold SHARD_CLIPS clips each, in the snapshot's
order. Each has one float32 tensor per kind of feature, with one row per clip:

  clip     [n, E]      f^v, the clip in the joint space, L2-normalized
  groups   [n, D]      group tokens after their last norm, averaged
  windows  [n, Nt, D]  video tokens after the last norm, averaged over each window's patches

The file's metadata holds two JSON texts. `clips` is a list of {"clip_id", "video_id", "start_us",
"end_us"}, one per row. `made_from` is the same object as in features.json.

OUT/features.json is written once all shards exist: {"format": "svilm-features/1", "made_from",
"features": {name: shape of a row}, "clips": total number, "shards": [{"name", "clips"}],
"seen": overlap with the model's training videos (trainer/runs/seen_clips.py)}.
`made_from` identifies the model (sha256 of its parameters, step), the snapshot (its hashes) and the
division into shards. Features of another model in OUT are therefore never resumed.
"""

import dataclasses
import hashlib
import json
import pathlib
import time
from typing import Any, Literal

import numpy as np
import safetensors

from protos.strict_json import parse_object
from trainer.configs.config import Config
from trainer.data import safetensors_file
from trainer.data.folder import replacing, write_file
from trainer.data.snapshot import Snapshot
from trainer.data.types import Progress
from trainer.errors import UserError
from trainer.inference.encoder import Encoder, embed_clips
from trainer.runs.checkpoint import Loaded
from trainer.runs.provenance import parameters_sha256
from trainer.runs.seen_clips import of_loaded

Feature = Literal["clip", "groups", "windows"]
FEATURES: tuple[Feature, ...] = ("clip", "groups", "windows")
MANIFEST = "features.json"

_FORMAT = "svilm-features/1"
_CLAIM = ".made_from.json"  # exists while shards are written


class FeaturesError(UserError, RuntimeError):
    """A folder that holds other features, or that cannot be read."""


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
    made_from = _made_from(run, snapshot, features, shard_clips)
    out.mkdir(parents=True, exist_ok=True)
    claimed = _claim(out, made_from)
    try:
        _check_same(out, set(names), made_from)
        ranges = {
            name: np.arange(shard * shard_clips, min((shard + 1) * shard_clips, len(snapshot)))
            for shard, name in enumerate(names)
        }
        mine = {name: ranges[name] for name in names[process::processes]}
        missing = {name: clips for name, clips in mine.items() if not (out / name).exists()}
        _write_shards(run, snapshot, out, features, made_from, missing, progress)
        if not all((out / name).exists() for name in names):
            return False
        _write_manifest(run, snapshot, out, features, made_from, ranges)
        return True
    except BaseException:
        if claimed:  # existing shards exclude other features without the claim
            (out / _CLAIM).unlink(missing_ok=True)
        raise


def _write_shards(
    run: Loaded,
    snapshot: Snapshot,
    out: pathlib.Path,
    features: tuple[Feature, ...],
    made_from: dict[str, Any],
    missing: dict[str, np.ndarray],
    progress: Progress,
) -> None:
    """Write the missing shards, each with the features of its range of clips."""
    encoder = Encoder(run.config, run.tokenizer, run.params)
    every, done = sum(map(len, missing.values())), 0
    for name, numbers in missing.items():

        def shown(of_shard: int, _: int, before: int = done) -> None:
            progress(before + of_shard, every)

        texts, clips = embed_clips(snapshot, encoder, shown, numbers)
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
        tensors = {kind: of_clips[kind].astype(np.float32) for kind in features}
        metadata = {"made_from": json.dumps(made_from), "clips": json.dumps(rows)}
        with replacing(out / name) as unfinished:
            safetensors_file.save(tensors, unfinished, metadata)
        done += len(texts)


def _write_manifest(
    run: Loaded,
    snapshot: Snapshot,
    out: pathlib.Path,
    features: tuple[Feature, ...],
    made_from: dict[str, Any],
    ranges: dict[str, np.ndarray],
) -> None:
    """Write features.json, and release the claim on the folder."""
    video = run.config.video
    shapes = {
        "clip": [run.config.joint_width],
        "groups": [video.width],
        "windows": [video.windows, video.width],
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
    (out / _CLAIM).unlink(missing_ok=True)


def _claim(out: pathlib.Path, made_from: dict[str, Any]) -> bool:
    """Claim the folder, so that no other command writes other features into it.

    A lock does not suffice: the processes that share the work need not run at the same time.

    Returns:
      True if this command is the first.

    Raises:
      FeaturesError: a command with another model, snapshot or choice holds the claim.
    """
    ours, claim = json.dumps(made_from), out / _CLAIM
    while True:
        try:
            with claim.open("x", encoding="utf-8") as file:
                try:
                    file.write(ours)
                    file.flush()
                except BaseException:
                    claim.unlink(missing_ok=True)
                    raise
            return True
        except FileExistsError:
            pass
        try:
            theirs = claim.read_text(encoding="utf-8")
            if not theirs.endswith("}"):
                time.sleep(1.0)  # another process is writing it
                theirs = claim.read_text(encoding="utf-8")
        except FileNotFoundError:  # its owner has ended meanwhile
            continue
        if theirs != ours and _claims_other(theirs, made_from):
            raise FeaturesError(
                f"another `svilm-train embed` is writing other features to {out}: give another "
                f"--out, or remove {claim} if that process was killed"
            )
        return False


def _claims_other(claimed: str, made_from: dict[str, Any]) -> bool:
    try:
        return bool(_differing(parse_object(claimed), made_from))
    except ValueError:
        return True


def _made_from(
    run: Loaded, snapshot: Snapshot, features: tuple[Feature, ...], shard_clips: int
) -> dict[str, Any]:
    manifest = snapshot.manifest
    return {
        "step": run.step,
        "averaged": run.averaged,
        "parameters_sha256": parameters_sha256(run.params),
        "settings_sha256": _settings_sha256(run.config),
        "dataset": manifest.dataset,
        "inputs_sha256": manifest.inputs_sha256,
        "config_sha256": manifest.config_sha256,
        # Versions of a data set may differ in their records alone.
        "manifest_sha256": snapshot.manifest_sha256,
        "features": list(features),
        "shard_clips": shard_clips,
    }


def _settings_sha256(config: Config) -> str:
    """Return the sha256, in hex, of the settings besides the sizes of the parameters.

    A field with its default value is left out, so that fields of later releases change nothing.
    """
    given = {
        f"{section}.{name}": value
        for section, name, value in (
            *(("video", *item) for item in dataclasses.asdict(config.video).items()),
            ("input", "short_side", config.input.short_side),
        )
        if value != getattr(getattr(Config(), section), name)
    }
    return hashlib.sha256(json.dumps(given, sort_keys=True).encode()).hexdigest()


def _differing(theirs: Any, made_from: dict[str, Any]) -> list[str]:
    """Return the keys that differ. Features of earlier releases lack `settings_sha256`."""
    if not isinstance(theirs, dict):
        return sorted(made_from)
    theirs = {"settings_sha256": made_from["settings_sha256"]} | theirs
    return sorted(key for key in made_from if theirs.get(key) != made_from[key])


def _check_same(out: pathlib.Path, names: set[str], made_from: dict[str, Any]) -> None:
    for path in sorted(out.glob("features-*.safetensors")):
        try:
            with safetensors.safe_open(path, "numpy") as file:
                theirs = parse_object((file.metadata() or {}).get("made_from", "{}"))
        except (OSError, ValueError, safetensors.SafetensorError) as error:
            raise FeaturesError(f"{path} is damaged ({error}): remove it") from None
        differing = _differing(theirs, made_from)
        if differing or path.name not in names:
            raise FeaturesError(
                f"{path} was made with another {', '.join(differing) or 'division'}: give another "
                "--out, or empty this one"
            )
