"""Training loop: it reads batches, updates parameters, writes metrics and saves checkpoints."""

import collections
import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from trainer import progress
from trainer.configs.config import Config
from trainer.data import order
from trainer.data.columns import read as read_column
from trainer.data.mixture import Mixture
from trainer.data.prefetch import prefetch
from trainer.data.selection import select
from trainer.data.snapshot import Snapshot
from trainer.data.tokenizer import Tokenizer
from trainer.distributed import multihost
from trainer.distributed.mesh import make_mesh, shardings
from trainer.errors import UserError
from trainer.method.optimizer import learning_rate
from trainer.method.run_scalars import run_scalars
from trainer.method.train_step import TrainState
from trainer.runs import lineage, run_folder, run_lock, seen_clips
from trainer.runs.checkpoint import Checkpoints, check_settings
from trainer.runs.run_path import RunPath, run_path
from trainer.training import run_length, selected_clips, weights_and_biases
from trainer.training.bad_step_report import BadSteps
from trainer.training.device_batch import on_devices
from trainer.training.initialization import Start
from trainer.training.metric_writer import Metrics
from trainer.training.objective import Objective, Pretraining
from trainer.training.preemption import stop_requests
from trainer.training.profiling import Profile
from trainer.training.skipped_clips import SkippedClips
from trainer.training.throughput import ThroughputMeter
from trainer.training.validation import RetrievalValidation

# Number of steps that the device may be behind. With two it never waits for Python, and batches do
# not fill its memory. Bad steps are detected this many steps later.
_STEPS_AHEAD = 2


class Monitoring(NamedTuple):
    """Monitoring options of a training run, which do not change the run."""

    eval_snapshot: str | os.PathLike[str] | None = None  # clips for zero-shot retrieval
    profile: tuple[int, int] | None = None  # first and last step of a trace, counted from 1
    wandb_project: str | None = None
    allow_seen: bool = False  # evaluates also on clips that the run is trained on


class TrainingError(UserError, RuntimeError):
    """A run that cannot start or continue."""


def pretrain(
    config: Config,
    snapshot: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    run: str | os.PathLike[str],
    vocabulary: str | os.PathLike[str] | None = None,
    start: Start | None = None,
    monitoring: Monitoring | None = None,
    columns: Sequence[str | os.PathLike[str]] = (),
) -> bool:
    """Pre-train a model, or continue a run (`train`).

    Args:
      config: the run's configuration.
      snapshot: folder of the clips to train on, or several (`config.input.weights`); on a disk,
        gs://bucket/folder or s3://bucket/folder.
      run: folder of the run.
      vocabulary: as in `train`.
      start: as in `train`.
      monitoring: as in `train`.
      columns: files of the columns that `config.input.where` and `weights_column` name.

    Raises:
      MixtureError: the snapshots and `config.input.weights` do not make a mixture.
      ColumnError, WhereError: the columns do not select clips of the snapshots.
      And the errors of `train`.
    """
    # This check is not in `train`: fine-tuning disables cut-and-paste alone, and has its own loss.
    if config.loss.temporal_weight and not config.cut_and_paste.enabled:
        raise TrainingError(
            "without cut-and-paste each window is from one clip, and the temporal loss is 0: set "
            "loss.temporal_weight=0, or cut_and_paste.enabled=true"
        )
    folders = [snapshot] if isinstance(snapshot, str | os.PathLike) else snapshot
    snapshots = lineage.open_snapshots(run_path(run), folders)
    selections = select(snapshots, map(read_column, columns), config.input)
    clips = Mixture(snapshots, config.input.weights, selections)
    return train(Pretraining(clips), config, run, vocabulary, start, monitoring)


