"""Fine-tuning of a downstream task from a pre-trained run, in trainer/training/loop.py."""

import dataclasses
import os
from collections.abc import Callable, Generator, Sequence
from functools import partial
from typing import Any, Generic

import jax
import jax.numpy as jnp
import numpy as np
from jax import random
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int64, PyTree, Shaped, UInt32

from trainer.configs.config import Config
from trainer.configs.fields import build
from trainer.configs.overrides import override
from trainer.data.annotations import read_annotations
from trainer.data.batches import Examples, example_batches
from trainer.data.mixture import Mixture
from trainer.data.stream import Skipped
from trainer.data.tokenizer import Tokenizer
from trainer.data.types import ExampleBatch
from trainer.distributed.flops import fine_tuning_flops
from trainer.distributed.mesh import gather_params, keep_placed, on_each_device, placed_shapes
from trainer.method.run_scalars import RunScalars, compiled_config, run_scalars, seed_data
from trainer.method.train_step import (
    HEAD,
    TrainState,
    apply_gradients,
    begin,
    clip_keys,
    in_parts,
    init_params,
    with_attention,
)
from trainer.runs import checkpoint, lineage, run_folder
from trainer.runs.run_path import run_path
from trainer.tasks.action import task as action
from trainer.tasks.qa import task as qa
from trainer.tasks.retrieval import task as retrieval
from trainer.tasks.spatiotemporal import task as spatiotemporal
from trainer.tasks.task import COMMON, Settings, Task, TaskError, trained_on
from trainer.training import loop
from trainer.training.initialization import Start

TASKS: dict[str, Task[Any]] = {
    "action": action,
    "qa": qa,
    "retrieval": retrieval,
    "spatiotemporal": spatiotemporal,
}


def finetune(
    task: Task[Settings],
    preset: str,
    pretrained: str | os.PathLike[str],
    snapshots: Sequence[str],
    out: str,
    settings: Sequence[str] = (),
    answers: Sequence[str] | None = None,
    *,
    random_encoder: bool = False,
    monitoring: loop.Monitoring | None = None,
) -> bool:
    """Train a task, or resume its training.

    Args:
      task: one of `TASKS`.
      preset: name of one of the task's recipes.
      pretrained: folder of the run that gives the initial parameters.
      snapshots: folders of the videos to train on; all are used together.
      out: folder of the run. A missing one is created; an existing run is resumed.
      settings: overrides of the recipe: "field=value" for the run's configuration,
        "task.field=value" for the task's.
      answers: the classes; None takes them from the training set. For question answering's 2,423.
      random_encoder: keep the pre-trained run's sizes and vocabulary, but initialize all parameters
        at random. This baseline measures what the head learns by itself.
      monitoring: as in `loop.train`.

    Returns:
      True if training reached its last step, as in `loop.train`.

    Raises:
      TaskError: the snapshots do not fit the task, or `pretrained` is already fine-tuned.
      OverrideError: a setting is not valid.
      And the errors of `loop.train`.
    """
    pretrained, run = run_path(pretrained), run_path(out)
    if chained := run_folder.read_task(pretrained):
        raise TaskError(
            f"{pretrained} is already fine-tuned for {chained['name']}: benchmarks share videos "
            "(MSR-VTT's training set has 1,990 that MSRVTT-QA tests), so give the pre-trained run"
        )
    checkpoint.check_settings(pretrained)
    config, tokenizer = run_folder.read(pretrained)
    own, of_task = configure(task, preset, config, settings)
    clips = Mixture(lineage.open_snapshots(run, snapshots))
    objective = FineTuning(task, of_task, clips, answers)
    start = Start() if random_encoder else Start(run=pretrained)
    return loop.train(objective, own, run, tokenizer, start, monitoring)


def configure(
    task: Task[Settings], preset: str, pretrained: Config, settings: Sequence[str]
) -> tuple[Config, Settings]:
    """Return the configurations of the run and of the task.

    The model, input, loss and compute settings come from the pre-trained run. All other training
    settings come from the recipe, or keep their defaults.

    Raises:
      OverrideError: a setting names an unknown field, or the settings conflict.
      TaskError: the task has no such recipe, or does not support a setting.
    """
    if preset not in task.RECIPES:
        raise TaskError(
            f"{task.NAME} has no preset {preset!r}: give one of {', '.join(task.RECIPES)}"
        )
    recipe = task.RECIPES[preset]
    kept = ("video", "text", "joint_width", "loss", "compute")
    # Weights and columns belong to the snapshots that the run was pre-trained on.
    usual = dataclasses.replace(pretrained.input, weights=(), where=(), weights_column=())
    base = Config(input=usual, **{name: getattr(pretrained, name) for name in kept})
    mine = [one.removeprefix("task.") for one in settings if one.startswith("task.")]
    others = [one for one in settings if not one.startswith("task.")]
    own = override(base, [*COMMON, *recipe.settings, *others])
    chosen = (own.input.weights, own.input.where, own.input.weights_column)
    if own.input.on_corrupt != "stop" or any(chosen):
        raise TaskError(
            "input.on_corrupt=skip, input.weights, input.where and input.weights_column apply to "
            "pre-training only, because a task is trained on each of its examples: leave them out"
        )
    if own.cut_and_paste.enabled:
        raise TaskError("cut_and_paste applies to pre-training only: leave it disabled")
    return own, override(recipe.config, mine)


