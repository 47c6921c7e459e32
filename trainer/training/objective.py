"""Objectives of a run, which define a step's examples and its update."""

from collections.abc import Callable, Generator
from typing import Any, Protocol, runtime_checkable

import jax
from jax.sharding import Mesh
from jaxtyping import Array, PyTree, Shaped

from trainer.configs.config import Config
from trainer.data.batches import train_batches
from trainer.data.mixture import Mixture
from trainer.data.stream import Skipped
from trainer.data.tokenizer import Tokenizer
from trainer.distributed import flops
from trainer.method import train_step
from trainer.method.run_scalars import compiled_config, run_scalars
from trainer.method.train_step import TrainState


@runtime_checkable
class Objective(Protocol):
    """Interface of pre-training or a downstream task for the training loop (loop.py).

    Examples and noise follow from (seed, step) alone, so that a run can continue from any step.
    """

    clips: Mixture  # clips to train on
    visits: int  # number of examples per epoch
    job: str  # the command's name, shown beside its progress
    task: dict[str, Any] | None  # a task's settings besides the configuration: runs/run_folder.py

    def init_state(self, config: Config, mesh: Mesh) -> TrainState:
        """Return the state before the first step, from the run's seed."""
        ...

    def state_shapes(self, config: Config, mesh: Mesh) -> TrainState:
        """Return the state's shapes, types and shardings, without values."""
        ...

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
        """Yield batches of the host's examples for `on_devices`, as `train_batches` does."""
        ...

    def train_step(
        self, state: TrainState, batch: PyTree, config: Config, steps: int, mesh: Mesh
    ) -> tuple[TrainState, dict[str, Shaped[Array, ""]]]:
        """Update the parameters once, as `train_step.train_step` does."""
        ...

    def step_flops(self, config: Config) -> int:
        """Return the FLOPs of a step (distributed/flops.py)."""
        ...


class Pretraining:
    """The method's pre-training objective: captioned clips and the three losses."""

    job = "pretrain"
    task: dict[str, Any] | None = None

    def __init__(self, clips: Mixture) -> None:
        """Args: clips: the clips to train on."""
        self.clips, self.visits = clips, clips.visits

    def init_state(self, config: Config, mesh: Mesh) -> TrainState:
        """Return a state with fresh parameters of both encoders."""
        return train_step.init_state(config, mesh)

    def state_shapes(self, config: Config, mesh: Mesh) -> TrainState:
        """Return the shapes, types and shardings of that state."""
        return train_step.state_shapes(config, mesh)

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
        """Yield batches of clips with captions and prompted nouns."""
        return train_batches(
            self.clips,
            tokenizer,
            config,
            start_step=start_step,
            host=host,
            hosts=hosts,
            on_skip=on_skip,
        )

    def train_step(
        self, state: TrainState, batch: PyTree, config: Config, steps: int, mesh: Mesh
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        """Apply cut-and-paste, both encoders, three losses and one update."""
        scalars = run_scalars(config, steps)
        return train_step.train_step(
            state, batch, scalars, config=compiled_config(config), mesh=mesh
        )

    def step_flops(self, config: Config) -> int:
        """Return the analytic FLOPs of the matrix products."""
        return flops.step_flops(config)
