"""Training of G-TAD on the features of a frozen encoder, and its predictions.

The recipe is the authors': Adam with L2 in its gradient, and a learning rate divided by 10 half
way. With validation videos, the epoch of their lowest loss is kept. The authors do this with the
same videos that they report on. Without validation videos, the last epoch is kept.
"""

import dataclasses
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PyTree

from trainer.configs.fields import check_above, check_counts, check_range
from trainer.errors import UserError
from trainer.evaluation.segment_files import Found, Video
from trainer.finite import NonFiniteError, finite, finite_tensors
from trainer.runs.tensor_shapes import by_name
from trainer.tasks.localisation import checkpoints, classifier, losses, proposals
from trainer.tasks.localisation.class_scores import ClassScores
from trainer.tasks.localisation.features import VideoFeatures, interpolated
from trainer.tasks.localisation.gtad import GTAD, GtadConfig, Outputs, sampling_of
from trainer.tasks.localisation.targets import Targets, on_axis, targets
from trainer.training.preemption import stop_requests

_AT_ONCE = 16  # videos per batch of `predict`


class LocalisationError(UserError, RuntimeError):
    """A mismatch between features and annotations, or a training that failed."""


@dataclasses.dataclass(frozen=True)
class LocalisationConfig:
    """The training settings of localisation; the defaults are G-TAD's on ActivityNet."""

    network: GtadConfig = dataclasses.field(default_factory=GtadConfig)
    # Feature from `svilm-train embed`; the paper does not specify it. "groups" is the mean of the
    # group tokens before the projection into the joint space, which its action recognition probes.
    feature: Literal["groups", "clip"] = "groups"
    batch: int = 16
    epochs: int = 10
    learning_rate: float = 4e-3
    decay_after: int = 5  # epochs before the learning rate is divided by 10
    l2: float = 1e-4  # coupled: added to the gradient, before Adam's moments
    # Input of the linear classifier, which is used where no class scores are given: whole videos,
    # since ActivityNet's mostly show one class, or each proposal.
    classify: Literal["video", "proposal"] = "video"
    seed: int = 0

    def __post_init__(self) -> None:
        check_counts(self, "localisation", but=("seed",))
        check_range("localisation", "seed", self.seed, 0.0, 2.0**32 - 1)
        check_above("localisation", "learning_rate", self.learning_rate)
        check_range("localisation", "l2", self.l2, 0.0)
        network = self.network
        if network.width % network.stem_groups:
            raise ValueError(
                f"network: width {network.width} must be divisible by stem_groups "
                f"{network.stem_groups}"
            )
        if network.neighbours > network.length:
            raise ValueError(
                f"network: neighbours {network.neighbours} must be at most length {network.length}"
            )


PRESETS: dict[str, LocalisationConfig] = {
    "activitynet": LocalisationConfig(),
    # For videos of a quarter of a minute with several actions. It trains in minutes on two cores.
    "shapes": LocalisationConfig(
        network=GtadConfig(length=32, width=64, groups=8, map_width=64, map_hidden=32),
        epochs=16,
        decay_after=12,
        learning_rate=2e-3,
        classify="proposal",
    ),
}


class Example(NamedTuple):
    """A training video."""

    features: Float[np.ndarray, "t c"]  # features at the network's T times
    targets: Targets
    actions: Float[np.ndarray, "n 2"]  # starts and ends in shares of the axis
    labels: list[int]


class Model(NamedTuple):
    """A trained model."""

    config: LocalisationConfig
    classes: list[str]
    params: PyTree
    classifier: dict[str, np.ndarray]
    epoch: int  # the epoch that was kept, from 1
    encoder: str | None = None  # sha256 of the encoder's parameters; None if unknown


