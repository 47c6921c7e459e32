"""Prediction and ground-truth files: each is scored, or refused in one line with its name."""

import functools
import io
import json
import math
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from tests.fuzz import mutate
from tests.fuzz.engine import Target
from tests.fuzz.folder import written
from trainer.evaluation import box_files as spatiotemporal
from trainer.evaluation import ground_truth, scoring
from trainer.evaluation.prediction_files import TaskFileError
from trainer.tasks.localisation.class_scores import read_class_scores

_NEXT_FILE = b"\x1e"  # separator between an input's files


class Form(NamedTuple):
    """A set of files that are read together."""

    name: str
    files: dict[str, bytes]  # name -> valid content
    read: Callable[[Sequence[pathlib.Path]], Any]


def targets() -> list[Target]:
    """Return one target per format."""
    return [
        Target(
            form.name,
            [_NEXT_FILE.join(form.files.values())],
            functools.partial(_check, form),
            functools.partial(_mutated, form),
        )
        for form in forms()
    ]


def _mutated(form: Form, data: bytes, draw) -> bytes:
    files = data.split(_NEXT_FILE, len(form.files) - 1)
    at = draw.randrange(len(files))
    name = [*form.files][at % len(form.files)]
    kinds = {"json": mutate.json_text, "jsonl": mutate.json_text, "npy": mutate.raw}
    files[at] = kinds.get(name.rpartition(".")[2], mutate.lines)(files[at], draw)
    return _NEXT_FILE.join(files)


def _check(form: Form, data: bytes) -> None:
    found = data.split(_NEXT_FILE, len(form.files) - 1)
    if len(found) != len(form.files):
        return
    paths = written(dict(zip(form.files, found, strict=True)))
    try:
        result = form.read(paths)
    except (TaskFileError, ground_truth.TruthError) as error:
        assert "\n" not in str(error), "a message of several lines"
        named = (*(path.name for path in paths), "ground truth", "the annotations")
        assert any(name in str(error) for name in named), f"no file is named: {error}"
        return
    _sound(result)


def _sound(value: Any) -> None:
    """Check that metrics are finite and percentages are within 0 to 100."""
    if isinstance(value, dict):
        for name, one in value.items():
            if name == "external_data":  # not read by the scorer
                continue
            _sound(one)
            if name in ("R@1", "R@5", "R@10", "top1", "accuracy", "average_mAP", "official"):
                assert 0 <= one <= 100 + 1e-9, f"{name} of {one}"
    elif isinstance(value, list | tuple):
        for one in value:
            _sound(one)
    elif isinstance(value, float):
        assert math.isfinite(value), f"a figure of {value}"


def _scored(task: str, predictions: int = 1) -> Callable[[Sequence[pathlib.Path]], Any]:
    def read(paths: Sequence[pathlib.Path]) -> Any:
        figures = scoring.score(task, paths[:predictions], paths[predictions:])
        scoring.SCORERS[task].table(figures)
        json.dumps(figures)
        return figures

    return read


def _array() -> bytes:
    file = io.BytesIO()
    np.save(file, np.array([[0.9, 0.1], [0.2, 0.8], [0.3, 0.4]], np.float32))
    return file.getvalue()


def _json(value: object) -> bytes:
    return json.dumps(value).encode()


