"""The default decoder: PyAV, in a child of a process that has it loaded (pyav_child.py)."""

import atexit
import contextlib
import errno
import importlib.metadata
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from pipelines.decoding.spans import (
    CONTAINERS,
    LENGTH_SLACK_US,
    WIDEST,
    Frames,
    Limits,
    frame_times_us,
    no_frames,
    passes,
    too_large,
)
from pipelines.video_file import Failure

PROGRAM = (sys.executable, "-P", "-m", "pipelines.decoding.pyav_child")

_MESSAGE_BYTES = 1 << 16
_PADDING_BYTES = 256  # at most, behind each row of pixels
_ENDING_SECONDS = 10.0  # for a child that has closed its pipe to be gone


def version() -> dict[str, str]:
    """What shapes the frames, for the manifest."""
    return {"pyav": importlib.metadata.version("av")}


def decode(
    path: str, spans: Sequence[tuple[int, int]], frames: int, short_side: int, limits: Limits
) -> Iterator[tuple[int, Frames | Failure]]:
    """Yields every index into `spans` once, with its frames or why there are none."""
    times_us = [frame_times_us(*span, frames) for span in spans]
    left = dict.fromkeys(range(len(spans)))
    request = {
        "passes": passes(spans),
        "times_us": times_us,
        "short_side": short_side,
        "widest": WIDEST,
    }
    with _child(path, request, limits, len(spans)) as child:
        while left and (answer := child.answer()):
            if answer.get("span") not in left:
                child.distrust()
                break
            i = answer["span"]
            if "width" not in answer:
                yield i, _lacking(answer, times_us[i])
            elif (pixels := child.pixels(answer, frames, short_side)) is not None:
                yield i, Frames(pixels, times_us[i], spans[i][1])
            else:
                break
            del left[i]
        failure = child.failure() if left else None
        for i in left:
            assert failure is not None
            yield i, failure


def end_us(path: str, from_us: int, limits: Limits) -> int:
    """When the last frame leaves the screen; 0 if that cannot be told."""
    request = {"from_us": from_us, "length_slack_us": LENGTH_SLACK_US}
    with _child(path, request, limits, 1) as child:
        answer = child.answer()
        return answer.get("end_us", 0) if answer else 0


