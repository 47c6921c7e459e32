from protos.v1 import clip_pb2 as _clip_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Manifest(_message.Message):
    __slots__ = ("schema_version", "data_version", "dataset", "inputs_sha256", "config_sha256", "config", "versions", "annotations", "counts", "shards", "plan", "removed_videos", "increments")
    class VersionsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    SCHEMA_VERSION_FIELD_NUMBER: _ClassVar[int]
    DATA_VERSION_FIELD_NUMBER: _ClassVar[int]
    DATASET_FIELD_NUMBER: _ClassVar[int]
    INPUTS_SHA256_FIELD_NUMBER: _ClassVar[int]
    CONFIG_SHA256_FIELD_NUMBER: _ClassVar[int]
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    ANNOTATIONS_FIELD_NUMBER: _ClassVar[int]
    COUNTS_FIELD_NUMBER: _ClassVar[int]
    SHARDS_FIELD_NUMBER: _ClassVar[int]
    PLAN_FIELD_NUMBER: _ClassVar[int]
    REMOVED_VIDEOS_FIELD_NUMBER: _ClassVar[int]
    INCREMENTS_FIELD_NUMBER: _ClassVar[int]
    schema_version: str
    data_version: str
    dataset: str
    inputs_sha256: str
    config_sha256: str
    config: BuildConfig
    versions: _containers.ScalarMap[str, str]
    annotations: _containers.RepeatedCompositeFieldContainer[AnnotationFile]
    counts: Counts
    shards: _containers.RepeatedCompositeFieldContainer[ShardEntry]
    plan: FileEntry
    removed_videos: _containers.RepeatedScalarFieldContainer[str]
    increments: _containers.RepeatedCompositeFieldContainer[Increment]
    def __init__(self, schema_version: _Optional[str] = ..., data_version: _Optional[str] = ..., dataset: _Optional[str] = ..., inputs_sha256: _Optional[str] = ..., config_sha256: _Optional[str] = ..., config: _Optional[_Union[BuildConfig, _Mapping]] = ..., versions: _Optional[_Mapping[str, str]] = ..., annotations: _Optional[_Iterable[_Union[AnnotationFile, _Mapping]]] = ..., counts: _Optional[_Union[Counts, _Mapping]] = ..., shards: _Optional[_Iterable[_Union[ShardEntry, _Mapping]]] = ..., plan: _Optional[_Union[FileEntry, _Mapping]] = ..., removed_videos: _Optional[_Iterable[str]] = ..., increments: _Optional[_Iterable[_Union[Increment, _Mapping]]] = ...) -> None: ...

class Increment(_message.Message):
    __slots__ = ("shards", "annotations", "inputs_sha256", "data_version", "previous_sha256", "dataset", "source", "plan")
    SHARDS_FIELD_NUMBER: _ClassVar[int]
    ANNOTATIONS_FIELD_NUMBER: _ClassVar[int]
    INPUTS_SHA256_FIELD_NUMBER: _ClassVar[int]
    DATA_VERSION_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_SHA256_FIELD_NUMBER: _ClassVar[int]
    DATASET_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    PLAN_FIELD_NUMBER: _ClassVar[int]
    shards: int
    annotations: int
    inputs_sha256: str
    data_version: str
    previous_sha256: str
    dataset: str
    source: SourceOptions
    plan: FileEntry
    def __init__(self, shards: _Optional[int] = ..., annotations: _Optional[int] = ..., inputs_sha256: _Optional[str] = ..., data_version: _Optional[str] = ..., previous_sha256: _Optional[str] = ..., dataset: _Optional[str] = ..., source: _Optional[_Union[SourceOptions, _Mapping]] = ..., plan: _Optional[_Union[FileEntry, _Mapping]] = ...) -> None: ...

class BuildConfig(_message.Message):
    __slots__ = ("frames_per_clip", "short_side", "frame_encoding", "jpeg_quality", "prompt_templates", "num_shards", "source", "filters", "max_past_end_share", "square", "split")
    FRAMES_PER_CLIP_FIELD_NUMBER: _ClassVar[int]
    SHORT_SIDE_FIELD_NUMBER: _ClassVar[int]
    FRAME_ENCODING_FIELD_NUMBER: _ClassVar[int]
    JPEG_QUALITY_FIELD_NUMBER: _ClassVar[int]
    PROMPT_TEMPLATES_FIELD_NUMBER: _ClassVar[int]
    NUM_SHARDS_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    FILTERS_FIELD_NUMBER: _ClassVar[int]
    MAX_PAST_END_SHARE_FIELD_NUMBER: _ClassVar[int]
    SQUARE_FIELD_NUMBER: _ClassVar[int]
    SPLIT_FIELD_NUMBER: _ClassVar[int]
    frames_per_clip: int
    short_side: int
    frame_encoding: _clip_pb2.FrameEncoding
    jpeg_quality: int
    prompt_templates: _containers.RepeatedScalarFieldContainer[str]
    num_shards: int
    source: SourceOptions
    filters: Filters
    max_past_end_share: float
    square: bool
    split: Split
    def __init__(self, frames_per_clip: _Optional[int] = ..., short_side: _Optional[int] = ..., frame_encoding: _Optional[_Union[_clip_pb2.FrameEncoding, str]] = ..., jpeg_quality: _Optional[int] = ..., prompt_templates: _Optional[_Iterable[str]] = ..., num_shards: _Optional[int] = ..., source: _Optional[_Union[SourceOptions, _Mapping]] = ..., filters: _Optional[_Union[Filters, _Mapping]] = ..., max_past_end_share: _Optional[float] = ..., square: bool = ..., split: _Optional[_Union[Split, _Mapping]] = ...) -> None: ...

