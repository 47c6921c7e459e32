"""Path of a run on a disk or in a bucket (gs://…), the folder of the run's files.

Small files are read and written whole (trainer/data/folder.py). Orbax and TensorStore, which
support buckets themselves, read and write checkpoints. Other libraries that write continuously
write to the disk first, and the result is uploaded.
"""

import os
import pathlib

from etils import epath

from trainer.data.folder import import_gcsfs, in_bucket, in_s3, write_file
from trainer.errors import ExitCode, UserError

# This selects gcsfs, which has one way to find credentials and to retry requests, over TensorFlow.
# It must be set before the first use of any path, even on a disk, because etils decides once.
os.environ.setdefault("EPATH_USE_TF", "false")

RunPath = pathlib.Path | epath.Path
"""A pathlib path, or for a bucket a path with the same methods."""


class RunPathError(UserError, ValueError):
    """A path where a run cannot be."""

    exit_code = ExitCode.MISUSED


def run_path(path: str | os.PathLike[str]) -> RunPath:
    """Return the given path as a RunPath, without reading it.

    Raises:
      RunPathError: the path is in S3.

    >>> run_path("gs://mine/runs/paper/") / "config.json", run_path("runs/first")
    (PosixGPath('gs://mine/runs/paper/config.json'), PosixPath('runs/first'))
    """
    # TensorStore has a driver for S3, but Orbax 0.12 never specifies it: a path that does not begin
    # with gs:// is a file's to Orbax, which then refuses "s3:/bucket/run" as relative.
    if in_s3(path):
        raise RunPathError(
            f"{os.fspath(path)} cannot be a run, because Orbax has no storage for S3: give a "
            "folder on a disk or gs://BUCKET/FOLDER, and copy runs to and from S3 (aws s3 sync); "
            "snapshots may be in S3"
        )
    if not in_bucket(path):
        return pathlib.Path(path)
    import fsspec.config

    import_gcsfs()
    # Other processes write to the bucket too.
    fsspec.config.conf.setdefault("gcs", {})["use_listings_cache"] = False
    return epath.Path(os.fspath(path).rstrip("/"))


def upload(written: pathlib.Path, to: RunPath) -> None:
    """Copy all files of a folder on the disk, as they are now.

    Raises:
      OSError: the bucket does not accept a file.
    """
    for path in sorted(written.rglob("*")):
        if path.is_file():
            write_file(to / path.relative_to(written).as_posix(), path.read_bytes())
