"""The default decoder: PyAV, in a confined child forked from a process that has loaded it."""

import contextlib
import importlib.metadata
import json
import os
import signal
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from pipelines.decoding.containers import CONTAINERS
from pipelines.decoding.sandbox import fork_client as sandbox
from pipelines.decoding.spans import (
    LENGTH_SLACK_US,
    WIDEST,
    Frames,
    Limits,
    frame_times_us,
    no_frames,
    passes,
    too_large,
)
from pipelines.decoding.video_file import Failure
from pipelines.messages import LOGGER
from pipelines.processes import child_python
from pipelines.processes.timeouts import Timeout

PROGRAM = child_python.command("pipelines.decoding.pyav_child")

_MESSAGE_BYTES = 1 << 16
_PADDING_BYTES = 256  # maximum padding after each row of pixels
_ENDING_SECONDS = 10.0  # maximum wait for a child to exit after it has closed its pipe


def version() -> dict[str, str]:
    """Return the version that determines the frames, for the manifest."""
    return {"pyav": importlib.metadata.version("av")}


def decode(
    path: str, spans: Sequence[tuple[int, int]], frames: int, short_side: int, limits: Limits
) -> Iterator[tuple[int, Frames | Failure]]:
    """Yield every index into `spans` once, with its frames or its failure."""
    request = {
        "passes": passes(spans),
        "times_us": [frame_times_us(*span, frames) for span in spans],
        "short_side": short_side,
        "widest": WIDEST,
    }
    try:
        yield from _answers(path, request, spans, limits)
    except _UnreadableError as error:
        failure = Failure("video_unreadable", str(error))
        yield from ((i, failure) for i in range(len(spans)))


def _answers(
    path: str, request: dict[str, Any], spans: Sequence[tuple[int, int]], limits: Limits
) -> Iterator[tuple[int, Frames | Failure]]:
    times_us, short_side = request["times_us"], request["short_side"]
    left = dict.fromkeys(range(len(spans)))
    with _child(path, request, limits, len(spans)) as child:
        while left and (answer := child.answer()):
            if answer.get("span") not in left:
                child.mark_malformed()
                break
            i = answer["span"]
            if "width" not in answer:
                yield i, _lacking(answer, times_us[i])
            elif (pixels := child.pixels(answer, len(times_us[i]), short_side)) is not None:
                yield i, Frames(pixels, times_us[i], spans[i][1])
            else:
                break
            del left[i]
        failure = child.failure() if left else None
        for i in left:
            assert failure is not None
            yield i, failure


def end_us(path: str, from_us: int, limits: Limits) -> int:
    """Return the last frame's end time, microseconds; 0 if it is unknown."""
    request = {"from_us": from_us, "length_slack_us": LENGTH_SLACK_US}
    try:
        with _child(path, request, limits, 1) as child:
            answer = child.answer()
            return answer.get("end_us", 0) if answer else 0
    except _UnreadableError:
        return 0


def lacks(path: str, limits: Limits) -> tuple[bool, int]:
    """Return whether the container shows damaged or missing packets, and the video's lead time.

    The lead time is the audio before the picture that ffmpeg omits from its times, microseconds.
    """
    with contextlib.suppress(_UnreadableError), _child(path, {"lacks": True}, limits, 1) as child:
        if (answer := child.answer()) and "lacks" in answer:
            return answer["lacks"], answer["lead_us"]
    return True, 0


@contextlib.contextmanager
def _child(path: str, request: dict[str, Any], limits: Limits, spans: int) -> Iterator["_Child"]:
    """Yield a child that works on a request, and end it afterwards.

    Raises:
      _UnreadableError: the file cannot be opened.
      OSError: the process that forks children has died.
    """
    request |= {
        "name": os.path.basename(path),
        "containers": CONTAINERS,
        "pixels": limits.pixels,
        "memory": limits.memory,
        # This process watches the wall clock. If it dies, the processor limit ends the child.
        "processor_seconds": round(limits.seconds) * (spans + 1),
    }
    with contextlib.ExitStack() as opened:
        # The child may open nothing, so the file is opened here. O_NONBLOCK keeps `open` from
        # blocking if a pipe has meanwhile replaced the file.
        try:
            video = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise _UnreadableError(f"{os.path.basename(path)}: {error.strerror}") from None
        opened.callback(os.close, video)
        server = sandbox.acquire(PROGRAM, limits.confined)
        reader, writer = os.pipe()
        opened.callback(os.close, reader)
        child = _Child(server, reader, limits)
        try:
            server.begin(request, [writer, video])
            os.close(writer)
            yield child
            child.wait()
        finally:
            if child.gone:
                sandbox.release(server)
            else:
                server.end()


class _UnreadableError(Exception):
    """A file that cannot be opened, with its name and the reason."""