class Split(_message.Message):
    __slots__ = ("part", "seed", "parts")
    PART_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    PARTS_FIELD_NUMBER: _ClassVar[int]
    part: str
    seed: int
    parts: _containers.RepeatedCompositeFieldContainer[SplitPart]
    def __init__(self, part: _Optional[str] = ..., seed: _Optional[int] = ..., parts: _Optional[_Iterable[_Union[SplitPart, _Mapping]]] = ...) -> None: ...

class SplitPart(_message.Message):
    __slots__ = ("name", "share")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SHARE_FIELD_NUMBER: _ClassVar[int]
    name: str
    share: float
    def __init__(self, name: _Optional[str] = ..., share: _Optional[float] = ...) -> None: ...

class Filters(_message.Message):
    __slots__ = ("min_clip_us", "max_clip_us", "min_caption_words", "max_caption_words", "min_ascii_share", "excluded_sha256", "min_motion")
    MIN_CLIP_US_FIELD_NUMBER: _ClassVar[int]
    MAX_CLIP_US_FIELD_NUMBER: _ClassVar[int]
    MIN_CAPTION_WORDS_FIELD_NUMBER: _ClassVar[int]
    MAX_CAPTION_WORDS_FIELD_NUMBER: _ClassVar[int]
    MIN_ASCII_SHARE_FIELD_NUMBER: _ClassVar[int]
    EXCLUDED_SHA256_FIELD_NUMBER: _ClassVar[int]
    MIN_MOTION_FIELD_NUMBER: _ClassVar[int]
    min_clip_us: int
    max_clip_us: int
    min_caption_words: int
    max_caption_words: int
    min_ascii_share: float
    excluded_sha256: str
    min_motion: float
    def __init__(self, min_clip_us: _Optional[int] = ..., max_clip_us: _Optional[int] = ..., min_caption_words: _Optional[int] = ..., max_caption_words: _Optional[int] = ..., min_ascii_share: _Optional[float] = ..., excluded_sha256: _Optional[str] = ..., min_motion: _Optional[float] = ...) -> None: ...

class SourceOptions(_message.Message):
    __slots__ = ("paragraphs", "widen_to_us", "columns", "time_unit", "keep_empty_captions", "subset", "fold", "window_us", "stride_us", "cut_at_us")
    class ColumnsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    PARAGRAPHS_FIELD_NUMBER: _ClassVar[int]
    WIDEN_TO_US_FIELD_NUMBER: _ClassVar[int]
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    TIME_UNIT_FIELD_NUMBER: _ClassVar[int]
    KEEP_EMPTY_CAPTIONS_FIELD_NUMBER: _ClassVar[int]
    SUBSET_FIELD_NUMBER: _ClassVar[int]
    FOLD_FIELD_NUMBER: _ClassVar[int]
    WINDOW_US_FIELD_NUMBER: _ClassVar[int]
    STRIDE_US_FIELD_NUMBER: _ClassVar[int]
    CUT_AT_US_FIELD_NUMBER: _ClassVar[int]
    paragraphs: bool
    widen_to_us: int
    columns: _containers.ScalarMap[str, str]
    time_unit: str
    keep_empty_captions: bool
    subset: str
    fold: int
    window_us: int
    stride_us: int
    cut_at_us: int
    def __init__(self, paragraphs: bool = ..., widen_to_us: _Optional[int] = ..., columns: _Optional[_Mapping[str, str]] = ..., time_unit: _Optional[str] = ..., keep_empty_captions: bool = ..., subset: _Optional[str] = ..., fold: _Optional[int] = ..., window_us: _Optional[int] = ..., stride_us: _Optional[int] = ..., cut_at_us: _Optional[int] = ...) -> None: ...

class AnnotationFile(_message.Message):
    __slots__ = ("name", "bytes", "sha256")
    NAME_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    name: str
    bytes: int
    sha256: str
    def __init__(self, name: _Optional[str] = ..., bytes: _Optional[int] = ..., sha256: _Optional[str] = ...) -> None: ...

class Counts(_message.Message):
    __slots__ = ("rows", "records", "rejects")
    class RejectsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    ROWS_FIELD_NUMBER: _ClassVar[int]
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    REJECTS_FIELD_NUMBER: _ClassVar[int]
    rows: int
    records: int
    rejects: _containers.ScalarMap[str, int]
    def __init__(self, rows: _Optional[int] = ..., records: _Optional[int] = ..., rejects: _Optional[_Mapping[str, int]] = ...) -> None: ...

