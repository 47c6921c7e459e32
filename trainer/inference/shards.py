"""Sharded files of clips: several processes write them, and a killed one resumes.

Each shard is a .safetensors file with one row per clip. Its metadata holds two JSON texts:
`clips`, a list with one object per row, and `made_from`, which identifies the model, the clips
and the division into shards. Shards of anything else in the folder are refused, never resumed.
"""

import contextlib
import dataclasses
import hashlib
import json
import pathlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import safetensors

from protos.strict_json import parse_object
from trainer.configs.config import Config
from trainer.data import safetensors_file
from trainer.data.folder import replacing
from trainer.errors import UserError
from trainer.runs.checkpoint import Loaded
from trainer.runs.provenance import parameters_sha256


class FeaturesError(UserError, RuntimeError):
    """A folder that holds other features, or that cannot be read."""


class Shard(NamedTuple):
    """The contents of a shard."""

    name: str  # of its file
    tensors: dict[str, np.ndarray]  # each with one row per clip
    clips: list[dict[str, Any]]  # a JSON object per row


def model_identity(run: Loaded) -> dict[str, Any]:
    """Return the part of `made_from` that identifies the model, wherever its run is now."""
    return {
        "step": run.step,
        "averaged": run.averaged,
        "parameters_sha256": parameters_sha256(run.params),
        "settings_sha256": _settings_sha256(run.config),
    }


@contextlib.contextmanager
def claimed(claim: pathlib.Path, made_from: dict[str, Any], command: str) -> Iterator[None]:
    """Claim a folder, so that no other command writes anything else into it.

    A lock does not suffice: the processes that share the work need not run at the same time. The
    claim stays for them. Whoever completes the work removes it. If the block raises, the claim is
    removed, provided that this process made it.

    Args:
      claim: the file that makes the claim, in an existing folder.
      made_from: what is written.
      command: the name of the command, for messages.

    Raises:
      FeaturesError: a command with another `made_from` holds the claim.
    """
    first = _claim(claim, made_from, command)
    try:
        yield
    except BaseException:
        if first:  # existing shards exclude others without the claim
            claim.unlink(missing_ok=True)
        raise


def write(
    folder: pathlib.Path,
    names: Sequence[str],
    made_from: dict[str, Any],
    make: Callable[[list[str]], Iterator[Shard]],
    process: int = 0,
    processes: int = 1,
) -> bool:
    """Write the missing shards among each `processes`-th one, beginning with `process`.

    Args:
      folder: folder of the shards.
      names: the file names of all shards.
      made_from: identity of the shards.
      make: called with the names of the missing shards, yields these in order.
      process: this process's number.
      processes: number of processes that share the work.

    Returns:
      True if all shards of all processes exist.

    Raises:
      FeaturesError: the folder holds shards with another `made_from` or division.
    """
    _check_same(folder, set(names), made_from)
    missing = [name for name in names[process::processes] if not (folder / name).exists()]
    for shard in make(missing):
        metadata = {"made_from": json.dumps(made_from), "clips": json.dumps(shard.clips)}
        with replacing(folder / shard.name) as unfinished:
            safetensors_file.save(shard.tensors, unfinished, metadata)
    return all((folder / name).exists() for name in names)


def _claim(claim: pathlib.Path, made_from: dict[str, Any], command: str) -> bool:
    """Make a claim, unless a command with the same `made_from` has made it.

    Returns:
      True if this command is the first.
    """
    ours = json.dumps(made_from)
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
                f"another `{command}` is writing other features to {claim.parent}: give another "
                f"--out, or remove {claim} if that process was killed"
            )
        return False


def _claims_other(theirs: str, made_from: dict[str, Any]) -> bool:
    try:
        return bool(differing(parse_object(theirs), made_from))
    except ValueError:
        return True


def differing(theirs: Any, made_from: dict[str, Any]) -> list[str]:
    """Return the keys that differ. Features of earlier releases lack `settings_sha256`."""
    if not isinstance(theirs, dict):
        return sorted(made_from)
    theirs = {"settings_sha256": made_from["settings_sha256"]} | theirs
    return sorted(key for key in made_from if theirs.get(key) != made_from[key])


def _check_same(folder: pathlib.Path, names: set[str], made_from: dict[str, Any]) -> None:
    for path in sorted(folder.glob("features-*.safetensors")):
        different = differing(_made_from(path), made_from)
        if different or path.name not in names:
            raise FeaturesError(
                f"{path} was made with another {', '.join(different) or 'division'}: give another "
                "--out, or empty this one"
            )


def _made_from(path: pathlib.Path) -> dict[str, Any]:
    try:
        with safetensors.safe_open(path, "numpy") as file:
            return parse_object((file.metadata() or {}).get("made_from", "{}"))
    except (OSError, ValueError, safetensors.SafetensorError) as error:
        raise FeaturesError(f"{path} is damaged ({error}): remove it") from None


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