class FineTuning(Generic[Settings]):
    """A task as an objective of the training loop (trainer/training/objective.py)."""

    job = "finetune"

    def __init__(
        self,
        task: Task[Settings],
        settings: Settings,
        clips: Mixture,
        answers: Sequence[str] | None = None,
    ) -> None:
        """Read the annotations of the clips.

        Args:
          task: the task to train.
          settings: the task's configuration.
          clips: the clips to train on.
          answers: the classes; None takes them from the clips.

        Raises:
          TaskError: the clips lack this task's annotations.
          SnapshotError: a record is damaged.
        """
        annotations = read_annotations(clips)
        classes = list(answers) if answers else task.classes(annotations, settings)
        self.clips = clips
        self.task: dict[str, Any] | None = {
            "name": task.NAME,
            "config": dataclasses.asdict(settings),
            "classes": classes,
            # With --answers, all answers of the files are classes, whatever `config` says.
            "classes_from": "answers" if answers else "snapshots",
            "trained_on": trained_on(clips.snapshots, annotations),
        }
        self._task, self._settings, self._classes = task, settings, len(classes)
        self._examples: Examples = task.examples(annotations, classes, settings)
        self.visits = len(self._examples.records)

    def init_state(self, config: Config, mesh: Mesh) -> TrainState:
        """Initialize the parameters of encoders and head, and the optimizer's state."""
        return _init_state(
            seed_data(config.seed),
            self._task,
            self._settings,
            self._classes,
            compiled_config(config),
            mesh,
        )

    def state_shapes(self, config: Config, mesh: Mesh) -> TrainState:
        """Return the shapes, types and placement of `init_state`, without computing it."""
        fresh = partial(self.init_state, config, mesh)
        return placed_shapes(jax.eval_shape(fresh), mesh)

    def batches(
        self,
        tokenizer: Tokenizer,
        config: Config,
        *,
        start_step: int,
        host: int,
        hosts: int,
        on_skip: Callable[[Skipped], None],
    ) -> Generator[tuple[int, PyTree, list[str]], None, None]:
        """Yield batches of examples.

        A corrupt record stops the run: a replacement would get the label of the corrupt record.
        """
        return example_batches(
            self.clips,
            self._examples,
            tokenizer,
            config,
            start_step=start_step,
            host=host,
            hosts=hosts,
        )

    def train_step(
        self, state: TrainState, batch: PyTree, config: Config, steps: int, mesh: Mesh
    ) -> tuple[TrainState, dict[str, Shaped[Array, ""]]]:
        """Update encoders and head once by the task's loss."""
        return _train_step(
            state,
            batch,
            run_scalars(config, steps),
            task=self._task,
            settings=self._settings,
            config=compiled_config(config),
            mesh=mesh,
        )

    def step_flops(self, config: Config) -> int:
        """Return the FLOPs of a step in the encoders; those of the head are negligible."""
        frozen = self._task.trained(self._settings) is not None
        return config.batch * fine_tuning_flops(config, self._task.TEXTS, frozen=frozen)


def example_records(task: dict[str, Any], clips: Mixture) -> Int64[np.ndarray, " n"]:
    """Return the record of each example of a fine-tuned run, in the order of its examples.

    It reads all records with their frames, which it does not decode.

    Args:
      task: task.json of the run.
      clips: the clips that it was trained on.

    Raises:
      TaskError: the task is unknown, or its configuration is damaged.
      SnapshotError: a record is damaged.
    """
    module = TASKS.get(task["name"])
    if module is None:
        raise TaskError(f"task {task['name']!r} is unknown: give one of {', '.join(TASKS)}")
    recipe = next(iter(module.RECIPES.values()))
    try:
        settings = build(type(recipe.config), task["config"])
    except ValueError as error:
        raise TaskError(
            f"the configuration in task.json is damaged ({error}): restore the file"
        ) from None
    return module.examples(read_annotations(clips), task["classes"], settings).records


@partial(jax.jit, static_argnums=(1, 2, 3, 4, 5))
def _init_state(
    seed: UInt32[Array, " words"],
    task: Task[Settings],
    settings: Settings,
    classes: int,
    config: Config,
    mesh: Mesh,
) -> TrainState:
    key = random.wrap_key_data(seed)
    params = init_params(key, config)
    if head := task.init_head(random.fold_in(key, HEAD), config, settings, classes):
        params["head"] = head
    return keep_placed(begin(params, config, task.trained(settings)), mesh)


@partial(jax.jit, static_argnames=("task", "settings", "config", "mesh"), donate_argnums=0)
def _train_step(
    state: TrainState,
    batch: ExampleBatch,
    scalars: RunScalars,
    *,
    task: Task[Settings],
    settings: Settings,
    config: Config,
    mesh: Mesh,
) -> tuple[TrainState, dict[str, Shaped[Array, ""]]]:
    keys = clip_keys(scalars.key(), state.step, batch.index)
    encode = partial(task.encode, config=with_attention(config, mesh), settings=settings)
    encode = in_parts(encode, config.compute.microbatches)
    losses = partial(task.losses, config=config, settings=settings)

    def loss(params: PyTree) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        params = gather_params(params, mesh)
        encoded = on_each_device(encode, mesh, replicated=1, reduces=False)(params, batch, keys)
        costs = on_each_device(losses, mesh, replicated=1)(params, encoded, batch, keys)
        parts = {name: jnp.mean(of_examples) for name, of_examples in costs.items()}
        return parts["loss"], parts

    return apply_gradients(state, loss, scalars, config, mesh, task.trained(settings))
