"""Access to annotation files, plain or compressed, on a disk, in a bucket, or from a pipe."""

import bz2
import contextlib
import gzip
import io
import os
import re
import select
import stat
import tempfile
import time
import zlib
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO, cast

from pipelines.messages import warn
from pipelines.sources.clip_request import AnnotationError
from pipelines.storage import storage

# Magic numbers of supported compressions. No text and no Parquet file begins with one, because
# the bytes are invalid UTF-8 or control characters. So an id "BZh9" or "Rar!" is not an archive.
_COMPRESSIONS = {
    rb"\x1f\x8b": "gzip",
    rb"BZh[1-9](?:1AY&SY|\x17rE8P\x90)": "bz2",  # header of a block, or end of an empty stream
    rb"\x28\xb5\x2f\xfd": "zstd",
}
_BEGINNING_BYTES = 10  # length of the longest magic number
_OTHERS = {
    b"PK\x03\x04": "a zip archive: unpack it",
    b"\xfd7zXZ\0": "an xz file: unpack it",
    b"7z\xbc\xaf": "a 7z archive: unpack it",
    b"Rar!\x1a\x07": "a rar archive: unpack it",
    b"\xff\xfe": "UTF-16 text: save it as UTF-8",
    b"\xfe\xff": "UTF-16 text: save it as UTF-8",
}
_SUFFIXES = (".gz", ".bz2", ".zst")
_BUFFER_BYTES = 1 << 16
_WRITER_SECONDS = 10.0  # timeout in seconds for a writer to open a pipe
_NOTICE_MS = 10_000  # milliseconds without data after which a message reports the wait


def plain_name(name: str) -> str:
    """Return a file's name without the suffix of its compression.

    >>> plain_name("rows.csv.gz"), plain_name("rows.csv")
    ('rows.csv', 'rows.csv')
    """
    return name.removesuffix(next((s for s in _SUFFIXES if name.lower().endswith(s)), ""))


def open_to_read(path: str) -> BinaryIO:
    """Open an annotation file, decompressing it during reads if necessary.

    The first bytes determine the compression, so a file needs no suffix.

    Raises:
      OSError: the file cannot be opened.
      AnnotationError: the file is an archive. Reads raise it for damaged compressed data.
    """
    file = storage.open_to_read(path)
    first = file.read(_BEGINNING_BYTES)
    file.seek(0)
    for magic, what in _OTHERS.items():
        if first.startswith(magic):
            file.close()
            raise AnnotationError(f"{storage.name(path)} is {what}")
    for beginning, codec in _COMPRESSIONS.items():
        if re.match(beginning, first):
            raw = _Decompressed(file, codec, storage.name(path))
            return cast(BinaryIO, io.BufferedReader(raw, _BUFFER_BYTES))
    return file


def position(file: BinaryIO) -> int:
    """Return the number of bytes read from the file, before decompression."""
    raw = getattr(file, "raw", None)
    return raw.position() if isinstance(raw, _Decompressed) else file.tell()


def read(path: str, most_bytes: int) -> bytes:
    """Read a whole annotation file, decompressed.

    Raises:
      OSError: the file cannot be read.
      AnnotationError: the file is damaged, or holds more than `most_bytes` bytes.
    """
    with open_to_read(path) as file:
        data = file.read(most_bytes + 1)
    if len(data) > most_bytes:
        raise AnnotationError(
            f"{storage.name(path)} has more than {most_bytes:,} bytes, the maximum of sources that "
            "load whole files: check that it is the right file"
        )
    return data


class _Decompressed(io.RawIOBase):
    """A stream of a file's decompressed bytes, in constant memory."""

    def __init__(self, file: BinaryIO, codec: str, name: str) -> None:
        self._file, self._name = file, name
        self._stream = _stream(file, codec)

    def readable(self) -> bool:
        return True

    def position(self) -> int:
        """Return the number of compressed bytes read."""
        return self._file.tell()

    def readinto(self, buffer) -> int:
        try:
            data = self._stream.read(len(buffer))
        except EOFError:
            raise self._damaged("Truncated compressed stream") from None
        except (OSError, ValueError, zlib.error) as error:
            if isinstance(error, OSError) and error.errno:  # The file could not be read.
                raise
            raise self._damaged(str(error)) from None
        buffer[: len(data)] = data
        return len(data)

    def _damaged(self, why: str) -> AnnotationError:
        why = why.partition("\n")[0]
        return AnnotationError(f"{self._name} is damaged: {why:.200}: download it again")

    def close(self) -> None:
        self._file.close()
        super().close()


