"""The command line: every failure is one line with advice."""

import io
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.cli.commands import file_error
from pipelines.cli.main import main
from pipelines.snapshots import run_lock

ROW = "dQw4w9WgXcQ,0,1000000,a man\n"


@pytest.fixture
def inputs(tmp_path):
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "dQw4w9WgXcQ.mp4").write_bytes(b"no video")
    (tmp_path / "rows.csv").write_text(ROW)
    return tmp_path


def build(inputs, **changes):
    options = {
        "annotations": inputs / "rows.csv",
        "videos": inputs / "videos",
        "out": inputs / "out",
    }
    words = []
    for name, value in (options | changes).items():
        words += [f"--{name.replace('_', '-')}", value]
    return ["build", "videocc", *words]


def assert_one_line(done, status, *told):
    assert done.returncode == status, done.stderr
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("svilm-pipelines: error: ")
    for words in told:
        assert words in line


def test_help_is_fast_and_has_examples(cli):
    for command in (
        "",
        "build",
        "corpus",
        "describe",
        "diff",
        "estimate",
        "export",
        "inspect",
        "remove",
        "verify",
    ):
        done = cli(*command.split(), "--help")
        assert done.returncode == 0 and done.stderr == ""
        assert not command or "\nexample" in done.stdout
        examples = [line for line in done.stdout.splitlines() if line.startswith("  svilm-")]
        assert all(len(line) <= 110 for line in examples), command
    slow = "{'apache_beam', 'spacy', 'numpy', 'ffmpeg', 'simplejpeg'}"
    code = f"import sys, pipelines.cli.main; assert not {slow} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[3], check=True)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "COMMAND"),
        (["biuld"], "biuld"),
        (["build", "imagenet"], "videocc"),
        (["build", "videocc"], "--annotations"),
        (["verify"], "SNAPSHOT"),
        (["verify", "x", "--fast"], "--fast"),
        (["corpus", "x", "--workers", "0"], "'0' is not an integer of at least 1"),
    ],
)
def test_misuse(cli, words, told):
    assert_one_line(cli(*words), 2, told, "--help")


@pytest.mark.parametrize(
    ("option", "value", "told"),
    [
        ("frames", "many", "'many' is not an integer"),
        ("jpeg_quality", "101", "from 1 to 100"),
        ("encoding", "gif", "'jpeg', 'png', 'raw'"),
        ("data_version", "1", "1.0.0"),
        ("decode_timeout", "-1", "'-1' is not a positive number"),
        ("max_size", "big", "'big' is not a size"),
        ("max_failures", "50", "'50' is not a number from 0 to 1"),
        ("max_past_end", "50", "'50' is not a number from 0 to 1"),
        ("frame", "3", "did you mean --frames?"),
        ("widen_to", "4", "--widen-to does not apply to the source videocc"),
        ("columns", "clip=name", "'clip=name' names no column"),
        ("min_ascii", "2", "'2' is not a number from 0 to 1"),
        ("min_motion", "256", "'256' is not a number from 0 to 255"),
        ("runner", "DaskRunner", "DaskRunner is not supported"),
    ],
)
def test_bad_options(cli, inputs, option, value, told):
    assert_one_line(cli(*build(inputs, **{option: value})), 2, told)
    assert not (inputs / "out").exists()


def test_min_motion_requires_two_frames(cli, inputs):
    assert_one_line(cli(*build(inputs, frames=1, min_motion=1)), 2, "--min-motion", "--frames")


@pytest.mark.parametrize(
    ("option", "value", "told"),
    [
        ("annotations", "nowhere.csv", ["--annotations", "No such file", "check that"]),
        ("annotations", "empty.csv", ["has no rows"]),
        ("annotations", "set.json", ["is not in the format of videocc", "start µs"]),
        ("annotations", "bare", ["is an empty folder"]),
        ("exclude", "nowhere.txt", ["--exclude", "nowhere.txt", "No such file", "check that"]),
        ("exclude", "latin.txt", ["--exclude", "one id per line", "UTF-8"]),
        ("videos", "nowhere", ["--videos", "No such file", "check that"]),
        ("videos", "rows.csv", ["Not a directory"]),
        ("videos", "bare", ["is an empty folder"]),
        ("videos", "{name}.mp4", ["--videos", "give {video_id}"]),
        (
            "videos",
            "nowhere/{video_id}.{ext}",
            ["--videos", "nowhere/'", "No such file", "check that"],
        ),
        ("video_map", "nowhere.csv", ["--video-map", "No such file", "check that"]),
        ("video_map", "rows.csv", ["--video-map", "no rows"]),
        ("out", "rows.csv", ["cannot write to '"]),
        ("out", "rows.csv/out", ["cannot write to '"]),
        ("out", "/proc/out", ["cannot write to '"]),
        ("out", "videos", ["'dQw4w9WgXcQ.mp4'", "choose an empty folder"]),
    ],
)
def test_wrong_inputs(cli, inputs, option, value, told):
    (inputs / "empty.csv").touch()
    (inputs / "set.json").write_text('{"v_a": {"timestamps": [[0, 1]], "sentences": ["a"]}}')
    (inputs / "bare").mkdir()
    (inputs / "latin.txt").write_bytes(b"\xff\n")
    assert_one_line(cli(*build(inputs, **{option: inputs / value})), 1, *told)