class _Child:
    """The reading end of a child's pipe, whose messages are untrusted."""

    def __init__(self, server: sandbox.ForkServer, pipe: int, limits: Limits) -> None:
        self._server, self._pipe, self._limits = server, pipe, limits
        self._failure: Failure | None = None
        self.gone = False

    def answer(self) -> dict[str, Any] | None:
        """Return the next message, or None without one; `failure` then returns the reason."""
        self._timeout = Timeout(self._limits.seconds)
        head = self._read(4)
        if head is None:
            return None
        words = self._read(min(int.from_bytes(head, "little"), _MESSAGE_BYTES))
        if words is None:
            return None
        try:
            answer = _checked(json.loads(bytes(words)))
        except (ValueError, KeyError, TypeError):
            self.mark_malformed()
            return None
        if "refused" not in answer:
            return answer
        self._failure = _refusal(answer, self._limits)
        return None

    def pixels(self, answer: dict[str, Any], frames: int, short_side: int) -> np.ndarray | None:
        """Return the frames after a message, rotated for display: uint8 [T, height, width, 3].

        None means that they are missing or have an invalid size.
        """
        width, height, stride = answer["width"], answer["height"], answer["stride"]
        if not (
            min(width, height) == short_side
            and max(width, height) <= short_side * WIDEST + 1
            and 3 * width <= stride <= 3 * width + _PADDING_BYTES
        ):
            self.mark_malformed()
            return None
        rows = self._read(frames * height * stride)
        if rows is None:
            return None
        shape, strides = (frames, height, width, 3), (height * stride, stride, 3, 1)
        pixels = np.lib.stride_tricks.as_strided(rows, shape, strides)
        return _turned(pixels, answer["matrix"])

    def mark_malformed(self) -> None:
        """Set the failure of a child that sent a malformed answer."""
        self._failure = Failure("video_undecodable", "the decoder's answer is not of its form")

    def failure(self) -> Failure:
        """Return why no further message comes."""
        self.wait()
        return self._failure or Failure("video_undecodable", "the decoder ended before its work")

    def wait(self) -> None:
        """Receive the child's exit status, if it exits soon."""
        if self.gone or (self._failure and self._failure.reason == "decode_timeout"):
            return
        code = self._server.status(Timeout(_ENDING_SECONDS))
        if code is None:
            return
        self.gone = True
        if code == -signal.SIGXCPU:
            self._failure = Failure("decode_timeout", "more processor time than is allowed")
        elif code < 0:
            self._failure = Failure("video_undecodable", f"the decoder was ended by signal {-code}")
        elif code > 0 and not self._failure:
            self._failure = Failure("video_undecodable", f"the decoder ended with status {code}")

    def _read(self, size: int) -> np.ndarray | None:
        """Return `size` bytes, or None if the child ends before or exceeds its time limit."""
        read = np.empty(size, np.uint8)
        rest = read.data
        while rest:
            if not self._timeout.wait_readable(self._pipe):
                self._failure = Failure("decode_timeout", f"more than {self._limits.seconds:g} s")
                return None
            if not (count := os.readv(self._pipe, [rest])):
                return None
            rest = rest[count:]
        return read


def _checked(answer: dict[str, Any]) -> dict[str, Any]:
    """Return a message with its fields converted to their types.

    Raises:
      KeyError, TypeError, ValueError: the message has none of the known forms.
    """
    if "refused" in answer:
        return answer | {
            "refused": str(answer["refused"]),
            "message": str(answer.get("message", "")),
        }
    if "end_us" in answer:
        return {"end_us": int(answer["end_us"])}
    if "lacks" in answer:
        return {"lacks": bool(answer["lacks"]), "lead_us": int(answer["lead_us"])}
    if "width" not in answer:
        stated_us = answer["stated_us"]
        return {
            "span": int(answer["span"]),
            "found": int(answer["found"]),
            "message": str(answer["message"]),
            "stated_us": None if stated_us is None else float(stated_us),
        }
    a, b, c, d = map(int, answer["matrix"])
    return {name: int(answer[name]) for name in ("span", "width", "height", "stride")} | {
        "matrix": (a, b, c, d)
    }


def _lacking(answer: dict[str, Any], times_us: Sequence[int]) -> Failure:
    if answer["message"] and not answer["found"]:
        return Failure("video_undecodable", answer["message"])
    return no_frames(answer["found"], times_us, answer["stated_us"])


def _refusal(answer: dict[str, Any], limits: Limits) -> Failure:
    why = answer["refused"]
    if why == "no stream":
        return Failure("video_no_stream", "no video stream")
    if why == "fault":  # in this program, not in the file
        LOGGER.error("internal error of the decoder: %s", answer["message"])
        return Failure("decoder_fault", f"internal error: {answer['message']}")
    if why == "memory":
        return Failure("decode_limit", "more memory or output than decoding may use")
    if why == "pixels":
        return too_large(int(answer.get("width", 0)), int(answer.get("height", 0)), limits)
    return Failure("video_undecodable", answer["message"])


def _turned(pixels: np.ndarray, matrix: Sequence[int]) -> np.ndarray:
    """Return frames rotated for display: x' = a·x + c·y, y' = b·x + d·y, up to a shift.

    >>> _turned(np.array([[[[1], [2]], [[3], [4]]]]), (0, 1, -1, 0))[0, ..., 0].tolist()
    [[3, 1], [4, 2]]
    """
    a, b, c, d = matrix
    if not a and not d:
        pixels = pixels.swapaxes(1, 2)
    return pixels[:, :: -1 if b + d < 0 else 1, :: -1 if a + c < 0 else 1]