def examples(
    videos: Mapping[str, VideoFeatures],
    annotated: Mapping[str, Video],
    classes: Sequence[str],
    config: LocalisationConfig,
) -> list[Example]:
    """Return the videos that have both features and annotations, in the order of their ids.

    Raises:
      LocalisationError: no video has both.
    """
    number = {name: place for place, name in enumerate(classes)}
    found = []
    for name in sorted(videos.keys() & annotated.keys()):
        video, length = videos[name], config.network.length
        known = [one for one in annotated[name].actions if one.label in number]
        actions = on_axis([(one.start, one.end) for one in known], video.seconds)
        found.append(
            Example(
                interpolated(video.features, length),
                targets(actions, length),
                actions,
                [number[one.label] for one in known],
            )
        )
    if not found:
        raise LocalisationError(
            f"none of the {len(videos)} videos with features is among the {len(annotated)} "
            "annotated ones: check that both have the same ids"
        )
    return found


def train(
    config: LocalisationConfig,
    videos: Mapping[str, VideoFeatures],
    annotated: Mapping[str, Video],
    out: pathlib.Path,
    validated: Mapping[str, VideoFeatures] | None = None,
    on_epoch: Callable[[int, dict[str, float]], None] = lambda *_: None,
) -> Model | None:
    """Train the network and the classifier, or resume their training.

    An interrupted and resumed training has the same result, bit for bit on a CPU.

    Args:
      config: the training settings.
      videos: features of the training videos.
      annotated: annotations of the videos in `videos` and `validated`.
      out: folder of the checkpoints: one per epoch, and one where a signal stops the training.
      validated: features of the validation videos; their loss selects the epoch to keep.
      on_epoch: called with each epoch, from 1, and its mean losses. A resumed training first
        reports the completed epochs.

    Returns:
      The trained model; None if a signal stopped the training, whose state is then saved.

    Raises:
      LocalisationError: features and annotations have no video in common, or a loss or parameter
        is not finite.
      RunError: `out` was started with other settings.
      CheckpointError: every checkpoint is damaged, or one cannot be read or written.
    """
    if jax.dtypes.canonicalize_dtype(float) != jnp.float32:
        raise LocalisationError(
            "JAX uses 64 bits (JAX_ENABLE_X64 or jax_enable_x64), but checkpoints are float32: "
            "unset it"
        )
    classes = sorted(
        {one.label for name in videos if name in annotated for one in annotated[name].actions}
    )
    known = examples(videos, annotated, classes, config)
    held_out = examples(validated, annotated, classes, config) if validated else []
    trained = _train_network(config, known, held_out, out, on_epoch)
    if trained is None:
        return None
    params, epoch = trained
    rows, labels = classifier.examples(
        [(one.features, one.actions, one.labels) for one in known],
        whole=config.classify == "video",
    )
    return Model(config, classes, params, classifier.train(rows, labels, len(classes)), epoch)


def _train_network(
    config: LocalisationConfig,
    known: Sequence[Example],
    held_out: Sequence[Example],
    out: pathlib.Path,
    on_epoch: Callable[[int, dict[str, float]], None],
) -> tuple[PyTree, int] | None:
    """Return the parameters of the epoch to keep and its number; None if a signal stopped it."""
    batch = min(config.batch, len(known))
    steps = len(known) // batch  # An epoch drops the remainder.
    sampling = sampling_of(config.network)
    key = jax.random.key(config.seed)
    fresh, state = _begin(key, known[0].features[None], sampling, config=config, steps=steps)
    settings = dataclasses.asdict(config) | {
        "features": f"sha256 {_sha256(known)}",
        "best epoch": f"by features of sha256 {_sha256(held_out)}" if held_out else "none",
    }
    with checkpoints.Checkpoints(out, settings) as saved, stop_requests() as stops_at:
        losses_of = np.zeros((config.epochs * steps, len(losses.Losses._fields)), np.float32)
        validation = np.full(config.epochs, np.inf, np.float32)
        first, progress = saved.restore(
            checkpoints.Progress(fresh, state, fresh, losses_of, validation)
        )
        params, state, kept, losses_of, validation = progress
        for epoch in range(1, config.epochs + 1):
            order = np.random.default_rng([config.seed, epoch]).permutation(len(known))
            for step in range(steps):
                done = (epoch - 1) * steps + step + 1
                if done <= first:
                    continue
                arrays = _stacked([known[k] for k in order[step * batch : (step + 1) * batch]])
                of_step = jax.random.fold_in(key, done - 1)
                params, state, parts = _step(
                    params, state, arrays, sampling, of_step, config=config, steps=steps
                )
                losses_of[done - 1] = [float(part) for part in parts]
                _check_finite(done, epoch, parts._asdict(), config)
                stops = stops_at(done)
                if step == steps - 1:
                    if held_out:
                        loss = _validation(config, params, held_out, sampling, key)
                        validation[epoch - 1] = finite(
                            f"loss of epoch {epoch} on test videos", loss
                        )
                    if not held_out or np.argmin(validation) == epoch - 1:
                        kept = params
                elif not stops:
                    continue
                _check_finite(done, epoch, by_name(params), config)
                saved.save(done, checkpoints.Progress(params, state, kept, losses_of, validation))
                if stops and done < len(losses_of):
                    return None
            means = losses_of[(epoch - 1) * steps : epoch * steps].mean(axis=0)
            told = dict(zip(losses.Losses._fields, map(float, means), strict=True))
            if held_out:
                told["validation"] = float(validation[epoch - 1])
            on_epoch(epoch, told)
    best = int(np.argmin(validation)) + 1 if held_out else config.epochs
    return jax.tree.map(np.asarray, kept), best