class FileEntry(_message.Message):
    __slots__ = ("name", "bytes", "sha256")
    NAME_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    name: str
    bytes: int
    sha256: str
    def __init__(self, name: _Optional[str] = ..., bytes: _Optional[int] = ..., sha256: _Optional[str] = ...) -> None: ...

class ShardEntry(_message.Message):
    __slots__ = ("records", "data", "index", "summary")
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    SUMMARY_FIELD_NUMBER: _ClassVar[int]
    records: int
    data: FileEntry
    index: FileEntry
    summary: FileEntry
    def __init__(self, records: _Optional[int] = ..., data: _Optional[_Union[FileEntry, _Mapping]] = ..., index: _Optional[_Union[FileEntry, _Mapping]] = ..., summary: _Optional[_Union[FileEntry, _Mapping]] = ...) -> None: ...

class ShardIndex(_message.Message):
    __slots__ = ("records",)
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    records: _containers.RepeatedCompositeFieldContainer[RecordEntry]
    def __init__(self, records: _Optional[_Iterable[_Union[RecordEntry, _Mapping]]] = ...) -> None: ...

class RecordEntry(_message.Message):
    __slots__ = ("offset", "length", "clip_id")
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    LENGTH_FIELD_NUMBER: _ClassVar[int]
    CLIP_ID_FIELD_NUMBER: _ClassVar[int]
    offset: int
    length: int
    clip_id: str
    def __init__(self, offset: _Optional[int] = ..., length: _Optional[int] = ..., clip_id: _Optional[str] = ...) -> None: ...

class ShardSummary(_message.Message):
    __slots__ = ("fingerprint", "rows", "records", "data", "index", "videos", "rejects")
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    VIDEOS_FIELD_NUMBER: _ClassVar[int]
    REJECTS_FIELD_NUMBER: _ClassVar[int]
    fingerprint: str
    rows: int
    records: int
    data: FileEntry
    index: FileEntry
    videos: _containers.RepeatedCompositeFieldContainer[VideoFile]
    rejects: _containers.RepeatedCompositeFieldContainer[Reject]
    def __init__(self, fingerprint: _Optional[str] = ..., rows: _Optional[int] = ..., records: _Optional[int] = ..., data: _Optional[_Union[FileEntry, _Mapping]] = ..., index: _Optional[_Union[FileEntry, _Mapping]] = ..., videos: _Optional[_Iterable[_Union[VideoFile, _Mapping]]] = ..., rejects: _Optional[_Iterable[_Union[Reject, _Mapping]]] = ...) -> None: ...

class VideoFile(_message.Message):
    __slots__ = ("video_id", "bytes", "sha256")
    VIDEO_ID_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    video_id: str
    bytes: int
    sha256: str
    def __init__(self, video_id: _Optional[str] = ..., bytes: _Optional[int] = ..., sha256: _Optional[str] = ...) -> None: ...

class PlanSummary(_message.Message):
    __slots__ = ("rows", "rejects")
    ROWS_FIELD_NUMBER: _ClassVar[int]
    REJECTS_FIELD_NUMBER: _ClassVar[int]
    rows: int
    rejects: _containers.RepeatedCompositeFieldContainer[Reject]
    def __init__(self, rows: _Optional[int] = ..., rejects: _Optional[_Iterable[_Union[Reject, _Mapping]]] = ...) -> None: ...

class Reject(_message.Message):
    __slots__ = ("stage", "reason", "message", "source_row", "video_id", "row")
    STAGE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    SOURCE_ROW_FIELD_NUMBER: _ClassVar[int]
    VIDEO_ID_FIELD_NUMBER: _ClassVar[int]
    ROW_FIELD_NUMBER: _ClassVar[int]
    stage: str
    reason: str
    message: str
    source_row: str
    video_id: str
    row: str
    def __init__(self, stage: _Optional[str] = ..., reason: _Optional[str] = ..., message: _Optional[str] = ..., source_row: _Optional[str] = ..., video_id: _Optional[str] = ..., row: _Optional[str] = ...) -> None: ...

class TagMove(_message.Message):
    __slots__ = ("schema_version", "folder", "manifest_sha256", "data_version", "moved_at")
    SCHEMA_VERSION_FIELD_NUMBER: _ClassVar[int]
    FOLDER_FIELD_NUMBER: _ClassVar[int]
    MANIFEST_SHA256_FIELD_NUMBER: _ClassVar[int]
    DATA_VERSION_FIELD_NUMBER: _ClassVar[int]
    MOVED_AT_FIELD_NUMBER: _ClassVar[int]
    schema_version: str
    folder: str
    manifest_sha256: str
    data_version: str
    moved_at: str
    def __init__(self, schema_version: _Optional[str] = ..., folder: _Optional[str] = ..., manifest_sha256: _Optional[str] = ..., data_version: _Optional[str] = ..., moved_at: _Optional[str] = ...) -> None: ...
