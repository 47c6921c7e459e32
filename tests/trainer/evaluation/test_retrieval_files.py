import csv
import json
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.evaluation import retrieval_files
from trainer.evaluation.prediction_files import TaskFileError

CAPTIONS = [("v1", "a cat"), ("v2", "a dog, running"), ("v2", "a cat"), ("v3", "a cat")]
# As CAPTIONS; columns v1, v2, v3.
SIMILARITY = np.array([[0.5, 0.5, 0.1], [0.0, 0.7, 0.2], [0.5, 0.5, 0.1], [0.5, 0.5, 0.1]])


@pytest.fixture
def truth(tmp_path):
    path = tmp_path / "test.csv"
    with path.open("w", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(["key", "vid_key", "video_id", "sentence"])
        lines.writerows(
            [f"ret{row}", f"msr{row}", *caption] for row, caption in enumerate(CAPTIONS)
        )
    return path


def test_equal_captions_stay_queries_of_their_own(truth, tmp_path):
    np.save(tmp_path / "s.npy", SIMILARITY)
    found = retrieval_files.score(tmp_path / "s.npy", truth)
    assert (found["split"], found["captions"], found["videos"]) == (
        "4 captions of 3 videos", 4, 3,
    )  # fmt: skip
    # Ranks of the captions' videos: 1.5, 1, 1.5, 3; optimistic 1, 1, 1, 3.
    assert found["t2v"]["R@1"] == 25
    assert found["t2v"]["MedR"] == 1.5
    assert found["t2v"]["optimistic"]["R@1"] == 75
    # v1 ties its caption with two others; of v2's captions "a dog" is best; v3 has a tie of three,
    # below "a dog".
    assert found["v2t"]["MedR"] == 2
    assert found["v2t"]["R@1"] == pytest.approx(100 / 3)


def test_names_may_come_in_any_order_and_numbers_survive_a_file(truth, tmp_path):
    generator = np.random.default_rng(0)
    similarity = generator.normal(size=(4, 3)).astype(np.float32)
    np.save(tmp_path / "s.npy", similarity)
    rows, columns = generator.permutation(4), generator.permutation(3)
    videos = ["v1", "v2", "v3"]
    path = tmp_path / "s.csv"
    retrieval_files.write(
        path,
        similarity[np.ix_(rows, columns)],
        [retrieval_files.Caption(*CAPTIONS[row]) for row in rows],
        [videos[column] for column in columns],
    )
    assert retrieval_files.score(path, truth) == retrieval_files.score(tmp_path / "s.npy", truth)
    lines = list(csv.reader(path.read_text().splitlines()))[1:]
    read = np.array([line[2:] for line in lines], np.float32)
    assert (read == similarity[np.ix_(rows, columns)]).all()


def test_the_full_split_is_that_of_its_ids(tmp_path):
    ids = [f"video{number}" for number in range(7008, 10_000)]
    data = {
        "videos": [{"video_id": name, "url": "…"} for name in ids],
        "sentences": [{"video_id": name, "caption": f"{n}"} for name in ids for n in range(2)],
    }
    (tmp_path / "MSRVTT_data.json").write_text(json.dumps(data))
    captions, videos = retrieval_files.read_truth(tmp_path / "MSRVTT_data.json")
    assert (len(captions), videos) == (2 * 2990, ids[2:])
    assert retrieval_files.name_of(captions) == "full"
    for video in data["videos"]:
        video["split"] = "test" if video["video_id"] in ("video7008", "video9999") else "train"
    (tmp_path / "MSRVTT_data.json").write_text(json.dumps(data))
    captions, _ = retrieval_files.read_truth(tmp_path / "MSRVTT_data.json")
    assert [caption.video_id for caption in captions[::2]] == ["video7008", "video9999"]


@pytest.mark.parametrize("entry", [{"video_id": "b"}, {"video_id": "a", "split": "test"}])
def test_every_video_is_of_one_known_split(tmp_path, entry):
    data = {"videos": [{"video_id": "a", "split": "train"}, entry], "sentences": []}
    (tmp_path / "data.json").write_text(json.dumps(data))
    with pytest.raises(TaskFileError, match=r"entry 1.*'split'"):
        retrieval_files.read_truth(tmp_path / "data.json")


def test_columns_are_in_the_order_of_the_list_of_videos(tmp_path):
    data = {
        "videos": [{"video_id": name, "split": "test"} for name in ("v1", "v2", "silent", "v3")],
        "sentences": [
            {"video_id": name, "caption": f" of {name} "} for name in ("v3", "v1", "v3", "v2")
        ],
    }
    (tmp_path / "data.json").write_text(json.dumps(data))
    captions, videos = retrieval_files.read_truth(tmp_path / "data.json")
    assert videos == ["v1", "v2", "v3"]
    similarity = np.eye(3)[[2, 0, 2, 1]]
    np.save(tmp_path / "s.npy", similarity)
    found = retrieval_files.score(tmp_path / "s.npy", tmp_path / "data.json")
    assert found["t2v"]["R@1"] == 100
    # White space around a caption is stripped, as in records.
    assert captions[0].text == "of v3"
    retrieval_files.write(tmp_path / "s.csv", similarity, captions, videos)
    assert retrieval_files.score(tmp_path / "s.csv", tmp_path / "data.json") == found


def test_the_published_list_is_1ka(request):
    path = request.config.rootpath / "../shared/data/msrvtt/msrvtt_test.csv"
    if not path.exists():
        pytest.skip(f"{path} is not here")
    captions, _ = retrieval_files.read_truth(path)
    assert len(captions) == 1000
    assert len({caption.text for caption in captions}) == 995
    assert retrieval_files.name_of(captions) == "1k-A"
    assert retrieval_files.name_of(captions[:-1]) == "999 captions of 999 videos"


GOOD = 'video_id,sentence,v1,v2,v3\nv1,a cat,1,2,3\nv2,"a dog, running",1,2,3\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"s\.csv is empty"),
        ("sentence,v1\n", r"s\.csv:1: the header must begin with video_id,sentence"),
        ("video_id,sentence,v1,v2\n", r"s\.csv:1: no column for v3"),
        ("video_id,sentence,v1,v2,v3,v4\n", r"s\.csv:1: v4 is not a video of the ground truth"),
        ("video_id,sentence,v1,v2,v3,v3\n", r"s\.csv:1: duplicate columns v3"),
        (f"{GOOD}v2,a cat,1,2\n", r"s\.csv:4: 4 fields, but the header has 5"),
        (f"{GOOD}v2,a cat,1,2,nan\n", r"s\.csv:4: 'nan' is not a finite number"),
        (f"{GOOD}v2,a cow,1,2,3\n", r"s\.csv:4: .* does not have 'a cow' of v2 at all"),
        (f"{GOOD}v1,a cat,1,2,3\n", r"s\.csv:4: .* does not have 'a cat' of v1 as often"),
        (f"{GOOD}v2,a cat,1,2,3\n", r"s\.csv: no row for a cat"),
    ],
)
def test_faults_of_a_table_name_the_row(truth, tmp_path, text, message):
    (tmp_path / "s.csv").write_text(text)
    with pytest.raises(TaskFileError, match=message):
        retrieval_files.score(tmp_path / "s.csv", truth)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (SIMILARITY.T, r"has shape \(3, 4\), but the ground truth has 4 captions"),
        (
            np.where(SIMILARITY == 0.7, np.inf, SIMILARITY),
            "row 1, column 1: inf must be a finite number",
        ),
        (np.full((4, 3), "x"), "must be one array of numbers"),
        (np.full((4, 3), None), "is not a NumPy array"),
    ],
)
def test_faults_of_an_array_are_named(truth, tmp_path, array, message):
    np.save(tmp_path / "s.npy", array)
    with pytest.raises(TaskFileError, match=message):
        retrieval_files.score(tmp_path / "s.npy", truth)