def _check_finite(
    done: int, epoch: int, numbers: Mapping[str, Any], config: LocalisationConfig
) -> None:
    """Check losses or parameters after a step, before they are saved.

    Raises:
      LocalisationError: a value is not finite; names it.
    """
    try:
        finite_tensors("the network's training", numbers)
    except NonFiniteError as error:
        raise LocalisationError(
            f"{error}, after step {done} (epoch {epoch}), which is not saved: train again with a "
            f"learning_rate below {config.learning_rate:g}"
        ) from None


def _sha256(known: Sequence[Example]) -> str:
    return checkpoints.sha256(
        array for one in known for array in (one.features, one.actions, np.array(one.labels))
    )


def predict(
    model: Model,
    videos: Mapping[str, VideoFeatures],
    class_scores: ClassScores | None = None,
) -> dict[str, list[Found]]:
    """Predict the actions of videos, with their start and end times.

    Args:
      model: a trained model.
      videos: features of any videos.
      class_scores: external class scores of whole videos; None uses the model's classifier.

    Raises:
      LocalisationError: a video has no class scores.
    """
    config = model.config
    if class_scores and (lost := sorted(videos.keys() - class_scores.scores.keys())):
        raise LocalisationError(f"{len(lost)} videos have no class scores, such as {lost[0]}")
    found = {}
    names = sorted(videos)
    for name, judged in zip(names, _judged(model, [videos[name] for name in names]), strict=True):
        video = videos[name]
        kept = proposals.soft_nms(proposals.proposals(*judged))
        if class_scores:
            scores = np.tile(class_scores.scores[name], (len(kept.score), 1))
        else:
            whole = np.tile([[0.0, 1.0]], (len(kept.score), 1))
            at = kept.segment if config.classify == "proposal" else whole
            rows = classifier.averaged(interpolated(video.features, config.network.length), at)
            scores = classifier.probabilities(model.classifier, rows)
        classes = class_scores.classes if class_scores else model.classes
        found[name] = proposals.predictions(kept, video.seconds, scores, classes)
    return found


def by_chance(
    model: Model, videos: Mapping[str, VideoFeatures], seed: int = 0
) -> dict[str, list[Found]]:
    """Return a chance baseline: random proposals, up to `KEPT` per video, with random scores."""
    rng = np.random.default_rng(seed)
    length = model.config.network.length
    starts, ends = np.triu_indices(length, k=1)
    found = {}
    for name in sorted(videos):
        chosen = rng.permutation(len(starts))[: proposals.KEPT]
        drawn = proposals.Proposals(
            np.stack([starts[chosen], ends[chosen]], axis=1) / length, rng.uniform(size=len(chosen))
        )
        scores = rng.uniform(size=(len(chosen), len(model.classes)))
        found[name] = proposals.predictions(drawn, videos[name].seconds, scores, model.classes)
    return found


class _Arrays(NamedTuple):
    features: Float[Array, "b t c"]
    map: Float[Array, "b d s"]
    start: Float[Array, "b t"]
    end: Float[Array, "b t"]


