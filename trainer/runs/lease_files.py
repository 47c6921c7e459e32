"""File of a lease (run_lock.py), in a bucket or on a file system without locks.

Each write gives the file a new version, and replaces only one given version.
"""

import abc
import os

from trainer.data import folder


class LeaseFile(abc.ABC):
    """A file with a version for each write."""

    @abc.abstractmethod
    def create(self, text: bytes) -> str:
        """Create the file and return its version.

        Raises:
          FileExistsError: the file exists.
        """

    @abc.abstractmethod
    def read(self) -> tuple[bytes, str]:
        """Return text and version.

        Raises:
          FileNotFoundError: the file does not exist.
        """

    @abc.abstractmethod
    def replace(self, text: bytes, version: str) -> str:
        """Replace a version, or create the file if the version is ""; return the new version.

        Raises:
          FileExistsError, FileNotFoundError: the file has another version, or does not exist.
        """

    @abc.abstractmethod
    def delete(self, version: str) -> None:
        """Delete the file if it has this version."""


class BucketFile(LeaseFile):
    """An object in a bucket; the store compares generations, so no two writers replace the same."""

    def __init__(self, path: str) -> None:
        """Set the path, without opening a connection."""
        self._path = path

    def create(self, text: bytes) -> str:
        """Create the object."""
        return folder.write_object(self._path, text, "0")

    def read(self) -> tuple[bytes, str]:
        """Return text and generation."""
        generation = folder.object_generation(self._path)
        return folder.read_file(self._path), generation

    def replace(self, text: bytes, version: str) -> str:
        """Replace one generation."""
        return folder.write_object(self._path, text, version or "0")

    def delete(self, version: str) -> None:
        """Delete one generation."""
        folder.delete_object(self._path, version)


class DiskFile(LeaseFile):
    """A file on a disk whose version is its text; two simultaneous takeovers may both succeed."""

    def __init__(self, path: str) -> None:
        """Set the path, without opening the file."""
        self._path = path

    def create(self, text: bytes) -> str:
        """Create the file."""
        with open(self._path, "xb") as file:
            file.write(text)
        return text.decode()

    def read(self) -> tuple[bytes, str]:
        """Return the text, also as the version."""
        with open(self._path, "rb") as file:
            text = file.read()
        return text, text.decode(errors="replace")

    def replace(self, text: bytes, version: str) -> str:
        """Replace the file if it has the text of `version`."""
        if not version:
            return self.create(text)
        if self.read()[1] != version:
            raise FileExistsError(self._path)
        unfinished = f"{self._path}.{os.getpid()}"
        with open(unfinished, "wb") as file:
            file.write(text)
        os.replace(unfinished, self._path)
        return text.decode()

    def delete(self, version: str) -> None:
        """Delete the file if it has the text of `version`."""
        if self.read()[1] == version:
            os.remove(self._path)
