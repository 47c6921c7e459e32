"""Checkpoints of a run: saved while training continues, restored to the bit, loaded for use.

A checkpoint is a folder named by its number of updates. It has all that the model needs and can be
copied anywhere. Its parts are Orbax's:

params      the parameters, a tree of float32 arrays by name, such as video.layer_1.mlp.in.kernel
average     their moving average, of the same names; only with average_decay above 0
optimiser   Optax's state
watch       the loss statistics of method/bad_steps.py
config      JSON: the configuration, as in config.json of the run's folder
vocabulary  JSON: {"pieces": the WordPieces, in the order of their ids, "settings": the tokenizer's
            settings, as in tokenizer_config.json; without them text is lower-cased}
task        JSON: the task.json of a run of `svilm-train finetune`; absent otherwise

checksums.json has a CRC-32C of each of their files (checksums.py). A checkpoint that differs from
it is not used. The one before it is the fallback.

The arrays' parts are OCDBT stores of zarr arrays. Each array is whole, regardless of the number of
devices that saved it. TensorStore reads them in other languages.
"""

import contextlib
import dataclasses
import json
import os
from collections.abc import Collection
from types import TracebackType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from jaxtyping import PyTree
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, EveryNSteps, LatestN

from trainer import progress
from trainer.configs.config import Config
from trainer.data.folder import as_os_errors, in_bucket
from trainer.data.tokenizer import Tokenizer
from trainer.distributed.mesh import one_device
from trainer.finite import NonFiniteError, finite_tensors
from trainer.method.train_step import TrainState, state_shapes
from trainer.runs import checkpoint_errors, checksums, run_folder
from trainer.runs.checkpoint_errors import CheckpointError, UncheckedError
from trainer.runs.run_path import RunPath, run_path
from trainer.runs.tensor_shapes import by_name, find_other_type, head_shapes, saved_params
from trainer.runs.usable_checkpoints import UsableCheckpoints

# Parts with arrays: their names in a checkpoint, which must not change, and TrainState's fields.
_ITEMS = {
    "params": "params",
    "optimiser": "optimizer",
    "watch": "watch",
    "average": "average",
}

# Parts that are JSON: copies of files in the run's folder.
_DESCRIBED = ("config", "vocabulary", "task")


class Loaded(NamedTuple):
    """A trained model with its configuration and tokenizer."""

    config: Config
    tokenizer: Tokenizer
    params: PyTree
    step: int  # number of updates
    averaged: bool  # True if the parameters are the run's moving average
    task: dict[str, Any] | None = None  # task.json of a fine-tuned run, whose params have a `head`
    folder: RunPath | None = None  # folder of its run; None for a checkpoint outside a run


