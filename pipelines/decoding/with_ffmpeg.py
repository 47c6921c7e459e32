"""A decoder that runs the ffmpeg program, with a filter graph by ffmpeg-python: one child a pass.

The child's exit status proves nothing, because ffmpeg cuts a span at the end of a file and reports
success. So this module counts frames. The log does not show which frames an error affects, because
ffmpeg reads ahead. So the default decoder decides which frames of a damaged file are sound. It also
finds the end of a file, which ffmpeg shows only by copying packets, with other times.

The two decoders differ at colour edges. ffmpeg's scaling assumes centred 4:2:0 chroma. The default
decoder places it as the stream states (H.264: to the left). They also differ if the display matrix
is no quarter turn: ffmpeg rotates by its angle within the frame's size, with black corners. The
default decoder shows the nearest quarter turn. The default decoder scales the two fields of a frame
that is marked as interlaced apart; ffmpeg scales the whole frame.
"""

import bisect
import contextlib
import dataclasses
import errno
import math
import os
import re
import signal
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

import ffmpeg
import numpy as np

from pipelines.decoding import ffmpeg as program
from pipelines.decoding import with_pyav
from pipelines.decoding.codecs import FEW_BITS, HARMLESS
from pipelines.decoding.containers import CONTAINERS, NOT_LISTED, OTHER_CONTAINER
from pipelines.decoding.ffmpeg_run import UnreadableError, output, run, source
from pipelines.decoding.mp4_boxes import ENCRYPTED, is_encrypted, joins_parts
from pipelines.decoding.spans import (
    WIDEST,
    Frames,
    Limits,
    frame_times_us,
    no_frames,
    too_large,
)
from pipelines.decoding.video_file import Failure

_SEEK_GAP_US = 5_000_000  # microseconds; decoding a longer gap costs more than another child
_SPANS_A_PASS = 16  # bounds the temporary files: about 11 MB per span at 256 pixels, 16:9
_CHECKED_SIDE = 16  # pixels; short side of frames decoded only to check that they are sound
_NO_FRAMES = "Could not open encoder before EOF"  # a span past the end, among other causes
# An error of a demuxer or a decoder, but not of filters and outputs.
_COMPLAINT = re.compile(
    r"^\[(?!out#|vost#|fc#|Parsed_|scale|ppm|image2)[^]]*\] (?:\[[^]]*\] )*"
    r"(?:\[(?:error|fatal)\] |\[warning\] (?=corrupt ))(?P<message>.*)$",
    re.MULTILINE,
)
_FIRST_FRAME = re.compile(r"showinfo[^\n]*\] n: *0 pts: *(-?\d+) ")
_SEEKABLE = re.compile(
    r"Input #0, (?:mov|matroska|avi).*"
    r"Stream #0:[^\n]* Video: (?:h264|hevc|vp8|vp9|av1|mjpeg|prores|dnxhd)\b",
    re.DOTALL,
)
# The output that logs the first frame's time has the format of the decoded frames.
_FEW_BITS = re.compile(rf"Stream #\d+:[^\n]* Video: wrapped_avframe, ({FEW_BITS})\b")
# Containers whose missing packets appear in the log.
_TELLING = re.compile("Input #0, (?:mov|matroska)")
_SETTINGS = (
    "-y",
    "-nostdin",
    "-hide_banner",
    "-nostats",
    "-loglevel",
    "level+info",
    "-filter_complex_threads",
    "1",
)


def version() -> dict[str, str]:
    """Return the versions that determine the frames, for the manifest."""
    return {"ffmpeg": program.version(), **with_pyav.version()}


end_us = with_pyav.end_us


def decode(
    path: str, spans: Sequence[tuple[int, int]], frames: int, short_side: int, limits: Limits
) -> Iterator[tuple[int, Frames | Failure]]:
    """Yield every index into `spans` once, with its frames or its failure."""
    seeks = True
    with contextlib.suppress(OSError), open(path, "rb") as file:  # The error is reported below.
        if is_encrypted(file):
            failure = Failure("video_undecodable", ENCRYPTED)
            yield from ((i, failure) for i in range(len(spans)))
            return
        seeks = not joins_parts(file)
    film = _Film(path, seeks, frames, short_side, limits)
    for group in passes(spans):
        try:
            found = film.decode({i: spans[i] for i in group})
        except UnreadableError as error:
            failure = Failure("video_unreadable", str(error))
            found = [(i, failure) for i in group]
        yield from found


