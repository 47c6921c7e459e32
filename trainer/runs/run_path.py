"""A run's path, on a disk or in a bucket (gs://…): the folder that its files are written under.

Its small files are read and written whole (trainer/data/folder.py), its checkpoints by Orbax and
TensorStore, which know buckets themselves. What other libraries write as they go is written to the
disk first, and then uploaded.
"""

import os
import pathlib

from etils import epath

from trainer.data.folder import import_gcsfs, in_bucket, write_file

# One library, with one way to find credentials and to repeat requests: else TensorFlow's. Before
# any of its paths is used, on a disk as well: it decides once.
os.environ.setdefault("EPATH_USE_TF", "false")

RunPath = pathlib.Path | epath.Path
"""Pathlib's, or in a bucket one of the same methods."""


def run_path(path: str | os.PathLike[str]) -> RunPath:
    """The path as it was given; nothing is read yet.

    >>> run_path("gs://mine/runs/paper/") / "config.json", run_path("runs/first")
    (PosixGPath('gs://mine/runs/paper/config.json'), PosixPath('runs/first'))
    """
    if not in_bucket(path):
        return pathlib.Path(path)
    import fsspec.config

    import_gcsfs()
    # Other processes write there too.
    fsspec.config.conf.setdefault("gcs", {})["use_listings_cache"] = False
    return epath.Path(os.fspath(path).rstrip("/"))


def upload(written: pathlib.Path, to: RunPath) -> None:
    """Copies all files of a folder on the disk, as they are now.

    Raises:
      OSError: the bucket does not take one.
    """
    for path in sorted(written.rglob("*")):
        if path.is_file():
            write_file(to / path.relative_to(written).as_posix(), path.read_bytes())
