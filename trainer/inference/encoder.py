"""The encoders of a trained model: clips and texts in, embeddings out as NumPy arrays."""

import dataclasses
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jaxtyping import Array, Bool, Float, Int, Int64, PyTree, UInt8

from trainer.configs.config import Config
from trainer.data.batches import ClipText, eval_batches
from trainer.data.snapshot import Snapshot, SnapshotError
from trainer.data.stream import Request, stream
from trainer.data.tokenizer import Tokenizer
from trainer.data.types import CLIPS_AT_ONCE, Progress
from trainer.distributed.mesh import PER_CLIP, REPLICATED, on_each_device, own_devices
from trainer.finite import finite
from trainer.method.models.svilm import SViLM, normalize
from trainer.method.models.transformer import at_least_float32

_TEXTS_AT_ONCE = 64


class EncodedClips(NamedTuple):
    """The embeddings of n clips. Those of clips and groups are L2-normalized."""

    clip: Float[np.ndarray, "n e"]  # f^v
    groups: Float[np.ndarray, "n m e"]  # g^m
    group_of: Int[np.ndarray, "n tokens"]  # the group of each video token
    share: Float[np.ndarray, "n tokens"]  # the token's soft assignment to that group
    windows: Float[np.ndarray, "n nt d"]  # video tokens, averaged over space
    pooled: Float[np.ndarray, "n d"]  # group tokens after their last norm, averaged


class Encoder:
    """The two encoders of a model, compiled, without Gumbel noise.

    All devices of this process share each batch of clips, and each holds the parameters.
    """

    def __init__(self, config: Config, tokenizer: Tokenizer, params: PyTree) -> None:
        """Initialize from a checkpoint's configuration, tokenizer and parameters."""
        self._mesh = own_devices()
        # The devices here may differ from those of the training run.
        compute = dataclasses.replace(config.compute, attention="auto")
        self.config = dataclasses.replace(config, compute=compute)
        self.tokenizer = tokenizer
        self.params = jax.device_put(params, NamedSharding(self._mesh, REPLICATED))

    def clips(
        self, frames: UInt8[np.ndarray, "b t h w c"], names: Sequence[str] = ()
    ) -> EncodedClips:
        """Encode clips. Each new batch size is compiled, so use one size.

        Args:
          frames: the frames of the clips.
          names: the names of the clips, for messages.

        Raises:
          NonFiniteError: an output is not finite. The message names the first such clip.
        """
        count = len(frames)
        if missing := -count % self._mesh.size:  # the same number for each device
            frames = np.concatenate([frames, np.zeros((missing, *frames.shape[1:]), np.uint8)])
        placed = jax.device_put(frames, NamedSharding(self._mesh, PER_CLIP))
        encoded = _encode_clips(self.params, placed, self.config, self._mesh)
        clips = EncodedClips(*(np.asarray(array)[:count] for array in encoded))
        for field in EncodedClips._fields:
            finite(f"clip embeddings ({field})", getattr(clips, field), names)
        return clips

    def texts(self, texts: Sequence[str]) -> Float[np.ndarray, "n e"]:
        """Encode captions (f^c) or prompted nouns (n^k). Equal texts get equal embeddings.

        Raises:
          NonFiniteError: an embedding is not finite. The message names the first such text.
        """
        distinct = sorted(set(texts))
        padded = distinct + [""] * (-len(distinct) % _TEXTS_AT_ONCE)
        parts = []
        for start in range(0, len(padded), _TEXTS_AT_ONCE):
            some = padded[start : start + _TEXTS_AT_ONCE]
            ids, mask = self.tokenizer.encode(some, self.config.text.tokens)
            parts.append(np.asarray(_encode_texts(self.params, ids, mask, self.config)))
        place = {text: row for row, text in enumerate(distinct)}
        embedded = finite("text embeddings", np.concatenate(parts), padded)
        return embedded[[place[text] for text in texts]]

    def similarity(
        self, captions: Sequence[str], clips: Float[np.ndarray, "n e"]
    ) -> Float[np.ndarray, "q n"]:
        """Return cosines of captions and clips. Equal captions get bitwise equal rows."""
        distinct = sorted(set(captions))
        cosines = self.texts(distinct) @ clips.T
        place = {caption: row for row, caption in enumerate(distinct)}
        return cosines[[place[caption] for caption in captions]]