def test_a_broken_array_or_truth_is_named(truth, tmp_path):
    (tmp_path / "s.npy").write_bytes(b"\x93NUMPY\x01\x00")
    with pytest.raises(TaskFileError, match=r"s\.npy is not a NumPy array"):
        retrieval_files.score(tmp_path / "s.npy", truth)
    (tmp_path / "truth.csv").write_text("video_id,text\n")
    with pytest.raises(TaskFileError, match=r"truth\.csv:1: the header lacks sentence"):
        retrieval_files.read_truth(tmp_path / "truth.csv")
    (tmp_path / "truth.json").write_text('{"videos": [{"video_id": 1.5}], "sentences": []}')
    with pytest.raises(TaskFileError, match=r"'videos', entry 0: 'video_id' must be a string"):
        retrieval_files.read_truth(tmp_path / "truth.json")


@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.sampled_from(["x", 'y "z"', "ü,\n,"])), min_size=1
    )
)
def test_any_text_survives_a_file(tmp_path_factory, captions):
    folder = tmp_path_factory.mktemp("texts")
    captions = [retrieval_files.Caption(*caption) for caption in captions]
    videos = sorted({caption.video_id for caption in captions})
    retrieval_files.write(folder / "s.csv", np.ones((len(captions), len(videos))), captions, videos)
    read, columns, _ = retrieval_files._read_csv(folder / "s.csv", captions, videos)
    assert (read, columns) == (captions, videos)


def test_arrays_that_would_be_read_otherwise_than_written_are_refused(tmp_path):
    truth, path = tmp_path / "truth.csv", tmp_path / "s.npy"
    truth.write_text("video_id,sentence\nv1,a\nv2,b\n")
    np.save(path, np.array([[2**53 + 1, 2**53], [0, 1]]))
    with pytest.raises(TaskFileError, match=r"integers beyond 2\^53"):
        retrieval_files.score(path, truth)
    np.save(path, np.eye(2))
    assert retrieval_files.score(path, truth)["t2v"]["R@1"] == 100.0
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(TaskFileError, match="has bytes after its array"):
        retrieval_files.score(path, truth)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(TaskFileError, match="is not a regular file"):
        retrieval_files.score(path, truth)
