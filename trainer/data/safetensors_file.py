"""Writer of .safetensors files: equal tensors and metadata give equal bytes.

A file has the permissions of any other new file.
"""

import errno
import json
import os

import numpy as np
import safetensors
import safetensors.numpy


def save(
    tensors: dict[str, np.ndarray],
    path: str | os.PathLike[str],
    metadata: dict[str, str] | None = None,
) -> None:
    """Write tensors by name to a .safetensors file.

    Raises:
      OSError: the file cannot be written.
    """
    # ascontiguousarray would make a scalar a vector.
    contiguous = {name: np.asarray(tensor, order="C") for name, tensor in tensors.items()}
    # The library renames a temporary file of mode 0600 to `path`. This file gets the mode that the
    # umask and the folder define.
    with open(path, "wb") as file:
        mode = os.fstat(file.fileno()).st_mode & 0o777
    try:
        safetensors.numpy.save_file(contiguous, path, metadata=metadata)
    except safetensors.SafetensorError as error:
        raise OSError(errno.EIO, str(error), os.fspath(path)) from error
    if metadata and len(metadata) > 1:
        _sort_metadata(path)
    os.chmod(path, mode)


def _sort_metadata(path: str | os.PathLike[str]) -> None:
    """Sort the metadata of a file, which the library writes in a random order."""
    with open(path, "r+b") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        data = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        assert len(data) <= size, "the library writes JSON without white space, then pads it"
        file.seek(8)
        file.write(data.ljust(size))
