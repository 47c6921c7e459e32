"""Prediction files with a non-finite number are refused with file and row."""

import json
import pathlib
import re
import tempfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.evaluation import scoring
from trainer.evaluation.prediction_files import TaskFileError
from trainer.tasks.localisation.class_scores import read_class_scores

TRUTH = {
    "retrieval": ("truth.csv", "key,vid_key,video_id,sentence\nr0,m0,v1,a cat\nr1,m1,v2,a dog\n"),
    "action": ("testlist01.txt", "Run/v_Run_g01_c01.avi\nSit/v_Sit_g01_c01.avi\n"),
    "localisation": (
        "truth.json",
        json.dumps(
            {
                "version": "1.3",
                "taxonomy": [],
                "database": {
                    "a": {
                        "subset": "validation",
                        "duration": 9.5,
                        "annotations": [{"label": "run", "segment": [1, 5]}],
                    }
                },
            }
        ),
    ),
    "moments": (
        "val_1.json",
        '{"v_a": {"duration": 9.5, "timestamps": [[1, 5]], "sentences": [" A cat."]}}',
    ),
    "spatiotemporal": ("ava.csv", "a,0902,0.1,0.1,0.5,0.5,80,1\n"),
}
# Numbers that are to be spoilt stand in «».
PREDICTIONS = {
    ("retrieval", "p.csv"): (
        "video_id,sentence,v1,v2\nv1,a cat,«0.5»,«-1e-3»\nv2,a dog,«0»,«0.25»\n"
    ),
    ("action", "p.csv"): (
        "video_id,Run,Sit\nv_Run_g01_c01,«0.5»,«0.5»\nv_Sit_g01_c01,«0.25»,«0.75»\n"
    ),
    ("action", "p.json"): (
        '{"results": {"v_Run_g01_c01": [{"label": "Run", "score": «0.5»}, {"label": "Sit", '
        '"score": «1»}], "v_Sit_g01_c01": [{"label": "Sit", "score": «0.25»}]}}'
    ),
    ("localisation", "p.json"): (
        '{"version": "1", "external_data": {}, "results": {"a": [{"label": "run", "score": «0.5», '
        '"segment": [«1», «5.5»]}, {"label": "run", "score": «1», "segment": [«0», «9»]}]}}'
    ),
    ("moments", "p.jsonl"): (
        '{"vid": "v_a", "query": "A cat.", "pred_relevant_windows": [[«1», «5.5», «0.5»], '
        "[«0», «9», «-1»]]}"
    ),
    ("spatiotemporal", "p.csv"): (
        "a,0902,«0.1»,«0.1»,«0.5»,«0.5»,80,«0.9»\na,0902,«0»,«0»,«1»,«1»,80,«0.125»\n"
    ),
}
IN_CSV = [
    *("nan", "NaN", "inf", "-inf", "Infinity", "1e400", "-1e400"),
    *("", "x", "1_0", "٣", "0x1", "True"),
]
IN_JSON = [
    *("NaN", "Infinity", "-Infinity", "1e400", "-1e400", "1" * 400),
    *('"0.5"', '"nan"', '""', "null", "true", "[1]", "{}"),
]


def plain(text):
    return re.sub("[«»]", "", text)


def score(task, name, text):
    with tempfile.TemporaryDirectory() as folder:
        truth, predictions = (pathlib.Path(folder) / one for one in (TRUTH[task][0], name))
        truth.write_text(TRUTH[task][1])
        predictions.write_text(text)
        return scoring.score(task, [predictions], [truth])


@pytest.mark.parametrize(("task", "name"), PREDICTIONS)
def test_as_they_are_they_are_scored(task, name):
    figures = score(task, name, plain(PREDICTIONS[task, name]))
    assert "nan" not in scoring.SCORERS[task].table(figures)


@pytest.mark.parametrize(("task", "name"), PREDICTIONS)
@settings(max_examples=60)
@given(data=st.data())
def test_any_number_that_is_none_is_refused_by_name(task, name, data):
    parts = re.split("«(.*?)»", PREDICTIONS[task, name])
    spoilt = 2 * data.draw(st.integers(0, len(parts) // 2 - 1), label="number") + 1
    parts[spoilt] = data.draw(st.sampled_from(IN_CSV if name.endswith("csv") else IN_JSON))
    with pytest.raises(TaskFileError, match=re.escape(name)):
        score(task, name, "".join(parts))


@pytest.mark.parametrize("number", IN_JSON)
def test_class_scores_too(tmp_path, number):
    path = tmp_path / "scores.json"
    path.write_text(f'{{"class": ["run", "sit"], "results": {{"v_a": [0.25, {number}]}}}}')
    with pytest.raises(TaskFileError, match=r"scores\.json"):
        read_class_scores(path)
