"""The clips of some videos that a run saw, and the runs whose parameters it started from."""

import collections
import os
from collections.abc import Sequence, Set
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Int64

from protos.video_id import video_key
from trainer.data import annotations, order
from trainer.data.mixture import Mixture
from trainer.data.order import Draws
from trainer.data.snapshot import Snapshot
from trainer.exposure import chain, draws
from trainer.exposure.chain import Trained
from trainer.runs.run_folder import VOCABULARY_RECORDS
from trainer.runs.run_path import RunPath
from trainer.tasks.finetuning import example_records


class OfVideo(NamedTuple):
    """Counts of a run's draws of a video's clips."""

    clips: int  # number of clips in the run's snapshots
    draws: int  # number of rows of batches that had one of them
    spliced: int  # number of these rows at steps with cut-and-paste
    first_step: int | None  # counted from 1, as in metrics.jsonl
    last_step: int | None


class Exposure(NamedTuple):
    """A run's draws of the clips of some videos."""

    trained: Trained
    mixture: Mixture
    order: draws.Order
    videos: dict[int, str]  # video's id of each record of the videos
    found: Draws
    spliced: Bool[np.ndarray, " n"]  # whether each draw is at a step with cut-and-paste
    captions: Int64[np.ndarray, " m"]  # records of the videos whose texts trained the vocabulary

    @property
    def first_step(self) -> int | None:
        """The first step, counted from 1, that drew a clip of the videos."""
        return int(self.found.step[0]) + 1 if self.found.step.size else None

    def of_videos(self) -> dict[str, OfVideo]:
        """Return the counts of each video that the run's snapshots have."""
        clips = collections.Counter(self.videos.values())
        drawn: dict[str, list[int]] = {video: [] for video in sorted(clips)}
        spliced = collections.Counter[str]()
        for step, record, pasted in zip(
            self.found.step.tolist(),
            self.found.record.tolist(),
            self.spliced.tolist(),
            strict=True,
        ):
            video = self.videos[record]
            drawn[video].append(step + 1)
            spliced[video] += pasted
        return {
            video: OfVideo(
                clips[video],
                len(steps),
                spliced[video],
                steps[0] if steps else None,
                steps[-1] if steps else None,
            )
            for video, steps in drawn.items()
        }


class ChainExposure(NamedTuple):
    """Draws of some videos' clips by a run and by the runs that it started from."""

    runs: list[Exposure]  # the run itself first
    missing: list[str]  # ids of the videos that no snapshot of the runs has

    @property
    def exposed(self) -> bool:
        """True if a run saw a clip of the videos, or read its texts for the vocabulary."""
        return any(one.first_step or one.captions.size for one in self.runs)

    @property
    def unknown(self) -> list[str]:
        """The reasons for which more may have been seen than is listed."""
        return [f"{one.trained.run}: {why}" for one in self.runs for why in one.trained.unknown]

    def checkpoints(self, number: int) -> tuple[list[int], list[int]]:
        """Return the steps of a run's checkpoints from before the first draw, and of the others.

        A run that started from one that saw a clip of the videos has no checkpoint from before.

        Args:
          number: index of the run in `runs`.
        """
        inherited = any(one.first_step for one in self.runs[number + 1 :])
        first = 0 if inherited else self.runs[number].first_step
        steps = self.runs[number].trained.checkpoints
        before = [step for step in steps if first is None or step < first]
        return before, [step for step in steps if step not in before]


