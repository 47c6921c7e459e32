"""The last two checkpoints of a localisation training, in OUT/checkpoints.

Each has a checksums.json (trainer/runs/checksums.py). A checkpoint that differs from it is not
used.
"""

import contextlib
import hashlib
import json
import pathlib
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import orbax.checkpoint as ocp
from jaxtyping import Float, PyTree

from trainer.errors import is_fault
from trainer.runs import checksums
from trainer.runs.checkpoint_errors import CheckpointError, one_line
from trainer.runs.run_folder import RunError
from trainer.runs.usable_checkpoints import UsableCheckpoints


class Progress(NamedTuple):
    """The state of a training; the checkpoint's name gives the number of completed steps."""

    params: PyTree
    optimiser: PyTree  # Optax's state, spelled as in the checkpoints of earlier releases
    kept: PyTree  # parameters of the best epoch so far
    losses: Float[np.ndarray, "steps parts"]  # losses of completed steps; 0 for later steps
    validation: Float[np.ndarray, " epochs"]  # loss of completed epochs; infinite for later ones


class Checkpoints:
    """The checkpoints of a training, as a context manager."""

    def __init__(self, out: pathlib.Path, settings: dict[str, Any]) -> None:
        """Open OUT/checkpoints.

        Args:
          out: folder of the training.
          settings: all settings that determine the result, as JSON values.

        Raises:
          RunError: the training was started with other settings.
          CheckpointError: every checkpoint is damaged, or one cannot be read.
        """
        self._folder = (out / "checkpoints").absolute()
        self._settings = json.loads(json.dumps(settings))
        self._usable = UsableCheckpoints(self._folder)
        self._saving_step: int | None = None
        self._manager = ocp.CheckpointManager(
            self._folder,
            item_handlers={
                "progress": ocp.StandardCheckpointHandler(),
                "settings": ocp.JsonCheckpointHandler(),
            },
            options=ocp.CheckpointManagerOptions(
                max_to_keep=2,
                cleanup_tmp_directories=True,
                async_options=ocp.AsyncOptions(post_finalization_callback=self._write_checksums),
            ),
        )
        if (found := self._newest(settings=ocp.args.JsonRestore())) is not None:
            before = found[1]["settings"]
            differing = [
                f"{name} was {before.get(name)}, now {value}"
                for name, value in self._settings.items()
                if before.get(name) != value
            ]
            if differing:
                raise RunError(
                    f"{out} was started with another configuration: {'; '.join(differing)}. "
                    "Repeat its command to resume it, or give another --out for a new run"
                )

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: object) -> None:
        self._manager.close()  # This waits for the last save.

    def restore(self, fresh: Progress) -> tuple[int, Progress]:
        """Return the number of completed steps and their state; (0, `fresh`) if there is none.

        Raises:
          CheckpointError: every checkpoint is damaged, or one cannot be read.
        """
        found = self._newest(progress=ocp.args.StandardRestore(fresh._asdict()))
        if found is None:
            return 0, fresh
        step, parts = found
        if self._usable.set_others_aside(step):
            self._manager.reload()
        return step, Progress(**parts["progress"])

    def save(self, step: int, progress: Progress) -> None:
        """Save the state after `step` steps.

        Raises:
          CheckpointError: this checkpoint or the previous one cannot be written.
        """
        # Orbax writes in the background, while training still changes these two arrays.
        progress = progress._replace(
            losses=progress.losses.copy(), validation=progress.validation.copy()
        )
        with self._reporting_failure(
            "could not be saved", "check that it is writable and has free space"
        ):
            self._manager.wait_until_finished()
            self._saving_step = step
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    progress=ocp.args.StandardSave(progress._asdict()),
                    settings=ocp.args.JsonSave(self._settings),
                ),
            )

    def _write_checksums(self) -> None:
        """Write the checksums of the checkpoint being saved, before Orbax renames its folder."""
        checksums.write(self._folder / f"{self._saving_step}.orbax-checkpoint-tmp")

    def _newest(self, **args: Any) -> tuple[int, Any] | None:
        """Read the newest checkpoint that can be used; return its step and parts."""
        while (step := self._usable.newest()) is not None:
            try:
                return step, self._manager.restore(step, args=ocp.args.Composite(**args))
            except (ValueError, LookupError, TypeError, AttributeError, FileNotFoundError) as error:
                if self._usable.is_verified(step) or is_fault(error):
                    raise  # The files are intact, or svilm's own code failed.
                self._usable.reject(
                    step, f"it cannot be read ({type(error).__name__}: {one_line(error)})"
                )
            except OSError as error:
                raise CheckpointError(
                    f"the checkpoint of step {step} in {self._folder} cannot be read "
                    f"({one_line(error)}): check that it is readable, and run the command again"
                ) from error
        return None

    @contextlib.contextmanager
    def _reporting_failure(self, what: str, advice: str) -> Iterator[None]:
        try:
            yield
        except (ValueError, OSError) as error:
            raise CheckpointError(
                f"the checkpoint in {self._folder} {what} ({one_line(error)}): {advice}"
            ) from error


def sha256(arrays: Iterable[np.ndarray]) -> str:
    """Return the SHA-256 of the concatenated bytes of arrays."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(array.tobytes())
    return digest.hexdigest()
