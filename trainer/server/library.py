"""A run's model over the clips of a snapshot: vectors of queries, and the structure of a clip."""

import collections
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import numpy as np
from jaxtyping import Float

from protos import contract
from protos.v1 import clip_pb2
from trainer.errors import UserError
from trainer.evaluation.grounding import View, heat_map, nearest_group
from trainer.inference.encoder import EncodedClips, Encoder, frames_of
from trainer.runs.checkpoint import Loaded
from trainer.server.films import shown_frames
from trainer.server.finder import Finder

_TEXTS, _STRUCTURES, _CLIPS = 4096, 512, 64  # entries of the caches
_SMALLEST = 1e-4  # norm of a query's vector before it is normalized
_Value = TypeVar("_Value")


class QueryError(UserError):
    """A query that has no answer."""


class Heat(NamedTuple):
    """Location of a noun in a clip."""

    noun: str
    cosine: float  # similarity of the noun and its group
    share: float  # share of the patches that belong to the group
    heat: Float[np.ndarray, "nt rows columns"]


class Structure(NamedTuple):
    """A clip as the model sees it."""

    similarity: Float[np.ndarray, "nt nt"]  # cosines of its windows
    window_of: list[int]  # the window of each frame of the film
    crop: tuple[float, float, float, float]  # left, top, width, height: shares of the picture
    nouns: list[Heat]


class Library:
    """The clips of a snapshot as one run sees them.

    Methods that use the encoder are called by one thread at a time (gate.py). Others are safe to
    call from several threads.
    """

    def __init__(self, run: Loaded, finder: Finder, encoder: Encoder) -> None:
        """Initialize with an index by the run."""
        self.run = run
        self.finder = finder
        self._encoder = encoder
        self._texts: _Cache[Float[np.ndarray, " e"]] = _Cache(_TEXTS)
        self._encoded: _Cache[EncodedClips] = _Cache(_STRUCTURES)
        self._clips: _Cache[clip_pb2.Clip] = _Cache(_CLIPS)

    def clip(self, number: int) -> clip_pb2.Clip:
        """Return the record of a clip.

        Raises:
          SnapshotError: the record is damaged.
        """
        clip = self._clips.get(number)
        if clip is None:
            place = self.finder.place(number)
            clip = self._clips.put(number, place.snapshot.clip(place.record))
        return clip

    def knows(self, texts: Sequence[str]) -> bool:
        """Return whether no text needs the encoder."""
        return all(text in self._texts for text in texts)

    def query(
        self, texts: Sequence[str], without: Sequence[str], like: int | None
    ) -> Float[np.ndarray, " e"]:
        """Return the mean of texts and a clip, less that of other texts, L2-normalized.

        It may use the encoder.

        Args:
          texts: descriptions of the clips to find.
          without: descriptions of what they should not be.
          like: the number of a clip.

        Raises:
          QueryError: there is neither a text nor a clip, or the vectors cancel one another.
        """
        wanted = self._vectors(texts)
        if like is not None:
            wanted.append(self.finder.vector(like))
        if not wanted:
            raise QueryError("the query is empty: give a text, or a clip in `like`")
        query = np.mean(wanted, axis=0)
        if without:
            query = query - np.mean(self._vectors(without), axis=0)
        norm = float(np.linalg.norm(query))
        if norm < _SMALLEST:
            raise QueryError("the texts cancel one another: change one")
        return (query / norm).astype(np.float32)

    def structure(self, number: int, nouns: Sequence[str]) -> Structure:
        """Return the windows' similarities of a clip, and the location of nouns. It encodes both.

        Raises:
          SnapshotError: the record is damaged.
        """
        config, clip = self.run.config, self.clip(number)
        encoded = self._encoded.get(number)
        if encoded is None:
            place = self.finder.place(number)
            frames = frames_of(place.snapshot, [place.record], config)
            encoded = self._encoded.put(number, self._encoder.clips(frames, [clip.clip_id]))
        windows = encoded.windows[0]
        windows = windows / np.maximum(np.linalg.norm(windows, axis=1, keepdims=True), 1e-12)
        prompts = [contract.PROMPT_TEMPLATES[0].format(noun) for noun in nouns]
        located = []
        for noun, vector in zip(nouns, self._vectors(prompts), strict=True):
            groups, group_of, share = encoded.groups[0], encoded.group_of[0], encoded.share[0]
            group = nearest_group(groups, vector)
            heat = heat_map(groups, group_of, share, vector, config.video)
            cosine = float(groups[group] @ vector)
            located.append(Heat(noun, cosine, float(np.mean(group_of == group)), heat))
        view = View(config, len(clip.frames))
        top, left, side = view.crop(clip.height, clip.width)
        return Structure(
            similarity=windows @ windows.T,
            window_of=_windows_of(clip, view),
            crop=(left / clip.width, top / clip.height, side / clip.width, side / clip.height),
            nouns=located,
        )

    def _vectors(self, texts: Sequence[str]) -> list[Float[np.ndarray, " e"]]:
        cached = {text: self._texts.get(text) for text in texts}
        new = [text for text, vector in cached.items() if vector is None]
        if new:
            for text, vector in zip(new, self._encoder.texts(new), strict=True):
                cached[text] = self._texts.put(text, vector)
        return [vector for text in texts if (vector := cached[text]) is not None]


def _windows_of(clip: clip_pb2.Clip, view: View) -> list[int]:
    """Return the window of each frame of a clip's film: that of the nearest frame it has."""
    seen = view.frames(len(clip.frames))
    distance = np.abs(shown_frames(clip)[:, None] - seen[None, :])
    return (np.argmin(distance, axis=1) // view.config.video.tubelet).tolist()


class _Cache(collections.OrderedDict[int | str, _Value]):
    """The last values of a function, at most `most`. Threads may compute a value twice."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most

    def put(self, key: int | str, value: _Value) -> _Value:
        """Add a value, and return it."""
        self[key] = value
        while len(self) > self._most:
            self.popitem(last=False)
        return value
