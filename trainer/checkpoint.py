"""Checkpoints of a run: saved while training goes on, restored to the bit, loaded for use."""

import contextlib
import logging
import os
import pathlib
from collections.abc import Iterator
from types import TracebackType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from jax.sharding import Mesh, NamedSharding
from jaxtyping import PyTree
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, EveryNSteps, LatestN

from trainer import run_folder
from trainer.configs.config import Config
from trainer.data.tokenise import Tokeniser
from trainer.mesh import REPLICATED, one_device
from trainer.step import TrainState, state_shapes

# Of a checkpoint; "average" only of a run that keeps one.
_ITEMS = ("params", "optimiser", "watch", "average")


class CheckpointError(RuntimeError):
    """A run without a checkpoint, one that does not fit its configuration, or a failed save."""


class Loaded(NamedTuple):
    """A trained model."""

    config: Config
    tokeniser: Tokeniser
    params: PyTree
    step: int  # updates made
    averaged: bool  # whether the parameters are the run's moving average


class Checkpoints:
    """The checkpoints of a run, `checkpoints/<step>`; a context manager.

    A checkpoint is complete when its folder has that name: a process killed while saving leaves
    the earlier ones usable, and a temporary folder that the next one removes. An earlier one is
    removed once a later one is complete, so a save that fails costs none.
    """

    def __init__(self, run: pathlib.Path, config: Config | None = None) -> None:
        """Opens a run's folder.

        Args:
          run: the folder.
          config: how many checkpoints to keep; None: to read, writing and removing nothing.
        """
        # It reports each save and restore, in many lines, and what it raises too.
        logging.getLogger("absl").setLevel(logging.CRITICAL)
        self._folder = run.absolute() / "checkpoints"
        if config:
            self._folder.mkdir(exist_ok=True)
        self._manager = ocp.CheckpointManager(
            self._folder,
            # By name, or a process that has not saved cannot read shapes.
            item_handlers={name: ocp.StandardCheckpointHandler() for name in _ITEMS},
            options=ocp.CheckpointManagerOptions(
                preservation_policy=_kept(config) if config else None,
                cleanup_tmp_directories=config is not None,
                read_only=config is None,
                create=False,
            ),
        )

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # Waits for a save under way; if that fails it must not hide an error that came first.
        with contextlib.suppress(Exception) if error else self._saving():
            self._manager.close()

    def steps(self) -> list[int]:
        """The steps of the complete checkpoints, in order."""
        return sorted(self._manager.all_steps())

    def latest(self) -> int | None:
        """The step of the last complete checkpoint, or None."""
        return self._manager.latest_step()

    def save(self, state: TrainState) -> None:
        """Saves a state; returns when it is copied, while it is still being written.

        Raises:
          CheckpointError: the save before this one failed, such as on a full disk.
        """
        with self._saving():
            items = {name: getattr(state, name) for name in _ITEMS}
            args = {
                name: ocp.args.StandardSave(item)
                for name, item in items.items()
                if jax.tree.leaves(item)
            }
            self._manager.save(int(state.step), args=ocp.args.Composite(**args))

    def check(self) -> None:
        """Raises CheckpointError if a save that went on in the background has failed."""
        if not self._manager.is_saving_in_progress():
            with self._saving():
                self._manager.wait_until_finished()

    @contextlib.contextmanager
    def _saving(self) -> Iterator[None]:
        try:
            yield
        except (ValueError, OSError) as error:
            steps = [int(path.name) for path in self._folder.iterdir() if path.name.isdecimal()]
            kept = f"step {max(steps)} is the last one kept" if steps else "there is none before it"
            said = " ".join(str(error).split())
            why = "the disk is full" if "No space left on device" in said else said
            raise CheckpointError(
                f"a checkpoint in {self._folder} could not be saved ({why}); {kept}: make room, or "
                "keep fewer with --set checkpoint_keep=1, and repeat the command"
            ) from error

    def restore(self, step: int, config: Config, steps: int, mesh: Mesh) -> TrainState:
        """Restores a state to train on, whatever devices it was saved from.

        An average that the configuration wants and the checkpoint lacks begins with the parameters.

        Args:
          step: of the checkpoint.
          config: the run's.
          steps: of the whole run.
          mesh: the devices.

        Raises:
          CheckpointError: the checkpoint is of a model of another size.
        """
        like = state_shapes(config, steps, mesh)
        self._check(step, like.params)
        wanted = {name: getattr(like, name) for name in _ITEMS}
        averages = bool(wanted["average"])
        if not (averages and self._has_average(step)):
            del wanted["average"]
        restored = self._restore(step, wanted)
        average = restored.get("average", {})
        if averages and not average:
            average = jax.tree.map(jnp.copy, restored["params"])
        return TrainState(
            step=jax.device_put(jnp.int32(step), NamedSharding(mesh, REPLICATED)),
            params=restored["params"],
            optimiser=restored["optimiser"],
            watch=restored["watch"],
            average=average,
        )

    def restore_params(self, step: int, config: Config) -> tuple[PyTree, bool]:
        """Restores the parameters to use: their average if the checkpoint has one.

        Returns:
          The parameters, and whether they are an average.

        Raises:
          CheckpointError: as `restore` does.
        """
        like = state_shapes(config, 1, one_device()).params
        self._check(step, like)
        name = "average" if self._has_average(step) else "params"
        return self._restore(step, {name: like})[name], name == "average"

    def _has_average(self, step: int) -> bool:
        return (self._folder / str(step) / "average").exists()

    def _check(self, step: int, like: PyTree) -> None:
        with self._readable(step):
            saved = by_name(self._manager.item_metadata(step).params.tree)
        wanted = by_name(like)
        for name in sorted(saved.keys() | wanted.keys()):
            there, here = (
                tuple(tensors[name].shape) if name in tensors else "absent"
                for tensors in (saved, wanted)
            )
            if there != here:
                raise CheckpointError(
                    f"{self._folder / str(step)} is of another model size: tensor {name} is "
                    f"{there} there, and {here} by config.json: put back the config.json that the "
                    "run was started with"
                )

    def _restore(self, step: int, like: dict[str, PyTree]) -> dict[str, Any]:
        args = {name: ocp.args.StandardRestore(item) for name, item in like.items()}
        with self._readable(step):
            restored = self._manager.restore(step, args=ocp.args.Composite(**args))
        return {name: restored[name] for name in like}

    @contextlib.contextmanager
    def _readable(self, step: int) -> Iterator[None]:
        try:
            yield
        except (ValueError, KeyError, OSError) as error:
            raise CheckpointError(
                f"{self._folder / str(step)} is damaged ({type(error).__name__}): remove that "
                "folder, and the checkpoint before it is used"
            ) from error


