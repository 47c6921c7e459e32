"""ActivityNet 1.3 temporal localisation: windows of untrimmed videos with labelled segments.

    {"database": {"sJFgo9H6zNo": {"subset": "training", "duration": 140.29,
      "annotations": [{"label": "Fixing bicycle", "segment": [0.01, 70.15]}]}}}

G-TAD's anet_anno_action.json has {"v_sJFgo9H6zNo": {"duration_second": 140.29, "annotations": …}}
instead. Its video_info_new.csv may accompany either file. The CSV's columns video and subset assign
the listed videos to subsets. It lists 4,728 videos for validation, the official file 4,926.

Segments may overlap, repeat each other, have no length, or end after the video. Each window of a
video has all the video's segments unchanged.
"""

import io
import itertools
import math
from collections.abc import Iterator, Mapping

from pipelines.sources import clip_fields, json_file, lines, sentences
from pipelines.sources.clip_request import AnnotationError, ClipRequest, RowError, Segment
from protos.v1.manifest_pb2 import Reject, SourceOptions

FORM = (
    'a JSON object whose "database" maps "<YouTube id>" to {"subset", "duration", "annotations"}, '
    'or that maps "v_<YouTube id>" to {"duration_second", "annotations"}, in seconds; optionally, '
    "a CSV file with the columns video and subset"
)
OPTIONS = ("subset", "window_us", "stride_us")
SUBSETS = ("training", "validation", "testing")

WINDOW_US = 4_000_000  # default window length in microseconds
DAY_US = 86_400_000_000


def read_all(files: Mapping[str, bytes], options: SourceOptions) -> Iterator[ClipRequest | Reject]:
    """Yield one row per window, and a reject per invalid segment or video of another subset."""
    subsets: sentences.Splits | None = None
    annotated = {name: data for name, data in files.items() if json_file.is_json(data)}
    for name, data in files.items():
        if name not in annotated:
            subsets = {} if subsets is None else subsets
            _add_subsets(data, name, subsets)
    if not annotated:
        raise AnnotationError(f"no file is JSON: {', '.join(files)}: add the annotations")
    for name, data in annotated.items():
        numbers = itertools.count(1)
        for key, entry in _videos(json_file.load(data, name), name).items():
            video = key.removeprefix("v_")
            for window in _windows_of(video, entry, subsets, options):
                source_row = f"{name}:{next(numbers)}"
                if isinstance(window, RowError):
                    yield clip_fields.rejected(window, source_row=source_row, video_id=video)
                else:
                    yield window._replace(source_row=source_row)


def _videos(whole: object, name: str) -> dict[str, object]:
    """Return the entries by video of either form.

    Raises:
      AnnotationError: the file has no such entries, or has some where they would be ignored.
    """
    videos = whole.get("database", whole) if isinstance(whole, dict) else None
    if not isinstance(whole, dict) or not isinstance(videos, dict):
        raise AnnotationError(
            f"{name} has no object with one entry per video: check that it is the right file"
        )
    beside = {} if videos is whole else whole
    lost = [key for key, entry in videos.items() if _has_entries(entry)]
    lost += [key for key, entry in beside.items() if entry is not videos and _is_entry(entry)]
    if lost:
        raise AnnotationError(
            f"{name} has entries of videos in {lost[0][:100]!r}, but only those in 'database' are "
            "read: repair the file or download it again"
        )
    return videos


def _is_entry(value: object) -> bool:
    return isinstance(value, dict) and "annotations" in value


def _has_entries(value: object) -> bool:
    return isinstance(value, dict) and any(map(_is_entry, value.values()))


def _add_subsets(data: bytes, name: str, subsets: sentences.Splits) -> None:
    if not {"video", "subset"} <= set(sentences.header(data)):
        raise AnnotationError(
            f"{name} is neither JSON nor a CSV file with the columns video and subset: "
            "check that it is the right file"
        )
    for number, _, fields in lines.table(io.BytesIO(data)):
        try:
            video, subset = lines.column(fields, "video"), lines.column(fields, "subset")
        except RowError as error:
            raise AnnotationError(f"{name}:{number}: {error}: correct the line") from None
        sentences.keep_split(subsets, video.strip().removeprefix("v_"), subset.strip())