@dataclasses.dataclass
class _Film:
    """A file to decode, and what earlier passes found out about it."""

    path: str
    seeks: bool  # whether decoding may begin at a key frame
    frames: int
    short_side: int
    limits: Limits
    end_us: int | None = None  # end of the last frame; None until it is searched
    lacks: bool | None = None  # whether packets are missing or damaged; None until checked
    few_bits: str = ""  # format with few bits, little-endian, of frames to convert to rgb24 first
    lead_us: int = 0  # lead time that ffmpeg omits from its times; set together with `lacks`

    def decode(self, spans: dict[int, tuple[int, int]]) -> list[tuple[int, Frames | Failure]]:
        """Decode spans in one child process.

        Raises:
          UnreadableError: the file cannot be opened.
        """
        maximum = self.frames * self.short_side**2 * WIDEST * 3  # maximum bytes of a span's frames
        wanted = [*spans.values()]
        times_us = {i: frame_times_us(*span, self.frames) for i, span in spans.items()}
        first_us = min(times[0] for times in times_us.values())
        begins_us = min(start_us for start_us, _ in wanted)
        status, log = "", ""
        with _open_files(len(wanted)) as outputs:
            for seek_us in (begins_us if self.seeks else 0, 0, 0):
                lead_us = self.lead_us
                argv = _argv(
                    self.path,
                    seek_us,
                    [(start_us - lead_us, end_us - lead_us) for start_us, end_us in wanted],
                    self.frames,
                    self.short_side,
                    self.limits,
                    self.few_bits,
                )
                for file in outputs:
                    os.ftruncate(file.fileno(), 0)
                    file.seek(0)
                status, log = run(self.path, argv, outputs, maximum, self.limits)
                if not self.few_bits and (few := _FEW_BITS.search(log)):
                    # Some releases convert big-endian formats as if they were little-endian.
                    self.few_bits = few[1].replace("be", "le")
                    return self.decode(spans)
                if status != 0 and _NO_FRAMES not in log:
                    break
                self.seeks = self.seeks and _SEEKABLE.search(log) is not None
                # Without an index, seeks go too far or miss a key frame. The retry starts at the
                # beginning.
                if self.seeks and not _complains(log) and _reaches(log, first_us):
                    break
                self._look(log)
                if seek_us == 0 and lead_us == self.lead_us:
                    break
            images = [_read_ppm(file, self.frames) for file in outputs]
        found: dict[int, Frames | Failure] = {}
        for i, pixels in zip(spans, images, strict=True):
            count = 0 if pixels is None else len(pixels)
            if pixels is None or count < self.frames or status == "time-out":
                found[i] = _failure(status, log, self.path, count, times_us[i], self.limits)
            elif (left := self._in_time(log, times_us[i])) < self.frames:
                found[i] = _failure(status, log, self.path, left, times_us[i], self.limits)
            else:
                found[i] = Frames(pixels, times_us[i], spans[i][1])
        shown = [i for i, result in found.items() if isinstance(result, Frames)]
        if shown and self._is_doubtful(log):
            by_default = with_pyav.decode(
                self.path, [spans[i] for i in shown], self.frames, _CHECKED_SIDE, self.limits
            )
            found |= {shown[j]: other for j, other in by_default if isinstance(other, Failure)}
        return [*found.items()]

    def _is_doubtful(self, log: str) -> bool:
        """Return whether frames may be damaged."""
        self._look(log)
        return _complains(log) or bool(self.lacks)

    def _look(self, log: str) -> None:
        """Check once for losses and a lead time, which ffmpeg does not report for some files."""
        if self.lacks is None:
            self.lacks = False
            if not _TELLING.search(log):
                self.lacks, self.lead_us = with_pyav.lacks(self.path, self.limits)

    def _in_time(self, log: str, times_us: list[int]) -> int:
        """Return how many of the times are before the end, if the end is in doubt; else all.

        ffmpeg shows the last frame for the decoding duration that MP4 states.
        """
        stated_us = _stated_length_us(log)
        if stated_us is None or times_us[-1] < stated_us or "Input #0, mov," not in log:
            return len(times_us)
        if self.end_us is None:
            self.end_us = with_pyav.end_us(self.path, 0, self.limits)
        return bisect.bisect_left(times_us, self.end_us) if self.end_us else len(times_us)


