"""A text view of a record."""

from pipelines.snapshots.card.strips import Entry, clock
from protos.v1.clip_pb2 import Box, FrameEncoding


def lines(entry: Entry) -> list[str]:
    """Return lines with everything in a record except its pixels and prompts."""
    clip = entry.clip
    times = [clock(time) for time in clip.frame_time_us]
    encoding = FrameEncoding.Name(clip.frame_encoding).removeprefix("FRAME_ENCODING_")
    chunks = [f"{chunk.text!r} [{chunk.start}, {chunk.end})" for chunk in clip.noun_chunks]
    cut = f", cut from {clock(clip.end_cut_from_us)}" if clip.end_cut_from_us else ""
    fields = {
        "place": str(entry.place),
        "video": clip.video_id,
        "span": f"{clock(clip.start_us)} – {clock(clip.end_us)} "
        f"({(clip.end_us - clip.start_us) / 1e6:g} s{cut})",
        "caption": repr(clip.caption),
        "noun chunks": ", ".join(chunks) or "none",
        "labels": ", ".join(map(repr, clip.labels)) or "none",
        "frames": f"{len(clip.frames)} of {clip.width}×{clip.height}, {encoding}, "
        f"{sum(map(len, clip.frames)):,} bytes",
        "frame times": f"{times[0]} … {times[-1]}" if times else "none",
        "source row": clip.source_row,
    }
    if clip.video_duration_us:
        fields["video end"] = f"{clock(clip.video_duration_us)} (annotated)"
    details = [
        *(f"  caption      {caption!r}" for caption in clip.captions[1:]),
        *(f"  question     {asked.text!r} → {asked.answer!r}" for asked in clip.questions),
        *(
            f"  segment      {clock(one.start_us)} – {clock(one.end_us)} {one.label!r}"
            for one in clip.segments
        ),
        *(f"  box          {_box(box)}" for box in clip.boxes),
    ]
    return [clip.clip_id, *(f"  {name:<12} {value}" for name, value in fields.items()), *details]


def _box(box: Box) -> str:
    """Return a box's time, corners, labels and score as text.

    >>> _box(Box(time_us=1_000_000, x1=0.25, x2=0.5, y2=1, labels=["12", "80"]))
    "0:01.000 [0.25, 0, 0.5, 1] '12', '80'"
    """
    corners = ", ".join(f"{value:.4g}" for value in (box.x1, box.y1, box.x2, box.y2))
    details = [*map(repr, box.labels), *([f"score {box.score:.4g}"] if box.score else [])]
    return f"{clock(box.time_us)} [{corners}] {', '.join(details)}"
