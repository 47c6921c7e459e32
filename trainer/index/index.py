"""The Python API of an index: a model's clips, searched by text, noun, clip or video.

from trainer.index.index import Index

index = Index.open("indices/first")
for hit in index.search("a red ring is rising", minus="a blue disc", top=3):
    print(hit.score, hit.clip_id, hit.caption)
index.search(like="clip-17_0_900000", each_video=True)
"""

import dataclasses
import functools
import math
import os
import pathlib
import threading
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from protos import contract
from trainer.data.folder import in_bucket
from trainer.data.snapshot import Snapshot
from trainer.evaluation.grounding import heat_map
from trainer.finite import finite
from trainer.index import embed, files, moments
from trainer.index.files import Columns, SearchIndexError
from trainer.index.moments import MomentHit
from trainer.index.neighbors import Neighbors
from trainer.index.quantize import dequantize, tensor_names
from trainer.index.queries import Filters, QueryError, direction, matching
from trainer.inference import api, shards
from trainer.inference.encoder import Encoder, frames_of
from trainer.runs import checkpoint
from trainer.runs.checkpoint import Loaded

MAX_RANK = 10_000  # of a result: a deeper page would be of no use, but slow

Texts = str | Sequence[str]


class NounScore(NamedTuple):
    """The similarity of a noun to a clip's groups."""

    noun: str
    score: float  # cosine of the prompted noun and its most similar group


@dataclasses.dataclass(frozen=True)
class Hit:
    """A clip that a search found."""

    score: float  # cosine of query and clip
    row: int  # number of the clip in the index
    clip_id: str
    video_id: str
    start_us: int  # start of the clip in its video, microseconds
    end_us: int
    caption: str
    labels: tuple[str, ...]
    dataset: str
    snapshot: str  # folder of the snapshot when the index was built
    record: int  # number of the clip in the snapshot
    nouns: tuple[NounScore, ...] = ()  # of the query's nouns


class Grounded(NamedTuple):
    """A clip with heat maps that locate the nouns of a query."""

    frames: UInt8[np.ndarray, "T R R 3"]  # as the model sees them
    heat: list[Float[np.ndarray, "Nt h w"]]  # a heat map per noun, as Model.ground returns it


