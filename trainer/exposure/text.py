"""Exposure as a table for the terminal, and as JSON."""

from collections.abc import Iterator
from typing import Any

from trainer.exposure.exposure import ChainExposure, Exposure, listed

# Number of videos in the table, and of ids and steps in a line.
_VIDEOS, _NAMES, _STEPS = 20, 3, 12


def lines(found: ChainExposure) -> Iterator[str]:
    """Yield the lines of the tables, one table per run."""
    for number, one in enumerate(found.runs):
        started = "" if number == 0 else ", from which the run before started"
        yield f"{one.trained.run}: {one.trained.steps:,} steps{started}"
        yield from _of_run(one)
        before, after = found.checkpoints(number)
        if after:
            why = "" if one.first_step else " (the run started from parameters that did)"
            yield f"  checkpoints that saw them{why}: {_some(after)}"
        yield f"  checkpoints from before: {_some(before)}"
        yield from (f"  note: {note}" for note in one.trained.notes)
    if found.missing:
        names = ", ".join(found.missing[:_NAMES])
        more = f" and {len(found.missing) - _NAMES:,} more" if found.missing[_NAMES:] else ""
        yield f"{len(found.missing):,} videos are in no training snapshot: {names}{more}"
    for why in found.unknown:
        yield f"unknown: {why}"


def _of_run(one: Exposure) -> Iterator[str]:
    videos = one.of_videos()
    drawn = {video: about for video, about in videos.items() if about.draws}
    total = sum(about.draws for about in drawn.values())
    spliced = sum(about.spliced for about in drawn.values())
    yield (
        f"  {len(drawn):,} videos seen of {len(videos):,} in its snapshots: {total:,} draws of "
        f"clips, {spliced:,} of them spliced, each as a foreground and as a background"
    )
    if drawn:
        width = max(len("video"), *(len(video) for video in [*drawn][:_VIDEOS]))
        yield f"  {'video':{width}}  clips   draws  spliced  first step  last step"
        for video, about in [*drawn.items()][:_VIDEOS]:
            yield (
                f"  {video:{width}}  {about.clips:5,}  {about.draws:6,}  {about.spliced:7,}  "
                f"{about.first_step:10,}  {about.last_step:9,}"
            )
        if len(drawn) > _VIDEOS:
            yield f"  … and {len(drawn) - _VIDEOS:,} more videos"
    if one.captions.size:
        yield (
            f"  the texts of {one.captions.size:,} of their clips trained the vocabulary, which "
            "all checkpoints share"
        )


def _some(steps: list[int]) -> str:
    """Return steps as a list, cut in the middle.

    >>> _some([]), _some([10, 20])
    ('none', '10, 20')
    """
    if len(steps) > _STEPS:
        return f"{_some(steps[: _STEPS - 1])}, … ({len(steps):,} in all), {steps[-1]}"
    return ", ".join(map(str, steps)) or "none"


def as_json(found: ChainExposure) -> dict[str, Any]:
    """Return all of it: {"exposed", "unknown", "missing", "runs"}.

    Raises:
      SnapshotError: an index is damaged.
    """
    return {
        "exposed": found.exposed,
        "unknown": found.unknown,
        "missing": found.missing,
        "runs": [_run_as_json(found, number) for number in range(len(found.runs))],
    }


def _run_as_json(found: ChainExposure, number: int) -> dict[str, Any]:
    one = found.runs[number]
    before, after = found.checkpoints(number)
    return {
        "run": str(one.trained.run),
        "steps": one.trained.steps,
        "first_step": one.first_step,
        "checkpoints": {"before": before, "exposed": after},
        "notes": one.trained.notes,
        "snapshots": [
            {"folder": snapshot.folder, "manifest_sha256": snapshot.manifest_sha256}
            for snapshot in one.mixture.snapshots
        ],
        "videos": {video: about._asdict() for video, about in one.of_videos().items()},
        "vocabulary": one.mixture.clip_ids(one.captions),
        "draws": listed(one),
    }