def _kept(config: Config) -> AnyPreservationPolicy:
    policies: list[Any] = [LatestN(config.checkpoint_keep)]
    if config.checkpoint_keep_every is not None:
        policies.append(EveryNSteps(config.checkpoint_keep_every))
    return AnyPreservationPolicy(policies)


def load(run: str | os.PathLike[str]) -> Loaded:
    """Loads a run's model, to use it: the average of its parameters, if the run kept one.

    Args:
      run: the folder that `svilm-train pretrain --out` wrote, for its last checkpoint; or one of
        its checkpoints, RUN/checkpoints/STEP.

    Raises:
      RunError: it is no run.
      CheckpointError: it has no such checkpoint, or one that does not fit its configuration.
    """
    folder, step = pathlib.Path(run), None
    if folder.parent.name == "checkpoints" and folder.name.isdecimal():
        folder, step = folder.parents[1], int(folder.name)
    config, tokeniser = run_folder.read(folder)
    if not (folder / "checkpoints").is_dir():
        raise CheckpointError(_no_checkpoint(folder))
    with Checkpoints(folder) as checkpoints:
        there = checkpoints.steps()
        if not there:
            raise CheckpointError(_no_checkpoint(folder))
        step = there[-1] if step is None else step
        if step not in there:
            raise CheckpointError(f"run {folder} has no checkpoint {step}: it has {there}")
        params, averaged = checkpoints.restore_params(step, config)
        return Loaded(config, tokeniser, params, step, averaged)


def _no_checkpoint(folder: pathlib.Path) -> str:
    return (
        f"run {folder} has no checkpoint yet: wait for the first (every checkpoint_every steps), "
        "or run its `svilm-train pretrain` command to the end"
    )


def by_name(tree: PyTree) -> dict[str, Any]:
    """A tree's leaves by their paths.

    >>> by_name({"video": {"bias": 1}, "text": 2})
    {'text': 2, 'video.bias': 1}
    """
    return {
        jax.tree_util.keystr(path, simple=True, separator="."): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }
