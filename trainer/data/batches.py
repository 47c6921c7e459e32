"""Batches of a training run and of an evaluation, from a snapshot to NumPy arrays.

A training step's clips, crops, nouns and prompts depend only on (seed, step, index in the global
batch). Evaluation draws nothing at random.
"""

import dataclasses
import functools
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int32, Int64

from protos.reading import reading
from protos.v1 import clip_pb2
from trainer.configs.config import Config
from trainer.data import order
from trainer.data.boxes import Boxes, to_view
from trainer.data.crop_size import device_crop_side
from trainer.data.mixture import Mixture
from trainer.data.snapshot import Snapshot, SnapshotError
from trainer.data.stream import Request, Skipped, stream
from trainer.data.tokenizer import Tokenizer
from trainer.data.types import Batch, Crops, ExampleBatch

# Purpose of a clip's seed, so that draws for different purposes are independent.
_CROP, _NOUNS, _TEXT = 0, 1, 2


@dataclasses.dataclass(frozen=True)
class ClipText:
    """Fields of an evaluated clip that stay on the host."""

    clip_id: str
    video_id: str
    start_us: int  # start of the clip in the video, microseconds
    end_us: int
    caption: str
    nouns: tuple[str, ...]  # the first K noun phrases, as written in the caption


def train_batches(
    mixture: Mixture,
    tokenizer: Tokenizer,
    config: Config,
    *,
    start_step: int = 0,
    host: int = 0,
    hosts: int = 1,
    on_skip: Callable[[Skipped], None] | None = None,
) -> Generator[tuple[int, Batch, list[str]], None, None]:
    """Yield (step, batch, clip ids) from `start_step` to the run's last step.

    A step's batch depends neither on `start_step` nor on the batches yielded before. The hosts'
    batches, concatenated in order, equal the batch of a single host. Closing the generator stops
    the reading.

    Args:
      mixture: the clips to train on.
      tokenizer: tokenizer of captions and noun prompts.
      config: the run's configuration.
      start_step: the first step to yield; 0 for a new run.
      host: this host's number, 0 … hosts − 1.
      hosts: number of hosts that share each global batch; must divide the batch size.
      on_skip: with `config.input.on_corrupt` "skip", called for each corrupt record of this host
        that was replaced in a batch, before the batch is yielded. Its row is that of the global
        batch.

    Raises:
      SnapshotError: a record is damaged, or a snapshot does not suit the configuration.
      ValueError: batch, hosts or vocabulary do not fit.
    """
    from trainer.data.decode import training_clip

    for snapshot in mixture.snapshots:
        check_suits(snapshot, tokenizer, config)
    steps = order.total_steps(mixture.visits, config.batch, config.epochs, config.max_steps)
    rows = order.host_rows(config.batch, host, hosts)
    positions = range(rows.start, rows.stop)

    def requests() -> Iterator[Request]:
        for step in range(start_step, steps):
            _, records = order.batch_records(config.seed, step, config.batch, mixture.sources)
            seeds = [
                _clip_seed(config.seed, step, position, _CROP).generate_state(2)
                for position in positions
            ]
            skips = (
                functools.partial(replacement, step) if config.input.on_corrupt == "skip" else None
            )
            yield Request(step, records[rows], np.array(seeds, np.int64), skips)

    def replacement(step: int, row: int, attempt: int) -> int:
        return order.replacement(
            config.seed, step, config.batch, positions[row], attempt, mixture.sources
        )

    decoded = stream(
        mixture, requests(), training_clip, config=config, room=device_crop_side(config)
    )
    for step, clips, skipped in decoded:
        if on_skip:
            for one in skipped:
                on_skip(one._replace(row=positions[one.row]))
        prompts = []
        for position, chunks in zip(positions, _noun_chunks(clips), strict=True):
            seed = _clip_seed(config.seed, step, position, _NOUNS)
            prompts.append(draw_prompts(chunks, config.input.nouns, np.random.default_rng(seed)))
        batch = _batch(clips, prompts, np.array(positions), tokenizer, config)
        yield step, batch, _strings(clips["clip_id"])


