"""Localisation's training on disk, to go on from: OUT/checkpoints, the last of them alone."""

import contextlib
import hashlib
import json
import logging
import pathlib
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import orbax.checkpoint as ocp
from jaxtyping import Float, PyTree

from trainer.checkpoint import CheckpointError
from trainer.run_folder import RunError


class Progress(NamedTuple):
    """All that a training has come to; the number of steps made is the checkpoint's."""

    params: PyTree
    optimiser: PyTree
    kept: PyTree  # the parameters of the best epoch so far
    losses: Float[np.ndarray, "steps parts"]  # of the steps made; of others 0
    validation: Float[np.ndarray, " epochs"]  # of the epochs made; of others infinite


class Checkpoints:
    """The checkpoints of a training; a context manager."""

    def __init__(self, out: pathlib.Path, settings: dict[str, Any]) -> None:
        """Opens OUT/checkpoints.

        Args:
          out: folder of the training.
          settings: all that its numbers follow from, as JSON has it.

        Raises:
          RunError: it was started with others.
          CheckpointError: the last checkpoint is damaged.
        """
        logging.getLogger("absl").setLevel(logging.CRITICAL)  # it reports each save, in many lines
        self._folder = (out / "checkpoints").absolute()
        self._settings = json.loads(json.dumps(settings))
        self._manager = ocp.CheckpointManager(
            self._folder,
            item_handlers={
                "progress": ocp.StandardCheckpointHandler(),
                "settings": ocp.JsonCheckpointHandler(),
            },
            options=ocp.CheckpointManagerOptions(max_to_keep=1, cleanup_tmp_directories=True),
        )
        if (step := self._manager.latest_step()) is not None:
            before = self._read(step, settings=ocp.args.JsonRestore())["settings"]
            differing = [
                f"{name} was {before.get(name)}, now {value}"
                for name, value in self._settings.items()
                if before.get(name) != value
            ]
            if differing:
                raise RunError(
                    f"{out} was started with another configuration: {'; '.join(differing)}. To "
                    "continue it repeat its command, for a new one give another --out"
                )

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: object) -> None:
        self._manager.close()  # waits for the last save

    def restore(self, fresh: Progress) -> tuple[int, Progress]:
        """The steps made, and what they came to; of none 0, and what was given.

        Raises:
          CheckpointError: the checkpoint is damaged.
        """
        if (step := self._manager.latest_step()) is None:
            return 0, fresh
        found = self._read(step, progress=ocp.args.StandardRestore(fresh._asdict()))
        return step, Progress(**found["progress"])

    def save(self, step: int, progress: Progress) -> None:
        """Saves what `step` steps came to.

        Raises:
          CheckpointError: it, or the one before, cannot be written.
        """
        # It is written while training goes on, which fills these two.
        progress = progress._replace(
            losses=progress.losses.copy(), validation=progress.validation.copy()
        )
        with self._told("could not be saved", "see that it can be written and has room"):
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    progress=ocp.args.StandardSave(progress._asdict()),
                    settings=ocp.args.JsonSave(self._settings),
                ),
            )

    def _read(self, step: int, **args: Any) -> Any:
        with self._told(
            f"of step {step} cannot be read", "remove it, and the training begins anew"
        ):
            return self._manager.restore(step, args=ocp.args.Composite(**args))

    @contextlib.contextmanager
    def _told(self, what: str, advice: str) -> Iterator[None]:
        try:
            yield
        except (ValueError, LookupError, TypeError, AttributeError, OSError) as error:
            why = " ".join(str(error).split())[:300]
            raise CheckpointError(
                f"the checkpoint in {self._folder} {what} ({why}): {advice}"
            ) from error


def sha256(arrays: Iterable[np.ndarray]) -> str:
    """Of their numbers, one behind another."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(array.tobytes())
    return digest.hexdigest()
