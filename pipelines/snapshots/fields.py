"""The fields of a record in formats of other libraries, from which their schemas are derived."""

from typing import Any, NamedTuple

STRING, INT64, INT32, FLOAT32 = "string", "int64", "int32", "float32"
IMAGE, STRUCT = "image", "struct"


class Field(NamedTuple):
    """A field of a record or of a part of it."""

    name: str  # as in protos/v1/clip.proto
    kind: str
    description: str
    repeated: bool = False
    parts: tuple["Field", ...] = ()  # of a STRUCT


FIELDS = (
    Field("clip_id", STRING, "Unique id of the clip."),
    Field("video_id", STRING, "Id of the clip's video."),
    Field("start_us", INT64, "Start of the clip in its video, in microseconds."),
    Field("end_us", INT64, "End of the clip in its video, in microseconds."),
    Field("caption", STRING, "Annotated description; empty if the annotation has none."),
    Field(
        "captions",
        STRING,
        "All descriptions, the caption first, if the source has several; else empty.",
        repeated=True,
    ),
    Field(
        "noun_chunks",
        STRUCT,
        "Noun phrases of the caption, found by software.",
        repeated=True,
        parts=(
            Field("text", STRING, "The phrase without leading articles."),
            Field("start", INT32, "Start in the caption, in Unicode code points."),
            Field("end", INT32, "End in the caption, in Unicode code points."),
            Field("prompts", STRING, "The phrase in each prompt template.", repeated=True),
        ),
    ),
    Field("frames", IMAGE, "Frames of the clip in the order of time.", repeated=True),
    Field(
        "frame_time_us",
        INT64,
        "Time of each frame in the video, in microseconds.",
        repeated=True,
    ),
    Field("height", INT32, "Height of the frames, in pixels."),
    Field("width", INT32, "Width of the frames, in pixels."),
    Field("labels", STRING, "Class names of the clip.", repeated=True),
    Field("source_row", STRING, "Annotation file and row of the clip."),
    Field("caption_cut_from", INT32, "Length of the caption in code points if it was cut; else 0."),
    Field("end_cut_from_us", INT64, "Annotated end in microseconds if it was cut; else 0."),
    Field(
        "questions",
        STRUCT,
        "Questions about the clip.",
        repeated=True,
        parts=(
            Field("question_id", STRING, "Id of the question in the source."),
            Field("text", STRING, "The question."),
            Field("answer", STRING, "The annotated answer; empty if it is not published."),
            Field("type", STRING, "First word of the question."),
        ),
    ),
    Field(
        "segments",
        STRUCT,
        "Labelled spans of the whole video.",
        repeated=True,
        parts=(
            Field("start_us", INT64, "Start in the video, in microseconds."),
            Field("end_us", INT64, "End in the video, in microseconds."),
            Field("label", STRING, "Class name."),
        ),
    ),
    Field(
        "boxes",
        STRUCT,
        "Labelled boxes at single times of the video.",
        repeated=True,
        parts=(
            Field("time_us", INT64, "Time in the video, in microseconds."),
            Field("x1", FLOAT32, "Left edge as a fraction of the width."),
            Field("y1", FLOAT32, "Top edge as a fraction of the height."),
            Field("x2", FLOAT32, "Right edge as a fraction of the width."),
            Field("y2", FLOAT32, "Bottom edge as a fraction of the height."),
            Field("labels", STRING, "Class names or numbers.", repeated=True),
            Field("person_id", STRING, "Id of the person in the source."),
            Field("score", FLOAT32, "Confidence of a detector; 0 for a human annotation."),
        ),
    ),
    Field("video_duration_us", INT64, "Annotated length of the video, in microseconds; else 0."),
)


def value(message: Any, field: Field) -> Any:
    """Return a field of a Clip or of a part of it, as lists, dictionaries and plain values.

    >>> from protos.v1.clip_pb2 import Clip
    >>> clip = Clip(labels=["rise"], segments=[{"end_us": 7, "label": "fall"}])
    >>> {one.name: value(clip, one) for one in FIELDS if one.name in ("labels", "segments")}
    {'labels': ['rise'], 'segments': [{'start_us': 0, 'end_us': 7, 'label': 'fall'}]}
    """
    found = getattr(message, field.name)
    if field.kind == STRUCT:
        return [{part.name: value(one, part) for part in field.parts} for one in found]
    return [*found] if field.repeated else found
