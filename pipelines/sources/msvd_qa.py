"""MSVD-QA: train_qa.json, val_qa.json and test_qa.json with youtube_mapping.txt, or JSON Lines.

    [{"answer": "animal", "id": 0, "question": "what is chewing on a nut?", "video_id": 1}]

    -4wsuPCjDBc_5_15 vid1

Video N is vidN, which the mapping maps to the name of its file. JSON Lines contain this name.
"""

import functools
import io
from collections.abc import Iterator, Mapping

from pipelines.sources import json_file, lines, questions
from pipelines.sources.clip_request import AnnotationError, ClipRequest, RowError
from protos.v1.manifest_pb2 import Reject, SourceOptions

FORM = (
    'a JSON list of {"question", "answer", "video_id": N}, with youtube_mapping.txt; or JSON '
    "Lines with the names of videos"
)
OPTIONS = ()
SUBSETS = ()


def read_all(files: Mapping[str, bytes], options: SourceOptions) -> Iterator[ClipRequest | Reject]:
    """Yield one row per video, with all its questions."""
    del options
    names: dict[str, str] = {}
    asked = {name: data for name, data in files.items() if json_file.is_json(data)}
    for name, data in files.items():
        if name not in asked:
            _add_names(data, name, names)
    if not asked:
        raise AnnotationError(f"no file is JSON: {', '.join(files)}: add the questions")
    for name, data in asked.items():
        yield from questions.rows(name, data, functools.partial(_video, names))


def _add_names(data: bytes, file: str, names: dict[str, str]) -> None:
    for number, line in lines.numbered(io.BytesIO(data)):
        try:
            name, _, numbered = lines.text(line).strip().rpartition(" ")
            if not name or not numbered.startswith("vid"):
                raise RowError("read", "row_columns", "the line is not <name> vid<number>")
            if (known := names.setdefault(numbered, name.strip())) != name.strip():
                message = (
                    f"{numbered[:50]} is {name.strip()[:100]!r} here and {known[:100]!r} before"
                )
                raise RowError("read", "row_columns", message)
        except RowError as error:
            raise AnnotationError(f"{file}:{number}: {error}: correct the line") from None


def _video(names: Mapping[str, str], field: object) -> str:
    if not isinstance(field, int) or isinstance(field, bool):
        return questions.named(field)
    if f"vid{field}" not in names:
        raise RowError("plan", "video_id_invalid", f"vid{field} is not in a youtube_mapping.txt")
    return names[f"vid{field}"]
