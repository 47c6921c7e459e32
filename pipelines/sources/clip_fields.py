"""Functions for all sources that convert a row's fields to a clip or to a reject."""

import datetime
import decimal
import re
import unicodedata
from collections.abc import Callable, Sequence
from typing import TypeGuard

from pipelines.decoding.spans import TO_THE_END
from pipelines.sources.clip_request import ClipRequest, Question, RowError, clip_id, reject
from protos.v1.manifest_pb2 import Reject, SourceOptions

CAPTION_CHARACTERS = 10_000  # maximum length; a record notes if its caption was truncated

ID_CHARACTERS = 200  # maximum length of a video id

_YOUTUBE_ID = re.compile(r"[A-Za-z0-9_-]{11}")
_PLAIN_ID = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")
_FILE_NAME = re.compile(r"[^./\\\x00-\x1f\x7f][^/\\\x00-\x1f\x7f]*")
# Hours are optional. Subtitles have a comma before the fraction.
_CLOCK = re.compile(
    r"([+-]?)(?:([0-9]{1,4}):)?([0-5]?[0-9]|(?<!:)[0-9]{1,4}):([0-5]?[0-9])(?:[.,]([0-9]{1,12}))?"
)
# Unicode categories that ids may not contain: control, format, surrogates, line and paragraph
# separators.
_UNSEEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}
_JOINERS = "\u200c\u200d"  # allowed characters of category Cf, which occur in words and emoji
_MICROSECONDS = {"s": 1_000_000, "ms": 1_000, "us": 1}
UNITS = tuple(_MICROSECONDS)
_EXACT = decimal.Context(prec=100)  # digits; decimals in tables have at most 76


def clip_or_reject(
    make: Callable[[], ClipRequest], *, source_row: str, video_id: str = "", row: str = ""
) -> ClipRequest | Reject:
    """Return the result of `make`, or a reject with the original `row` if it raises RowError."""
    try:
        return make()
    except RowError as error:
        return rejected(error, source_row=source_row, video_id=video_id, row=row)


def rejected(error: RowError, *, source_row: str, video_id: str = "", row: str = "") -> Reject:
    """Return the reject of a row that cannot become a clip."""
    return reject(
        error.stage,
        error.reason,
        str(error),
        source_row=source_row,
        video_id=video_id[:ID_CHARACTERS],
        row=row,
    )


def clip(
    video_id: str,
    start_us: int,
    end_us: int,
    caption: object,
    *,
    source_row: str,
    options: SourceOptions,
    labels: tuple[str, ...] = (),
) -> ClipRequest:
    """Return a clip with a span and its caption.

    Raises:
      RowError: the span starts before 0 or is empty, or the caption is empty or not a text.

    >>> clip("a", 0, 9, " a man sings", source_row="a.csv:1", options=SourceOptions()).caption
    'a man sings'
    """
    if start_us < 0:
        raise RowError("plan", "time_negative", f"start of {start_us} µs")
    if end_us <= start_us:
        raise RowError("plan", "span_empty", f"start {start_us} µs, end {end_us} µs")
    start_us, end_us = widened(start_us, end_us, options.widen_to_us)
    caption, cut_from = described(caption, options.keep_empty_captions)
    return ClipRequest(
        clip_id=clip_id(video_id, start_us, end_us, caption),
        video_id=video_id,
        start_us=start_us,
        end_us=end_us,
        caption=caption,
        caption_cut_from=cut_from,
        labels=labels,
        source_row=source_row,
    )


def whole_video(
    video_id: str,
    *,
    source_row: str,
    captions: Sequence[str] = (),
    labels: tuple[str, ...] = (),
    questions: tuple[Question, ...] = (),
    caption_cut_from: int = 0,
) -> ClipRequest:
    """Return a clip of a whole video with its annotations, given captions from `described`.

    `caption_cut_from` is the length that `described` returned for the first caption.

    >>> whole_video("video7", source_row="a.json:1", captions=["a", "b"]).clip_id
    'video7_0_0_ca978112'
    """
    caption = captions[0] if captions else ""
    return ClipRequest(
        clip_id=clip_id(video_id, 0, TO_THE_END, caption),
        video_id=video_id,
        start_us=0,
        end_us=TO_THE_END,
        caption=caption,
        caption_cut_from=caption_cut_from,
        labels=labels,
        source_row=source_row,
        captions=tuple(captions) if len(captions) > 1 else (),
        questions=questions,
    )


def described(caption: object, may_be_empty: bool = False) -> tuple[str, int]:
    """Return a record's caption, and the original length if the caption was truncated, else 0.

    Raises:
      RowError: the caption is not a text, or is empty although it may not be.

    >>> described(" a man sings")
    ('a man sings', 0)
    """
    if not isinstance(caption, str):
        raise RowError("plan", "caption_invalid", f"a caption of {caption!r:.100}, not a text")
    caption = caption.strip()
    if not caption and not may_be_empty:
        raise RowError("plan", "caption_empty", "the caption is empty")
    if "\0" in caption:
        raise RowError("plan", "caption_invalid", "the caption holds NUL characters")
    try:
        caption.encode()
    except UnicodeEncodeError:  # A lone surrogate, such as JSON's \uD83D.
        raise RowError("plan", "caption_invalid", "the caption is not whole Unicode") from None
    cut_from = len(caption) if len(caption) > CAPTION_CHARACTERS else 0
    return caption[:CAPTION_CHARACTERS].rstrip(), cut_from


