"""Neither svilm-train, restarted, nor its children import modules of the working folder."""

import pathlib
import subprocess
import sys

SCRIPT = pathlib.Path(sys.executable).with_name("svilm-train")
NAMES = ("random", "queue", "json", "numpy", "jax", "trainer", "protos", "sitecustomize", "runpy")
BUILD = """
import pathlib, sys
from trainer.inference import video_files
from trainer.configs import PRESETS
try:
    video_files.build({"a": pathlib.Path(sys.argv[1])}, pathlib.Path(sys.argv[2]), PRESETS["tiny"])
except video_files.VideoError as error:
    print(error)
"""


def test_neither_the_program_nor_what_decodes_for_it(tmp_path):
    folder = tmp_path / "work"
    folder.mkdir()
    for name in NAMES:
        (folder / f"{name}.py").write_text("open(__file__ + '.ran', 'w'); raise ImportError\n")
    (tmp_path / "a.mp4").write_bytes(b"no video")
    for words in (
        [str(SCRIPT), "pretrain", "--help"],
        [sys.executable, "-P", "-c", BUILD, tmp_path / "a.mp4", tmp_path / "out"],
    ):
        done = subprocess.run(words, cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert not [*folder.glob("*.ran")]
    assert "a.mp4 cannot be decoded: video_undecodable" in done.stdout, done.stdout