def forms() -> list[Form]:
    """Return every task in every format of its files."""
    captions = b"key,video_id,sentence\nr0,video0,a car\nr1,video1,a cat\nr2,video1,a cat sits\n"
    msrvtt = _json(
        {
            "videos": [{"video_id": "video7010", "split": "test"}],
            "sentences": [{"video_id": "video7010", "caption": "a car", "sen_id": 0}],
        }
    )
    similarities = (
        b"video_id,sentence,video0,video1\nvideo0,a car,0.9,0.1\nvideo1,a cat,0.2,0.8\n"
        b"video1,a cat sits,0.3,0.4\n"
    )
    questions = [
        {"id": 0, "question": "what is it?", "answer": "cat", "video_id": 1},
        {"id": 1, "question": "who sits?", "answer": "dog", "video_id": 1},
    ]
    answers = [{"question_id": 0, "answer": "cat"}, {"question_id": 1, "answer": "cat"}]
    testlist = b"Archery/v_Archery_g01_c01.avi\r\nSurfing/v_Surfing_g01_c02.avi\r\n"
    hmdb = b"video_id,label,split1,split2\na.avi,run_test,2,1\nb.avi,sit_test,2,0\nc,sit,0,2\n"
    labels = b"video_id,label\nv_Archery_g01_c01,Archery\nv_Surfing_g01_c02,Archery\n"
    shares = b"video_id,run,sit\na,0.25,0.75\na,0.5,0.5\nb,0.1,0.9\n"
    results = {"results": {"a": [{"label": "run", "score": 0.5}, {"label": "sit", "score": 0.4}]}}
    annotated = {
        "version": "1.3",
        "database": {
            "aaa": {
                "subset": "validation",
                "duration": 82.73,
                "annotations": [{"segment": [6.195, 77.731], "label": "Ballet"}],
            },
            "bbb": {
                "subset": "training",
                "duration": 9.5,
                "annotations": [{"segment": [1, 2], "label": "Surfing"}],
            },
        },
    }
    published = {
        "v_aaa": {
            "duration_second": 82.73,
            "duration_frame": 2067,
            "feature_frame": 2064,
            "annotations": [{"segment": [6.195, 77.731], "label": "Ballet"}],
        }
    }
    predicted = {
        "version": "1.3",
        "external_data": {"used": True, "details": "a"},
        "results": {
            "aaa": [
                {"label": "Ballet", "score": 0.9, "segment": [5, 70.5]},
                {"label": "Surfing", "score": 0.1, "segment": [0, 1]},
            ]
        },
    }
    boxes = b"v,0902,0.077,0.151,0.283,0.811,80,1\nv,0902,0.5,0.1,0.9,0.9,12,2\nv,0903,,,,,,\n"
    detections = b"v,0902,0.07,0.15,0.28,0.81,80,0.95\nv,0902,0.5,0.1,0.9,0.9,12,0.5\n"
    shown = _json(
        {
            "video_id": "a", "start_us": 0, "end_us": 1_000_000, "caption": "a red ring",
            "frames": 2, "width": 3, "height": 2,
            "objects": [{"phrase": "red ring", "masks": [[1, 2, 3], [0, 6]]}],
        }
    )  # fmt: skip
    return [
        Form("retrieval csv", {"s.csv": similarities, "t.csv": captions}, _scored("retrieval")),
        Form("retrieval npy", {"s.npy": _array(), "t.csv": captions}, _scored("retrieval")),
        Form("retrieval json",
             {"s.csv": b"video_id,sentence,video7010\nvideo7010,a car,0.5\n", "t.json": msrvtt},
             _scored("retrieval")),
        Form("qa", {"a.json": _json(answers), "q.json": _json(questions)}, _scored("qa")),
        Form("qa lines", {"a.jsonl": b"\n".join(map(_json, answers)),
                          "q.jsonl": b"\n".join(map(_json, questions))}, _scored("qa")),
        Form("action", {"p.csv": labels, "testlist01.txt": testlist}, _scored("action")),
        Form("action shares", {"p.csv": shares, "hmdb51.csv": hmdb}, _scored("action")),
        Form("action json", {"p.json": _json(results), "hmdb51.csv": hmdb}, _scored("action")),
        Form("localisation", {"p.json": _json(predicted), "t.json": _json(annotated)},
             _scored("localisation")),
        Form("localisation published",
             {"p.json": _json(predicted), "t.json": _json(published),
              "v.csv": b"video,subset\nv_aaa,validation\n"}, _scored("localisation")),
        Form("class scores", {"c.json": _json({"class": ["a", "b"],
                                               "results": {"v_a": [0.1, 0.9], "b": [1, 0]}})},
             lambda paths: read_class_scores(paths[0]) and None),
        Form("spatiotemporal", {"d.csv": detections, "t.csv": boxes}, _scored("spatiotemporal")),
        Form("spatiotemporal all",
             {"d.csv": detections, "t.csv": boxes, "excluded.csv": b"v,0903\n",
              "c.pbtxt": b"item {\n  name: \"a\"\n  id: 80\n}\nitem {\n  label_id: 12\n}\n"},
             _scored("spatiotemporal")),
        Form("boxes", {"b.csv": b"v,0902,0.07,0.15,0.28,0.81,,0.95\nv,0902,0.5,0.1,0.9,0.9,,0.5\n"},
             lambda paths: spatiotemporal.read_boxes(paths[0], 0.8) and None),
        Form("truth", {"t.jsonl": shown}, lambda paths: ground_truth.load(paths[0]) and None),
    ]  # fmt: skip