def _stacked(some: Sequence[Example]) -> _Arrays:
    rows = [(one.features, *one.targets) for one in some]
    return _Arrays(*(jnp.asarray(np.stack(part), jnp.float32) for part in zip(*rows, strict=True)))


def _optimizer(config: LocalisationConfig, steps: int) -> optax.GradientTransformation:
    """Return the optimizer; `steps` is the number of steps per epoch."""
    schedule = optax.piecewise_constant_schedule(
        config.learning_rate, {config.decay_after * steps: 0.1}
    )
    return optax.chain(optax.add_decayed_weights(config.l2), optax.adam(schedule))


# Both functions take the optimizer's values: another optimizer of equal values has another identity
# and would compile them anew.
@partial(jax.jit, static_argnames=("config", "steps"))
def _begin(
    key: Array,
    features: Float[Array, "1 t c"],
    sampling: Float[Array, "a p t"],
    *,
    config: LocalisationConfig,
    steps: int,
) -> tuple[PyTree, PyTree]:
    """Return the initial parameters and the optimizer's state."""
    params = GTAD(config.network).init(key, features, sampling)["params"]
    return params, _optimizer(config, steps).init(params)


@partial(jax.jit, static_argnames=("config", "steps"))
def _step(
    params: PyTree,
    state: PyTree,
    arrays: _Arrays,
    sampling: Float[Array, "a p t"],
    key: Array,
    *,
    config: LocalisationConfig,
    steps: int,
) -> tuple[PyTree, PyTree, losses.Losses]:
    def cost(params: PyTree) -> tuple[Array, losses.Losses]:
        parts = _losses(params, arrays, sampling, key, config)
        return parts.total, parts

    gradients, parts = jax.grad(cost, has_aux=True)(params)
    with jax.numpy_dtype_promotion("standard"):  # Optax raises a float to an integer power.
        updates, state = _optimizer(config, steps).update(gradients, state, params)
    return optax.apply_updates(params, updates), state, parts


def _losses(
    params: PyTree,
    arrays: _Arrays,
    sampling: Float[Array, "a p t"],
    key: Array,
    config: LocalisationConfig,
) -> losses.Losses:
    outputs: Any = GTAD(config.network).apply({"params": params}, arrays.features, sampling)
    uniform = losses.draw(key, len(arrays.features), config.network.length)
    return losses.losses(outputs, arrays.map, arrays.start, arrays.end, uniform)


def _validation(
    config: LocalisationConfig,
    params: PyTree,
    held_out: Sequence[Example],
    sampling: Float[Array, "a p t"],
    key: Array,
) -> float:
    """Return the mean loss over batches as in training; each epoch draws the same proposals."""
    batch = min(config.batch, len(held_out))
    costs = [
        float(
            _held_out_loss(params, _stacked(held_out[first : first + batch]), sampling, key, config)
        )
        for first in range(0, len(held_out) - batch + 1, batch)
    ]
    return float(np.mean(costs))


@partial(jax.jit, static_argnames="config")
def _held_out_loss(
    params: PyTree, arrays: _Arrays, sampling: Array, key: Array, config: LocalisationConfig
) -> Array:
    return _losses(params, arrays, sampling, key, config).total


def _judged(model: Model, videos: Sequence[VideoFeatures]) -> Iterable[Any]:
    """Yield the network's probabilities for each video."""
    sampling = sampling_of(model.config.network)
    for first in range(0, len(videos), _AT_ONCE):
        some = videos[first : first + _AT_ONCE]
        rows = [interpolated(one.features, model.config.network.length) for one in some]
        rows += rows[-1:] * (_AT_ONCE - len(rows))  # Padding keeps to one compiled shape.
        outputs = _apply(model.params, np.stack(rows), sampling, model.config.network)
        judged = jax.tree.map(np.asarray, outputs)
        yield from ((judged.map[k], judged.start[k], judged.end[k]) for k in range(len(some)))


@partial(jax.jit, static_argnames="config")
def _apply(
    params: PyTree, features: Float[Array, "b t c"], sampling: Array, config: GtadConfig
) -> Outputs:
    outputs: Any = GTAD(config).apply({"params": params}, features, sampling)
    return outputs