class Examples(NamedTuple):
    """Training examples of a downstream task: n records with their annotations."""

    records: Int64[np.ndarray, " n"]
    texts: Sequence[Sequence[str]] | None  # texts of each example; training draws one of them
    labels: Int32[np.ndarray, " n"] | None
    boxes: Boxes | None = None  # in coordinates of the whole picture


def example_batches(
    mixture: Mixture,
    examples: Examples,
    tokenizer: Tokenizer,
    config: Config,
    *,
    start_step: int = 0,
    host: int = 0,
    hosts: int = 1,
) -> Generator[tuple[int, ExampleBatch, list[str]], None, None]:
    """Yield (step, batch, clip ids) of a downstream task, as `train_batches` does.

    An epoch visits each example once. Its crop, flip and text are drawn by (seed, step, index in
    the global batch).

    Raises:
      SnapshotError: a record is damaged, or a snapshot does not suit the configuration.
      ValueError: batch, hosts or vocabulary do not fit.
    """
    from trainer.data.decode import training_clip

    for snapshot in mixture.snapshots:
        check_suits(snapshot, tokenizer, config)
    count = len(examples.records)
    steps = order.total_steps(count, config.batch, config.epochs, config.max_steps)
    rows = order.host_rows(config.batch, host, hosts)
    positions = range(rows.start, rows.stop)

    def requests() -> Iterator[Request]:
        for step in range(start_step, steps):
            seeds = [
                _clip_seed(config.seed, step, position, _CROP).generate_state(2)
                for position in positions
            ]
            chosen = example_numbers(examples, config, step)[rows]
            yield Request(step, examples.records[chosen], np.array(seeds, np.int64))

    decoded = stream(
        mixture, requests(), training_clip, config=config, room=device_crop_side(config)
    )
    for step, clips, _ in decoded:
        chosen = example_numbers(examples, config, step)[rows]
        ids = mask = None
        if examples.texts is not None:
            texts = []
            for position, example in zip(positions, chosen.tolist(), strict=True):
                rng = np.random.default_rng(_clip_seed(config.seed, step, position, _TEXT))
                of_example = examples.texts[example]
                texts.append(of_example[int(rng.integers(len(of_example)))])
            ids, mask = tokenizer.encode(texts, config.text.tokens)
        boxes = box_labels = None
        if examples.boxes is not None:
            boxes, box_labels = examples.boxes.of(chosen)
            boxes = to_view(boxes, clips["view"])
        batch = ExampleBatch(
            frames=_frames(clips),
            text_ids=ids,
            text_mask=mask,
            label=None if examples.labels is None else examples.labels[chosen],
            index=np.array(positions, np.int32),
            boxes=boxes,
            box_labels=box_labels,
        )
        yield step, batch, _strings(clips["clip_id"])


def example_numbers(examples: Examples, config: Config, step: int) -> Int64[np.ndarray, " B"]:
    """Return the examples of a step's global batch, in its order."""
    count = len(examples.records)
    return order.batch_records(config.seed, step, config.batch, [order.Source(count, count)])[1]


def eval_batches(
    snapshot: Snapshot,
    tokenizer: Tokenizer,
    config: Config,
    batch: int,
    records: Int64[np.ndarray, " n"] | None = None,
) -> Iterator[tuple[Batch, list[ClipText]]]:
    """Yield the given records (None: all) in their order, `batch` at a time.

    The last batch is padded with copies of its last clip, so that all batches have one shape. Only
    its first rows, as many as there are texts, are valid.

    Raises:
      SnapshotError: a record is damaged, or the snapshot does not suit the configuration.
      ValueError: the vocabulary does not fit.
    """
    from trainer.data.decode import evaluation_clip

    check_suits(snapshot, tokenizer, config)

    wanted = np.arange(len(snapshot)) if records is None else records

    def requests() -> Iterator[Request]:
        for step, first in enumerate(range(0, len(wanted), batch)):
            rows = np.minimum(np.arange(first, first + batch), len(wanted) - 1)
            yield Request(step, wanted[rows], np.zeros((batch, 2), np.int64))

    for step, clips, _ in stream(snapshot, requests(), evaluation_clip, config=config):
        chunks = [clip_chunks[: config.input.nouns] for clip_chunks in _noun_chunks(clips)]
        prompts = [[chunk.prompts[0] for chunk in clip_chunks] for clip_chunks in chunks]
        columns = zip(
            _strings(clips["clip_id"]),
            _strings(clips["video_id"]),
            clips["start_us"].tolist(),
            clips["end_us"].tolist(),
            _strings(clips["caption"]),
            (tuple(reading(chunk.text)[0] for chunk in clip_chunks) for clip_chunks in chunks),
            strict=True,
        )
        texts = [ClipText(*row) for row in columns]
        count = min(batch, len(wanted) - step * batch)
        yield _batch(clips, prompts, np.arange(batch), tokenizer, config), texts[:count]


