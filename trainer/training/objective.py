"""What a run is trained for: which examples a step sees, and what it makes of them."""

from collections.abc import Callable, Generator
from typing import Any, Protocol, runtime_checkable

import jax
from jax.sharding import Mesh
from jaxtyping import Array, PyTree, Shaped

from trainer.configs.config import Config
from trainer.data.batches import train_batches
from trainer.data.mixture import Mixture
from trainer.data.tokenizer import Tokenizer
from trainer.distributed import flops
from trainer.method import train_step
from trainer.method.train_step import TrainState


@runtime_checkable
class Objective(Protocol):
    """All that the loop (loop.py) asks of pre-training, or of a downstream task.

    Examples and noise follow from (seed, step) alone, so that a run can go on from any step.
    """

    clips: Mixture  # to train on
    visits: int  # examples an epoch
    job: str  # the command's name, beside its progress
    task: dict[str, Any] | None  # what a task's run has besides the configuration: run_folder.py

    def init_state(self, config: Config, steps: int, mesh: Mesh) -> TrainState:
        """The state of a run of so many steps before the first, from the run's seed."""
        ...

    def state_shapes(self, config: Config, steps: int, mesh: Mesh) -> TrainState:
        """Its shapes, types and placement, without the numbers."""
        ...

    def batches(
        self,
        tokenizer: Tokenizer,
        config: Config,
        *,
        start_step: int,
        host: int,
        hosts: int,
        on_skip: Callable[[str], None],
    ) -> Generator[tuple[int, PyTree, list[str]], None, None]:
        """As `train_batches`: batches of the host's examples, as `on_devices` takes them."""
        ...

    def train_step(
        self, state: TrainState, batch: PyTree, config: Config, steps: int, mesh: Mesh
    ) -> tuple[TrainState, dict[str, Shaped[Array, ""]]]:
        """As `step.train_step`."""
        ...

    def step_flops(self, config: Config) -> int:
        """What a step takes (flops.py)."""
        ...


class Pretraining:
    """The method itself: captioned clips and the three losses."""

    job = "pretrain"
    task: dict[str, Any] | None = None

    def __init__(self, clips: Mixture) -> None:
        """Args: clips: to train on."""
        self.clips, self.visits = clips, clips.visits

    def init_state(self, config: Config, steps: int, mesh: Mesh) -> TrainState:
        """Fresh parameters of both encoders."""
        return train_step.init_state(config, steps, mesh)

    def state_shapes(self, config: Config, steps: int, mesh: Mesh) -> TrainState:
        """Of these."""
        return train_step.state_shapes(config, steps, mesh)

    def batches(
        self,
        tokenizer: Tokenizer,
        config: Config,
        *,
        start_step: int,
        host: int,
        hosts: int,
        on_skip: Callable[[str], None],
    ) -> Generator[tuple[int, PyTree, list[str]], None, None]:
        """Clips with captions and prompted nouns."""
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
        """Cut-and-paste, both encoders, three losses."""
        return train_step.train_step(state, batch, config=config, steps=steps, mesh=mesh)

    def step_flops(self, config: Config) -> int:
        """By hand, of the matrix products."""
        return flops.step_flops(config)