def _complains(log: str) -> bool:
    """Return whether the demuxer or the decoder reports an error."""
    complaints = (one["message"].strip() for one in _COMPLAINT.finditer(log))
    return any(not line.startswith(HARMLESS) for line in complaints)


def passes(spans: Sequence[tuple[int, int]]) -> list[list[int]]:
    """Group spans by child process, as indices into `spans` in order of start.

    >>> passes([(60_000_000, 70_000_000), (0, 10_000_000), (9_000_000, 12_000_000)])
    [[1, 2], [0]]
    """
    groups: list[list[int]] = []
    reached_us = -math.inf
    for i in sorted(range(len(spans)), key=lambda i: spans[i]):
        start_us, end_us = spans[i]
        if start_us - reached_us > _SEEK_GAP_US or len(groups[-1]) == _SPANS_A_PASS:
            groups.append([])
            reached_us = -math.inf
        groups[-1].append(i)
        reached_us = max(reached_us, end_us)
    return groups


def _argv(
    path: str,
    seek_us: int,
    spans: Sequence[tuple[int, int]],
    frames: int,
    short_side: int,
    limits: Limits,
    few_bits: str,
) -> list[str]:
    """Return ffmpeg's arguments, with a filter-graph branch and an output file per span."""
    film = _input(path, seek_us, limits)
    branches = film["V:0"].filter_multi_output("split", len(spans) + 1)
    # The last branch writes the first frame's time to the log.
    first_frame = (
        branches[len(spans)]
        .filter("settb", "1/1000000")
        .filter("trim", end_frame=1)
        .filter("showinfo", checksum=0)
    )
    outputs = [ffmpeg.output(first_frame, "-", format="null")]
    for branch, (start_us, end_us) in enumerate(spans):
        length_us = end_us - start_us
        picked = (
            branches[branch]
            .filter("settb", "1/1000000")
            # Map p to the index n of the first frame time that is not before this frame, exactly:
            # p ≤ start + (n + 0.5)·length/T  ⇔  n ≥ (2·T·(p − start) − length) / (2·length).
            .filter(
                "setpts",
                f"ceil((2*{frames}*(PTS-({start_us}))-{length_us})/(2*{length_us}))*1000000",
            )
            .filter("fps", fps=1, start_time=0)  # the last frame of each n, or the previous one
            .filter("trim", end_frame=frames)
        )
        for form in (few_bits, "rgb24") if few_bits else ():
            picked = picked.filter("scale", flags="bicubic+accurate_rnd+bitexact")
            picked = picked.filter("format", form)
        picked = (
            picked.filter(
                "scale",
                w=f"if(lt(dar,1),{short_side},round({short_side}*dar))",
                h=f"if(lt(dar,1),round({short_side}/dar),{short_side})",
                flags="bicubic+accurate_rnd+bitexact",
            )
            # Scaling to planes first yields the same pixels as packing at once, in half the time.
            .filter("format", "gbrp")
            .filter("scale", flags="bicubic+accurate_rnd+bitexact")
            .filter("format", "rgb24")
        )
        outputs.append(
            ffmpeg.output(
                picked,
                output(branch),
                format="image2pipe",
                vcodec="ppm",
                threads=1,
                fps_mode="passthrough",
            )
        )
    return [*_SETTINGS, *ffmpeg.merge_outputs(*outputs).compile(cmd=[])]