def _windows_of(
    video: str, entry: object, subsets: sentences.Splits | None, options: SourceOptions
) -> Iterator[ClipRequest | RowError]:
    """Yield a video's windows, and an error for each invalid segment or for the whole video."""
    try:
        if not isinstance(entry, dict):
            raise RowError("read", "row_columns", f"{video[:100]!r} has no object")
        if subsets is not None and video not in subsets:
            raise RowError("plan", "other_split", f"of no subset, not {options.subset or 'listed'}")
        known = {video: [str(entry.get("subset", ""))]} if subsets is None else subsets
        if options.subset and (other := sentences.not_of_split(known, video, options.subset)):
            raise RowError("plan", "other_split", other)
        duration = entry.get("duration", entry.get("duration_second"))
        duration_us = clip_fields.microseconds(duration, "duration", "s")
        if not 0 < duration_us <= DAY_US:
            raise RowError("plan", "time_invalid", f"a duration of {duration_us} µs, or over a day")
        video_id = clip_fields.youtube_id(video)
        annotations = _annotations(entry)
    except RowError as error:
        yield error
        return
    segments: list[Segment] = []
    errors: list[RowError] = []
    for annotation in annotations:
        try:
            segments.append(_segment(annotation))
        except RowError as error:
            errors.append(error)
    window_us = options.window_us or WINDOW_US
    for start_us, end_us in windows(duration_us, window_us, options.stride_us or window_us):
        clip = clip_fields.clip(
            video_id,
            start_us,
            end_us,
            "",
            source_row="",
            options=SourceOptions(keep_empty_captions=True),
        )
        yield clip._replace(segments=tuple(segments), video_duration_us=duration_us)
    yield from errors


def _annotations(entry: Mapping[str, object]) -> list[object]:
    found = entry.get("annotations")
    if not isinstance(found, list):
        raise RowError("read", "row_columns", "no list 'annotations'")
    return found


def _segment(annotation: object) -> Segment:
    if not isinstance(annotation, dict):
        raise RowError("plan", "segment_invalid", f"{annotation!r:.100} is no object")
    times, label = annotation.get("segment"), annotation.get("label")
    name = f"segment {times!r:.100} of label {label!r:.100}"
    if not isinstance(times, list) or len(times) != 2:
        raise RowError("plan", "segment_invalid", f"{name}: not [start, end]")
    if not clip_fields.is_text(label) or not label.strip():
        raise RowError("plan", "segment_invalid", f"{name}: the label is no text")
    start_us, end_us = (
        clip_fields.microseconds(time, which, "s")
        for time, which in zip(times, ("start", "end"), strict=True)
    )
    if not 0 <= start_us <= end_us:  # The ground truth has three segments of no length.
        raise RowError("plan", "segment_invalid", f"{name}: not from a start to an end")
    return Segment(start_us, end_us, label)


def windows(duration_us: int, window_us: int, stride_us: int) -> list[tuple[int, int]]:
    """Return windows [start, end) with centres `stride_us` apart, the first at `stride_us` / 2.

    Each window represents a part of the video of length `stride_us`. For videos of at least half a
    part, the parts' total length differs from the video's by at most half a part. A video shorter
    than `stride_us` has one window, centred on it. Windows are clipped to the video.

    >>> windows(9_000_000, 4_000_000, 4_000_000)
    [(0, 4000000), (4000000, 8000000)]
    >>> windows(4_500_000, 4_000_000, 2_000_000)
    [(0, 3000000), (1000000, 4500000)]
    >>> windows(1_000_000, 4_000_000, 4_000_000)
    [(0, 1000000)]
    """
    count = max(1, math.floor(duration_us / stride_us + 0.5))
    middles = [(2 * i + 1) * stride_us // 2 for i in range(count)]
    if count == 1:
        middles = [min(middles[0], duration_us // 2)]
    spans = [(middle - window_us // 2, middle + window_us - window_us // 2) for middle in middles]
    return [(max(0, start), min(duration_us, end)) for start, end in spans]