def train(
    objective: Objective,
    config: Config,
    run: str | os.PathLike[str],
    vocabulary: str | os.PathLike[str] | Tokenizer | None = None,
    start: Start | None = None,
    monitoring: Monitoring | None = None,
) -> bool:
    """Train a model, or continue a run; save its last state as a checkpoint.

    A run may be interrupted at any point and continued. Its losses are those of an uninterrupted
    run, to the last bit on a CPU, because batches and noise follow from (seed, step).

    Args:
      objective: pre-training or a downstream task.
      config: the run's configuration.
      run: folder of the run, on a disk or gs://bucket/folder; created if missing, continued
        otherwise (see runs/run_folder.py).
      vocabulary: BERT's vocab.txt or tokenizer.json, or a tokenizer; None for that of `start`, or
        one trained on the captions.
      start: sources of the first parameters; None: all random. A continued run no longer needs
        them.
      monitoring: monitoring options; None: no monitoring.

    Returns:
      True if it is trained to its end; False if a signal to any of its processes stopped it early.
      Its state is saved in that case too.

    Raises:
      TrainingError: batch, crop or vocabulary do not fit the snapshot, or the devices' memory does
        not hold the state or a step.
      BadStepError: a step would have spoilt the run; nothing was saved after it.
      RunError: the folder's run was started with other settings.
      SeenError: the run is trained on some of the clips to evaluate it on.
      LockedError: another command is writing to the folder; nothing in it was changed.
      SnapshotError, VocabularyError, CheckpointError, WeightsError: as their messages say.
    """
    if jax.dtypes.canonicalize_dtype(float) != jnp.float32:
        raise TrainingError(
            "JAX uses 64 bits (JAX_ENABLE_X64 or jax_enable_x64), but checkpoints are float32: "
            "unset it"
        )
    run = run_path(run)
    with _locked(run, objective.job) as lock:
        return _begin_or_continue(
            objective,
            config,
            run,
            vocabulary,
            start or Start(),
            monitoring or Monitoring(),
            lock,
        )


@contextlib.contextmanager
def _locked(run: RunPath, job: str) -> Iterator[run_lock.Lock | None]:
    """Lock the run's folder in the first process; if that fails, raise in all processes."""
    with contextlib.ExitStack() as stack:
        lock = refused = None
        if multihost.is_first():
            try:
                lock = stack.enter_context(run_lock.held(run, job))
            except (run_lock.LockedError, OSError) as error:
                refused = error
        in_use = isinstance(refused, run_lock.LockedError)
        said = multihost.gather_from_processes([f"{in_use:d}{refused}"] if refused else [])
        if refused:
            raise refused
        if said:  # refused in the first process: the others end with the same status
            raise (run_lock.LockedError if said[0][0] == "1" else OSError)(said[0][1:])
        yield lock


def _known_to(
    run: RunPath, vocabulary: str | os.PathLike[str] | None, start: Start, job: str
) -> Tokenizer | None:
    """Return the tokenizer in the run, as its start may be gone; None if captions trained it."""
    if vocabulary is None:
        return Tokenizer.from_run(run) if start.text or start.run else None
    known, differs = Tokenizer.to_continue(run, vocabulary)
    if differs and multihost.is_first():
        progress.warn(
            f"{job}: {run} was started by an earlier release, and keeps lower-casing text, unlike "
            f"{vocabulary} ({differs})"
        )
    return known


