"""Pre-training: batches in, updates made, metrics written, checkpoints kept."""

import collections
import contextlib
import math
import os
import pathlib
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding

from trainer import processes, run_folder
from trainer.checkpoint import Checkpoints
from trainer.configs.config import Config
from trainer.data import order
from trainer.data.ahead import ahead
from trainer.data.batches import train_batches
from trainer.data.mixture import Mixture
from trainer.data.snapshot import Snapshot
from trainer.data.tokenise import Tokeniser
from trainer.mesh import PER_CLIP, make_mesh, shardings
from trainer.metrics import Metrics
from trainer.optimiser import learning_rate
from trainer.step import TrainState, init_state, train_step
from trainer.weights.start import Start

# Steps that the device may be behind: enough that it never waits for Python, and few enough that
# batches do not pile up in its memory.
_STEPS_AHEAD = 2


class TrainingError(RuntimeError):
    """A run that cannot start, or cannot go on."""


def pretrain(
    config: Config,
    snapshot: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    run: str | os.PathLike[str],
    vocabulary: str | os.PathLike[str] | None = None,
    start: Start | None = None,
) -> signal.Signals | None:
    """Trains a model, or continues to; saves its last state as a checkpoint.

    The losses of a run that was interrupted at any point and continued are those of one that was
    not, to the last bit on a CPU: batches and noise follow from (seed, step).

    Args:
      config: the run's.
      snapshot: folder of the clips to train on, or several (`config.input.weights`); on a disk or
        gs://bucket/folder.
      run: folder of the run, made if it is not there, continued if it is (see run_folder.py).
      vocabulary: BERT vocab.txt; None for the one that `start` knows, or one trained on the
        captions.
      start: where the first parameters come from; None: all at random.

    Returns:
      The signal that ended it early, or None.

    Raises:
      TrainingError: batch, crop or vocabulary do not fit the snapshot; the device's memory does
        not hold the step; or the loss is no longer a finite number.
      RunError: the folder's run was started with something else.
      SnapshotError, VocabularyError, CheckpointError, WeightsError: what they say.
    """
    folders = [snapshot] if isinstance(snapshot, str | os.PathLike) else snapshot
    snapshots = [Snapshot.open(folder) for folder in folders]
    run, start = pathlib.Path(run), start or Start()
    config = start.configure(config)
    known = start.vocabulary() if vocabulary is None else vocabulary
    try:
        clips = Mixture(snapshots, config.input.weights)
        mesh = make_mesh(config)
        steps = order.total_steps(clips.visits, config.batch, config.epochs, config.max_steps)
        identity = start.identity()  # by all: to read a run's checkpoint they wait for each other
        if processes.is_first():
            run_folder.start_or_continue(run, config, clips, known, identity)
        processes.wait_for_all("the run's folder is there")
        config, tokeniser = run_folder.read(run)
    except ValueError as error:
        raise TrainingError(str(error)) from None

    with Checkpoints(run) as checkpoints:
        last = checkpoints.latest()
        if last == steps:
            return None
        if last is None:
            state = init_state(config, steps, mesh)
            filled = start.fill(state.params, config)
            state = state.replace(params=jax.device_put(filled, shardings(filled, mesh)))
        else:
            state = checkpoints.restore(last, config, steps, mesh)
        writes = Metrics(run, start=last or 0, steps=steps) if processes.is_first() else None
        with writes or contextlib.nullcontext() as metrics:
            try:
                return _train(state, clips, tokeniser, config, steps, mesh, checkpoints, metrics)
            except jax.errors.JaxRuntimeError as error:
                if "RESOURCE_EXHAUSTED" not in str(error):
                    raise
                raise TrainingError(
                    f"a step with batch {config.batch} does not fit the device's memory: use "
                    "--set batch=… with a smaller one"
                ) from error


def _train(
    state: TrainState,
    mixture: Mixture,
    tokeniser: Tokeniser,
    config: Config,
    steps: int,
    mesh: Mesh,
    checkpoints: Checkpoints,
    metrics: Metrics | None,
) -> signal.Signals | None:
    start = int(state.step)
    schedule = learning_rate(config.optimiser, steps)
    per_clip = NamedSharding(mesh, PER_CLIP)
    skipped: list[str] = []

    def skip(message: str) -> None:
        skipped.append(message)
        print(f"svilm-train: left out a clip: {message}", file=sys.stderr)

    host_batches = train_batches(
        mixture,
        tokeniser,
        config,
        start_step=start,
        host=jax.process_index(),
        hosts=jax.process_count(),
        on_skip=skip,
    )
    batches = ahead(
        host_batches,
        lambda made: jax.tree.map(
            lambda ours: jax.make_array_from_process_local_data(per_clip, ours), made[1]
        ),
    )
    in_flight: collections.deque[jax.Array] = collections.deque()
    waited, logged, logged_at = 0.0, start, time.monotonic()
    stops = False

    with contextlib.closing(batches), _caught_signals() as signals:
        for done in range(start + 1, steps + 1):
            began = time.monotonic()
            batch = next(batches)
            waited += time.monotonic() - began
            state, measured = train_step(state, batch, config=config, steps=steps, mesh=mesh)
            in_flight.append(measured["loss"])
            if len(in_flight) > _STEPS_AHEAD:
                jax.block_until_ready(in_flight.popleft())
            if metrics:
                metrics.progress(done)

            logs = done in (1, steps) or done % config.log_every == 0
            # Several processes must stop at one step, and asking each other makes them wait.
            if logs or jax.process_count() == 1:
                stops = processes.any_of(bool(signals))
            ends = done == steps or stops
            saves = ends or done % config.checkpoint_every == 0
            if logs or saves:
                values = {name: float(value) for name, value in measured.items()}
                _check_finite(values["loss"], done, checkpoints.latest())
            if logs:
                corrupt = processes.total(len(skipped))
                skipped.clear()
            if logs and metrics:
                now = time.monotonic()
                elapsed = now - logged_at
                metrics.write(
                    done,
                    {
                        "epoch": (done - 1) // order.steps_per_epoch(mixture.visits, config.batch),
                        "loss": values["loss"],
                    }
                    | values
                    | {
                        "learning_rate": float(jnp.asarray(schedule(done - 1))),
                        "clips_per_second": (done - logged) * config.batch / elapsed,
                        "input_wait": waited / elapsed,
                        "corrupt_records": corrupt,
                    },
                )
                waited, logged, logged_at = 0.0, done, now
            if saves:
                checkpoints.save(state)
            if ends:
                break
    if stops and done < steps:
        return signal.Signals(signals[0]) if signals else signal.SIGTERM
    return None


def _check_finite(loss: float, step: int, checkpoint: int | None) -> None:
    if not math.isfinite(loss):
        kept = "no checkpoint was saved" if checkpoint is None else f"step {checkpoint} is kept"
        raise TrainingError(
            f"the loss is {loss} at step {step} ({kept}): train again into another folder with a "
            "lower optimiser.learning_rate"
        )


@contextlib.contextmanager
def _caught_signals() -> Iterator[list[int]]:
    """Collects SIGINT and SIGTERM, so that a step is finished and saved; a second one kills."""
    received: list[int] = []
    before: dict[int, Any] = {
        number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)
    }

    def receive(number: int, frame: FrameType | None) -> None:
        received.append(number)
        signal.signal(number, before[number])
        # Not print: the signal may have come in the middle of one.
        os.write(2, b"\nsvilm-train: saving a checkpoint; once more to stop without\n")

    for number in before:
        signal.signal(number, receive)
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