def test_jpeg_quality_of_a_lossless_encoding_is_refused(cli, inputs):
    done = cli(*build(inputs, encoding="png", jpeg_quality=90))
    assert_one_line(done, 2, "--jpeg-quality", "--encoding png")


def test_list_videos_requires_a_bucket(cli, inputs):
    done = cli(*build(inputs), "--list-videos")
    assert_one_line(done, 1, "--list-videos", "is not a bucket")


def test_a_template_with_a_video_map_is_refused(cli, inputs):
    template = inputs / "videos" / "{video_id}"
    done = cli(*build(inputs, videos=template, video_map=inputs / "rows.csv"))
    assert_one_line(done, 1, "--video-map", "{video_id}")


def test_a_snapshot_above_max_size_is_not_started(cli, inputs):
    done = cli(*build(inputs, max_size="1MB"))
    assert_one_line(done, 1, "about 1 rows", "about 1.42 MB", "raise --max-size")
    assert not (inputs / "out").exists()


def test_a_missing_english_pipeline_is_reported(cli, inputs):
    done = cli(*build(inputs, spacy_model="en_core_web_nowhere"))
    assert_one_line(done, 1, "en_core_web_nowhere", "make setup", "pip install")


@pytest.mark.parametrize("ffmpeg", ["/nowhere/ffmpeg", "/bin/false", "/bin/true", "/etc/passwd"])
def test_a_missing_ffmpeg_is_reported(cli, inputs, ffmpeg):
    done = cli(*build(inputs, decoder="ffmpeg"), env={"SVILM_FFMPEG": ffmpeg})
    assert_one_line(done, 1, ffmpeg, "SVILM_FFMPEG")


def test_an_error_without_a_file_is_reported():
    error = io.UnsupportedOperation("underlying stream is not seekable")
    assert file_error(error).startswith("underlying stream is not seekable: check that ")
    assert file_error(OSError(28, "No space left")).startswith("No space left: check that ")


def test_verify_refuses_other_folders(cli, tmp_path):
    assert_one_line(cli("verify", tmp_path / "nowhere"), 1, "is not a folder")
    assert_one_line(cli("verify", tmp_path), 1, "is not a snapshot", "svilm-pipelines build")
    (tmp_path / "shard-00000-of-00001.tfrecord").touch()
    assert_one_line(cli("verify", tmp_path), 1, "is incomplete", "run the same build again")
    (tmp_path / "manifest.json").write_text("{")
    assert_one_line(cli("verify", tmp_path), 1, "manifest.json is damaged")
    (tmp_path / "manifest.json").write_text('{"schema_version": "2.0"}')
    assert_one_line(cli("verify", tmp_path), 1, "2.0", "1.x")


def test_corpus(cli, tmp_path):
    done = cli("corpus", tmp_path / "shapes", "--train-clips", 24, "--test-clips", 12)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("corpus: 24 + 12 clips in 6 videos")
    assert (tmp_path / "shapes/train/video_cc_public.csv").exists()
    (tmp_path / "file").touch()
    done = cli("corpus", tmp_path / "file" / "out", "--train-clips", 24, "--test-clips", 12)
    assert_one_line(done, 1, "cannot write to '")
    assert_one_line(cli("corpus", "gs://shapes/a"), 1, "gs://shapes/a", "name a folder on a disk")
    before = sorted((tmp_path / "shapes").rglob("*"))
    with run_lock.held(str(tmp_path / "shapes")):
        done = cli("corpus", tmp_path / "shapes", "--train-clips", 36, "--test-clips", 12)
    assert_one_line(done, 1, "another command is writing to '", "choose another folder")
    assert sorted((tmp_path / "shapes").rglob("*")) == before


@pytest.mark.parametrize("video_id", ["-4wsuPCjDBc", "--_S9IDQPLg", "-hABCDEFGHI", "-v1234567_8"])
def test_ids_with_a_leading_dash_are_no_options(
    tmp_path, make_clip, write_snapshot, video_id, capsys, monkeypatch
):
    clip = make_clip(video_id)
    write_snapshot(tmp_path / "snapshot", [clip])
    assert main(["inspect", str(tmp_path / "snapshot"), clip.clip_id]) == 0
    assert capsys.readouterr().out.startswith(clip.clip_id)
    monkeypatch.chdir(tmp_path)
    ids = tmp_path / f"{video_id}.txt"
    ids.write_text("other\n")
    words = ["remove", "snapshot", "--videos", ids.name, "--out", str(tmp_path / "new")]
    assert main(words) == 1
    assert "none of the 1 videos is in 'snapshot'" in capsys.readouterr().err
    assert main(["inspect", "snapshot", "-x"]) == 2
