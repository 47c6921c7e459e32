"""An index with its run's model: vectors of queries, and the structure of a clip."""

import collections
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import numpy as np
from jaxtyping import Float

from protos import contract
from protos.v1 import clip_pb2
from trainer.evaluation.grounding import View, heat_map, nearest_group
from trainer.index.files import SearchIndexError
from trainer.index.index import Index
from trainer.index.queries import direction
from trainer.inference.encoder import EncodedClips, frames_of
from trainer.server.films import shown_frames

_TEXTS, _STRUCTURES, _CLIPS = 4096, 512, 64  # entries of the caches
_Value = TypeVar("_Value")


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
    """The clips of an index as its run sees them. They are numbered by the index's rows.

    Methods that use the encoder are called by one thread at a time (gate.py). Others are safe to
    call from several threads.
    """

    def __init__(self, index: Index) -> None:
        """Initialize with an index, whose run and snapshots are read on demand."""
        self.index = index
        self._texts: _Cache[Float[np.ndarray, " e"]] = _Cache(_TEXTS)
        self._encoded: _Cache[EncodedClips] = _Cache(_STRUCTURES)
        self._clips: _Cache[clip_pb2.Clip] = _Cache(_CLIPS)

    def warm_up(self) -> None:
        """Read the run and a record, and compile the encoders, before the first request.

        Raises:
          UserError: the run or the snapshot is not where it was, or a record is damaged.
        """
        self.structure(0, ["thing"])

    def clip(self, number: int) -> clip_pb2.Clip:
        """Return the record of a clip.

        Raises:
          SnapshotError: the record is damaged.
        """
        clip = self._clips.get(number)
        if clip is None:
            clip = self._clips.put(number, self.index.snapshot(number).clip(self.record(number)))
        return clip

    def record(self, number: int) -> int:
        """Return a clip's number in its snapshot."""
        return int(self.index.columns["record"][number])

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
            wanted = np.concatenate([wanted, self.index.clips([like])])
        return direction(wanted, self._vectors(without)).astype(np.float32)

    def structure(self, number: int, nouns: Sequence[str]) -> Structure:
        """Return the windows' similarities of a clip, and the location of nouns.

        It uses the encoder only if there are nouns.

        Raises:
          SnapshotError: the record is damaged.
        """
        clip = self.clip(number)
        windows = self.index.windows(number).astype(np.float32)
        windows = windows / np.maximum(np.linalg.norm(windows, axis=1, keepdims=True), 1e-12)
        view = View(self.index.run.config, len(clip.frames))
        top, left, side = view.crop(clip.height, clip.width)
        return Structure(
            similarity=windows @ windows.T,
            window_of=_windows_of(clip, view),
            crop=(left / clip.width, top / clip.height, side / clip.width, side / clip.height),
            nouns=self._located(number, clip, nouns) if nouns else [],
        )

    def _located(self, number: int, clip: clip_pb2.Clip, nouns: Sequence[str]) -> list[Heat]:
        config = self.index.run.config
        encoded = self._encoded.get(number)
        if encoded is None:
            frames = frames_of(self.index.snapshot(number), [self.record(number)], config)
            encoded = self._encoded.put(number, self.index.encoder.clips(frames, [clip.clip_id]))
        groups, group_of, share = encoded.groups[0], encoded.group_of[0], encoded.share[0]
        prompts = [contract.PROMPT_TEMPLATES[0].format(noun) for noun in nouns]
        located = []
        for noun, vector in zip(nouns, self._vectors(prompts), strict=True):
            group = nearest_group(groups, vector)
            heat = heat_map(groups, group_of, share, vector, config.video)
            cosine = float(groups[group] @ vector)
            located.append(Heat(noun, cosine, float(np.mean(group_of == group)), heat))
        return located

    def _vectors(self, texts: Sequence[str]) -> Float[np.ndarray, "n e"]:
        cached = {text: self._texts.get(text) for text in texts}
        new = [text for text, vector in cached.items() if vector is None]
        if new:
            for text, vector in zip(new, self.index.encoder.texts(new), strict=True):
                cached[text] = self._texts.put(text, vector)
        width = self.index.run.config.joint_width
        return np.array([cached[text] for text in texts], np.float32).reshape(-1, width)


def check_same_clips(first: Index, second: Index) -> None:
    """Check that the rows of two indices are the same clips.

    Raises:
      SearchIndexError: they are of other snapshots.
    """
    sha256 = [
        [one["manifest_sha256"] for one in index.about["snapshots"]] for index in (first, second)
    ]
    same = sha256[0] == sha256[1] and all(
        np.array_equal(first.columns[name], second.columns[name]) for name in ("snapshot", "record")
    )
    if not same:
        raise SearchIndexError(
            f"{second.folder} has other clips than {first.folder}: index the same snapshots, in "
            "the same order, with the second run"
        )


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
