"""MSR-VTT captions: a JSON file of all videos with an optional split list, or the 1k-A test list.

    {"videos": [{"video_id": "video0", "split": "train", …}],
     "sentences": [{"video_id": "video0", "caption": "a car is shown", "sen_id": 0}]}

Frozen in Time's file has {"annotations": [{"image_id": "video0", "caption": …}]} instead. A split
list is a CSV with the column video_id (train.9k.csv) or has one id per line
(train_list_jsfusion.txt). If 1k-A's test list (key,vid_key,video_id,sentence) is the only file,
each row is a video with its single sentence.

Each video's file contains only the annotated span, so a clip is a whole file.
"""

import functools
import io
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from pipelines.sources import clip_fields, json_file, lines, sentences
from pipelines.sources.clip_request import AnnotationError, ClipRequest
from protos.v1.manifest_pb2 import Reject, SourceOptions

FORM = (
    'a JSON object with "videos" and "sentences" or with "annotations"; optionally, a list of the '
    "split's videos, as a CSV file with the column video_id or one id per line; or only a CSV file "
    "with the columns video_id and sentence"
)
OPTIONS = ("subset",)
SUBSETS = ("train", "validate", "test")


def read_all(files: Mapping[str, bytes], options: SourceOptions) -> Iterator[ClipRequest | Reject]:
    """Yield one row per video, with all its sentences."""
    annotated = {name: data for name, data in files.items() if json_file.is_json(data)}
    if not annotated:
        for name, data in files.items():
            yield from _test_list(name, data)
        return
    lists: dict[str, sentences.Listed] = {}
    for name, data in files.items():
        if name not in annotated:
            lists[name] = sentences.listed(data, name)
    known: dict[str, object] = {}
    splits: sentences.Splits = {}
    found: dict[str, _Annotations] = {}
    for name, data in annotated.items():
        found[name] = _annotations(json_file.load(data, name), name, splits)
        known |= found[name].sentences
    other = functools.partial(_other, lists, splits, options.subset)
    for name, of_file in found.items():
        yield from sentences.rows(name, of_file.sentences, other, of_file.nameless)
    yield from sentences.not_annotated(lists, known)


class _Annotations(NamedTuple):
    """A JSON file's sentences by video, and the entries that name no video."""

    sentences: dict[str, list[sentences.Sentence]]
    nameless: list[Mapping[str, object]]


def _annotations(value: object, name: str, splits: sentences.Splits) -> _Annotations:
    if isinstance(value, dict) and "annotations" in value:
        videos, said, video_id = [], json_file.objects(value, "annotations", name), "image_id"
    else:
        videos, video_id = json_file.objects(value, "videos", name), "video_id"
        said = json_file.objects(value, "sentences", name)
    found = _Annotations({}, [])
    for video in videos:
        if named := _name(video, "video_id", found):
            found.sentences.setdefault(named, [])
            sentences.keep_split(splits, named, str(video.get("split")))
    for sentence in said:
        if named := _name(sentence, video_id, found):
            of_video = found.sentences.setdefault(named, [])
            of_video.append(sentences.Sentence(sentence.get("caption")))
    return found


def _name(entry: Mapping[str, object], field: str, found: _Annotations) -> str:
    """Return an entry's video id, or add the entry to `found.nameless` if it has no valid id."""
    name = entry.get(field)
    if isinstance(name, str) and name:
        return name
    found.nameless.append(entry)
    return ""


def _other(
    lists: Mapping[str, sentences.Listed], splits: sentences.Splits, subset: str, video: str
) -> str:
    if subset and (other := sentences.not_of_split(splits, video, subset)):
        return other
    return sentences.other_split(lists, video)


def _test_list(name: str, data: bytes) -> Iterator[ClipRequest | Reject]:
    if not {"video_id", "sentence"} <= set(sentences.header(data)):
        raise AnnotationError(
            f"{name} is neither JSON nor a CSV file with the columns video_id and sentence: "
            "check that it is the right file"
        )
    for number, line, fields in lines.table(io.BytesIO(data)):
        source_row = f"{name}:{number}"
        yield clip_fields.clip_or_reject(
            functools.partial(_tested, fields, source_row),
            source_row=source_row,
            row=lines.excerpt(line),
        )


def _tested(fields: lines.Fields, source_row: str) -> ClipRequest:
    video, sentence = lines.column(fields, "video_id"), lines.column(fields, "sentence")
    caption, cut_from = clip_fields.described(sentence)
    return clip_fields.whole_video(
        clip_fields.plain_id(video),
        captions=[caption],
        caption_cut_from=cut_from,
        source_row=source_row,
    )
