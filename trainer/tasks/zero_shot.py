"""Zero-shot evaluation on a test snapshot: retrieval, grounding, temporal grouping, and controls.

Every clip is decoded once and measured at once. Memory thus holds embeddings, never a snapshot's
frames.
"""

import dataclasses
from typing import TypedDict

import numpy as np
from jaxtyping import Float, UInt8

from trainer.data.annotations import check_captions, read_annotations
from trainer.data.batches import ClipText
from trainer.data.snapshot import Snapshot
from trainer.data.types import Progress
from trainer.distributed.mesh import one_device
from trainer.errors import UserError
from trainer.evaluation import grounding, retrieval, temporal
from trainer.evaluation.ground_truth import ClipKey, TrueObject, TruthError
from trainer.inference.encoder import EncodedClips, Encoder, concatenate, frames_in_batches
from trainer.method.train_step import init_state
from trainer.runs.checkpoint import Loaded

# A fixed seed gives all runs the same test splices.
_SPLICE_SEED = 0
_MID_GREY = 128


class EvaluationError(UserError, ValueError):
    """A mismatch between snapshot, run and control run."""


class Temporal(TypedDict):
    """Shares of windows that are assigned to the correct side of a splice."""

    window_accuracy: float
    position_prior: float  # baseline from the window's index alone
    random_encoder: float  # baseline: the same model with random parameters
    no_temporal_loss: float | None  # the control run's; None without one


class Controls(TypedDict):
    """Text-to-video R@1, in percent, on clips with content removed."""

    blank_frames: float  # mid-grey frames
    single_frame: float  # the middle frame, repeated


class Metrics(TypedDict):
    """All metrics of an evaluation."""

    step: int
    zero_shot: retrieval.ZeroShot
    grounding: grounding.Grounding | None  # None without ground truth
    temporal: Temporal
    controls: Controls


def evaluate(
    run: Loaded,
    snapshot: Snapshot,
    progress: Progress,
    truth: dict[ClipKey, list[TrueObject]] | None = None,
    control: Loaded | None = None,
) -> Metrics:
    """Evaluate a run on a test snapshot.

    Args:
      run: the loaded checkpoint.
      snapshot: clips that the run was not trained on.
      progress: called after each batch.
      truth: the objects in each clip, for grounding; None skips grounding.
      control: a run trained without the temporal loss, for comparison.

    Raises:
      EvaluationError: the control's clip settings differ, it has a temporal loss, or the snapshot
        has fewer than two clips.
      SnapshotError: a record is damaged, a caption is empty or all are equal, or the snapshot does
        not fit the model.
      TemporalError: the model has too few windows.
      TruthError: the ground truth does not fit the snapshot.
    """
    temporal.check_windows(run.config.video)
    if len(snapshot) < 2:
        raise EvaluationError(
            f"{snapshot.folder} has {len(snapshot)} clips, but evaluation needs two or more"
        )
    captions = [clip.caption for clip in read_annotations(snapshot)]
    check_captions(snapshot.folder, captions)
    encoder = Encoder(run.config, run.tokenizer, run.params)
    rivals = {"trained": encoder, "random": fresh_encoder(run)}
    if control is not None:
        check_control(run, control)
        rivals["control"] = Encoder(control.config, control.tokenizer, control.params)

    masks = temporal.draw_masks(len(snapshot), run.config.video.windows, _SPLICE_SEED)
    texts: list[ClipText] = []
    whole: list[EncodedClips] = []
    blank: list[Float[np.ndarray, "b e"]] = []
    single: list[Float[np.ndarray, "b e"]] = []
    windows: dict[str, list[Float[np.ndarray, "b nt d"]]] = {name: [] for name in rivals}
    before = None
    for frames, of_batch in frames_in_batches(snapshot, encoder, progress):
        count, first = len(of_batch), len(texts)
        texts.extend(of_batch)
        encoded = encoder.clips(frames, [text.clip_id for text in of_batch])
        whole.append(EncodedClips(*(array[:count] for array in encoded)))
        blank.append(encoder.clips(np.full_like(frames, _MID_GREY)).clip[:count])
        single.append(encoder.clips(middle_frame(frames)).clip[:count])
        # Each clip is spliced with one of the previous batch: neighbours often share a video.
        other = opposite(frames, count) if before is None else before
        of_rows = np.minimum(np.arange(first, first + len(frames)), len(snapshot) - 1)
        spliced = temporal.splice(frames, other, masks[of_rows])
        for name, rival in rivals.items():
            windows[name].append(rival.clips(spliced).windows[:count])
        before = frames
    clips = concatenate(whole)
    accuracy = {
        name: temporal.window_accuracy(np.concatenate(parts), masks)
        for name, parts in windows.items()
    }

    of_blank = encoder.similarity(captions, np.concatenate(blank))
    of_single = encoder.similarity(captions, np.concatenate(single))
    return {
        "step": run.step,
        "zero_shot": retrieval.zero_shot(encoder.similarity(captions, clips.clip)),
        "grounding": None if truth is None else ground(encoder, snapshot, texts, clips, truth),
        "temporal": {
            "window_accuracy": accuracy["trained"],
            "position_prior": temporal.position_prior(run.config.video.windows),
            "random_encoder": accuracy["random"],
            "no_temporal_loss": accuracy.get("control"),
        },
        "controls": {
            "blank_frames": retrieval.expected_recall_at_1(of_blank),
            "single_frame": retrieval.recalls(retrieval.ranks(of_single))["R@1"],
        },
    }