class Index:
    """An index that `svilm-train index` built. It may be used from several threads."""

    def __init__(self, folder: pathlib.Path, run: Loaded | None = None) -> None:
        """Open an index. Callers use `open`."""
        self.folder = folder
        self._manifest = manifest = files.read_manifest(folder)
        self._data = folder / manifest["data"]
        self._dtype = manifest["made_from"]["dtype"]
        self.columns = Columns(self._data, manifest["clips"])
        names = tensor_names("clip", self._dtype)
        stored = {name: files.read_array(self._data / f"{name}.npy") for name in names}
        search = manifest["search"]
        faiss_file = self._data / files.FAISS if search["kind"] == "ivf" else None
        self._neighbors = Neighbors(stored, faiss_file, search.get("probes", 0))
        self._datasets = [one["dataset"] for one in manifest["snapshots"]]
        self._lock = threading.RLock()
        self._run = None if run is None else self._checked(run)
        self._snapshots: dict[int, Snapshot] = {}

    @classmethod
    def open(cls, folder: str | os.PathLike[str], run: Loaded | None = None) -> "Index":
        """Open an index.

        Args:
          folder: the output of `svilm-train index`.
          run: the run that the index is of. If None, the run's folder is that in the index, and is
            read with the first query that needs it.

        Raises:
          SearchIndexError: the index is missing, damaged, or of another run.
        """
        return cls(pathlib.Path(folder), run)

    def __len__(self) -> int:
        """Return the number of clips."""
        return len(self._neighbors)

    def __repr__(self) -> str:
        made_from, search = self._manifest["made_from"], self._manifest["search"]
        how = f"recall@10 {search['recall_at_10']}" if search["kind"] == "ivf" else "exact"
        return (
            f"<svilm.Index {str(self.folder)!r}: {len(self):,} clips of "
            f"{self._manifest['videos']:,} videos, {made_from['dtype']}, {how}, run "
            f"{self._manifest['run']!r} at step {made_from['step']:,}>"
        )

    @property
    def about(self) -> dict[str, Any]:
        """The values of index.json (trainer/index/files.py)."""
        return self._manifest

    @property
    def run(self) -> Loaded:
        """The run that the index is of.

        Raises:
          SearchIndexError: it is not where it was, or was trained further or anew.
          CheckpointError: it cannot be read.
        """
        with self._lock:
            if self._run is None:
                self._run = self._checked(self._find_run())
            return self._run

    @functools.cached_property
    def encoder(self) -> Encoder:
        """The encoders of the run."""
        return Encoder(self.run.config, self.run.tokenizer, self.run.params)

    @functools.cached_property
    def _model(self) -> api.Model:
        return api.Model(self.run)

    def search(
        self,
        text: Texts = (),
        *,
        minus: Texts = (),
        nouns: Texts = (),
        like: str | np.ndarray | None = None,
        filters: Filters = Filters(),  # noqa: B008 (it is frozen)
        top: int = 10,
        offset: int = 0,
        each_video: bool = False,
    ) -> list[Hit]:
        """Return the clips most similar to a query, best first; equal scores in index order.

        The query is the mean of the embeddings of its texts and of `like`, minus the mean of
        those of `minus`. A query of nouns alone is the mean of their embeddings in a prompt.

        Args:
          text: a description of the clip, or several.
          minus: descriptions of what the clip should not be.
          nouns: noun phrases, whose similarity to the clips' groups is part of each result.
          like: the id of a clip of the index, which is not found itself; or the vector of another
            clip, as `embed_video` returns it.
          filters: conditions on the clips.
          top: maximum number of results.
          offset: number of best results to leave out.
          each_video: whether to return only the best clip of each video.

        Raises:
          QueryError: the query is empty or cancels out, a filter names what the index lacks, or
            `top` and `offset` are out of range.
          SearchIndexError: the run is not that of the index.
        """
        _check_page(top, offset)
        texts, minus, nouns = _listed(text), _listed(minus), _listed(nouns)
        itself = self._row(like) if isinstance(like, str) else None
        vector = None if isinstance(like, str) else like
        among = matching(filters, self.columns, self._datasets)
        if itself is not None:
            among = np.ones(len(self), bool) if among is None else among
            among[itself] = False
        query = self._direction(texts, minus, nouns, vector if itself is None else itself)
        rows, scores = self._ranked(query, offset + top, among, filters.min_score, each_video)
        hits = [
            self._hit(row, score)
            for row, score in zip(rows[offset:].tolist(), scores[offset:].tolist(), strict=True)
        ]
        return self._with_nouns(hits, nouns) if nouns else hits

    def moments(
        self,
        text: Texts = (),
        *,
        minus: Texts = (),
        like: str | np.ndarray | None = None,
        filters: Filters = Filters(),  # noqa: B008 (it is frozen)
        top: int = 10,
        offset: int = 0,
        each_video: bool = False,
    ) -> list[MomentHit]:
        """Return the spans of videos most similar to a query, best first.

        The clips of the index are sliding windows of whole videos. Spans of a video do not overlap,
        and begin and end between the centres of its windows.

        Args:
          text: a description of the moment, or several.
          minus: descriptions of what the moment should not be.
          like: the id of a window of the index, or the vector of a clip, as `embed_video` returns
            it.
          filters: conditions on the windows. Those on length and score are on the spans.
          top: maximum number of results.
          offset: number of best results to leave out.
          each_video: whether to return only one span of each video, that with the largest excess
            over half height (trainer/inference/moments.py).

        Raises:
          QueryError, SearchIndexError: as `search`.
        """
        _check_page(top, offset)
        vector = self._row(like) if isinstance(like, str) else like
        query = self._direction(_listed(text), _listed(minus), (), vector)
        of_windows = dataclasses.replace(filters, min_us=0, max_us=None)
        among = matching(of_windows, self.columns, self._datasets)
        found = moments.find(
            lambda count: self._ranked(query, count, among, -math.inf, each_video=True),
            lambda rows: self.clips(rows) @ query,
            moments.Videos(self.columns, self._manifest["snapshots"], among),
            filters,
            offset + top,
            each_video,
        )
        return found[offset:]

    def embed_video(
        self, path: str | os.PathLike[str], span_us: tuple[int, int] | None = None
    ) -> Float[np.ndarray, " E"]:
        """Embed a video file, or a span of it, as `like` of a search.

        Args:
          path: the file.
          span_us: start and end in microseconds; None embeds the whole video.

        Raises:
          VideoError: the file cannot be decoded, or is shorter than the span's start.
          ValueError: the span is empty or begins before the video.
        """
        if span_us is None:
            return self._model.embed_videos([path])[0]
        return self._model.embed_span(path, *span_us)

    def ground(self, hits: Sequence[Hit], nouns: Texts) -> list[Grounded]:
        """Locate nouns in clips that were found.

        Raises:
          SnapshotError: a snapshot is not where it was, or a record is damaged.
          SearchIndexError: a snapshot is another version now.
        """
        listed = _listed(nouns)
        prompted = self._prompted(listed)
        found = []
        for hit in hits:
            snapshot = self.snapshot(hit.row)
            (frames,) = frames_of(snapshot, [hit.record], self.run.config)
            clips = self.encoder.clips(frames[None], [hit.clip_id])
            heat = [
                heat_map(
                    clips.groups[0], clips.group_of[0], clips.share[0], noun, self.run.config.video
                ).astype(np.float32)
                for noun in prompted
            ]
            found.append(Grounded(frames, heat))
        return found

    def snapshot(self, row: int) -> Snapshot:
        """Return the snapshot of a clip, checking that it is the one that was indexed.

        Raises:
          SnapshotError: it is not where it was.
          SearchIndexError: it is another version now.
        """
        number = int(self.columns["snapshot"][row])
        with self._lock:
            if number not in self._snapshots:
                about = self._manifest["snapshots"][number]
                snapshot = Snapshot.open(about["folder"])
                if snapshot.manifest_sha256 != about["manifest_sha256"]:
                    raise SearchIndexError(
                        f"snapshot {about['folder']} has changed since {self.folder} was built: "
                        "run svilm-train index again"
                    )
                self._snapshots[number] = snapshot
            return self._snapshots[number]

    def windows(self, row: int) -> Float[np.ndarray, "Nt D"]:
        """Return the mean token of each window of a clip, as `svilm-train embed` writes it."""
        return self._vectors("windows", row)

    def groups(self, row: int) -> Float[np.ndarray, "M E"]:
        """Return the group vectors of a clip in the joint space."""
        return self._vectors("groups", row)

    def clips(self, rows: Sequence[int] | np.ndarray) -> Float[np.ndarray, "n E"]:
        """Return the vectors of clips in the joint space."""
        return self._neighbors.vectors(np.asarray(rows, np.int64))

    # --- queries ---

    def _direction(
        self,
        texts: Sequence[str],
        minus: Sequence[str],
        nouns: Sequence[str],
        like: int | np.ndarray | None,
    ) -> Float[np.ndarray, " E"]:
        width = self._manifest["shape"]["clip"][0]
        plus = [np.zeros((0, width), np.float32)]
        if isinstance(like, np.ndarray):
            if like.shape != (width,):
                raise QueryError(
                    f"the vector has the shape {list(like.shape)}, but the index [{width}]"
                )
            plus.append(finite("query", like.astype(np.float32))[None])
        elif like is not None:
            plus.append(self.clips([like]))
        if texts:
            plus.append(self.encoder.texts(texts))
        elif nouns and like is None:
            plus.append(self._prompted(nouns))
        less = self.encoder.texts(minus) if minus else np.zeros((0, width), np.float32)
        return direction(np.concatenate(plus), less).astype(np.float32)

    def _ranked(
        self,
        query: np.ndarray,
        count: int,
        among: np.ndarray | None,
        min_score: float,
        each_video: bool,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return at most `count` rows, best first, and their scores."""
        fetched = count
        while True:
            rows, scores = self._neighbors.nearest(query, fetched, among)
            whole = len(rows) < fetched or fetched >= len(self)
            kept = scores >= min_score
            if each_video:
                kept &= self._first_of_video(rows)
            if whole or kept.sum() >= count or (len(scores) and scores[-1] < min_score):
                return rows[kept][:count], scores[kept][:count]
            fetched *= 4

    def _first_of_video(self, rows: np.ndarray) -> np.ndarray:
        """Return whether each row is the first of its video."""
        video = self.columns.video_keys(self._datasets, rows)
        first = np.zeros(len(rows), bool)
        first[np.unique(video, return_index=True)[1]] = True
        return first

    def _row(self, clip_id: str) -> int:
        row = self.columns.row_of(clip_id)
        if row is None:
            raise QueryError(
                f"the index has no clip {clip_id!r}: results name the ids of its clips"
            )
        return row

    def _hit(self, row: int, score: float) -> Hit:
        columns, text = self.columns, self.columns.text(row)
        about = self._manifest["snapshots"][int(columns["snapshot"][row])]
        return Hit(
            score=score,
            row=row,
            clip_id=text["clip_id"],
            video_id=columns.videos[int(columns["video"][row])],
            start_us=int(columns["start_us"][row]),
            end_us=int(columns["end_us"][row]),
            caption=text["caption"],
            labels=tuple(text["labels"]),
            dataset=about["dataset"],
            snapshot=about["folder"],
            record=int(columns["record"][row]),
        )

    def _with_nouns(self, hits: list[Hit], nouns: Sequence[str]) -> list[Hit]:
        prompted = self._prompted(nouns)
        found = []
        for hit in hits:
            cosines = (self.groups(hit.row) @ prompted.T).max(axis=0).tolist()
            of_nouns = tuple(map(NounScore, nouns, cosines))
            found.append(dataclasses.replace(hit, nouns=of_nouns))
        return found

    def _prompted(self, nouns: Sequence[str]) -> Float[np.ndarray, "k E"]:
        return self.encoder.texts([contract.PROMPT_TEMPLATES[0].format(noun) for noun in nouns])

    # --- vectors and the run ---

    def _vectors(self, name: str, row: int) -> np.ndarray:
        number = int(self.columns["snapshot"][row])
        shard, place = divmod(int(self.columns["record"][row]), self._shard_clips)
        prefix = f"features-{number:03d}-{shard:05d}-of-"
        (file,) = (one for one in self._manifest["files"] if one.startswith(prefix))
        return dequantize(name, embed.read_row(self._data / file, name, self._dtype, place))

    @property
    def _shard_clips(self) -> int:
        return self._manifest["made_from"]["shard_clips"]

    def _find_run(self) -> Loaded:
        folder, step = self._manifest["run"], self._manifest["made_from"]["step"]
        if folder is None:
            raise SearchIndexError(
                f"{self.folder} does not say where its run is: give the run to Index.open or --run"
            )
        of_step = f"{folder}/checkpoints/{step}"
        return checkpoint.load(of_step if os.path.isdir(of_step) else folder)

    def _checked(self, run: Loaded) -> Loaded:
        if different := shards.differing(self._manifest["made_from"], shards.model_identity(run)):
            raise SearchIndexError(
                f"{self.folder} is of another run ({', '.join(different)} differ): give the run at "
                f"step {self._manifest['made_from']['step']:,}, or index the clips by this one"
            )
        return run


def _check_page(top: int, offset: int) -> None:
    if not 1 <= top <= MAX_RANK or not 0 <= offset <= MAX_RANK - top:
        raise QueryError(
            f"top {top} and offset {offset} are out of range: give top ≥ 1, offset ≥ 0 and at "
            f"most {MAX_RANK:,} together"
        )


def _listed(texts: Texts) -> list[str]:
    listed = [texts] if isinstance(texts, str) else list(texts)
    if blank := [text for text in listed if not isinstance(text, str) or not text.strip()]:
        raise QueryError(f"{blank[0]!r} is not a text: give words such as 'a red ring'")
    return listed


def find_index(run: Loaded, snapshot: Snapshot) -> pathlib.Path | None:
    """Return an index of a run and a snapshot in a folder beside one of them, if there is one."""
    beside = [snapshot.folder, *([] if run.folder is None else [run.folder])]
    parents = {pathlib.Path(folder).parent for folder in beside if not in_bucket(folder)}
    model = shards.model_identity(run)
    for manifest in sorted(path for parent in parents for path in parent.glob("*/index.json")):
        try:
            made_from = files.read_manifest(manifest.parent)["made_from"]
        except (SearchIndexError, OSError):
            continue
        if snapshot.manifest_sha256 in made_from["snapshots"] and not shards.differing(
            made_from, model
        ):
            return manifest.parent
    return None