@partial(jax.jit, static_argnames=("config", "mesh"))
def _encode_clips(
    params: PyTree, frames: UInt8[Array, "b t h w c"], config: Config, mesh: Mesh
) -> tuple[Array, ...]:
    def encode(params: PyTree, frames: UInt8[Array, "own t h w c"]) -> tuple[Array, ...]:
        embedding: Any = SViLM(config).apply(
            {"params": params}, normalize(frames, config.video), method="encode_video"
        )
        hard, soft = embedding.features.assignment
        return (  # in the order of EncodedClips
            embedding.clip,
            embedding.groups,
            jnp.argmax(hard, axis=1),
            jnp.max(soft, axis=1),
            jnp.mean(at_least_float32(embedding.features.tokens), axis=2),
            jnp.mean(at_least_float32(embedding.features.groups), axis=1),
        )

    # The batch is divided here, since the compiler cannot divide the attention kernels.
    return on_each_device(encode, mesh, replicated=1, reduces=False)(params, frames)


@partial(jax.jit, static_argnames="config")
def _encode_texts(
    params: PyTree, ids: Int[Array, "n l"], mask: Bool[Array, "n l"], config: Config
) -> Float[Array, "n e"]:
    embedding: Any = SViLM(config).apply({"params": params}, ids, mask, method="encode_text")
    return embedding


def concatenate(parts: Sequence[EncodedClips]) -> EncodedClips:
    """Concatenate the clips of several batches."""
    return EncodedClips(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def frames_in_batches(
    snapshot: Snapshot,
    encoder: Encoder,
    progress: Progress,
    records: Int64[np.ndarray, " n"] | None = None,
    at_once: int | None = None,
) -> Iterator[tuple[UInt8[np.ndarray, "b t h w c"], list[ClipText]]]:
    """Yield batches of frames and the texts of their clips.

    All clips are read in the snapshot's order, or the given records in their order. All batches
    have one size, so that the encoder compiles once. The last batch is padded: only its first rows
    count, as many as there are texts. The size is `at_once`, or by default the number of records,
    up to CLIPS_AT_ONCE.

    Raises:
      SnapshotError: a record is damaged, or the snapshot is empty or does not suit the model.
    """
    if not len(snapshot):
        raise SnapshotError(f"{snapshot.folder} has no clip: all its rows were rejected")
    if records is None:
        records = np.arange(len(snapshot))
    at_once, done = at_once or min(CLIPS_AT_ONCE, len(records)), 0
    for batch, texts in eval_batches(snapshot, encoder.tokenizer, encoder.config, at_once, records):
        yield np.asarray(batch.frames), texts
        done += len(texts)
        progress(done, len(records))


def embed_clips(
    snapshot: Snapshot,
    encoder: Encoder,
    progress: Progress,
    records: Int64[np.ndarray, " n"] | None = None,
    at_once: int | None = None,
) -> tuple[list[ClipText], EncodedClips]:
    """Encode all clips of a snapshot, or the given records, as `frames_in_batches` yields them.

    Raises:
      SnapshotError: a record is damaged, or the snapshot is empty or does not suit the model.
    """
    texts, parts = [], []
    for frames, of_batch in frames_in_batches(snapshot, encoder, progress, records, at_once):
        encoded = encoder.clips(frames, [text.clip_id for text in of_batch])
        parts.append(EncodedClips(*(array[: len(of_batch)] for array in encoded)))
        texts.extend(of_batch)
    return texts, concatenate(parts)


def frames_of(
    snapshot: Snapshot, records: Sequence[int], config: Config
) -> UInt8[np.ndarray, "n t h w c"]:
    """Return the frames of some records as the model sees them.

    Raises:
      SnapshotError: a record is damaged.
    """
    from trainer.data.decode import evaluation_clip

    request = Request(0, np.asarray(records, np.int64), np.zeros((len(records), 2), np.int64))
    for answer in stream(snapshot, [request], evaluation_clip, config=config):
        return answer.clips["frames"]
    raise AssertionError("a request was not answered")
