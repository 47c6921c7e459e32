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
    __slots__ = ("clip_id", "video_id", "start_us", "end_us", "caption", "noun_chunks", "frames", "frame_time_us", "frame_encoding", "height", "width", "labels", "source_row", "caption_cut_from", "end_cut_from_us")
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
    def __init__(self, clip_id: _Optional[str] = ..., video_id: _Optional[str] = ..., start_us: _Optional[int] = ..., end_us: _Optional[int] = ..., caption: _Optional[str] = ..., noun_chunks: _Optional[_Iterable[_Union[NounChunk, _Mapping]]] = ..., frames: _Optional[_Iterable[bytes]] = ..., frame_time_us: _Optional[_Iterable[int]] = ..., frame_encoding: _Optional[_Union[FrameEncoding, str]] = ..., height: _Optional[int] = ..., width: _Optional[int] = ..., labels: _Optional[_Iterable[str]] = ..., source_row: _Optional[str] = ..., caption_cut_from: _Optional[int] = ..., end_cut_from_us: _Optional[int] = ...) -> None: ...

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
