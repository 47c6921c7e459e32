"""A trained model over a snapshot: clips and texts in, embeddings out as NumPy arrays."""

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
    """What the tasks need of n clips; clip and group embeddings are L2-normalized."""

    clip: Float[np.ndarray, "n e"]  # f^v
    groups: Float[np.ndarray, "n m e"]  # g^m
    group_of: Int[np.ndarray, "n tokens"]  # the group that each video token is assigned to
    share: Float[np.ndarray, "n tokens"]  # the token's soft assignment to that group
    windows: Float[np.ndarray, "n nt d"]  # video tokens, averaged over space
    pooled: Float[np.ndarray, "n d"]  # group tokens after their last norm, averaged


class Encoder:
    """A model's two encoders, compiled, without Gumbel noise.

    All of this process's devices share each batch of clips, and each has the parameters.
    """

    def __init__(self, config: Config, tokenizer: Tokenizer, params: PyTree) -> None:
        """Makes an encoder of a checkpoint's configuration, tokenizer and parameters."""
        self._mesh = own_devices()
        # Whatever the run trained on, its model is used on the devices that are here.
        compute = dataclasses.replace(config.compute, attention="auto")
        self.config = dataclasses.replace(config, compute=compute)
        self.tokenizer = tokenizer
        self.params = jax.device_put(params, NamedSharding(self._mesh, REPLICATED))

    def clips(
        self, frames: UInt8[np.ndarray, "b t h w c"], names: Sequence[str] = ()
    ) -> EncodedClips:
        """Encodes clips; the batch's size is compiled for, so keep to one.

        Args:
          frames: of the clips.
          names: of the clips, for messages.

        Raises:
          NonFiniteError: what the model says of a clip is not finite; names the first.
        """
        count = len(frames)
        if missing := -count % self._mesh.size:  # as many for each device
            frames = np.concatenate([frames, np.zeros((missing, *frames.shape[1:]), np.uint8)])
        placed = jax.device_put(frames, NamedSharding(self._mesh, PER_CLIP))
        encoded = _encode_clips(self.params, placed, self.config, self._mesh)
        clips = EncodedClips(*(np.asarray(array)[:count] for array in encoded))
        for field in EncodedClips._fields:
            finite(f"the model's {field!r} of clips", getattr(clips, field), names)
        return clips

    def texts(self, texts: Sequence[str]) -> Float[np.ndarray, "n e"]:
        """Encodes captions (f^c) or prompted nouns (n^k); equal texts get equal embeddings.

        Raises:
          NonFiniteError: what the model says of a text is not finite; names the first.
        """
        distinct = sorted(set(texts))
        padded = distinct + [""] * (-len(distinct) % _TEXTS_AT_ONCE)
        parts = []
        for start in range(0, len(padded), _TEXTS_AT_ONCE):
            some = padded[start : start + _TEXTS_AT_ONCE]
            ids, mask = self.tokenizer.encode(some, self.config.text.tokens)
            parts.append(np.asarray(_encode_texts(self.params, ids, mask, self.config)))
        place = {text: row for row, text in enumerate(distinct)}
        embedded = finite("the model's embeddings of texts", np.concatenate(parts), padded)
        return embedded[[place[text] for text in texts]]

    def similarity(
        self, captions: Sequence[str], clips: Float[np.ndarray, "n e"]
    ) -> Float[np.ndarray, "q n"]:
        """Cosines of captions and clips; rows of equal captions are equal to the last bit."""
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

    # Not left to the compiler, which cannot divide the kernels of attention.
    return on_each_device(encode, mesh, replicated=1, reduces=False)(params, frames)


@partial(jax.jit, static_argnames="config")
def _encode_texts(
    params: PyTree, ids: Int[Array, "n l"], mask: Bool[Array, "n l"], config: Config
) -> Float[Array, "n e"]:
    embedding: Any = SViLM(config).apply({"params": params}, ids, mask, method="encode_text")
    return embedding


def concatenate(parts: Sequence[EncodedClips]) -> EncodedClips:
    """Clips of several batches as one."""
    return EncodedClips(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def frames_in_batches(
    snapshot: Snapshot,
    encoder: Encoder,
    progress: Progress,
    records: Int64[np.ndarray, " n"] | None = None,
    at_once: int | None = None,
) -> Iterator[tuple[UInt8[np.ndarray, "b t h w c"], list[ClipText]]]:
    """Yields the frames of all clips, in the snapshot's order, and what is known of them.

    Or those of the given records, in their order.

    All batches have one size, so that the encoder compiles once: the last is filled up, and only
    its first rows, as many as there are texts, count. The size is `at_once`, or else as many as
    there are, up to CLIPS_AT_ONCE.

    Raises:
      SnapshotError: a record is damaged, or the snapshot is empty or does not suit the model.
    """
    if not len(snapshot):
        raise SnapshotError(f"{snapshot.folder} holds no clip: all its rows were rejected")
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
    """Encodes every clip of a snapshot, in its order, or the given records, as `frames_in_batches`.

    Raises:
      SnapshotError: a record is damaged, or the snapshot does not suit the model.
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
    """The frames of some records as the model sees them.

    Raises:
      SnapshotError: a record is damaged.
    """
    from trainer.data.decode import evaluation

    request = Request(0, np.asarray(records, np.int64), np.zeros((len(records), 2), np.int64))
    for answer in stream(snapshot, [request], evaluation(config)):
        return answer.clips["frames"]
    raise AssertionError("a request was not answered")
