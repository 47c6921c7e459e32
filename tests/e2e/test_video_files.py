"""Video files as the trainer's input, which the pipelines' stage decodes."""

import json
import subprocess

import imageio_ffmpeg
import numpy as np
import pytest
import safetensors.numpy

from tests.docs import blocks
from trainer.cli.main import main
from trainer.inference import api, encoder
from trainer.inference.video_files import VideoError

COLOURS = {"red": (254, 0, 0), "blue": (0, 0, 254)}


def compiled_programs():
    # Jitted functions have it; jax's stubs do not.
    return encoder._encode_clips._cache_size()  # pyright: ignore[reportAttributeAccessIssue]


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Return a folder with a red video of two seconds and a blue one of three."""
    folder = tmp_path_factory.mktemp("videos")
    for seconds, colour in enumerate(COLOURS, 2):
        source = f"color=c={colour}:size=48x40:rate=10:duration={seconds}"
        subprocess.run(
            [
                *(imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-f", "lavfi"),
                *("-i", source, "-pix_fmt", "yuv420p", folder / f"{colour}.mp4"),
            ],
            check=True,
        )
    return folder


@pytest.fixture(scope="module")
def expected(run):
    """Return the model's embeddings of single-colour frames, by colour."""
    frames = [np.broadcast_to(np.array(rgb, np.uint8), (4, 32, 32, 3)) for rgb in COLOURS.values()]
    embedded = api.load(run).embed_videos(np.stack(frames))
    assert embedded[0] @ embedded[1] < 0.999
    return dict(zip(COLOURS, embedded, strict=True))


def test_a_span_is_embedded_apart_from_the_rest(run, tmp_path, expected):
    film = tmp_path / "both.mp4"
    filters = ";".join(
        f"color=c={colour}:size=48x40:rate=10:duration=2[{colour}]" for colour in COLOURS
    )
    joined = f"{filters};[red][blue]concat=n=2:v=1[both]"
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-filter_complex", joined]
    subprocess.run([*command, "-map", "[both]", "-pix_fmt", "yuv420p", film], check=True)
    model = api.load(run)
    for start_us, colour in (0, "red"), (2_200_000, "blue"):
        one = model.embed_span(film, start_us, start_us + 1_700_000)
        assert max(expected, key=lambda other: float(one @ expected[other])) == colour
    with pytest.raises(VideoError, match=r"both\.mp4 cannot be decoded"):
        model.embed_span(film, 9_000_000, 10_000_000)
    with pytest.raises(ValueError, match="0 ≤ start < end"):
        model.embed_span(film, 2, 1)


def test_videos_are_embedded_in_order(run, videos, expected):
    embedded = api.load(run).embed_videos([videos / "red.mp4", videos / "blue.mp4"])
    for one, colour in zip(embedded, COLOURS, strict=True):
        nearest = max(expected, key=lambda other: float(one @ expected[other]))
        assert nearest == colour


def test_spans_of_files_are_embedded_each_apart(run, tmp_path, expected, monkeypatch):
    film = tmp_path / "film.mp4"
    filters = ";".join(
        f"color=c={colour}:size=48x40:rate=10:duration=2[{colour}]" for colour in COLOURS
    )
    joined = f"{filters};[red][blue]concat=n=2:v=1[film]"
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-filter_complex", joined]
    subprocess.run([*command, "-map", "[film]", "-pix_fmt", "yuv420p", film], check=True)
    monkeypatch.setattr(api, "_FILES_AT_ONCE", 3)  # the decoder starts twice for five spans
    spans = [(0.2, 1.7), (2.1, 3.9), (2, 99), (0, np.float32(1.5))]
    given = [*((str(film), *ends) for ends in spans), film]
    seen = []
    embedded = api.load(run).embed_videos(given, lambda *counts: seen.append(counts))
    nearest = [max(expected, key=lambda other: float(one @ expected[other])) for one in embedded]
    assert nearest[:4] == ["red", "blue", "blue", "red"]
    assert max(float(embedded[4] @ one) for one in expected.values()) < 0.9999  # both colours
    assert seen == [(3, 5), (5, 5)]
    with pytest.raises(VideoError, match=r"film\.mp4 cannot be decoded"):
        api.load(run).embed_videos([(film, 9.0, 10.0)])


def test_the_documented_python(run, videos, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "first").symlink_to(run)
    for name, colour in zip("ab", COLOURS, strict=True):
        (tmp_path / f"{name}.mp4").symlink_to(videos / f"{colour}.mp4")
    model_code, _ = blocks.of(blocks.ROOT / "docs" / "howto" / "python.md", "python")
    exec(compile(model_code, "python.md", "exec"), {})
    printed = capsys.readouterr().out
    for said in ("<svilm.Model 'runs/first' at step 0", "(2, 16)", "(2, 4, 16)", "(2, 2, 32)"):
        assert said in printed


def test_videos_in_an_array_and_in_lists_of_any_length_compile_once(run, videos):
    model = api.load(run)
    red, blue = (str(videos / f"{colour}.mp4") for colour in COLOURS)
    one = model.embed_videos([red])
    compiled = compiled_programs()
    three = model.embed_videos(np.array([red, blue, red]))
    assert compiled_programs() == compiled
    np.testing.assert_allclose(three[[0, 2]], np.repeat(one, 2, axis=0), atol=1e-6)


def test_an_undecodable_video_is_named(run, videos, tmp_path):
    broken = [tmp_path / f"{name}.mp4" for name in "ab"]
    for path in broken:
        path.write_text("no video")
    model = api.load(run)
    with pytest.raises(VideoError, match=r"a\.mp4 cannot be decoded \(2 of 2 videos\): video_und"):
        model.embed_videos(broken)
    with pytest.raises(VideoError, match=r"b\.mp4 cannot be decoded \(1 of 2 videos\): video_und"):
        model.embed_videos([videos / "red.mp4", broken[1]])
    with pytest.raises(VideoError, match=r"a\.mp4 cannot be decoded: video_undecodable: "):
        model.ground(broken[0], "red disc")


def test_features_of_a_folder_of_videos(run, videos, expected, tmp_path, capsys):
    (videos / "notes.mp4").write_text("no video")
    (videos / "notes.txt").write_text("no video either")
    out = tmp_path / "features"
    assert main(["embed", f"--run={run}", f"--videos={videos}", f"--out={out}"]) == 0
    assert "1 of 3 videos cannot be decoded" in capsys.readouterr().err
    (shard,) = json.loads((out / "features.json").read_text())["shards"]
    tensors = safetensors.numpy.load_file(out / shard["name"])
    assert tensors["windows"].shape == (2, 2, 32)
    with safetensors.safe_open(out / shard["name"], "numpy") as file:
        clips = json.loads(file.metadata()["clips"])
    assert {clip["video_id"] for clip in clips} == {"red.mp4", "blue.mp4"}
    for one, clip in zip(tensors["clip"], clips, strict=True):
        colour = clip["video_id"].removesuffix(".mp4")
        assert max(expected, key=lambda other: float(one @ expected[other])) == colour
        assert clip["end_us"] == {"red": 2_000_000, "blue": 3_000_000}[colour]

    # A file replaced under its name is another video.
    (videos / "notes.mp4").write_bytes((videos / "red.mp4").read_bytes())
    assert main(["embed", f"--run={run}", f"--videos={videos}", f"--out={out}"]) == 1
    assert f"{out / 'videos'} was made of other video files" in capsys.readouterr().err