def _input(path: str, seek_us: int, limits: Limits):
    """Return the graph's input node, which reads the file from about `seek_us` on."""
    # A seek to 0 is omitted, because AVI's demuxer would land elsewhere.
    seek = {"ss": f"{seek_us}us"} if seek_us else {}
    return ffmpeg.input(
        **source(path),
        format_whitelist=CONTAINERS,
        threads=1,
        max_pixels=limits.pixels,
        # Keep the file's own times, counted from its beginning. Keep the frames between the key
        # frame and the seek's target, because the first span's first frame may be among them.
        copyts=None,
        start_at_zero=None,
        noaccurate_seek=None,
        **seek,
        # A change of size within the stream must not restart the graph and its frame counter.
        reinit_filter=0,
    )


@contextlib.contextmanager
def _open_files(count: int) -> Iterator[list[IO[bytes]]]:
    """Yield `count` open, unnamed temporary files for ffmpeg's output."""
    with contextlib.ExitStack() as opened:
        yield [opened.enter_context(tempfile.TemporaryFile(buffering=0)) for _ in range(count)]


def _read_ppm(file: IO[bytes], frames: int) -> np.ndarray | None:
    """Return a file's binary PPM images, [≤ frames, height, width, 3], or None without any."""
    file.seek(0)
    data = np.fromfile(file, np.uint8)
    header = re.match(rb"P6\n(\d+) (\d+)\n255\n", data[:32].tobytes())
    if not header:
        return None
    width, height = int(header[1]), int(header[2])
    image = header.end() + height * width * 3
    whole = min(len(data) // image, frames)
    if not whole:
        return None
    images = data[: whole * image].reshape(whole, image)
    if not (images[:, : header.end()] == images[0, : header.end()]).all():
        return None  # The frames differ in size.
    return images[:, header.end() :].reshape(whole, height, width, 3)


def _reaches(log: str, time_us: int) -> bool:
    """Return whether the frames begin early enough to know which is on screen at `time_us`."""
    if first := _FIRST_FRAME.search(log):
        return int(first[1]) <= time_us
    length_us = _stated_length_us(log)
    return length_us is not None and length_us <= time_us


def _stated_length_us(log: str) -> float | None:
    """Return the length that the file's header states, microseconds, or None."""
    if stated := re.search(r"Duration: (\d+):(\d\d):(\d\d\.\d+)", log):
        return (int(stated[1]) * 3600 + int(stated[2]) * 60 + float(stated[3])) * 1e6
    return None


def _failure(
    status: int | str, log: str, path: str, found: int, times_us: list[int], limits: Limits
) -> Failure:
    """Return the failure that the exit status, the log and the number of frames show."""
    if status in ("time-out", -signal.SIGXCPU):
        return Failure("decode_timeout", f"more than {limits.seconds:g} s")
    if status == -signal.SIGXFSZ or "Cannot allocate memory" in log or "File too large" in log:
        return Failure("decode_limit", "more memory or output than decoding may use")
    if large := re.search(r"Picture size (\d+x\d+) exceeds specified max pixel count", log):
        width, height = large[1].split("x")
        return too_large(int(width), int(height), limits)
    if "matches no streams" in log:
        return Failure("video_no_stream", "no video stream")
    _check_disk(log)
    if isinstance(status, int) and status < 0:
        return Failure("video_undecodable", f"ffmpeg was ended by signal {-status}")
    if status != 0 and not (_NO_FRAMES in log and _reaches(log, times_us[-1])):
        return Failure("video_undecodable", _complaint(log, path) or f"exit status {status}")
    return no_frames(found, times_us, _stated_length_us(log))


def _check_disk(log: str) -> None:
    """Raise OSError if this machine's disk is full, which is not the video's failure."""
    if "No space left on device" in log:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), tempfile.gettempdir())


def _complaint(log: str, path: str) -> str:
    """Return the log's main error: the first line if the file did not open, else the last."""
    lines = [line.strip() for line in log.splitlines() if not line.startswith("[info]")]
    lines = [line for line in lines if line.startswith("[") and "[info]" not in line]
    lines = [line for line in lines if "misdetection" not in line]  # a guess before the real error
    if not lines:
        return ""
    line = lines[-1] if "Input #0" in log else lines[0]
    if NOT_LISTED in line:
        return OTHER_CONTAINER
    return re.sub(r"^(?:\[[^]]*\] )+", "", line).replace(path, Path(path).name)[:200]
