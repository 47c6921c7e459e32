"""The search for the clips of a snapshot that a text describes."""

import bisect
import io
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from protos.v1 import clip_pb2
from trainer.data.batches import ClipText
from trainer.data.snapshot import Snapshot
from trainer.data.types import Progress
from trainer.inference.encoder import Encoder, embed_clips
from trainer.runs.checkpoint import Loaded


class Found(NamedTuple):
    """A clip of a snapshot, and its similarity to a query."""

    score: float  # cosine of text and clip
    record: int  # the clip's index in the snapshot
    clip: ClipText


def search(
    query: str, run: Loaded, snapshot: Snapshot, top: int, progress: Progress
) -> list[Found]:
    """Return the `top` clips most similar to a text, best first.

    Raises:
      SnapshotError: a record is damaged, or the snapshot does not suit the model.
    """
    encoder = Encoder(run.config, run.tokenizer, run.params)
    texts, clips = embed_clips(snapshot, encoder, progress)
    scores = encoder.similarity([query], clips.clip)[0]
    best = np.argsort(-scores, kind="stable")[:top]
    return [Found(float(scores[record]), int(record), texts[record]) for record in best]


def clock(time_us: int) -> str:
    """Format a time of a video as minutes, seconds and milliseconds.

    >>> clock(83_500_999)
    '01:23.500'
    """
    minutes, rest = divmod(time_us // 1000, 60_000)
    return f"{minutes:02d}:{rest // 1000:02d}.{rest % 1000:03d}"


# Layout of the contact sheet; sizes in pixels.
_STRIP_FRAMES = 8
_FRAME_HEIGHT = 120
_GAP, _MARGIN = 6, 24
_TITLE, _TEXT = 26, 15
_PAPER, _INK, _SOFT = "#f6f4ef", "#1d1f24", "#62666f"

_Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def contact_sheet(
    query: str, found: Sequence[Found], clips: Sequence[clip_pb2.Clip]
) -> Image.Image:
    """Draw the found clips: one film strip per clip, with the time of each frame.

    Args:
      query: the title.
      found: the clips.
      clips: the record of each.
    """
    strips = [_strip(clip) for clip in clips]
    width = max([strip.width for strip in strips], default=0) + 2 * _MARGIN
    line = _TEXT + 8
    row = 2 * line + _FRAME_HEIGHT + line + _MARGIN
    sheet = Image.new("RGB", (width, 2 * _MARGIN + _TITLE + row * len(found)), _PAPER)
    draw = ImageDraw.Draw(sheet)
    _write(draw, (_MARGIN, _MARGIN), f"“{query}”", _TITLE, _INK, width - 2 * _MARGIN)
    for place, (one, strip) in enumerate(zip(found, strips, strict=True)):
        top = 2 * _MARGIN + _TITLE + place * row
        room = width - 2 * _MARGIN
        _write(draw, (_MARGIN, top), f"{place + 1}.  {one.clip.caption}", _TEXT, _INK, room)
        _write(draw, (_MARGIN, top + line), _where(one), _TEXT - 2, _SOFT, room)
        sheet.paste(strip, (_MARGIN, top + 2 * line))
    return sheet


def _where(one: Found) -> str:
    clip = one.clip
    return (
        f"cosine {one.score:.3f}   video {clip.video_id}   "
        f"{clock(clip.start_us)} to {clock(clip.end_us)}"
    )


def _strip(clip: clip_pb2.Clip) -> Image.Image:
    """Draw frames of a clip from first to last, side by side, with their times below."""
    count = min(_STRIP_FRAMES, len(clip.frames))
    picked = [(2 * place + 1) * len(clip.frames) // (2 * count) for place in range(count)]
    frames = []
    for place in picked:
        frame = Image.open(io.BytesIO(clip.frames[place])).convert("RGB")
        frames.append(frame.resize((frame.width * _FRAME_HEIGHT // frame.height, _FRAME_HEIGHT)))
    wide = frames[0].width + _GAP
    strip = Image.new("RGB", (wide * count - _GAP, _FRAME_HEIGHT + _TEXT + 8), _PAPER)
    draw = ImageDraw.Draw(strip)
    for column, (frame, place) in enumerate(zip(frames, picked, strict=True)):
        strip.paste(frame, (column * wide, 0))
        time = clock(clip.frame_time_us[place])
        _write(draw, (column * wide, _FRAME_HEIGHT + 4), time, _TEXT - 3, _SOFT, wide)
    return strip


def _write(
    draw: ImageDraw.ImageDraw, at: tuple[int, int], text: str, size: int, ink: str, room: int
) -> None:
    """Write one line of text, cut with an ellipsis if it is wider than `room` pixels."""
    font = ImageFont.load_default(size)
    draw.text(at, fitting(draw, " ".join(text.split()), font, room), ink, font)


def fitting(draw: ImageDraw.ImageDraw, text: str, font: _Font, room: int) -> str:
    """Return a text, cut with an ellipsis to the beginning that fits into `room` pixels."""
    shown = text[: room + 1]  # a readable character takes at least one pixel
    if len(shown) == len(text) and draw.textlength(text, font) <= room:
        return text

    def length(kept: int) -> float:
        return draw.textlength(shown[:kept] + "…", font)

    # A measurement takes time linear in its text, so bisect instead of testing each character.
    kept = bisect.bisect_right(range(1, len(shown)), room, key=length)
    return shown[:kept] + "…"
