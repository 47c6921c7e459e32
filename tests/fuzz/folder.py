"""An in-memory folder for the input files of a process."""

import atexit
import functools
import pathlib
import shutil
import tempfile


@functools.cache
def folder() -> pathlib.Path:
    """Create the folder, which is removed at the end of the process."""
    memory = "/dev/shm" if pathlib.Path("/dev/shm").is_dir() else None
    made = tempfile.mkdtemp(prefix="svilm-fuzz-", dir=memory)
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return pathlib.Path(made)


def written(files: dict[str, bytes]) -> list[pathlib.Path]:
    """Write files to the folder, replacing those of the same names."""
    paths = []
    for name, data in files.items():
        path = folder() / name
        path.write_bytes(data)
        paths.append(path)
    return paths
