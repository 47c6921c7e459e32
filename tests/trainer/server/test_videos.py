import pytest

from trainer.data.folder import _store
from trainer.server import videos as module
from trainer.server.videos import Videos, VideosError

DATA = bytes(range(256)) * 1000


@pytest.fixture
def bucket(any_lab):
    store, folder = _store(any_lab), f"{any_lab}/videos"
    store.pipe_file(f"{folder}/one.mp4", DATA)
    store.pipe_file(f"{folder}/one.txt", b"not a video")
    return folder


def test_ranges_are_read_from_a_bucket(bucket, monkeypatch):
    monkeypatch.setattr(module, "_CHUNK", 100_000)  # three reads of the whole file
    videos = Videos(bucket)
    video = videos.find("one")
    assert video is not None
    assert (video.name, video.size, video.media_type) == ("one.mp4", len(DATA), "video/mp4")
    assert b"".join(videos.read(video, 0, len(DATA))) == DATA
    assert b"".join(videos.read(video, 150_000, 251_000)) == DATA[150_000:251_000]
    assert videos.find("../one") is None and videos.find("two") is None


def test_a_folder_without_videos_is_refused(tmp_path):
    (tmp_path / "one.txt").write_text("not a video")
    with pytest.raises(VideosError, match="no video"):
        Videos(str(tmp_path))
    with pytest.raises(VideosError, match="cannot be listed"):
        Videos(str(tmp_path / "none"))
