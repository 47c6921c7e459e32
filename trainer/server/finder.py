"""Nearest clips of a vector: what the server needs of an index, and an exact one in memory."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Int64

from protos.v1 import clip_pb2
from protos.video_id import video_key
from trainer.data.snapshot import Snapshot
from trainer.data.types import Progress
from trainer.inference.encoder import Encoder, embed_clips

_RECORDS_AT_ONCE = 256
_LABELS = 200  # maximum number of labels that a page offers as a filter


@dataclasses.dataclass(frozen=True)
class Filter:
    """Conditions on the found clips. None and 0 accept all clips."""

    label: str | None = None
    video: str | None = None  # id of the video
    shortest_us: int = 0
    longest_us: int | None = None
    min_score: float | None = None


class Hit(NamedTuple):
    """A found clip."""

    number: int  # the clip's index among all clips
    score: float  # cosine of the query and the clip


class Place(NamedTuple):
    """The record of a clip."""

    snapshot: Snapshot
    record: int


@runtime_checkable
class Finder(Protocol):
    """An index of clips by one run. They are numbered from 0."""

    def __len__(self) -> int: ...

    @property
    def snapshots(self) -> Sequence[Snapshot]:
        """The snapshots of the clips."""
        ...

    @property
    def labels(self) -> Sequence[str]:
        """The labels to filter by, sorted."""
        ...

    def find(
        self, query: Float[np.ndarray, " e"], keep: Filter, count: int, by_video: bool
    ) -> list[Hit]:
        """Return the clips most similar to a query, best first.

        Args:
          query: an L2-normalized vector of the joint space.
          keep: the conditions on the clips.
          count: maximum number of hits.
          by_video: whether to return only the best clip of each video.
        """
        ...

    def vector(self, number: int) -> Float[np.ndarray, " e"]:
        """Return the L2-normalized vector of a clip."""
        ...

    def place(self, number: int) -> Place:
        """Return the record of a clip."""
        ...


class ExactFinder:
    """All clips' vectors in memory, compared one by one with each query."""

    def __init__(
        self,
        snapshot: Snapshot,
        vectors: Float[np.ndarray, "n e"],
        clips: Sequence[clip_pb2.Clip],
    ) -> None:
        """Initialize from the vectors and the records, whose frames are not used."""
        self.snapshots = (snapshot,)
        self._vectors = vectors
        self._lengths = np.array([clip.end_us - clip.start_us for clip in clips], np.int64)
        self._videos = np.array([video_key(clip.video_id) for clip in clips], object)
        self._labels = [frozenset(clip.labels) for clip in clips]

    @classmethod
    def build(cls, snapshot: Snapshot, encoder: Encoder, progress: Progress) -> "ExactFinder":
        """Embed all clips of a snapshot.

        Raises:
          SnapshotError: a record is damaged, or the snapshot is empty or does not suit the model.
        """
        _, encoded = embed_clips(snapshot, encoder, progress)
        clips = []
        for start in range(0, len(snapshot), _RECORDS_AT_ONCE):
            some = np.arange(start, min(start + _RECORDS_AT_ONCE, len(snapshot)))
            for data in snapshot.read(some):
                clip = clip_pb2.Clip.FromString(data)
                clip.ClearField("frames")
                clips.append(clip)
        return cls(snapshot, encoded.clip, clips)

    def __len__(self) -> int:
        return len(self._vectors)

    @property
    def labels(self) -> list[str]:
        """The labels of the clips, sorted."""
        return sorted(frozenset().union(*self._labels))[:_LABELS]

    def find(
        self, query: Float[np.ndarray, " e"], keep: Filter, count: int, by_video: bool
    ) -> list[Hit]:
        """Return the clips most similar to a query, best first; see `Finder.find`."""
        scores = self._vectors @ query
        kept = np.flatnonzero(self._fits(scores, keep))
        ranked = kept[np.argsort(-scores[kept], kind="stable")]
        if by_video:
            ranked = self._best_of_videos(ranked)
        return [Hit(number, float(scores[number])) for number in ranked[:count].tolist()]

    def vector(self, number: int) -> Float[np.ndarray, " e"]:
        """Return the vector of a clip."""
        return self._vectors[number]

    def place(self, number: int) -> Place:
        """Return the record of a clip, which has the same number."""
        return Place(self.snapshots[0], number)

    def _fits(self, scores: Float[np.ndarray, " n"], keep: Filter) -> Bool[np.ndarray, " n"]:
        fits = self._lengths >= keep.shortest_us
        if keep.longest_us is not None:
            fits &= self._lengths <= keep.longest_us
        if keep.min_score is not None:
            fits &= scores >= keep.min_score
        if keep.video is not None:
            fits &= np.asarray(self._videos == video_key(keep.video), np.bool_)
        if keep.label is not None:
            fits &= np.array([keep.label in labels for labels in self._labels], np.bool_)
        return fits

    def _best_of_videos(self, ranked: Int64[np.ndarray, " m"]) -> Int64[np.ndarray, " k"]:
        best: dict[str, int] = {}
        for number in ranked.tolist():
            best.setdefault(str(self._videos[number]), number)
        return np.array(list(best.values()), np.int64)
