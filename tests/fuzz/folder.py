"""A folder in memory for the files of one process's inputs."""

import atexit
import functools
import pathlib
import shutil
import tempfile


@functools.cache
def folder() -> pathlib.Path:
    """Make the folder, which is removed when the process ends."""
    memory = "/dev/shm" if pathlib.Path("/dev/shm").is_dir() else None
    made = tempfile.mkdtemp(prefix="svilm-fuzz-", dir=memory)
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return pathlib.Path(made)


def written(files: dict[str, bytes]) -> list[pathlib.Path]:
    """Write files there; those of the same names are replaced."""
    paths = []
    for name, data in files.items():
        path = folder() / name
        path.write_bytes(data)
        paths.append(path)
    return paths
