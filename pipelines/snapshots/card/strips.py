"""Strips of a clip's frames, and contact sheets of many clips.

The trainer's report has its own strips, because the stages share schemas but no code.
"""

import base64
import bisect
import functools
import html
import io
from collections.abc import Callable, Sequence
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont

from pipelines.snapshots import records, snapshot
from pipelines.snapshots.card import pictures
from pipelines.snapshots.records import Place
from protos.v1.clip_pb2 import Clip
from protos.v1.manifest_pb2 import Manifest

# A strip's number of frames, and its height and gaps in pixels.
_FRAMES, _HEIGHT, _GAP = 8, 108, 4
_WIDEST = 16  # maximum ratio of width to height; no wider video is decoded
_WEBP_QUALITY = 75
# A contact sheet's margin and line height in pixels, and its colours.
_MARGIN, _LINE = 20, 22
_PAPER, _INK, _SOFT, _NOUN = "#f6f4ef", "#1d1f24", "#62666f", "#d9482b"


class Entry(NamedTuple):
    """A clip on a contact sheet."""

    place: Place
    clip: Clip


def entries(folder: str, manifest: Manifest, places: Sequence[Place]) -> list[Entry]:
    """Read the clips at these places.

    Raises:
      SnapshotError: a record is damaged.
    """
    clips = records.read(folder, manifest, places)
    return [Entry(place, clip) for place, clip in zip(places, clips, strict=True)]


def clock(time_us: int) -> str:
    """Return a video time as minutes:seconds.milliseconds.

    >>> clock(83_500_999)
    '1:23.500'
    """
    minutes, rest = divmod(time_us // 1000, 60_000)
    return f"{minutes}:{rest // 1000:02d}.{rest % 1000:03d}"


def strip(clip: Clip) -> Image.Image:
    """Draw up to eight evenly spaced frames side by side, in order of time.

    Raises:
      SnapshotError: a frame cannot be decoded.
    """
    count = min(_FRAMES, len(clip.frames))
    width = min(max(1, _HEIGHT * clip.width // clip.height), _HEIGHT * _WIDEST)
    image = Image.new("RGB", (max(1, (width + _GAP) * count - _GAP), _HEIGHT), _PAPER)
    numbers = [(2 * column + 1) * len(clip.frames) // (2 * count) for column in range(count)]
    try:
        frames = pictures.small(clip, numbers, width, _HEIGHT)
    except pictures.PictureError as error:
        raise snapshot.SnapshotError(
            f"a frame of record {clip.clip_id!r} cannot be decoded ({error}): build the snapshot "
            "again into another folder"
        ) from None
    for column, frame in enumerate(frames):
        image.paste(frame, (column * (width + _GAP), 0))
    return image


def pieces(clip: Clip) -> list[tuple[str, bool]]:
    """Split the caption into pieces, each with a flag that marks noun chunks.

    >>> from protos.v1.clip_pb2 import NounChunk
    >>> pieces(Clip(caption="a man sits", noun_chunks=[NounChunk(text="man", start=2, end=5)]))
    [('a ', False), ('man', True), (' sits', False)]
    """
    cut, end = [], 0
    for chunk in clip.noun_chunks:
        cut += [
            (clip.caption[end : chunk.start], False),
            (clip.caption[chunk.start : chunk.end], True),
        ]
        end = chunk.end
    cut.append((clip.caption[end:], False))
    return [(text, noun) for text, noun in cut if text]


def figure(entry: Entry) -> str:
    """Return a clip as HTML: its strip, its caption with marked noun chunks, and its origin."""
    clip = entry.clip
    data = io.BytesIO()
    image = strip(clip)
    image.save(data, "webp", quality=_WEBP_QUALITY)
    source = "data:image/webp;base64," + base64.b64encode(data.getvalue()).decode()
    caption = "".join(
        f"<mark>{html.escape(text)}</mark>" if noun else html.escape(text)
        for text, noun in pieces(clip)
    )
    return (
        f'<figure class="card clip"><img src="{source}" width="{image.width}" '
        f'height="{image.height}" alt="frames of {html.escape(clip.clip_id)}">'
        f'<figcaption><p dir="auto">{caption}</p><small>{html.escape(_origin(entry))}</small>'
        "</figcaption></figure>"
    )


def png(entries: Sequence[Entry]) -> bytes:
    """Return a contact sheet as a PNG, with each clip's strip below its caption."""
    strips = [strip(entry.clip) for entry in entries]
    width = max((image.width for image in strips), default=0) + 2 * _MARGIN
    row = 2 * _LINE + _HEIGHT + _MARGIN
    image = Image.new("RGB", (width, row * len(entries) + _MARGIN), _PAPER)
    draw = ImageDraw.Draw(image)
    for number, (entry, frames) in enumerate(zip(entries, strips, strict=True)):
        top, right = _MARGIN + number * row, width - _MARGIN
        x = float(_MARGIN)
        for text, noun in pieces(entry.clip):
            x = _write(draw, (x, top), text, _NOUN if noun else _INK, right)
            if x >= right:
                break
        _write(draw, (_MARGIN, top + _LINE), _origin(entry), _SOFT, right)
        image.paste(frames, (_MARGIN, top + 2 * _LINE))
    data = io.BytesIO()
    image.save(data, "png")
    return data.getvalue()


def _origin(entry: Entry) -> str:
    clip = entry.clip
    return " ".join(
        f"{entry.place} · video {clip.video_id} · {clock(clip.start_us)} to {clock(clip.end_us)} · "
        f"{clip.source_row}".splitlines()
    )


def _write(
    draw: ImageDraw.ImageDraw, at: tuple[float, float], text: str, ink: str, right: int
) -> float:
    """Write text up to the right edge, and return its end's x, or `right` if it was cut."""
    font = _font()
    text = " ".join(text.split("\n"))
    shown = _fitting(text, lambda part: draw.textlength(part, font), float(right - at[0]))
    draw.text(at, shown, ink, font)
    return at[0] + draw.textlength(shown, font) if shown == text else float(right)


def _fitting(text: str, width: Callable[[str], float], room: float) -> str:
    """Return the longest prefix of the text that is no wider than `room`.

    A caption may have any length. So the search measures only about 2 log₂ n prefixes, of at most
    twice the n characters that fit.

    >>> wide = lambda text: float(len(text))
    >>> [_fitting(text, wide, 6.0) for text in ("a red ring rises", "a ring", "")]
    ['a red ', 'a ring', '']
    """
    longest = 1
    while longest < len(text) and width(text[:longest]) <= room:
        longest *= 2
    lengths = range(min(longest, len(text)) + 1)
    fitting = bisect.bisect_right(lengths, room, key=lambda n: width(text[:n]))
    return text[: max(fitting - 1, 0)]


@functools.cache
def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(15)
