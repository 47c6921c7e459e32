"""Film strips: the frames of a clip side by side in one JPEG."""

import io

import numpy as np
from jaxtyping import Int
from PIL import Image

from protos.v1 import clip_pb2
from trainer.data.snapshot import SnapshotError

MEDIA_TYPE = "image/jpeg"
_FRAMES = 32  # maximum frames of a film
_HEIGHT = 256  # maximum height of a film, pixels
_WIDTH = 32_768  # maximum width of a film, pixels; JPEG's is 65,535
_QUALITY = 88


def shown_frames(clip: clip_pb2.Clip) -> Int[np.ndarray, " k"]:
    """Return the frames of a film, as indices of the clip's frames, evenly spread.

    >>> shown_frames(clip_pb2.Clip(frames=[b""] * 4)).tolist()
    [0, 1, 2, 3]
    """
    count = min(_FRAMES, len(clip.frames))
    return (2 * np.arange(count) + 1) * len(clip.frames) // (2 * max(count, 1))


def frame_size(clip: clip_pb2.Clip) -> tuple[int, int]:
    """Return the width and height of a film's frames in pixels.

    >>> frame_size(clip_pb2.Clip(width=1024, height=512, frames=[b""]))
    (512, 256)
    """
    most = _WIDTH // max(1, min(_FRAMES, len(clip.frames)))
    scale = min(1.0, _HEIGHT / max(clip.height, 1), most / max(clip.width, 1))
    return max(1, round(scale * clip.width)), max(1, round(scale * clip.height))


def film(clip: clip_pb2.Clip) -> bytes:
    """Return a clip's film as a JPEG.

    Raises:
      SnapshotError: a frame is damaged, or the clip has none.
    """
    width, height = frame_size(clip)
    picked = shown_frames(clip).tolist()
    if not picked:
        raise SnapshotError(f"clip {clip.clip_id!r} has no frame: run svilm-pipelines verify")
    strip = Image.new("RGB", (width * len(picked), height))
    for place, frame in enumerate(picked):
        strip.paste(_picture(clip, frame).resize((width, height)), (place * width, 0))
    file = io.BytesIO()
    strip.save(file, "JPEG", quality=_QUALITY)
    return file.getvalue()


def _picture(clip: clip_pb2.Clip, frame: int) -> Image.Image:
    size, data = (clip.width, clip.height), clip.frames[frame]
    try:
        if clip.frame_encoding == clip_pb2.FRAME_ENCODING_RAW:
            return Image.frombytes("RGB", size, data)
        picture = Image.open(io.BytesIO(data), formats=("JPEG", "PNG"))
        if picture.size != size:
            raise ValueError(f"it has {picture.size} pixels instead of {size}")
        return picture.convert("RGB")
    except (OSError, ValueError, SyntaxError) as error:
        raise SnapshotError(
            f"frame {frame} of clip {clip.clip_id!r} is damaged ({error}): run svilm-pipelines "
            "verify"
        ) from None