def _begin_or_continue(
    objective: Objective,
    config: Config,
    run: RunPath,
    vocabulary: str | os.PathLike[str] | Tokenizer | None,
    start: Start,
    monitoring: Monitoring,
    lock: run_lock.Lock | None,
) -> bool:
    # All processes must do this: to read another run's checkpoint they wait for each other.
    check_settings(run)
    origin = run_folder.read_origin(run, start.options()) or start.origin(config)
    config = origin.configure(config)
    test_clips = probe = None
    try:
        selected_clips.check_same_everywhere(objective.clips)
        known = _find_tokenizer(run, vocabulary, start, objective.job)
        mesh = make_mesh(config)
        steps = order.total_steps(objective.visits, config.batch, config.epochs, config.max_steps)
        if monitoring.eval_snapshot:
            test_clips = Snapshot.open(monitoring.eval_snapshot)
        if multihost.is_first():
            recorded = seen_clips.of_run(run) if _has_checkpoint(run) else None
            has_seen = recorded or _find_seen_clips(objective, start)
            if test_clips is not None:
                among = seen_clips.overlap(has_seen, test_clips)
                seen_clips.refuse(among, allowed=monitoring.allow_seen)
                progress.say(f"{objective.job}: {among.sentence()}")
            run_folder.start_or_continue(
                run, config, objective.clips, known, origin, objective.task, steps=steps
            )
            if recorded is None:
                seen_clips.keep(run, has_seen)
            if not _has_checkpoint(run):
                lineage.keep(run, objective.clips, start.run)
        multihost.wait_for_all("the run's folder is there")
        for one in objective.clips.snapshots:  # A tag may move while processes start.
            run_folder.check_trained_on(run, one)
        config, tokenizer = run_folder.read(run)
        if test_clips is not None:
            probe = RetrievalValidation(test_clips, tokenizer, config, mesh)
    except ValueError as error:
        raise TrainingError(str(error)) from None

    with Checkpoints(run / "checkpoints", config) as checkpoints:
        first = multihost.is_first()
        if checkpoints.newest() == steps:
            if first and (monitoring.eval_snapshot or monitoring.profile):
                progress.warn(
                    f"{objective.job}: the run is complete, so no step is measured or traced: use "
                    "svilm-train evaluate"
                )
            return True
        if first:
            _announce(objective, config, steps, monitoring)
        state = _restore_or_init(objective, config, mesh, start, checkpoints)
        start_step = int(state.step)
        record = None
        if monitoring.wandb_project and first:
            settings = dataclasses.asdict(config)
            record = weights_and_biases.begin(run, monitoring.wandb_project, settings)
        writes = Metrics(run, start_step, steps, record, objective.job) if first else None
        with writes or contextlib.nullcontext() as metrics:
            job = _Job(
                run=run,
                objective=objective,
                config=config,
                tokenizer=tokenizer,
                mesh=mesh,
                start=start_step,
                steps=steps,
                checkpoints=checkpoints,
                bad_steps=BadSteps(run, config, start=start_step, writes=first),
                metrics=metrics,
                probe=probe,
                profile=Profile(run, monitoring.profile),
                lock=lock,
            )
            with _in_memory(
                f"a step with batch {config.batch} exceeds the device's memory: use --set "
                "compute.microbatches=2 or more, or compute.remat=block, or a smaller batch"
            ):
                return _train(state, job)


def _has_checkpoint(run: RunPath) -> bool:
    return bool(run_folder.checkpoint_steps(run / "checkpoints"))


def _find_tokenizer(
    run: RunPath,
    vocabulary: str | os.PathLike[str] | Tokenizer | None,
    start: Start,
    job: str,
) -> Tokenizer | None:
    """Return the tokenizer that the options give; None if the captions are to train one."""
    if isinstance(vocabulary, Tokenizer):
        return vocabulary
    if _has_checkpoint(run):
        return _known_to(run, vocabulary, start, job)
    return start.tokenizer(vocabulary)


def _find_seen_clips(objective: Objective, start: Start) -> seen_clips.Seen:
    """Return the clips that a new run can have seen at its end."""
    weights = [path for path in (start.video, start.text) if path]
    return seen_clips.gather(objective.clips.snapshots, start.run, weights)


def _restore_or_init(
    objective: Objective, config: Config, mesh: Mesh, start: Start, checkpoints: Checkpoints
) -> TrainState:
    """Return the newest checkpoint's state, or a new one with the starting weights."""
    with (
        _busy(f"{objective.job}: initializing the model"),
        _in_memory(
            "parameters and optimizer state exceed the devices' memory: shard them over more "
            "devices with --set mesh.fsdp=2 or more, or use a smaller model"
        ),
    ):
        if checkpoints.newest() is not None:
            restored = checkpoints.restore_newest(objective.state_shapes(config, mesh))
            if restored is not None:
                return restored
        state = objective.init_state(config, mesh)
        filled = start.fill(state.params, config)
        params = jax.device_put(filled, shardings(filled, mesh))
        average = jax.tree.map(jnp.copy, params) if config.average_decay else {}
        state = dataclasses.replace(state, params=params, average=average)
        return jax.block_until_ready(state)


def _announce(objective: Objective, config: Config, steps: int, monitoring: Monitoring) -> None:
    """Print on stderr the run's limit and selection, and what so few steps leave out."""
    evaluates = monitoring.eval_snapshot is not None
    left_out = run_length.find_left_out(
        config, steps, evaluates=evaluates, profile=monitoring.profile
    )
    selected = selected_clips.describe(objective.clips, config)
    for line in (run_length.describe(config, objective.visits), *selected, *left_out):
        progress.say(f"svilm-train: {line}")


