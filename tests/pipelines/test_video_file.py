import hashlib
import os

import pytest

from pipelines import video_file
from pipelines.clip_request import REASONS


def test_find(tmp_path):
    root, outside = tmp_path / "root", tmp_path / "outside.mp4"
    root.mkdir()
    outside.write_bytes(b"secret")
    (root / "a.webm").write_bytes(b"12345")
    (root / "a.avi").write_bytes(b"1")
    (root / "link.mp4").symlink_to("a.webm")
    (root / "out.mp4").symlink_to(outside)
    (root / "nowhere.mp4").symlink_to("gone.mp4")
    (root / "empty.mkv").touch()
    (root / "folder.mp4").mkdir()
    os.mkfifo(root / "pipe.mp4")
    assert video_file.find(str(root), "a") == video_file.Video(str(root / "a.webm"), 5)
    assert video_file.find(str(root), "link") == video_file.Video(str(root / "a.webm"), 5)
    for video_id, reason in {
        "out": "video_outside_root",
        "nowhere": "video_missing",
        "missing": "video_missing",
        "empty": "video_empty",
        "folder": "video_not_a_file",
        "pipe": "video_not_a_file",
        "../outside": "video_outside_root",
    }.items():
        found = video_file.find(str(root), video_id)
        assert isinstance(found, video_file.Failure) and found.reason == reason in REASONS, video_id
        assert str(tmp_path) not in found.message


def test_sha256(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"12345")
    found = video_file.find(str(tmp_path), "a")
    assert isinstance(found, video_file.Video)
    assert video_file.sha256(found) == hashlib.sha256(b"12345").hexdigest()
    gone = video_file.sha256(video_file.Video(str(tmp_path / "gone.mp4"), 5))
    assert gone == video_file.Failure("video_unreadable", "gone.mp4: No such file or directory")


@pytest.mark.parametrize("changed", [0, 299_999])
def test_another_file_of_the_same_size_has_another_identity(tmp_path, changed):
    data = bytearray(300_000)
    (tmp_path / "a.mp4").write_bytes(data)
    before = video_file.find(str(tmp_path), "a")
    assert isinstance(before, video_file.Video)
    first = video_file.identity(before)
    assert video_file.identity(before) == first
    data[changed] = 1
    (tmp_path / "a.mp4").write_bytes(data)
    after = video_file.find(str(tmp_path), "a")
    assert isinstance(after, video_file.Video) and after.bytes == before.bytes
    assert video_file.identity(after) != first
