import pytest

from trainer.inference import video_files


def test_skipped_files_are_counted(tmp_path, capsys):
    (tmp_path / "folder").mkdir()
    for name in ("b.MTS", "a.m2ts", "a.srt", "notes.txt"):
        (tmp_path / name).touch()
    found = video_files.in_folder(tmp_path)
    assert [path.name for path in found] == ["a.m2ts", "b.MTS"]
    assert "2 of 4 files skipped" in capsys.readouterr().err
    (tmp_path / "a.m2ts").unlink()
    (tmp_path / "b.MTS").unlink()
    with pytest.raises(video_files.VideoError, match="has no video"):
        video_files.in_folder(tmp_path)
