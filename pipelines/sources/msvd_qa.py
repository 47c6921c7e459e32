"""MSVD-QA: train_qa.json, val_qa.json and test_qa.json with youtube_mapping.txt, or JSON Lines.

    [{"answer": "animal", "id": 0, "question": "what is chewing on a nut?", "video_id": 1}]

    -4wsuPCjDBc_5_15 vid1

Video N is vidN, whose name, by the mapping, is that of its file; JSON Lines have that name itself.
"""

import functools
import io
from collections.abc import Iterator, Mapping

from pipelines.clip_request import ClipRequest, RowError
from pipelines.sources import json_file, lines, questions, row
from protos.v1.manifest_pb2 import Reject, SourceOptions

FORM = (
    'a JSON list of {"question", "answer", "video_id": N}, beside it youtube_mapping.txt; or JSON '
    "Lines with names of videos"
)
OPTIONS = ()


def read_all(files: Mapping[str, bytes], options: SourceOptions) -> Iterator[ClipRequest | Reject]:
    """A row a video, with all its questions."""
    del options
    names: dict[str, str] = {}
    asked = {name: data for name, data in files.items() if json_file.is_json(data)}
    for name, data in files.items():
        if name not in asked:
            try:
                names |= _mapping(data)
            except RowError as error:
                yield row.rejected(error, source_row=f"{name}:1")
    for name, data in asked.items():
        yield from questions.rows(name, data, functools.partial(_video, names))


def _mapping(data: bytes) -> dict[str, str]:
    names: dict[str, str] = {}
    for line in lines.lines(io.BytesIO(data)):
        name, _, number = lines.text(line).strip().rpartition(" ")
        if not name or not number.startswith("vid"):
            raise RowError("read", "row_columns", "a line that is not <name> vid<number>")
        names[number] = name.strip()
    return names


def _video(names: Mapping[str, str], field: object) -> str:
    if not isinstance(field, int) or isinstance(field, bool):
        return questions.named(field)
    if f"vid{field}" not in names:
        raise RowError("plan", "video_id_invalid", f"vid{field} is not in a youtube_mapping.txt")
    return names[f"vid{field}"]
