"""The writer of *Shapes*: mp4 files, annotations in VideoCC's CSV format, and ground truth.

    OUT/{train,test}/videos/<video_id>.mp4       H.264, several concatenated clips
    OUT/{train,test}/truth.jsonl                 ground truth of each clip; see truth.py
    OUT/{train,test}/video_cc_public.csv         video id, start µs, end µs, caption; no header
    OUT/tasks/                                   optional benchmark formats; see tasks/

Equal arguments and ffmpeg versions give equal bytes, for any number of workers. Each file appears
under its name only when complete, and a split's annotations appear after its other files.
"""

import csv
import io
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from pipelines.decoding import ffmpeg
from pipelines.processes import pool
from pipelines.shapes import ShapesError, encode, truth
from pipelines.shapes.draws import Split
from pipelines.shapes.scene import Clip, sample_actions, sample_clips, sample_untrimmed
from pipelines.shapes.tasks import (
    actions,
    keyframes,
    moments,
    questions,
    retrieval,
    segments,
)

Progress = Callable[[int, int], None]
"""A callback that receives the number of clips written and the total number of clips."""


@dataclass(frozen=True)
class Summary:
    """The numbers of clips per split, and the number and bytes of all written videos."""

    train_clips: int
    test_clips: int
    videos: int
    video_bytes: int


@dataclass(frozen=True)
class _Video:
    """A video file to write, its clips, and whether to compute their ground truth."""

    path: Path
    clips: tuple[Clip, ...]
    truths: bool = False


@dataclass(frozen=True)
class _Written:
    """A written file's size in bytes, and one line of ground truth per clip."""

    size: int
    truths: tuple[str, ...]


def write(
    out: Path,
    *,
    train_clips: int = 2_400,
    test_clips: int = 600,
    seed: int = 0,
    workers: int = 2,
    tasks: bool = False,
    progress: Progress | None = None,
) -> Summary:
    """Render both splits, and optionally the `tasks`, under `out` in `workers` processes.

    Raises:
      ShapesError: a count is invalid, the folder cannot be written, or an encoder failed.
      FfmpegError: ffmpeg is missing or does not run.
    """
    for name, value, minimum in (
        ("train_clips", train_clips, 0),
        ("seed", seed, 0),
        ("workers", workers, 1),
    ):
        if value < minimum:
            raise ShapesError(f"{name} is {value}: it must be at least {minimum}")
    ffmpeg.version()  # Reports an unusable ffmpeg once, before every worker would.
    splits: dict[Split, list[Clip]] = {
        "train": sample_clips("train", train_clips, seed),
        "test": sample_clips("test", test_clips, seed),
    }
    videos: dict[Split, list[_Video]] = {
        split: _videos(out / split / "videos", clips) for split, clips in splits.items()
    }
    of_tasks, texts = _tasks(out / "tasks", splits, seed) if tasks else ([], {})
    _check_no_others(out, videos)
    with _converted_errors(out):
        for split in splits:
            (out / split / "videos").mkdir(parents=True, exist_ok=True)
        for path in {*texts, *(video.path for video in of_tasks)}:
            path.parent.mkdir(parents=True, exist_ok=True)
        written = _render_all(
            [*(video for split in splits for video in videos[split]), *of_tasks], workers, progress
        )
        for split, clips in splits.items():
            truths = (line for video in videos[split] for line in written[video.path].truths)
            _write_whole(out / split / "truth.jsonl", "".join(f"{line}\n" for line in truths))
            _write_whole(out / split / "video_cc_public.csv", _annotations(clips))
        for path, text in texts.items():
            _write_whole(path, text)
    return Summary(
        train_clips=train_clips,
        test_clips=test_clips,
        videos=len(written),
        video_bytes=sum(video.size for video in written.values()),
    )


def _check_no_others(out: Path, videos: Mapping[Split, list[_Video]]) -> None:
    """Refuse a folder with videos of another corpus, whose scenes may be in this one's tests."""
    for split, of_split in videos.items():
        ours = {video.path for video in of_split}
        for path in sorted((out / split / "videos").glob("*.mp4")):
            if path not in ours:
                raise ShapesError(
                    f"{path} is of another corpus than the {split} split asked for: give an empty "
                    "folder"
                )


def _videos(folder: Path, clips: list[Clip]) -> list[_Video]:
    return [
        _Video(folder / f"{video_id}.mp4", tuple(of_video), truths=True)
        for video_id, of_video in groupby(clips, key=lambda clip: clip.video_id)
    ]


def _tasks(
    out: Path, splits: dict[Split, list[Clip]], seed: int
) -> tuple[list[_Video], dict[Path, str]]:
    """Return the additional videos and the texts of the annotation files of all tasks."""
    train, test = splits["train"], splits["test"]
    alone = [_Video(out / f"videos/video{n}.mp4", (clip,)) for n, clip in enumerate(train + test)]
    acted = sample_actions((len(train) + len(test)) // 4, seed)
    untrimmed = [
        video
        for split, clips in splits.items()
        for video in sample_untrimmed(split, -(-len(clips) // 6), seed)
    ]
    videos = [
        *alone,
        *(_Video(out / "actions" / actions.path(clip), (clip,)) for clip in acted),
        *(
            _Video(
                out / f"untrimmed/v_{video.video_id}.mp4",
                tuple(piece.clip for piece in video.pieces),
            )
            for video in untrimmed
        ),
    ]
    texts = {
        **retrieval.files(train, test, seed),
        **questions.files(train, test, seed),
        **actions.files(acted),
        **segments.files(untrimmed),
        **moments.files(untrimmed, seed),
        **keyframes.files(train, test, seed),
    }
    return videos, {out / path: text for path, text in texts.items()}


def _render_all(
    videos: list[_Video], workers: int, progress: Progress | None
) -> dict[Path, _Written]:
    """Render the videos in several processes, and stop all at the first failure."""
    total = sum(len(video.clips) for video in videos)
    written: dict[Path, _Written] = {}
    done = 0
    try:
        for video, result in pool.each(_render, videos, workers):
            written[video.path] = result
            done += len(video.clips)
            if progress:
                progress(done, total)
    except pool.WorkerDiedError as error:
        raise ShapesError(str(error)) from None
    return written


def _render(video: _Video) -> _Written:
    with _whole_file(video.path) as unfinished:
        encode.encode(video.clips, unfinished)
    truths = tuple(truth.line(clip) for clip in video.clips) if video.truths else ()
    return _Written(video.path.stat().st_size, truths)


def _annotations(clips: list[Clip]) -> str:
    """Return the rows of VideoCC's public CSV.

    >>> print(_annotations(sample_clips("train", 1, seed=0)), end="")
    ZolJ6T19OkQ,0,2000000,"While a yellow cross is falling, a white pyramid is blinking."
    """
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerows((clip.video_id, clip.start_us, clip.end_us, clip.caption) for clip in clips)
    return text.getvalue()


def _write_whole(path: Path, text: str) -> None:
    with _whole_file(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8", newline="\n")


@contextmanager
def _whole_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path next to `path`, and rename it to `path` on success."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.unfinished")
    try:
        yield unfinished
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


@contextmanager
def _converted_errors(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ShapesError(
            f"cannot write the corpus to {str(error.filename or out)!r} ({error.strerror}): "
            "choose a writable folder with free space"
        ) from None
