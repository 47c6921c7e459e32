import hashlib

import pytest

from pipelines.decoding import video_file


def test_sha256(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"12345")
    found = video_file.at(str(tmp_path), "a.mp4")
    assert isinstance(found, video_file.Video)
    assert video_file.sha256(found) == hashlib.sha256(b"12345").hexdigest()
    gone = video_file.sha256(video_file.Video(str(tmp_path / "gone.mp4"), 5))
    assert gone == video_file.Failure("video_unreadable", "gone.mp4: No such file or directory")


@pytest.mark.parametrize("changed", [0, 299_999])
def test_another_file_of_the_same_size_has_another_identity(tmp_path, changed):
    data = bytearray(300_000)
    (tmp_path / "a.mp4").write_bytes(data)
    before = video_file.at(str(tmp_path), "a.mp4")
    assert isinstance(before, video_file.Video)
    first = video_file.identity(before)
    assert video_file.identity(before) == first
    data[changed] = 1
    (tmp_path / "a.mp4").write_bytes(data)
    after = video_file.at(str(tmp_path), "a.mp4")
    assert isinstance(after, video_file.Video) and after.bytes == before.bytes
    assert video_file.identity(after) != first
