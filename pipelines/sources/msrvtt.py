"""MSR-VTT's captions: a JSON file of all videos, with a list of the split, or the 1k-A test list.

    {"videos": [{"video_id": "video0", "split": "train", …}],
     "sentences": [{"video_id": "video0", "caption": "a car is shown", "sen_id": 0}]}

Frozen in Time's file has {"annotations": [{"image_id": "video0", "caption": …}]} instead. A list
is a CSV with the column video_id (train.9k.csv) or has an id a line (train_list_jsfusion.txt). Of
1k-A's test list (key,vid_key,video_id,sentence) alone, a row is a video and its one sentence.

The file of each video is the span that was annotated, so that a clip is a whole file.
"""

import functools
import io
from collections.abc import Iterator, Mapping

from pipelines.clip_request import AnnotationError, ClipRequest
from pipelines.sources import json_file, lines, row, sentences
from protos.v1.manifest_pb2 import Reject, SourceOptions

FORM = (
    'a JSON object with "videos" and "sentences" or with "annotations"; beside it perhaps a list '
    "of the split's videos, a CSV with the column video_id or an id a line; or alone a CSV with "
    "the columns video_id and sentence"
)
OPTIONS = ("subset",)
SUBSETS = ("train", "validate", "test")


def read_all(files: Mapping[str, bytes], options: SourceOptions) -> Iterator[ClipRequest | Reject]:
    """A row a video, with all its sentences."""
    annotated = {name: data for name, data in files.items() if json_file.is_json(data)}
    if not annotated:
        for name, data in files.items():
            yield from _test_list(name, data)
        return
    lists: dict[str, dict[str, int]] = {}
    for name, data in files.items():
        if name not in annotated:
            lists[name] = sentences.listed(data, name)
    known: dict[str, object] = {}
    for name, data in annotated.items():
        said, splits = _annotations(json_file.load(data, name), name)
        known |= said
        other = functools.partial(_other, lists, splits, options.subset)
        yield from sentences.rows(name, said, other)
    yield from sentences.not_annotated(lists, known)


def _annotations(
    value: object, name: str
) -> tuple[dict[str, list[sentences.Sentence]], dict[str, str]]:
    """Return each video's sentences, and its split where the file has it."""
    if isinstance(value, dict) and "annotations" in value:
        videos, said, video_id = [], json_file.objects(value, "annotations", name), "image_id"
    else:
        videos, video_id = json_file.objects(value, "videos", name), "video_id"
        said = json_file.objects(value, "sentences", name)
    of_videos: dict[str, list[sentences.Sentence]] = {
        _name(video, "video_id"): [] for video in videos
    }
    for sentence in said:
        of_videos.setdefault(_name(sentence, video_id), []).append(
            sentences.Sentence(sentence.get("caption"))
        )
    return of_videos, {_name(video, "video_id"): str(video.get("split")) for video in videos}


def _name(entry: Mapping[str, object], field: str) -> str:
    """A video's id; empty, which is none, where there is no text."""
    name = entry.get(field)
    return name if isinstance(name, str) else ""


def _other(
    lists: Mapping[str, Mapping[str, int]], splits: Mapping[str, str], subset: str, video: str
) -> str:
    split = splits.get(video, "no split")
    if subset and split != subset:
        return f"of {split}, not {subset}"
    return sentences.other_split(lists, video)


def _test_list(name: str, data: bytes) -> Iterator[ClipRequest | Reject]:
    if not {"video_id", "sentence"} <= set(sentences.header(data)):
        raise AnnotationError(f"{name} is neither JSON nor a CSV with video_id and sentence")
    for number, line, fields in lines.table(io.BytesIO(data)):
        source_row = f"{name}:{number}"
        yield row.clip_or_reject(
            functools.partial(_tested, fields, source_row),
            source_row=source_row,
            row=lines.excerpt(line),
        )


def _tested(fields: lines.Fields, source_row: str) -> ClipRequest:
    video, sentence = lines.column(fields, "video_id"), lines.column(fields, "sentence")
    captions = [row.described(sentence)[0]]
    return row.whole_video(row.plain_id(video), captions=captions, source_row=source_row)
