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

from trainer import run_folder
from trainer.configs.config import Config
from trainer.data.tokenise import Tokeniser
from trainer.mesh import REPLICATED, one_device
from trainer.step import TrainState, state_shapes

# The last one, and the one before in case the disk damages it.
_KEEP = 2


class CheckpointError(RuntimeError):
    """A run without a checkpoint, or one that does not fit the run's configuration."""


class Loaded(NamedTuple):
    """A trained model."""

    config: Config
    tokeniser: Tokeniser
    params: PyTree
    step: int  # updates made


class Checkpoints:
    """The checkpoints of a run, `checkpoints/<step>`; a context manager.

    A checkpoint is complete when its folder has that name: a process killed while saving leaves
    the earlier ones usable, and a temporary folder that the next one removes.
    """

    def __init__(self, run: pathlib.Path, *, read_only: bool = False) -> None:
        """Args: run: the run's folder. read_only: never writes nor removes anything."""
        # It reports each save and restore, in many lines.
        logging.getLogger("absl").setLevel(logging.ERROR)
        self._folder = run.absolute() / "checkpoints"
        if not read_only:
            self._folder.mkdir(exist_ok=True)
        self._manager = ocp.CheckpointManager(
            self._folder,
            # By name, or a process that has not saved cannot read shapes.
            item_handlers={
                name: ocp.StandardCheckpointHandler() for name in ("params", "optimiser")
            },
            options=ocp.CheckpointManagerOptions(
                max_to_keep=_KEEP,
                cleanup_tmp_directories=not read_only,
                read_only=read_only,
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
        with contextlib.suppress(Exception) if error else contextlib.nullcontext():
            self._manager.close()

    def latest(self) -> int | None:
        """The step of the last complete checkpoint, or None."""
        return self._manager.latest_step()

    def save(self, state: TrainState) -> None:
        """Saves a state; returns when it is copied, while it is still being written."""
        self._manager.save(
            int(state.step),
            args=ocp.args.Composite(
                params=ocp.args.StandardSave(state.params),
                optimiser=ocp.args.StandardSave(state.optimiser),
            ),
        )

    def restore(self, step: int, config: Config, steps: int, mesh: Mesh) -> TrainState:
        """Restores a state to train on, whatever devices it was saved from.

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
        restored = self._restore(
            step,
            ocp.args.Composite(
                params=ocp.args.StandardRestore(like.params),
                optimiser=ocp.args.StandardRestore(like.optimiser),
            ),
        )
        return TrainState(
            step=jax.device_put(jnp.int32(step), NamedSharding(mesh, REPLICATED)),
            params=restored.params,
            optimiser=restored.optimiser,
        )

    def restore_params(self, step: int, config: Config) -> PyTree:
        """Restores the parameters alone; raises as `restore`."""
        like = state_shapes(config, 1, one_device()).params
        self._check(step, like)
        args = ocp.args.Composite(params=ocp.args.StandardRestore(like))
        return self._restore(step, args).params

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

    def _restore(self, step: int, args: ocp.args.Composite) -> Any:
        with self._readable(step):
            return self._manager.restore(step, args=args)

    @contextlib.contextmanager
    def _readable(self, step: int) -> Iterator[None]:
        try:
            yield
        except (ValueError, KeyError, OSError) as error:
            raise CheckpointError(
                f"{self._folder / str(step)} is damaged ({type(error).__name__}): remove that "
                "folder, and the checkpoint before it is used"
            ) from error


def load(run: str | os.PathLike[str]) -> Loaded:
    """Loads a run's last checkpoint, to use the model.

    Args:
      run: the folder that `svilm-train pretrain --out` wrote.

    Raises:
      RunError: it is no run.
      CheckpointError: it has no checkpoint yet, or one that does not fit its configuration.
    """
    folder = pathlib.Path(run)
    config, tokeniser = run_folder.read(folder)
    if not (folder / "checkpoints").is_dir():
        raise CheckpointError(_no_checkpoint(folder))
    with Checkpoints(folder, read_only=True) as checkpoints:
        step = checkpoints.latest()
        if step is None:
            raise CheckpointError(_no_checkpoint(folder))
        return Loaded(config, tokeniser, checkpoints.restore_params(step, config), step)


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
