"""Videos that a caller gives the Python API: files, spans of files, or arrays of frames."""

import functools
import numbers
import os
import pathlib
import reprlib
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8

from protos.v1 import clip_pb2
from trainer.configs.config import Config, VideoConfig
from trainer.inference.video_files import WHOLE_US

Path = str | os.PathLike[str]
Video = Path | tuple[Path, float, float] | Any
"""A video file, a span of one as (path, start, end) in seconds, or an array of frames."""
Videos = Iterable[Video] | Any
"""Several videos, all of them files and spans, or all of them arrays.

Arrays are uint8 RGB of NumPy, JAX or another library: [n, F, H, W, 3] for n clips, or a list of
[F, H, W, 3] of different sizes. T of the F frames are used, evenly spread. Frames of another size
than the model's R² pixels are scaled and cropped to their centre, as evaluation does.
"""

_WANTED = (
    "videos must be a list of one or more paths or spans (path, start, end), or of arrays of frames"
)
_MAX_BYTES = (1 << 31) - (1 << 20)  # of a clip's frames: protobuf's limit, less the other fields


class FileSpan(NamedTuple):
    """A span of a video file."""

    path: pathlib.Path
    span_us: tuple[int, int]  # start and end, microseconds


class Given(NamedTuple):
    """The videos of a call: files or arrays. One of the lists is empty."""

    files: list[FileSpan]
    arrays: list[np.ndarray]


def read(videos: Videos) -> Given:
    """Return the spans of files, or the arrays.

    Raises:
      ValueError: there is no video, or an item has another type or a wrong span.
    """
    if _is_array(videos):
        arrays = list(np.asarray(videos))
        if not arrays:
            raise ValueError("the array of frames has no clip")
        return Given([], arrays)
    several = videos.tolist() if isinstance(videos, np.ndarray) else videos
    # A single path is iterable too, and would be split into characters.
    if isinstance(several, Iterable) and not isinstance(several, str | bytes | os.PathLike):
        several = list(several)
        if several and all(map(_is_array, several)):
            return Given([], [np.asarray(one) for one in several])
        if several and all(isinstance(one, str | os.PathLike | tuple) for one in several):
            return Given([_file_span(one) for one in several], [])
    raise ValueError(f"{_WANTED}, got {reprlib.repr(videos)}")


def _is_array(given: Any) -> bool:
    """Return whether `given` is an array of numbers. Arrays of paths are lists."""
    if isinstance(given, np.ndarray):
        return given.ndim > 0 and given.dtype.kind not in "OUS"
    return hasattr(given, "__array__") and hasattr(given, "shape")


def _file_span(given: Any) -> FileSpan:
    """Return the span of an item.

    >>> _file_span(("a.mp4", 3.0, 9.5)).span_us
    (3000000, 9500000)
    """
    if not isinstance(given, tuple):
        return FileSpan(pathlib.Path(given), WHOLE_US)
    is_span = len(given) == 3 and isinstance(given[0], str | os.PathLike)
    if not is_span or not all(isinstance(end, numbers.Real) for end in given[1:]):
        raise ValueError(f"a span must be (path, start, end) in seconds, got {given!r:.100}")
    start, end = map(float, given[1:])
    if not 0 <= start < end < float("inf"):
        raise ValueError(f"span {start:g} to {end:g} s of {given[0]}: give 0 ≤ start < end")
    return FileSpan(pathlib.Path(given[0]), (round(start * 1e6), round(end * 1e6)))


def fit(frames: np.ndarray, config: Config, name: str) -> UInt8[np.ndarray, "T R R 3"]:
    """Return the frames of a clip at the model's size.

    Args:
      frames: uint8 RGB, [F, H, W, 3]. T of the F frames are chosen, evenly spread. Fewer frames
        than T are repeated. Frames of R × R pixels are used whole.
      config: the run's configuration.
      name: the name of the clip, for messages.

    Raises:
      ValueError: the array has another type or shape, is empty or too large.
    """
    video = config.video
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or not frames.size:
        raise ValueError(
            f"{name} must be uint8 RGB frames [F, H, W, 3], got {frames.dtype} {list(frames.shape)}"
        )
    chosen = frames[chosen_frames(len(frames), video)]
    height, width = chosen.shape[1:3]
    if (height, width) == (video.resolution, video.resolution):
        return chosen
    if chosen.nbytes > _MAX_BYTES or max(height, width) >= 1 << 16:
        raise ValueError(
            f"{name} has frames of {width} × {height} pixels, too many: scale them down first"
        )
    clip = clip_pb2.Clip(
        frame_encoding=clip_pb2.FRAME_ENCODING_RAW,
        height=height,
        width=width,
        frames=[frame.tobytes() for frame in chosen],
    )
    return _scaler(config)(clip.SerializeToString())


def chosen_frames(count: int, video: VideoConfig) -> list[int]:
    """Return which of `count` frames the model sees: the middle ones of T equal parts.

    >>> chosen_frames(8, VideoConfig(frames=4)), chosen_frames(2, VideoConfig(frames=4))
    ([1, 3, 5, 7], [0, 0, 1, 1])
    """
    return [(2 * place + 1) * count // (2 * video.frames) for place in range(video.frames)]


@functools.lru_cache
def _scaler(config: Config) -> Callable[[bytes], np.ndarray]:
    """Return the decoder of evaluation, compiled once."""
    from trainer.data.cpu_tensorflow import tf
    from trainer.data.decode import evaluation_clip

    decode = tf.function(
        lambda record: evaluation_clip(record, None, config)["frames"],
        input_signature=[tf.TensorSpec([], tf.string)],
    )
    return lambda record: decode(tf.constant(record)).numpy()
