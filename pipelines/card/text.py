"""A record as lines of text."""

from pipelines.card.strips import Entry, clock
from protos.v1.clip_pb2 import FrameEncoding


def lines(entry: Entry) -> list[str]:
    """Everything in a record but its pixels and prompts."""
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
        "shown at": f"{times[0]} … {times[-1]}" if times else "never",
        "source row": clip.source_row,
    }
    return [clip.clip_id, *(f"  {name:<12} {value}" for name, value in fields.items())]