def check_suits(snapshot: Snapshot, tokenizer: Tokenizer, config: Config) -> None:
    """Check that a run of this configuration can read this snapshot with this vocabulary.

    Raises:
      SnapshotError: the snapshot has too few frames per clip, or no prompts.
      ValueError: crops or vocabulary do not fit the model.
    """
    built = snapshot.manifest.config
    if built.frames_per_clip < config.video.frames:
        raise SnapshotError(
            f"{snapshot.folder} has {built.frames_per_clip} frames per clip, but the model takes "
            f"{config.video.frames}: build the snapshot with --frames {config.video.frames}"
        )
    if not built.prompt_templates:
        raise SnapshotError(f"{snapshot.folder} has no noun prompts: build the snapshot again")
    smallest = config.input.short_side * min(1.0, *config.input.scale)
    if smallest < config.video.resolution:
        raise ValueError(
            f"input: short_side {config.input.short_side} × scale {config.input.scale} is below "
            f"resolution {config.video.resolution}: use a larger short_side or scale"
        )
    if len(tokenizer.pieces) > config.text.vocabulary:
        raise ValueError(
            f"text: the vocabulary has {len(tokenizer.pieces)} pieces, but the model "
            f"{config.text.vocabulary}: set text.vocabulary={len(tokenizer.pieces)}"
        )


def draw_prompts(
    chunks: Sequence[clip_pb2.NounChunk], nouns: int, rng: np.random.Generator
) -> list[str]:
    """Draw at most `nouns` of a caption's noun chunks, and one prompt for each.

    >>> chunk = clip_pb2.NounChunk(text="ring", prompts=["A video of a ring."])
    >>> draw_prompts([chunk], nouns=2, rng=np.random.default_rng(0))
    ['A video of a ring.']
    """
    drawn = rng.permutation(len(chunks))[:nouns]
    return [chunks[i].prompts[rng.integers(len(chunks[i].prompts))] for i in drawn]


def _clip_seed(seed: int, step: int, position: int, purpose: int) -> np.random.SeedSequence:
    return np.random.SeedSequence([seed, step, position], spawn_key=(purpose,))


def _batch(
    clips: dict[str, Any],
    prompts: list[list[str]],
    index: np.ndarray,
    tokenizer: Tokenizer,
    config: Config,
) -> Batch:
    nouns, tokens = config.input.nouns, config.text.tokens
    caption_ids, caption_mask = tokenizer.encode(_strings(clips["caption"]), tokens)
    # The empty text, [CLS] [SEP], replaces a missing noun: attention over no token at all would be
    # undefined.
    filled = [(clip_prompts + [""] * nouns)[:nouns] for clip_prompts in prompts]
    noun_ids, noun_mask = tokenizer.encode([noun for clip in filled for noun in clip], tokens)
    shape = (len(prompts), nouns, tokens)
    return Batch(
        frames=_frames(clips),
        caption_ids=caption_ids,
        caption_mask=caption_mask,
        noun_ids=noun_ids.reshape(shape),
        noun_mask=noun_mask.reshape(shape),
        noun_valid=np.arange(nouns) < np.array([[len(clip)] for clip in prompts]),
        index=index.astype(np.int32),
    )


def _frames(clips: dict[str, Any]) -> Any:
    if "side" in clips:
        return Crops(clips["frames"], clips["side"], clips["flipped"])
    return clips["frames"]


def _noun_chunks(clips: dict[str, Any]) -> list[list[clip_pb2.NounChunk]]:
    return [
        [clip_pb2.NounChunk.FromString(chunk) for chunk in clip] for clip in clips["noun_chunks"]
    ]


def _strings(values: np.ndarray) -> list[str]:
    return [value.decode() for value in values]