def exposure(
    run: RunPath,
    video_ids: Set[str],
    snapshots: Sequence[Snapshot] = (),
    moved: Sequence[RunPath] = (),
    columns: Sequence[str | os.PathLike[str]] = (),
) -> ChainExposure:
    """Compute the draws of some videos' clips by a run and by the runs that it started from.

    Nothing is trained or decoded. Of each snapshot, the shards' summaries are read, and the indices
    of the shards that have the videos. Of a fine-tuned run, all records are read.

    Args:
      run: the run's folder, or one of its checkpoints, RUN/checkpoints/STEP.
      video_ids: the videos' ids, in any spelling (`video_key`).
      snapshots: the training snapshots, if they were moved or an earlier release trained the run.
      moved: the earlier runs, if they were moved.
      columns: the files of columns by which a run selected its clips, if they were moved.

    Raises:
      RunError, VocabularyError: `run` is no run, or a file is damaged.
      ExposureError: a training snapshot or a column is missing.
      SnapshotError: a snapshot is damaged.
    """
    keys = {video_key(video_id) for video_id in video_ids}
    runs = [_of_run(trained, keys, snapshots, columns) for trained in chain.follow(run, moved)]
    there = {video_key(video) for one in runs for video in one.videos.values()}
    missing = sorted(video for video in video_ids if video_key(video) not in there)
    return ChainExposure(runs, missing)


def _of_run(
    trained: Trained,
    keys: Set[str],
    snapshots: Sequence[Snapshot],
    columns: Sequence[str | os.PathLike[str]],
) -> Exposure:
    mixture = chain.open_mixture(trained, snapshots, columns)
    config = trained.config
    videos: dict[int, str] = {}
    first = 0
    for snapshot in mixture.snapshots:
        of_snapshot = snapshot.records_of(keys)
        videos |= {first + record: video for record, video in of_snapshot.items()}
        first += len(snapshot)
    records = np.array(sorted(videos), np.int64)
    examples = example_records(trained.task, mixture) if trained.task and videos else None
    of_run = draws.order_of(trained, mixture.sources, examples)
    visits = sum(source.visits for source in of_run.sources)
    steps = order.total_steps(visits, config.batch, config.epochs, config.max_steps)
    found = of_run.draws(records, min(trained.steps, steps))
    captions = np.zeros(0, np.int64)
    if str(trained.data.get("vocabulary")).startswith("trained"):
        read = annotations.text_records(mixture, VOCABULARY_RECORDS)
        captions = records[np.isin(records, read)]
    return Exposure(
        trained, mixture, of_run, videos, found, draws.is_spliced(trained, steps, found), captions
    )


def listed(one: Exposure) -> list[dict[str, Any]]:
    """Return each draw of the videos' clips, with its splice.

    Of a draw at a step with cut-and-paste, "foreground" describes the row's own example: the share
    of its windows that are this clip's, and the clip behind. "background" describes the example of
    the batch that has this clip behind another, and the share of its windows that are this clip's.

    Raises:
      SnapshotError: an index of a shard with these clips, or with those beside them, is damaged.
    """
    found, spliced = one.found, np.flatnonzero(one.spliced)
    some = Draws(*(column[spliced] for column in found))
    pasted = draws.pasted(one.trained.config, some)
    behind = one.order.records_at(some.step, pasted.background)
    before = one.order.records_at(some.step, pasted.foreground)
    unique = np.unique(np.concatenate([found.record, behind, before]))
    clip_ids = dict(zip(unique.tolist(), one.mixture.clip_ids(unique), strict=True))
    lines: list[dict[str, Any]] = [
        {
            "step": step + 1,
            "row": row,
            "clip_id": clip_ids[record],
            "video_id": one.videos[record],
            "foreground": None,
            "background": None,
        }
        for step, row, record in zip(*(column.tolist() for column in found), strict=True)
    ]
    rows = zip(
        spliced.tolist(),
        *(column.tolist() for column in (*pasted, behind, before)),
        strict=True,
    )
    for number, of_background, share, of_foreground, rest, under, over in rows:
        lines[number]["foreground"] = {
            "share": share,
            "background_row": of_background,
            "background_clip": clip_ids[under],
        }
        lines[number]["background"] = {
            "share": rest,
            "foreground_row": of_foreground,
            "foreground_clip": clip_ids[over],
        }
    return lines