class _Nursery:
    """A process that has PyAV loaded and forks children, one at a time."""

    def __init__(self) -> None:
        self.socket, theirs = socket.socketpair()
        self._process = subprocess.Popen(
            PROGRAM,
            stdin=theirs.fileno(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # so that its children die with it, and not of Ctrl-C
        )
        theirs.close()

    @property
    def alive(self) -> bool:
        """Whether it can still be asked."""
        return self._process.poll() is None

    def end(self) -> None:
        """Ends the process, and its child, at once."""
        self.socket.close()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


# Loading PyAV takes a tenth of a second, a fork a few thousandths: so nurseries are kept.
_idle: list[_Nursery] = []
_idle_lock = threading.Lock()


@atexit.register
def _end_nurseries() -> None:
    with _idle_lock:
        while _idle:
            _idle.pop().end()


def _take_nursery() -> _Nursery:
    with _idle_lock:
        while _idle:
            nursery = _idle.pop()
            if nursery.alive:
                return nursery
            nursery.end()
    return _Nursery()


@contextlib.contextmanager
def _child(path: str, request: dict[str, Any], limits: Limits, spans: int) -> Iterator["_Child"]:
    """A child at work on a request; it is gone afterwards."""
    request |= {
        "path": path,
        "containers": CONTAINERS,
        "pixels": limits.pixels,
        "memory": limits.memory,
        # Should this process, which watches the clock, be gone.
        "processor_seconds": round(limits.seconds) * (spans + 1),
    }
    nursery = _take_nursery()
    ours, theirs = os.pipe()
    child = _Child(nursery.socket, ours, limits)
    try:
        words = json.dumps(request).encode()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # then it ended early
            socket.send_fds(nursery.socket, [struct.pack("<I", len(words))], [theirs])
            nursery.socket.sendall(words)
        os.close(theirs)
        yield child
        child.wait()
    finally:
        os.close(ours)
        if child.gone:
            with _idle_lock:
                _idle.append(nursery)
        else:
            nursery.end()


class _Child:
    """The other end of a child's pipe. What it says is not trusted."""

    def __init__(self, parent: socket.socket, pipe: int, limits: Limits) -> None:
        self._parent, self._pipe, self._limits = parent, pipe, limits
        self._failure: Failure | None = None
        self.gone = False

    def answer(self) -> dict[str, Any] | None:
        """The next message; None if there is none, for which `failure` has the reason."""
        self._deadline = time.monotonic() + self._limits.seconds
        head = self._read(4)
        if head is None:
            return None
        words = self._read(min(int.from_bytes(head, "little"), _MESSAGE_BYTES))
        if words is None:
            return None
        try:
            answer = _checked(json.loads(bytes(words)))
        except (ValueError, KeyError, TypeError):
            self.distrust()
            return None
        if "refused" not in answer:
            return answer
        self._failure = _refusal(answer, self._limits)
        return None

    def pixels(self, answer: dict[str, Any], frames: int, short_side: int) -> np.ndarray | None:
        """The frames behind a message, as they are to be shown: uint8 [T, height, width, 3].

        None: they are not there, or not of the form that they must have.
        """
        width, height, stride = answer["width"], answer["height"], answer["stride"]
        if not (
            min(width, height) == short_side
            and max(width, height) <= short_side * WIDEST + 1
            and 3 * width <= stride <= 3 * width + _PADDING_BYTES
        ):
            self.distrust()
            return None
        rows = self._read(frames * height * stride)
        if rows is None:
            return None
        shape, strides = (frames, height, width, 3), (height * stride, stride, 3, 1)
        pixels = np.lib.stride_tricks.as_strided(rows, shape, strides)
        return _turned(pixels, answer["matrix"])

    def distrust(self) -> None:
        """Takes nothing more from a child whose answers are not of their form."""
        self._failure = Failure("video_undecodable", "the decoder's answer is not of its form")

    def failure(self) -> Failure:
        """Why there is no further message."""
        self.wait()
        return self._failure or Failure("video_undecodable", "the decoder ended before its work")

    def wait(self) -> None:
        """Takes the child's exit status, if it ends soon."""
        if self.gone or (self._failure and self._failure.reason == "decode_timeout"):
            return
        self._parent.settimeout(_ENDING_SECONDS)
        try:
            status = self._parent.recv(4, socket.MSG_WAITALL)
        except TimeoutError:
            return
        except ConnectionResetError:
            status = b""
        if len(status) < 4:
            raise OSError(errno.ECHILD, "the process that starts decoders has died", PROGRAM[-1])
        self._parent.settimeout(None)
        self.gone = True
        code = os.waitstatus_to_exitcode(struct.unpack("<i", status)[0])
        if code == -signal.SIGXCPU:
            self._failure = Failure("decode_timeout", "more processor time than is allowed")
        elif code < 0:
            self._failure = Failure("video_undecodable", f"the decoder was ended by signal {-code}")
        elif code > 0 and not self._failure:
            self._failure = Failure("video_undecodable", f"the decoder ended with status {code}")

    def _read(self, size: int) -> np.ndarray | None:
        """So many bytes, or None if the child ends before them or takes too long."""
        read = np.empty(size, np.uint8)
        rest = read.data
        while rest:
            left = self._deadline - time.monotonic()
            if left <= 0 or not select.select([self._pipe], [], [], left)[0]:
                self._failure = Failure("decode_timeout", f"more than {self._limits.seconds:g} s")
                return None
            if not (count := os.readv(self._pipe, [rest])):
                return None
            rest = rest[count:]
        return read


def _checked(answer: dict[str, Any]) -> dict[str, Any]:
    """A message of one of the forms that there are.

    Raises:
      KeyError, TypeError, ValueError: it is of none.
    """
    if "refused" in answer:
        return answer | {"refused": str(answer["refused"]), "told": str(answer.get("told", ""))}
    if "end_us" in answer:
        return {"end_us": int(answer["end_us"])}
    if "width" not in answer:
        stated_us = answer["stated_us"]
        return {
            "span": int(answer["span"]),
            "found": int(answer["found"]),
            "told": str(answer["told"]),
            "stated_us": None if stated_us is None else float(stated_us),
        }
    a, b, c, d = map(int, answer["matrix"])
    return {name: int(answer[name]) for name in ("span", "width", "height", "stride")} | {
        "matrix": (a, b, c, d)
    }


def _lacking(answer: dict[str, Any], times_us: Sequence[int]) -> Failure:
    if answer["told"] and not answer["found"]:
        return Failure("video_undecodable", answer["told"])
    return no_frames(answer["found"], times_us, answer["stated_us"])


def _refusal(answer: dict[str, Any], limits: Limits) -> Failure:
    why = answer["refused"]
    if why == "no stream":
        return Failure("video_no_stream", "no video stream")
    if why == "memory":
        return Failure("decode_limit", "more memory or output than decoding may use")
    if why == "pixels":
        return too_large(int(answer.get("width", 0)), int(answer.get("height", 0)), limits)
    return Failure("video_undecodable", answer["told"])


def _turned(pixels: np.ndarray, matrix: Sequence[int]) -> np.ndarray:
    """Frames as they are to be shown: x' = a·x + c·y, y' = b·x + d·y, up to a shift.

    >>> _turned(np.array([[[[1], [2]], [[3], [4]]]]), (0, 1, -1, 0))[0, ..., 0].tolist()
    [[3, 1], [4, 2]]
    """
    a, b, c, d = matrix
    if not a and not d:
        pixels = pixels.swapaxes(1, 2)
    return pixels[:, :: -1 if b + d < 0 else 1, :: -1 if a + c < 0 else 1]
