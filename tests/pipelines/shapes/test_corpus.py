"""The files of Shapes: reproducible, complete, and consistent with the drawings."""

import csv
import json
import os
import subprocess

import numpy as np
import pytest

from pipelines.decoding import ffmpeg
from pipelines.shapes import ShapesError, corpus, render
from pipelines.shapes.scene import sample_clips

TRAIN, TEST = 15, 12


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    out = tmp_path_factory.mktemp("corpus")
    calls = []
    summary = corpus.write(
        out,
        train_clips=TRAIN,
        test_clips=TEST,
        workers=2,
        progress=lambda done, total: calls.append((done, total)),
    )
    return out, summary, calls


def files(out):
    return {
        path.relative_to(out).as_posix(): path.read_bytes()
        for path in out.rglob("*")
        if path.is_file()
    }


def decode(path):
    command = [ffmpeg.executable(), "-loglevel", "error", "-i", f"file:{path}"]
    command += ["-f", "rawvideo", "-pix_fmt", "rgb24", "pipe:1"]
    answer = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=True)
    return np.frombuffer(answer.stdout, np.uint8).reshape(-1, 64, 64, 3)


def test_layout_and_summary(written):
    out, summary, calls = written
    assert (summary.train_clips, summary.test_clips, summary.videos) == (TRAIN, TEST, 5)
    videos = [path for path in files(out) if path.endswith(".mp4")]
    assert len(videos) == 5
    assert summary.video_bytes == sum((out / path).stat().st_size for path in videos)
    assert {path for path in files(out) if not path.endswith(".mp4")} == {
        f"{split}/{name}"
        for split in ("train", "test")
        for name in ("truth.jsonl", "video_cc_public.csv")
    }
    assert calls[-1] == (TRAIN + TEST, TRAIN + TEST)
    assert calls == sorted(calls)


def test_bytes_are_reproducible_with_any_workers(written, tmp_path):
    corpus.write(tmp_path, train_clips=TRAIN, test_clips=TEST, workers=1)
    assert files(tmp_path) == files(written[0])


@pytest.mark.parametrize(("split", "count"), [("train", TRAIN), ("test", TEST)])
def test_annotations_and_truth_agree_row_by_row(written, split, count):
    folder = written[0] / split
    with open(folder / "video_cc_public.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    truths = [json.loads(line) for line in (folder / "truth.jsonl").read_text().splitlines()]
    assert len(rows) == len(truths) == count
    for (video_id, start_us, end_us, caption), record in zip(rows, truths, strict=True):
        assert len(video_id) == 11
        assert (folder / "videos" / f"{video_id}.mp4").is_file()
        assert record["video_id"] == video_id
        assert (record["start_us"], record["end_us"]) == (int(start_us), int(end_us))
        assert record["caption"] == caption


def test_videos_contain_the_drawn_frames(written):
    clips = sample_clips("train", TRAIN, seed=0)
    for video_id in dict.fromkeys(clip.video_id for clip in clips):
        drawn = np.concatenate([render.frames(c) for c in clips if c.video_id == video_id])
        decoded = decode(written[0] / "train" / "videos" / f"{video_id}.mp4")
        assert decoded.shape == drawn.shape
        error = np.abs(decoded.astype(float) - drawn)
        assert error.mean() < 5
        assert error.mean((1, 2, 3)).max() < 8, "a frame is out of its place"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"train_clips": -1}, "train_clips is -1: it must be at least 0"),
        ({"test_clips": 7}, "test clips is 7: it must be a multiple of 6"),
        ({"workers": 0}, "workers is 0: it must be at least 1"),
        ({"seed": -1}, "seed is -1: it must be at least 0"),
    ],
)
def test_impossible_arguments_are_refused_before_writing(tmp_path, wrong, message):
    with pytest.raises(ShapesError, match=message):
        corpus.write(tmp_path / "out", **wrong)
    assert not (tmp_path / "out").exists()


def test_an_unwritable_folder_is_reported(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ShapesError, match=r"cannot write the corpus .*file.*choose a writable"):
        corpus.write(tmp_path / "file" / "out", train_clips=6, test_clips=0)


def test_videos_of_another_corpus_are_refused(tmp_path):
    other = tmp_path / "test" / "videos" / "other.mp4"
    other.parent.mkdir(parents=True)
    other.touch()
    with pytest.raises(ShapesError, match=f"{other} is of another corpus"):
        corpus.write(tmp_path, train_clips=6, test_clips=6, workers=1)
    assert [*other.parent.iterdir()] == [other] and not (tmp_path / "train").exists()


def test_a_failed_encoder_leaves_no_partial_file(tmp_path, monkeypatch):
    """The stand-in fails like an ffmpeg without libx264."""
    broken = tmp_path / "ffmpeg"
    broken.write_text(
        '#!/bin/sh\n[ "$1" = -version ] && echo "ffmpeg version 0" && exit 0\n'
        'for last; do :; done; printf half > "${last#file:}"\n'
        'echo "Unknown encoder libx264" >&2; exit 1\n'
    )
    broken.chmod(0o755)
    monkeypatch.setenv(ffmpeg.VARIABLE, os.fspath(broken))
    ffmpeg.executable.cache_clear()
    try:
        with pytest.raises(ShapesError, match=r"could not encode .*Unknown encoder libx264"):
            corpus.write(tmp_path / "out", train_clips=6, test_clips=0, workers=1)
    finally:
        ffmpeg.executable.cache_clear()
        assert files(tmp_path / "out") == {}