def _stream(file: BinaryIO, codec: str) -> Any:
    """Return the decompressed stream of a file.

    The standard library reads NUL padding, which tapes add, and empty bzip2 streams. pyarrow reads
    neither.
    """
    if codec == "gzip":
        return gzip.GzipFile(fileobj=file, mode="rb")
    if codec == "bz2":
        return _Bzip2(file)
    import pyarrow

    return pyarrow.CompressedInputStream(pyarrow.PythonFile(file, mode="r"), codec)


class _Bzip2:
    """A reader of a file of bzip2 streams.

    bz2.BZ2File silently ignores invalid data after a stream, so rows could be lost.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._decoder = bz2.BZ2Decompressor()

    def read(self, maximum: int) -> bytes:
        """Return up to `maximum` bytes, or no bytes at the end.

        Raises:
          EOFError: the file ends within a stream.
          OSError: the file is damaged.
        """
        while True:
            given = b""
            if self._decoder.eof:
                given = self._decoder.unused_data.lstrip(b"\0")
                while not given:
                    block = self._file.read(io.DEFAULT_BUFFER_SIZE)
                    if not block:
                        return b""
                    given = block.lstrip(b"\0")
                self._decoder = bz2.BZ2Decompressor()
            elif self._decoder.needs_input:
                given = self._file.read(io.DEFAULT_BUFFER_SIZE)
                if not given:
                    raise EOFError
            data = self._decoder.decompress(given, maximum)
            if data:
                return data


@contextlib.contextmanager
def spooled(paths: Sequence[str]) -> Iterator[list[str]]:
    """Yield paths that other processes can read, any number of times.

    A pipe (a FIFO, /dev/stdin, /dev/fd/63) is copied to a temporary file, which exists until the
    context ends. The copy of a FIFO keeps its name. Other copies are named pipe1, pipe2, … in
    order, so that equal commands give equal names.

    Raises:
      OSError: a pipe cannot be read, or the disk has no room for its copy.
      AnnotationError: no program writes to a pipe, or the path is a device or socket.
    """
    with contextlib.ExitStack() as stack:
        found: list[str] = []
        unnamed = 0
        for path in paths:
            kind = _kind(path)
            if kind == "file":
                found.append(_lasting(path))
                continue
            if kind == "other":
                raise AnnotationError(f"{path} is a device or socket: name a file or a pipe")
            name = storage.name(path)
            if _of_this_process(path):
                unnamed += 1
                name = f"pipe{unnamed}"
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="svilm-pipe-"))
            copy = os.path.join(folder, name)
            _spool(path, copy)
            found.append(copy)
        yield found


def _kind(path: str) -> str:
    """Return "file" (also for a missing path), "pipe" or "other"."""
    if storage.in_bucket(path):
        return "file"
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return "file"  # Opening the path will report the error.
    if stat.S_ISFIFO(mode):
        return "pipe"
    return "file" if stat.S_ISREG(mode) or stat.S_ISDIR(mode) else "other"


def _of_this_process(path: str) -> bool:
    return bool(re.match(r"/(dev/(fd/\d+|stdin)|proc/(self|\d+)/fd/\d+)$", os.path.abspath(path)))


def _lasting(path: str) -> str:
    """Return a path that other processes can open, resolving this process's descriptors."""
    return os.path.realpath(path) if _of_this_process(path) else path


def _spool(path: str, copy: str) -> None:
    """Copy the content of a pipe to a file.

    Raises:
      OSError: the pipe cannot be read, or the disk has no room.
      AnnotationError: no writer opened the pipe in time.
    """
    pipe = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # A blocking open never times out.
    poll = select.poll()
    poll.register(pipe, select.POLLIN)
    began = time.monotonic()
    try:
        with open(copy, "xb") as out:
            while True:
                try:
                    block = os.read(pipe, 1 << 20)
                except BlockingIOError:  # A writer has the pipe open but has not written yet.
                    _wait(path, poll)
                    continue
                if block:
                    out.write(block)
                elif out.tell() or _closed(poll):
                    return
                elif time.monotonic() - began > _WRITER_SECONDS:
                    raise AnnotationError(
                        f"no process writes to the pipe {path}: start the writer, or name a file"
                    )
    finally:
        os.close(pipe)


def _closed(poll: select.poll) -> bool:
    """Return whether all writers have closed a pipe from which nothing was read.

    A writer may have written in the meantime. The result is then False, and the caller reads again.
    """
    return any(not event & select.POLLIN for _, event in poll.poll(100))


def _wait(path: str, poll: select.poll) -> None:
    if not poll.poll(_NOTICE_MS):
        warn(f"waiting for data from the pipe {path}")
        poll.poll()
