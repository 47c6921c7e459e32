"""JSON files of a run with damaged fields give an error with the file's name, or none."""

import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.configs.config import Config
from trainer.configs.overrides import override
from trainer.data.tokenizer import Tokenizer
from trainer.data.tokenizer_settings import SPECIAL
from trainer.errors import UserError
from trainer.inference.features import FeaturesError
from trainer.runs import run_folder, seen_clips
from trainer.runs.run_folder import RunError
from trainer.tasks.localisation.features import made_of

MARKS = bytes(range(16))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2**70) | st.floats(-2, 2) | st.text(max_size=3),
    lambda values: (
        st.lists(values, max_size=2)
        | st.dictionaries(st.sampled_from(["videos", "sha256", "unknown", "a"]), values, max_size=3)
    ),
    max_leaves=4,
)
FILES = {
    "data.json": {
        "vocabulary": "given",
        "snapshot.records": 3,
        "start": {"options": {}, "fields": {"text.width": 256}},
        "start.text": "ab",
        "seen": {"videos": 2, "sha256": hashlib.sha256(MARKS).hexdigest(), "unknown": ["a"]},
    },
    "task.json": {
        "name": "qa",
        "config": {"dropout": 0.1},
        "classes": ["yes", "no"],
        "trained_on": {"datasets": ["test"], "videos": ["a"]},
    },
    "config.json": json.loads(Config().to_json()),
}


def paths(values, prefix=()):
    for name, value in values.items():
        yield (*prefix, name)
        if isinstance(value, dict):
            yield from paths(value, (*prefix, name))


FIELDS = [(name, *path) for name, values in FILES.items() for path in paths(values)]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run's folder without a model."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "checkpoints" / "2").mkdir(parents=True)
    (folder / "seen.bin").write_bytes(MARKS)
    Tokenizer([*SPECIAL, "ring"]).save(folder / "vocab.txt")
    for name, values in FILES.items():
        write(folder, name, values)
    return folder


def write(run, name, values):
    (run / name).write_text(json.dumps(values))


def read_all(run):
    """Read everything that commands read from a run, and resume it."""
    origin = run_folder.read_origin(run, {})
    if origin:
        origin.configure(Config())
    record = seen_clips.of_run(run)
    if record:
        assert all(isinstance(name, str) for name in record.unknown)
    task = run_folder.read_task(run)
    config, _ = run_folder.read(run)
    assert task
    data = run_folder._task(task) | {"vocabulary": "given"}
    run_folder._continue(run, override(config, ["batch=8"]), data, None, steps=3)


@given(st.data())
def test_any_value_of_any_field_is_read_or_refused(run, data):
    name, *path = data.draw(st.sampled_from(FIELDS))
    values = json.loads(json.dumps(FILES[name]))
    inside = values
    for part in path[:-1]:
        inside = inside[part]
    inside[path[-1]] = data.draw(JSON)
    for other, whole in FILES.items():
        write(run, other, values if other == name else whole)
    with pytest.raises(UserError):  # this command has other settings than the run
        read_all(run)


@pytest.mark.parametrize(
    "seen",
    [
        {},
        [],
        0,
        {"videos": "many", "sha256": "", "unknown": []},
        {"videos": 2, "sha256": hashlib.sha256(MARKS).hexdigest(), "unknown": "published"},
        {"videos": 2, "sha256": 7, "unknown": []},
    ],
)
def test_a_damaged_record_of_seen_videos_is_named(seen, run):
    write(run, "data.json", FILES["data.json"] | {"seen": seen})
    with pytest.raises(RunError, match=r"data\.json is damaged: its field seen is "):
        seen_clips.of_run(run)


def test_marks_that_are_cut_are_named(run):
    seen = {"videos": 2, "sha256": hashlib.sha256(MARKS[:3]).hexdigest(), "unknown": []}
    write(run, "data.json", FILES["data.json"] | {"seen": seen})
    (run / "seen.bin").write_bytes(MARKS[:3])
    with pytest.raises(RunError, match=r"seen\.bin is damaged: it has 3 bytes"):
        seen_clips.of_run(run)
    (run / "seen.bin").write_bytes(MARKS)
    write(run, "data.json", FILES["data.json"])
    record = seen_clips.of_run(run)
    assert record is not None
    assert (record.videos, record.unknown, len(record.marks)) == (2, ("a",), 2)


@pytest.mark.parametrize(
    "change",
    [{"name": 7}, {"config": []}, {"classes": "yes"}, {"classes": [1]}, {"trained_on": {}}],
)
def test_a_damaged_task_is_named(change, run):
    write(run, "task.json", FILES["task.json"] | change)
    (wrong,) = change
    with pytest.raises(RunError, match=rf"task\.json is damaged: {wrong}"):
        run_folder.read_task(run)
    write(run, "task.json", FILES["task.json"])
    assert run_folder.read_task(run) == FILES["task.json"]


@pytest.mark.parametrize("change", [{"seen": {"unknown": 5}}, {"seen": {"videos": "x"}}])
def test_a_damaged_overlap_of_features_is_named(change, tmp_path):
    write(tmp_path, "features.json", {"made_from": {}} | change)
    with pytest.raises(FeaturesError, match=r"features\.json is missing or damaged"):
        made_of(tmp_path)


def test_two_spellings_of_one_field_are_refused(run):
    values = FILES["config.json"]
    write(run, "config.json", values | {"optimiser": values["optimizer"]})
    with pytest.raises(RunError, match=r"config\.json is damaged.*both optimiser and optimizer"):
        run_folder.read(run)
    values = {name: value for name, value in values.items() if name != "optimizer"}
    write(run, "config.json", values | {"optimiser": {"name": "adamw"}})
    assert run_folder.read(run)[0].optimizer.name == "adamw"