class Checkpoints:
    """Context manager for the checkpoints of a run, `checkpoints/<step>`.

    On a disk a checkpoint is complete when its folder has that name. In a bucket it is complete
    when it has Orbax's commit_success.txt. A process killed while saving leaves the earlier
    checkpoints usable. It also leaves a temporary folder, which the next process removes. An
    earlier checkpoint is removed once a later one is complete, so a failed save loses none.
    """

    def __init__(self, folder: RunPath, config: Config | None = None) -> None:
        """Open a folder of checkpoints.

        Args:
          folder: `checkpoints` of a run, or another folder that checkpoints were copied to.
          config: the run's configuration, for saving; None: only read, without changing the folder.
        """
        self._folder = folder if in_bucket(folder) else folder.absolute()
        self._described: dict[str, Any] = {}
        self._usable = UsableCheckpoints(self._folder)
        self._saving_step: int | None = None
        if config:
            if not in_bucket(folder):
                self._folder.mkdir(exist_ok=True)
            tokenizer = Tokenizer.from_run(self._folder.parent)
            self._described["config"] = ocp.args.JsonSave(dataclasses.asdict(config))
            self._described["vocabulary"] = ocp.args.JsonSave(tokenizer.to_json())
            if task := run_folder.read_task(self._folder.parent):
                self._described["task"] = ocp.args.JsonSave(task)
        arrays = {name: ocp.StandardCheckpointHandler() for name in _ITEMS}
        described = {name: ocp.JsonCheckpointHandler() for name in _DESCRIBED}
        with checkpoint_errors.listing(self._folder):
            self._manager = ocp.CheckpointManager(
                self._folder,
                # Handlers by name let a process that has not saved read shapes.
                item_handlers=arrays | described,
                options=ocp.CheckpointManagerOptions(
                    preservation_policy=_kept(config) if config else None,
                    cleanup_tmp_directories=config is not None,
                    read_only=config is None,
                    create=False,
                    # With asynchronous creation a thread waits until its timeout for folders that
                    # could not be created. This delays the program's exit.
                    async_options=ocp.AsyncOptions(
                        create_directories_asynchronously=False,
                        post_finalization_callback=self._write_checksums,
                    ),
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
        # Closing waits for a save in progress. Its failure must not hide an earlier error.
        with contextlib.suppress(Exception) if error else checkpoint_errors.saving(self._folder):
            self._manager.close()

    def latest(self) -> int | None:
        """Return the step of the last complete checkpoint, or None."""
        with checkpoint_errors.listing(self._folder):
            return self._manager.latest_step()

    def newest(self, parts: Collection[str] | None = None) -> int | None:
        """Return the step of the newest usable checkpoint, as `UsableCheckpoints.newest` does."""
        return self._usable.newest(parts)

    def _write_checksums(self) -> None:
        """Write the checksums of the checkpoint being saved, in the first process, before commit.

        Orbax calls this method after all processes have written their arrays.
        """
        folder = self._folder / str(self._saving_step)
        if not in_bucket(folder):  # on a disk Orbax renames the folder when it is complete
            folder = folder.with_name(f"{folder.name}.orbax-checkpoint-tmp")
        checksums.write(folder)

    def save(self, state: TrainState) -> None:
        """Save a state; return once it is copied, while the write continues in the background.

        Raises:
          CheckpointError: the previous save failed, for example on a full disk.
        """
        with checkpoint_errors.saving(self._folder):
            items = {name: getattr(state, field) for name, field in _ITEMS.items()}
            args = {
                name: ocp.args.StandardSave(item)
                for name, item in items.items()
                if jax.tree.leaves(item)
            }
            args |= self._described
            self._manager.wait_until_finished()
            self._saving_step = int(state.step)
            self._manager.save(int(state.step), args=ocp.args.Composite(**args))

    def check(self) -> None:
        """Raise CheckpointError if a background save has failed."""
        if not self._manager.is_saving_in_progress():
            with checkpoint_errors.saving(self._folder):
                self._manager.wait_until_finished()

    def restore_newest(self, like: TrainState) -> TrainState | None:
        """Restore the newest usable checkpoint; every process must call it.

        Newer checkpoints, which are damaged, are renamed to STEP.damaged.

        Args:
          like: as in `restore`.

        Returns:
          The restored state; None if there is no checkpoint.

        Raises:
          CheckpointError: every checkpoint is damaged, or as `restore`.
        """
        while (step := self.newest()) is not None:
            try:
                state = self.restore(step, like)
            except UncheckedError as error:
                if jax.process_count() > 1:  # another process may have read its part
                    raise
                self._usable.reject(step, str(error))
                continue
            if self._usable.set_others_aside(step):
                with checkpoint_errors.listing(self._folder):
                    self._manager.reload()
            return state
        return None

    def restore(self, step: int, like: TrainState) -> TrainState:
        """Restore a state for training, regardless of the devices that saved it.

        If the checkpoint lacks a configured average, the average starts from the parameters.

        Args:
          step: the checkpoint's step.
          like: the state's shapes, types and shardings.

        Raises:
          CheckpointError: the checkpoint is of a model of another size, is damaged, or cannot be
            read.
        """
        self._usable.verify(step)
        if other := self._find_other_type(step, like.params):
            raise CheckpointError(
                f"{self._folder / str(step)} is not float32 (tensor {other}): an earlier release "
                "saved it with JAX_ENABLE_X64=1, so it cannot be resumed bit for bit: use "
                "--start-from in a new run"
            )
        wanted = {name: getattr(like, field) for name, field in _ITEMS.items()}
        averages = bool(wanted["average"])
        if not (averages and self._has(step, "average")):
            del wanted["average"]
        restored = self._restore(step, wanted)
        average = restored.get("average", {})
        if averages and not average:
            average = jax.tree.map(jnp.copy, restored["params"])
        return TrainState(
            step=jax.device_put(jnp.int32(step), like.step.sharding),
            params=restored["params"],
            optimizer=restored["optimiser"],
            watch=restored["watch"],
            average=average,
        )

    def restore_params(self, step: int, config: Config) -> tuple[PyTree, bool]:
        """Restore the parameters for use: their average if the checkpoint has one.

        Returns:
          The parameters, and whether they are an average.

        Raises:
          CheckpointError: as `restore` does, or a parameter is not finite.
        """
        self._usable.verify(step)
        like = state_shapes(config, one_device()).params | self._head(step)
        if other := self._find_other_type(step, like):
            progress.warn(
                f"svilm-train: {self._folder / str(step)} is cast to float32: tensor {other}",
            )
        name = "average" if self._has(step, "average") else "params"
        params = self._restore(step, {name: like})[name]
        try:
            finite_tensors(f"{self._folder / str(step)}, {name}", by_name(params))
        except NonFiniteError as error:
            raise CheckpointError(
                f"{error}: such a model is useless; remove that folder to use the checkpoint "
                "before it, or train again with a lower optimizer.learning_rate"
            ) from error
        return params, name == "average"

    def restore_newest_params(
        self, config: Config, tokenizer: Tokenizer
    ) -> tuple[int, PyTree, bool] | None:
        """Restore the parameters of the newest usable checkpoint.

        Every process must call it.

        Args:
          config: the configuration in the run's folder.
          tokenizer: the tokenizer in the run's folder.

        Returns:
          The step, and the values of `restore_params`; None if there is no checkpoint.

        Raises:
          CheckpointError: every checkpoint is damaged, or as `check_same` and `restore_params`.
        """
        while (step := self.newest(("params", "average", *_DESCRIBED))) is not None:
            try:
                restored = self.restore_params(step, config)
                self.check_same(step, config, tokenizer)
                return (step, *restored)
            except UncheckedError as error:
                if jax.process_count() > 1:
                    raise
                self._usable.reject(step, str(error))
        return None

    def describe(self, step: int) -> tuple[Config, Tokenizer, dict[str, Any] | None]:
        """Return a checkpoint's configuration and tokenizer, and its task or None.

        Raises:
          CheckpointError: they are damaged, of another release of svilm, or cannot be read.
        """
        self._usable.verify(step)
        names = ["config", "vocabulary", *(["task"] if self._has(step, "task") else [])]
        args = {name: ocp.args.JsonRestore() for name in names}
        with self._readable(step):
            found = self._manager.restore(step, args=ocp.args.Composite(**args))
            tokenizer = Tokenizer.from_json(found["vocabulary"])
        try:
            config = Config.from_json(json.dumps(found["config"]))
        except ValueError as error:
            raise CheckpointError(
                f"{self._folder / str(step)} is from another release of svilm, or its config is "
                f"damaged: {error}"
            ) from error
        return config, tokenizer, found.get("task")

    def check_same(self, step: int, config: Config, tokenizer: Tokenizer) -> None:
        """Compare the files of the run's folder with a checkpoint's copies of them.

        Raises:
          CheckpointError: a file differs in what a continued run may not change, or as `describe`.
        """
        run = self._folder.parent
        if found := run_folder.find_edited(run, config, tokenizer, *self.describe(step)):
            name, differs = found
            raise CheckpointError(
                f"{run / name} differs from the copy in checkpoint {step}: {differs} in the "
                f"checkpoint: restore the run's original {name}, or use "
                f"{self._folder / str(step)}, which has its own copy"
            )

    def _has(self, step: int, item: str) -> bool:
        with self._readable(step):
            return (self._folder / str(step) / item).exists()

    def _head(self, step: int) -> dict[str, Any]:
        with self._readable(step):
            return head_shapes(saved_params(self._folder / str(step)))

    def _find_other_type(self, step: int, like: PyTree) -> str | None:
        with self._readable(step):
            saved = saved_params(self._folder / str(step))
        return find_other_type(self._folder / str(step), saved, like)

    def _restore(self, step: int, like: dict[str, PyTree]) -> dict[str, Any]:
        args = {name: ocp.args.StandardRestore(item) for name, item in like.items()}
        with self._readable(step):
            restored = self._manager.restore(step, args=ocp.args.Composite(**args))
        return {name: restored[name] for name in like}

    def _readable(self, step: int) -> contextlib.AbstractContextManager[None]:
        verified = self._usable.is_verified(step)
        return checkpoint_errors.reading(self._folder / str(step), verified)


def _kept(config: Config) -> AnyPreservationPolicy:
    policies: list[Any] = [LatestN(config.checkpoint_keep)]
    if config.checkpoint_keep_every is not None:
        policies.append(EveryNSteps(config.checkpoint_keep_every))
    return AnyPreservationPolicy(policies)


def load(run: str | os.PathLike[str]) -> Loaded:
    """Load a run's model for use: the average of its parameters, if the run kept one.

    Args:
      run: the folder that `svilm-train pretrain --out` wrote, on a disk or gs://bucket/folder, for
        its last checkpoint; or a checkpoint, RUN/checkpoints/STEP, or a copy of it under the same
        name.

    Raises:
      RunError: `run` is neither.
      CheckpointError: the run has no checkpoint yet, or one that does not fit its configuration.
    """
    folder = run_path(run)
    if folder.name.isdecimal() and _is_dir(folder / "config"):
        with Checkpoints(folder.parent) as checkpoints:
            step = int(folder.name)
            config, tokenizer, task = checkpoints.describe(step)
            params, averaged = checkpoints.restore_params(step, config)
            return Loaded(config, tokenizer, params, step, averaged, task, _run_of(folder))
    config, tokenizer = run_folder.read(folder)
    if not _is_dir(folder / "checkpoints"):
        raise CheckpointError(_no_checkpoint(folder))
    with Checkpoints(folder / "checkpoints") as checkpoints:
        found = checkpoints.restore_newest_params(config, tokenizer)
        if found is None:
            raise CheckpointError(_no_checkpoint(folder))
        step, params, averaged = found
        task = run_folder.read_task(folder)
        return Loaded(config, tokenizer, params, step, averaged, task, folder)


def check_settings(run: RunPath) -> None:
    """Compare the files of a run's folder with the copies in its newest checkpoint.

    Every process must call it. A run without a checkpoint passes.

    Raises:
      CheckpointError: a file differs in what a continued run may not change.
      RunError, VocabularyError: the folder is no run, or a file is damaged.
    """
    if not run_folder.checkpoint_steps(run / "checkpoints"):
        return
    with Checkpoints(run / "checkpoints") as checkpoints:
        if (step := checkpoints.newest(_DESCRIBED)) is not None:
            checkpoints.check_same(step, *run_folder.read(run))


def _run_of(folder: RunPath) -> RunPath | None:
    """Return the run folder that contains a checkpoint; None if the checkpoint was copied."""
    folder = folder if in_bucket(folder) else folder.absolute()
    return folder.parent.parent if folder.parent.name == "checkpoints" else None


def _is_dir(path: RunPath) -> bool:
    with as_os_errors(os.fspath(path)) if in_bucket(path) else contextlib.nullcontext():
        return path.is_dir()


def _no_checkpoint(folder: RunPath) -> str:
    return (
        f"run {folder} has no checkpoint yet: wait for the first (every checkpoint_every steps), "
        "or run its `svilm-train pretrain` command to the end"
    )
