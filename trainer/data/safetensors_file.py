"""Writer of .safetensors files with the permissions of any other new file."""

import errno
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
    os.chmod(path, mode)