@contextlib.contextmanager
def _in_memory(advice: str) -> Iterator[None]:
    """Raise TrainingError with the advice if the devices' memory runs out."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise TrainingError(advice) from error


class _Job(NamedTuple):
    """All inputs of a training loop besides the state."""

    run: RunPath
    objective: Objective
    config: Config
    tokenizer: Tokenizer
    mesh: Mesh
    start: int  # number of steps done
    steps: int  # number of steps of the whole run
    checkpoints: Checkpoints
    bad_steps: BadSteps
    metrics: Metrics | None  # only in the first process
    probe: RetrievalValidation | None
    profile: Profile
    lock: run_lock.Lock | None  # only in the first process


def _train(state: TrainState, job: _Job) -> bool:
    config, steps, mesh = job.config, job.steps, job.mesh
    rate = learning_rate(config.optimizer, run_scalars(config, steps))
    skipped = SkippedClips(job.run, start=job.start, writes=job.metrics is not None)
    host_batches = job.objective.batches(
        job.tokenizer,
        config,
        start_step=job.start,
        host=jax.process_index(),
        hosts=jax.process_count(),
        on_skip=skipped.add,
    )
    batches = prefetch(
        host_batches,
        lambda made: (on_devices(made[1], mesh, config.video.resolution), made[2]),
    )
    in_flight: collections.deque[tuple[int, dict[str, jax.Array], list[str]]] = collections.deque()
    pace = ThroughputMeter(config, mesh, job.objective.step_flops(config), start=job.start)

    replaced = 0  # number of corrupt clips since the last logged step
    compiling = _busy(f"{job.objective.job}: compiling the step, usually for less than a minute")
    with contextlib.closing(batches), stop_requests() as stops_at:
        for done in range(job.start + 1, steps + 1):
            job.profile.before(done)
            with pace.waiting():
                batch, clips = next(batches)
            with compiling if done == job.start + 1 else contextlib.nullcontext():
                state, measured = job.objective.train_step(state, batch, config, steps, mesh)
            measured["bad_in_a_row"].copy_to_host_async()
            in_flight.append((done, measured, clips))
            stops = stops_at(done)
            ends = done == steps or stops
            job.profile.after(done, measured, ends=ends)
            probes = job.probe and (done == steps or done % config.evaluate_every == 0)
            logs = done in (1, steps) or done % config.log_every == 0 or probes
            saves = ends or done % config.checkpoint_every == 0
            while len(in_flight) > (0 if logs or saves else _STEPS_AHEAD):
                job.bad_steps.check(*in_flight.popleft(), job.checkpoints.latest())
            if job.lock:
                job.lock.check()
            if job.metrics:
                job.metrics.progress(done)
            if logs or saves:
                replaced += skipped.write(done)
            if logs:
                job.checkpoints.check()
                values = _logged(measured, done, config, rate) | pace.read(done)
                epoch = (done - 1) // order.steps_per_epoch(job.objective.visits, config.batch)
                values = {"epoch": epoch, "loss": values["loss"]} | values
                values["corrupt_records"], replaced = replaced, 0
                if job.probe and probes:
                    with pace.paused():
                        values |= job.probe.measure(state)
                if job.metrics:
                    job.metrics.write(done, values)
            if saves:
                # A continued run does not repeat steps before a checkpoint, so their metrics must
                # be written first.
                if job.metrics:
                    job.metrics.flush()
                job.checkpoints.save(state)
            if ends:
                return done == steps
    raise AssertionError("there is no step to train")


def _busy(what: str) -> contextlib.AbstractContextManager[None]:
    """Show in the first process that a long operation is in progress."""
    return progress.busy(what) if multihost.is_first() else contextlib.nullcontext()


def _logged(
    measured: dict[str, jax.Array],
    done: int,
    config: Config,
    rate: Callable[[jax.Array], jax.Array],
) -> dict[str, float]:
    """Return a step's metrics in the form of metrics.jsonl."""
    values = {name: float(value) for name, value in measured.items()}
    updates = max(done - 1 - values["skipped_steps"], 0)  # number of updates before this step
    unlogged = {"bad_in_a_row", "mean_loss", "state_finite"}
    if config.on_bad_step == "stop":
        unlogged.add("skipped_steps")
    figures = {name: value for name, value in values.items() if name not in unlogged}
    return figures | {"learning_rate": float(rate(jnp.int32(updates)))}