def is_text(value: object) -> TypeGuard[str]:
    r"""Return whether a value is a text that a record can hold.

    >>> is_text("a"), is_text(7), is_text("\0"), is_text("\ud83d")  # NUL; half of a pair
    (True, False, False, False)
    """
    if not isinstance(value, str) or "\0" in value:
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def widened(start_us: int, end_us: int, min_us: int) -> tuple[int, int]:
    """Return a span of at least `min_us` with about the same centre.

    A span that would start before 0 starts at 0 instead.

    >>> widened(10_000_000, 12_000_000, 4_000_000)
    (9000000, 13000000)
    >>> widened(500_000, 1_500_000, 4_000_000)
    (0, 4000000)
    """
    missing_us = min_us - (end_us - start_us)
    if missing_us <= 0:
        return start_us, end_us
    start_us = max(0, start_us - missing_us // 2)
    return start_us, start_us + min_us


def microseconds(field: object, which: str, unit: str) -> int:
    """Return an annotated time in whole microseconds.

    Args:
      field: a number, a Decimal or a number's text in `unit`. Texts hours:minutes:seconds and
        minutes:seconds, and timedeltas, are independent of the unit.
      which: the field's name, for messages.
      unit: one of UNITS.

    Raises:
      RowError: the field is not a finite number.

    >>> microseconds("10.23", "start", "s")
    10230000
    >>> microseconds("1:02:03.5", "start", "ms")
    3723500000
    """
    shown = f"{which} {str(field).strip()[:50]!r}"
    if isinstance(field, datetime.timedelta):
        return field // datetime.timedelta(microseconds=1)
    scale = _MICROSECONDS[unit]
    if isinstance(field, decimal.Decimal):
        # The exponent is bounded first, because the cost of arithmetic grows with it.
        if not field.is_finite() or field.copy_abs() >= 10**18 // scale:
            raise RowError("plan", "time_invalid", f"{shown} is no finite time")
        return round(_EXACT.multiply(field, scale))
    if isinstance(field, bool) or not isinstance(field, str | int | float):
        raise RowError("plan", "time_invalid", f"{shown} is no number")
    try:
        if isinstance(field, str):
            field = field.strip()
            if ":" in field:
                return _of_clock(field)
            # Only JSON's forms are accepted. Python also parses "1_0" and other scripts' digits.
            if re.fullmatch(r"[+-]?[0-9]{1,18}", field):
                field = int(field)
            elif field.isascii() and "_" not in field:
                field = float(field)
            else:
                raise ValueError
        value = field * scale
    except ValueError:
        raise RowError("plan", "time_invalid", f"{shown} is no number") from None
    if not abs(value) < 1e18:  # NaN fails this comparison, too.
        raise RowError("plan", "time_invalid", f"{shown} is no finite time")
    return round(value)


def _of_clock(text: str) -> int:
    """Parse hours:minutes:seconds to microseconds, and raise ValueError for other texts."""
    match = _CLOCK.fullmatch(text)
    if not match:
        raise ValueError
    sign, hours, minutes, seconds, fraction = match.groups()
    whole = (int(hours or 0) * 60 + int(minutes)) * 60 + int(seconds)
    found = whole * 1_000_000 + round(int(fraction or 0) * 10.0 ** (6 - len(fraction or "")))
    return -found if sign == "-" else found


def youtube_id(field: str) -> str:
    """Return the field if it is a YouTube id.

    Raises:
      RowError: the field is not a YouTube id.
    """
    if not _YOUTUBE_ID.fullmatch(field):
        raise RowError(
            "plan", "video_id_invalid", f"{field[:100]!r} is no YouTube id of 11 characters"
        )
    return field


def plain_id(field: object) -> str:
    """Return a data set's id of letters, digits, "_", "-" and ".", without a leading ".".

    Raises:
      RowError: the field is not such an id.

    >>> plain_id("6bmU85.part-2")
    '6bmU85.part-2'
    """
    text = str(field) if isinstance(field, str | int) and not isinstance(field, bool) else ""
    if not _PLAIN_ID.fullmatch(text) or len(text) > ID_CHARACTERS:
        raise RowError(
            "plan",
            "video_id_invalid",
            f"{str(field)[:100]!r} is no video id of 1 to 200 letters, digits, '_', '-' and '.'",
        )
    return text


def any_id(field: object) -> str:
    """Return a user's own id, which must be a valid file name, without surrounding white space.

    Raises:
      RowError: the id is not a valid file name, or is longer than ID_CHARACTERS.

    >>> any_id(" 5432@N00 cat.mp4 "), any_id(17)
    ('5432@N00 cat.mp4', '17')
    """
    text = str(field) if isinstance(field, str | int) and not isinstance(field, bool) else ""
    text = text.strip()
    if not _FILE_NAME.fullmatch(text) or len(text) > ID_CHARACTERS or _has_unseen(text):
        raise RowError(
            "plan",
            "video_id_invalid",
            f"{str(field)[:100]!r} is no video id of 1 to {ID_CHARACTERS} characters without '/'",
        )
    return text


def _has_unseen(text: str) -> bool:
    return not text.isascii() and any(
        unicodedata.category(one) in _UNSEEN and one not in _JOINERS for one in text
    )


def file_name(field: str) -> str:
    """Return a video file's name without its extension, accepting any valid file name.

    Raises:
      RowError: the field is not a valid file name, or names a hidden file.

    >>> file_name("(HQ)_Rock_Climbing_#1.avi")
    '(HQ)_Rock_Climbing_#1'
    """
    name = field.rpartition(".")[0] or field
    if not _FILE_NAME.fullmatch(name) or len(name) > ID_CHARACTERS or _has_unseen(name):
        raise RowError("plan", "video_id_invalid", f"{field[:100]!r} is no name of a file")
    return name
