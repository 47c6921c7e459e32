import json

import hypothesis
import numpy as np
import pytest
from hypothesis.extra import numpy as hnp

from trainer.evaluation import ground_truth

LINE = {
    "video_id": "v",
    "start_us": 0,
    "end_us": 2_000_000,
    "caption": "A red ring.",
    "frames": 2,
    "width": 3,
    "height": 2,
    "objects": [{"phrase": "red ring", "masks": [[6], [1, 2, 3]], "colour": "red"}],
}


def runs_of(mask):
    runs, inside = [0], False
    for pixel in mask.ravel():
        if pixel != inside:
            runs.append(0)
            inside = not inside
        runs[-1] += 1
    return runs


@hypothesis.given(hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, max_side=9)))
def test_masks_survive_run_lengths(mask):
    assert (ground_truth.mask_of_runs(runs_of(mask), *mask.shape) == mask).all()


def test_a_file_is_read_by_clip(tmp_path):
    path = tmp_path / "truth.jsonl"
    other = LINE | {"start_us": 2_000_000, "end_us": 4_000_000, "objects": []}
    path.write_text(f"{json.dumps(LINE)}\n{json.dumps(other)}\n")
    clips = ground_truth.load(path)
    assert list(clips.values())[1] == []
    (ring,) = clips[ground_truth.ClipKey("v", 0, 2_000_000, "A red ring.")]
    assert ring.phrase == "red ring"
    assert ring.masks.astype(int).tolist() == [[[0, 0, 0], [0, 0, 0]], [[0, 1, 1], [0, 0, 0]]]


def test_a_repeated_clip_must_have_the_same_objects(tmp_path):
    path = tmp_path / "truth.jsonl"
    path.write_text(f"{json.dumps(LINE)}\n{json.dumps(LINE)}\n")
    assert len(ground_truth.load(path)) == 1
    other = LINE | {"objects": [LINE["objects"][0] | {"masks": [[6], [2, 2, 2]]}]}
    for different in (other, LINE | {"objects": []}):
        path.write_text(f"{json.dumps(LINE)}\n{json.dumps(different)}\n")
        with pytest.raises(ground_truth.TruthError, match=r"truth.jsonl:2: the clip of 'v'"):
            ground_truth.load(path)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"caption": None, "width": 4}, "add up to 6 pixels, but the frame has 2x4 = 8"),
        ({"frames": 3}, "'red ring' has 2 masks, but the clip 3 frames"),
        ({"height": 0}, "got 2, 0 and 3"),
        ({"start_us": "soon"}, "'soon'"),
        ({"start_us": float("inf")}, "cannot convert float infinity to integer"),
        ({"end_us": float("nan")}, "cannot convert float NaN to integer"),
        ({"objects": [{"phrase": "x"}]}, "the field 'masks' is missing"),
        ({"objects": [{"phrase": "x", "masks": [[-1, 7], [6]]}]}, "got -1"),
    ],
)
def test_an_invalid_line_is_named_by_number(tmp_path, change, complaint):
    path = tmp_path / "truth.jsonl"
    path.write_text(f"{json.dumps(LINE)}\n{json.dumps(LINE | change)}\n")
    with pytest.raises(ground_truth.TruthError) as caught:
        ground_truth.load(path)
    assert str(caught.value).startswith(f"{path}:2: ")
    assert complaint in str(caught.value)


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("{", "not JSON"),
        ("[1]", "must be a JSON object, got [1]"),
        ("{}", "the field 'video_id' is missing"),
        ("\xff", "not UTF-8 text"),
    ],
)
def test_an_invalid_record_is_refused(tmp_path, line, complaint):
    path = tmp_path / "truth.jsonl"
    path.write_text(line, encoding="latin-1")
    with pytest.raises(ground_truth.TruthError, match=r"truth\.jsonl:1: ") as caught:
        ground_truth.load(path)
    assert complaint in str(caught.value)


def test_a_missing_and_an_empty_file_are_refused(tmp_path):
    with pytest.raises(ground_truth.TruthError, match="cannot be read: No such file"):
        ground_truth.load(tmp_path / "truth.jsonl")
    (tmp_path / "truth.jsonl").touch()
    with pytest.raises(ground_truth.TruthError, match="is empty"):
        ground_truth.load(tmp_path / "truth.jsonl")


def test_empty_mask_is_all_outside():
    assert not np.any(ground_truth.mask_of_runs([4], 2, 2))