def fresh_encoder(run: Loaded) -> Encoder:
    """Return the encoder with random parameters, from another seed than the run's."""
    fresh = dataclasses.replace(run.config, seed=(run.config.seed + 1) % 2**32)
    params = init_state(fresh, one_device()).params
    return Encoder(run.config, run.tokenizer, params)


def check_control(run: Loaded, control: Loaded) -> None:
    """Check that a control run has the run's clip settings and no temporal loss.

    Raises:
      EvaluationError: a setting is another; names the first one.
    """
    check_clips(run, control)
    if weight := control.config.loss.temporal_weight:
        raise EvaluationError(
            f"the control run has loss.temporal_weight {weight}, but a control is trained without "
            "the temporal loss: train the control with --set loss.temporal_weight=0"
        )


def check_clips(run: Loaded, other: Loaded) -> None:
    """Check that another run has the same clip settings as the run.

    Raises:
      EvaluationError: a setting differs; names the first one.
    """
    for name in ("frames", "tubelet", "resolution"):
        ours, theirs = getattr(run.config.video, name), getattr(other.config.video, name)
        if ours != theirs:
            raise EvaluationError(
                f"the other run has video.{name} {theirs}, but the run {ours}: give a run with "
                "the same clip settings"
            )


def ground(
    encoder: Encoder,
    snapshot: Snapshot,
    texts: list[ClipText],
    clips: EncodedClips,
    truth: dict[ClipKey, list[TrueObject]],
) -> grounding.Grounding:
    """Score the pointing game with each object's phrase in the snapshot's first prompt template.

    Raises:
      TruthError: a clip is not in the ground truth, or the ground truth names no object.
    """
    objects = [true_objects(text, truth) for text in texts]
    if not any(objects):
        raise TruthError("the ground truth has no object in any clip of the snapshot")
    template = snapshot.manifest.config.prompt_templates[0]
    prompts = [template.format(thing.phrase) for things in objects for thing in things]
    ends = np.cumsum([len(things) for things in objects])
    nouns = np.split(encoder.texts(prompts), ends[:-1])
    view = grounding.View(encoder.config, snapshot.manifest.config.frames_per_clip)
    return grounding.pointing(clips.groups, clips.group_of, clips.share, objects, nouns, view)


def true_objects(text: ClipText, truth: dict[ClipKey, list[TrueObject]]) -> list[TrueObject]:
    """Return the annotated objects of a clip.

    Raises:
      TruthError: the clip is not in the ground truth.
    """
    key = ClipKey(text.video_id, text.start_us, text.end_us, text.caption)
    if key not in truth:
        raise TruthError(
            f"the ground truth has no line for clip {text.clip_id!r} of video {text.video_id!r}, "
            f"{text.start_us}–{text.end_us} µs: give truth.jsonl of the snapshot's split"
        )
    return truth[key]


def middle_frame(frames: UInt8[np.ndarray, "b t h w c"]) -> UInt8[np.ndarray, "b t h w c"]:
    """Replace all frames of each clip with its middle frame."""
    length = frames.shape[1]
    return np.repeat(frames[:, length // 2, None], length, axis=1)


def opposite(frames: UInt8[np.ndarray, "b t h w c"], count: int) -> UInt8[np.ndarray, "b t h w c"]:
    """Pair each row of a batch with one of its first `count` clips, `count` // 2 rows further."""
    return frames[(np.arange(len(frames)) + count // 2) % count]


def table(metrics: Metrics) -> str:
    """Format the metrics as a table for the terminal."""
    shot, ground, times = metrics["zero_shot"], metrics["grounding"], metrics["temporal"]
    lines = [f"zero-shot retrieval, {shot['n']:,} clips      R@1    R@5   R@10   MedR"]
    for name, direction in (("text to video", shot["t2v"]), ("video to text", shot["v2t"])):
        figures = "".join(f"{direction[key]:7.1f}" for key in ("R@1", "R@5", "R@10", "MedR"))
        lines.append(f"  {name:<33}{figures}")
    controls = metrics["controls"]
    lines.append(f"  {'text to video, middle frame only':<33}{controls['single_frame']:7.1f}")
    lines.append(f"  {'text to video, grey frames':<33}{controls['blank_frames']:7.1f}")
    if ground is not None:
        lines.append(f"grounding, share of {ground['objects']:,} nouns")
        lines += [
            _row("pointing at the noun's object", ground["pointing_accuracy"]),
            _row("chance (its mean area)", ground["chance"]),
            _row("pointing at another object", ground["other_object"]),
            _row("group is empty", ground["empty_groups"]),
        ]
    lines += [
        "temporal grouping, share of windows",
        _row("more similar to their own side", times["window_accuracy"]),
        _row("by position alone", times["position_prior"]),
        _row("untrained model", times["random_encoder"]),
        _row("without the temporal loss", times["no_temporal_loss"]),
    ]
    return "\n".join(lines)


def _row(name: str, share: float | None) -> str:
    return f"  {name:<33}{'      –' if share is None else f'{share:7.3f}'}"
