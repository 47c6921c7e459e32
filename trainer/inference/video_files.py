"""Video files as a snapshot of whole-video clips, built by the other stage's program.

This project has one decoder, that of `svilm-pipelines build`. Using it gives the same frames and
the same limits on hostile files.
"""

import contextlib
import csv
import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import types
from collections.abc import Mapping

from protos.strict_json import parse_object
from protos.video_id import EXTENSIONS
from trainer import progress
from trainer.configs.config import Config
from trainer.data.folder import write_file
from trainer.errors import UserError

PROGRAM = "svilm-pipelines"

# A span in microseconds, longer than any video: the build cuts a clip at the end of its video.
WHOLE_US = (0, 7 * 24 * 3600 * 1_000_000)
_SAMPLE_BYTES = 1 << 20  # read at each end of a file to recognize it


class VideoError(UserError, RuntimeError):
    """Videos that cannot be read, or a missing program to read them."""


def in_folder(folder: pathlib.Path) -> list[pathlib.Path]:
    """Return the video files of a folder, sorted by name, and print how many others it has.

    Raises:
      VideoError: the folder has no video file.
    """
    names = {f".{extension}" for extension in EXTENSIONS}
    found = sorted(path for path in folder.glob("*") if path.suffix.lower() in names)
    if not found:
        raise VideoError(f"{folder} has no video: no file named *.{', *.'.join(EXTENSIONS)}")
    files = sum(path.is_file() for path in folder.glob("*"))
    if others := files - sum(path.is_file() for path in found):
        progress.say(f"{folder}: {others:,} of {files:,} files skipped, whose names are no video's")
    return found


def build(
    videos: Mapping[str, pathlib.Path],
    out: pathlib.Path,
    config: Config,
    workers: int = 1,
    spans_us: Mapping[str, tuple[int, int]] = types.MappingProxyType({}),
) -> pathlib.Path:
    """Build a snapshot with one clip per video, resuming an unfinished one.

    Args:
      videos: files by their video ids.
      out: folder for the snapshot and for its description.
      config: the configuration that sets the number of frames and their size.
      workers: number of processes.
      spans_us: start and end of clips in their videos, microseconds, by video id. A clip ends with
        its video at the latest. Clips of other videos are whole.

    Returns:
      The snapshot's folder. Videos that could not be decoded are missing from it.

    Raises:
      VideoError: `svilm-pipelines` is not installed or fails, no video could be decoded, a file is
        missing or unreadable, its name is not UTF-8, the encoding of the program's input lists, or
        `out` was made with other files.
    """
    missing = [path for path in videos.values() if not path.is_file()]
    if missing:
        raise VideoError(f"video file {missing[0]} does not exist")
    for path in videos.values():
        name = os.fsencode(path.resolve())
        if name != name.decode(errors="ignore").encode():
            raise VideoError(f"the path of video file {name!r} is not UTF-8: rename it")
    out.mkdir(parents=True, exist_ok=True)
    snapshot, annotations, places = out / "snapshot", out / "annotations.jsonl", out / "videos.csv"
    # `build` would resume a snapshot of other files under the same names.
    rows = ""
    for video_id, path in videos.items():
        start, end = map(_seconds, spans_us.get(video_id, WHOLE_US))
        row = {"video": video_id, "start": start, "end": end, "caption": ""}
        rows += json.dumps(row | {"file": _fingerprint(path)}) + "\n"
    if annotations.exists() and annotations.read_text(encoding="utf-8") != rows:
        raise VideoError(f"{out} was made of other video files: give another --out, or remove it")
    write_file(annotations, rows.encode())  # whole, or a killed call would make it another one
    with places.open("w", encoding="utf-8", newline="") as paths:
        writer = csv.writer(paths)
        writer.writerow(["video_id", "path"])
        for video_id, path in videos.items():
            writer.writerow([video_id, path.resolve().relative_to("/")])
    command = [
        *(_program(), "build", "generic", "--annotations", annotations, "--keep-empty-captions"),
        *("--max-past-end", "1", "--videos", "/", "--video-map", places),
        *("--frames", str(config.video.frames), "--short-side", str(config.input.short_side)),
        *("--shards", str(min(workers, len(videos))), "--workers", str(workers)),
        *("--out", snapshot),
    ]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode != 0 and (lost := undecodable(snapshot, videos)):
        raise VideoError(lost)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise VideoError(f"{PROGRAM} build failed with status {done.returncode}: {last}")
    return snapshot


def _seconds(time_us: int) -> int | float:
    whole, rest = divmod(time_us, 1_000_000)
    return time_us / 1e6 if rest else whole  # Earlier releases wrote integers.


def _fingerprint(path: pathlib.Path) -> str:
    """Return a file's size, and a hash of its beginning and end."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(0)
            sample = file.read(_SAMPLE_BYTES)
            file.seek(max(0, size - _SAMPLE_BYTES))
            sample += file.read(_SAMPLE_BYTES)
    except OSError as error:
        raise VideoError(f"video file {path} cannot be read: {error.strerror}") from error
    return f"{size} {hashlib.sha256(sample).hexdigest()}"


def undecodable(snapshot: pathlib.Path, videos: Mapping[str, pathlib.Path]) -> str:
    """Describe the videos that `build` could not decode, and why.

    Args:
      snapshot: the folder that `build` wrote, complete or not.
      videos: files by their video ids.

    Returns:
      A sentence that names the first. Empty if all were decoded.
    """
    rejects = {}
    for path in (snapshot / "plan.json", *sorted(snapshot.glob("shard-*.json"))):
        with contextlib.suppress(OSError, ValueError):
            for reject in parse_object(path.read_bytes()).get("rejects", ()):
                rejects.setdefault(reject["video_id"], reject)
    lost = [video_id for video_id in videos if video_id in rejects]
    if not lost:
        return ""
    first = rejects[lost[0]]
    why = f"{first.get('reason')}: {first.get('message')}"
    count = "" if len(videos) == 1 else f" ({len(lost):,} of {len(videos):,} videos)"
    return f"video {videos[lost[0]]} cannot be decoded{count}: {why}: check that it plays"


def _program() -> str:
    beside = pathlib.Path(sys.executable).with_name(PROGRAM)
    found = str(beside) if beside.exists() else shutil.which(PROGRAM)
    if found is None:
        raise VideoError(
            f"decoding videos requires {PROGRAM}: pip install 'svilm[pipelines]', or give frames "
            "as an array"
        )
    return found
