"""The file of a lease (run_lock.py), in a bucket or on a file system without locks.

Each write gives the file another version, and replaces one version alone.
"""

import abc
import os

from trainer.data import folder


class LeaseFile(abc.ABC):
    """A file whose versions are told apart."""

    @abc.abstractmethod
    def create(self, text: bytes) -> str:
        """Create the file and return its version.

        Raises:
          FileExistsError: it exists.
        """

    @abc.abstractmethod
    def read(self) -> tuple[bytes, str]:
        """Return text and version.

        Raises:
          FileNotFoundError: it does not exist.
        """

    @abc.abstractmethod
    def replace(self, text: bytes, version: str) -> str:
        """Replace a version, or create the file if the version is ""; return the new version.

        Raises:
          FileExistsError, FileNotFoundError: it has another version, or does not exist.
        """

    @abc.abstractmethod
    def delete(self, version: str) -> None:
        """Delete the file if it has this version."""


class BucketFile(LeaseFile):
    """An object: the store itself compares generations, so no two replace the same one."""

    def __init__(self, path: str) -> None:
        """Open no connection yet."""
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
    """A file whose version is its text; two that take over at the same moment may both succeed."""

    def __init__(self, path: str) -> None:
        """Open nothing yet."""
        self._path = path

    def create(self, text: bytes) -> str:
        """Create the file."""
        with open(self._path, "xb") as file:
            file.write(text)
        return text.decode()

    def read(self) -> tuple[bytes, str]:
        """Return the text, twice."""
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
