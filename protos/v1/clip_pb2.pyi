from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class FrameEncoding(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FRAME_ENCODING_UNSPECIFIED: _ClassVar[FrameEncoding]
    FRAME_ENCODING_JPEG: _ClassVar[FrameEncoding]
    FRAME_ENCODING_PNG: _ClassVar[FrameEncoding]
    FRAME_ENCODING_RAW: _ClassVar[FrameEncoding]
FRAME_ENCODING_UNSPECIFIED: FrameEncoding
FRAME_ENCODING_JPEG: FrameEncoding
FRAME_ENCODING_PNG: FrameEncoding
FRAME_ENCODING_RAW: FrameEncoding

class Clip(_message.Message):
    __slots__ = ("clip_id", "video_id", "start_us", "end_us", "caption", "noun_chunks", "frames", "frame_time_us", "frame_encoding", "height", "width", "labels", "source_row", "caption_cut_from", "end_cut_from_us", "captions", "questions", "segments", "boxes", "video_duration_us")
    CLIP_ID_FIELD_NUMBER: _ClassVar[int]
    VIDEO_ID_FIELD_NUMBER: _ClassVar[int]
    START_US_FIELD_NUMBER: _ClassVar[int]
    END_US_FIELD_NUMBER: _ClassVar[int]
    CAPTION_FIELD_NUMBER: _ClassVar[int]
    NOUN_CHUNKS_FIELD_NUMBER: _ClassVar[int]
    FRAMES_FIELD_NUMBER: _ClassVar[int]
    FRAME_TIME_US_FIELD_NUMBER: _ClassVar[int]
    FRAME_ENCODING_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    SOURCE_ROW_FIELD_NUMBER: _ClassVar[int]
    CAPTION_CUT_FROM_FIELD_NUMBER: _ClassVar[int]
    END_CUT_FROM_US_FIELD_NUMBER: _ClassVar[int]
    CAPTIONS_FIELD_NUMBER: _ClassVar[int]
    QUESTIONS_FIELD_NUMBER: _ClassVar[int]
    SEGMENTS_FIELD_NUMBER: _ClassVar[int]
    BOXES_FIELD_NUMBER: _ClassVar[int]
    VIDEO_DURATION_US_FIELD_NUMBER: _ClassVar[int]
    clip_id: str
    video_id: str
    start_us: int
    end_us: int
    caption: str
    noun_chunks: _containers.RepeatedCompositeFieldContainer[NounChunk]
    frames: _containers.RepeatedScalarFieldContainer[bytes]
    frame_time_us: _containers.RepeatedScalarFieldContainer[int]
    frame_encoding: FrameEncoding
    height: int
    width: int
    labels: _containers.RepeatedScalarFieldContainer[str]
    source_row: str
    caption_cut_from: int
    end_cut_from_us: int
    captions: _containers.RepeatedScalarFieldContainer[str]
    questions: _containers.RepeatedCompositeFieldContainer[Question]
    segments: _containers.RepeatedCompositeFieldContainer[Segment]
    boxes: _containers.RepeatedCompositeFieldContainer[Box]
    video_duration_us: int
    def __init__(self, clip_id: _Optional[str] = ..., video_id: _Optional[str] = ..., start_us: _Optional[int] = ..., end_us: _Optional[int] = ..., caption: _Optional[str] = ..., noun_chunks: _Optional[_Iterable[_Union[NounChunk, _Mapping]]] = ..., frames: _Optional[_Iterable[bytes]] = ..., frame_time_us: _Optional[_Iterable[int]] = ..., frame_encoding: _Optional[_Union[FrameEncoding, str]] = ..., height: _Optional[int] = ..., width: _Optional[int] = ..., labels: _Optional[_Iterable[str]] = ..., source_row: _Optional[str] = ..., caption_cut_from: _Optional[int] = ..., end_cut_from_us: _Optional[int] = ..., captions: _Optional[_Iterable[str]] = ..., questions: _Optional[_Iterable[_Union[Question, _Mapping]]] = ..., segments: _Optional[_Iterable[_Union[Segment, _Mapping]]] = ..., boxes: _Optional[_Iterable[_Union[Box, _Mapping]]] = ..., video_duration_us: _Optional[int] = ...) -> None: ...

class NounChunk(_message.Message):
    __slots__ = ("text", "start", "end", "prompts")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    PROMPTS_FIELD_NUMBER: _ClassVar[int]
    text: str
    start: int
    end: int
    prompts: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, text: _Optional[str] = ..., start: _Optional[int] = ..., end: _Optional[int] = ..., prompts: _Optional[_Iterable[str]] = ...) -> None: ...

class Question(_message.Message):
    __slots__ = ("question_id", "text", "answer", "type")
    QUESTION_ID_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    question_id: str
    text: str
    answer: str
    type: str
    def __init__(self, question_id: _Optional[str] = ..., text: _Optional[str] = ..., answer: _Optional[str] = ..., type: _Optional[str] = ...) -> None: ...

class Segment(_message.Message):
    __slots__ = ("start_us", "end_us", "label")
    START_US_FIELD_NUMBER: _ClassVar[int]
    END_US_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    start_us: int
    end_us: int
    label: str
    def __init__(self, start_us: _Optional[int] = ..., end_us: _Optional[int] = ..., label: _Optional[str] = ...) -> None: ...

class Box(_message.Message):
    __slots__ = ("time_us", "x1", "y1", "x2", "y2", "labels", "person_id", "score")
    TIME_US_FIELD_NUMBER: _ClassVar[int]
    X1_FIELD_NUMBER: _ClassVar[int]
    Y1_FIELD_NUMBER: _ClassVar[int]
    X2_FIELD_NUMBER: _ClassVar[int]
    Y2_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    PERSON_ID_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    time_us: int
    x1: float
    y1: float
    x2: float
    y2: float
    labels: _containers.RepeatedScalarFieldContainer[str]
    person_id: str
    score: float
    def __init__(self, time_us: _Optional[int] = ..., x1: _Optional[float] = ..., y1: _Optional[float] = ..., x2: _Optional[float] = ..., y2: _Optional[float] = ..., labels: _Optional[_Iterable[str]] = ..., person_id: _Optional[str] = ..., score: _Optional[float] = ...) -> None: ...
